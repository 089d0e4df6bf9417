#!/bin/sh
# Makes the pictures of README.md: the real agent, edge, terminal and browser, on the loopback
# of a network namespace, where the default ports are free. Needs root and these programs:
# `sh tests/prepare.sh chromium chromedriver tmux python3 ip unshare`.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:$HOME/.cargo/bin
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --quiet --locked --features edge --bins
export PYTHONPATH="$PWD/tests/support:$PWD/tests/page"
# shellcheck disable=SC2016 # the inner shell's own
unshare -n sh -c 'ip link set lo up && exec python3 -B docs/images/make.py "$1"' sh "$target/debug"
