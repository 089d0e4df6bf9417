#!/bin/sh
# make test-http1: what the edge reads in HTTP/1 payloads beside nginx, Node and Python.
# Every socket is on loopback.
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
