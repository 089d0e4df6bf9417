#!/bin/sh
# make bench: builds the static release agent and edge, then measures them
# beside ssh -R and dbclient -R. Arguments go to the bench program (--help).
#
# AGENT and EDGE name binaries to measure instead of building them.
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:$HOME/.cargo/bin
target=${CARGO_TARGET_DIR:-$PWD/target}
triple=$(uname -m)-unknown-linux-musl

# The others are measured if they are installed.
sh tests/prepare.sh ssh sshd ssh-keygen dbclient || echo "going on without them" >&2

case " $* " in
*" --instructions "*) sh tests/prepare.sh valgrind ;;
esac

if [ -z "${AGENT:-}" ]; then
	if sh cross/build.sh "$triple" --bin culvert >/dev/null &&
		sh cross/build.sh "$triple" --features edge --bin culvert-edge >/dev/null; then
		AGENT=$target/cross/$triple/culvert
		EDGE=${EDGE:-$target/cross/$triple/culvert-edge}
	else
		echo "no static musl build here; measuring a static glibc one, whose memory is not comparable" >&2
		RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --locked --release \
			--target "$(uname -m)-unknown-linux-gnu" --features edge --bins --target-dir "$target/bench-gnu"
		AGENT=$target/bench-gnu/$(uname -m)-unknown-linux-gnu/release/culvert
		EDGE=${EDGE:-$target/bench-gnu/$(uname -m)-unknown-linux-gnu/release/culvert-edge}
	fi
fi
# A build that counts heap allocations; without the slow optimisations.
CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo build --quiet --locked \
	--release --features count-allocs --bin culvert --target-dir "$target/counting"
cargo build --quiet --locked --release --manifest-path tests/bench/Cargo.toml --target-dir "$target/bench"
"$target/bench/release/culvert-bench" --agent "$AGENT" --edge "${EDGE:?}" \
	--counting "$target/counting/release/culvert" "$@"
