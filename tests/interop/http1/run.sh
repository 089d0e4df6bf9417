#!/bin/sh
# make test-http1: compares how the edge reads HTTP/1 payloads with nginx, Node and Python. All
# sockets are on loopback.
set -eu
cd "$(dirname "$0")/../../.."
PATH=$PATH:$HOME/.cargo/bin
target=${CARGO_TARGET_DIR:-$PWD/target}
case $target in /*) ;; *) target=$PWD/$target ;; esac

sh tests/prepare.sh python3 node nginx
cargo build --quiet --locked --manifest-path tests/fuzz/Cargo.toml --target-dir "$target/fuzz" \
	--bin http1-verdicts
export PYTHONPATH="$PWD/tests/support" PYTHONDONTWRITEBYTECODE=1
exec python3 tests/interop/http1/compare.py "$target/fuzz/debug/http1-verdicts"
