#!/bin/sh
# make soak: a mixed load with faults and restarts through the release builds, on loopback.
# Each end checks every byte and every end. Arguments go to the program (--help).
#
# usage: run.sh [--short] [OPTION...]    --short: about 20,000 requests, more than a minute
# MINUTES, REQUESTS and SEED are those of `make soak`. AGENT and EDGE name binaries to test
# instead of building them.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:$HOME/.cargo/bin
target=${CARGO_TARGET_DIR:-$PWD/target}

. tests/skips.sh
if [ "${1:-}" = --short ]; then
	shift
	set -- --requests 20000 --minutes 3 --restarts 1 --node-requests 2000 "$@"
else
	set -- --requests "${REQUESTS:-1000000}" --minutes "${MINUTES:-15}" "$@"
fi
[ -z "${SEED:-}" ] || set -- --seed "$SEED" "$@"

sh tests/prepare.sh node || true
if node=$(command -v node); then
	set -- --node "$node" "$@"
else
	skipped "keep-alive client of Node" "node is not installed"
fi
if [ -z "${AGENT:-}" ]; then
	cargo build --quiet --locked --release --features edge --bins
	AGENT=$target/release/culvert
	EDGE=${EDGE:-$target/release/culvert-edge}
fi
cargo build --quiet --locked --release --manifest-path tests/soak/Cargo.toml --target-dir "$target/soak"
exec "$target/soak/release/culvert-soak" --agent "$AGENT" --edge "${EDGE:?}" "$@"
