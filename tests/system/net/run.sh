#!/bin/sh
# make test-net: faults of the network, in network namespaces that this script creates and
# removes. Needs root; no packet leaves the machine.
#
# usage: run.sh [--rivals] [--table FILE] [--at-once N] [--long] [NAME...]
# AGENT and EDGE name binaries to test instead of building them.
set -eu
cd "$(dirname "$0")/../../.."
PATH=$PATH:$HOME/.cargo/bin:/usr/local/sbin:/usr/sbin:/sbin
target=${CARGO_TARGET_DIR:-$PWD/target}

. tests/skips.sh
if [ "$(id -u)" != 0 ]; then
	skipped "faults of the network" "network namespaces need root (sudo make test-net)"
	exit 0
fi
sh tests/prepare.sh ip nft conntrack sysctl
# Tests whose program is missing are skipped by name.
sh tests/prepare.sh dnsmasq tinyproxy microsocks faketime curl cc ||
	echo "going on without them" >&2
if ! ip netns add culvert-try 2>/dev/null; then
	skipped "faults of the network" "this system does not allow network namespaces"
	exit 0
fi
ip netns del culvert-try
case " $* " in
*" --rivals "*)
	sh tests/prepare.sh ssh sshd ssh-keygen autossh dbclient || echo "going on without them" >&2
	;;
esac
if [ -z "${AGENT:-}" ]; then
	cargo build --quiet --locked --all-features --bins
	AGENT=$target/debug/culvert
	EDGE=${EDGE:-$target/debug/culvert-edge}
fi
cargo build --quiet --locked --manifest-path tests/system/net/Cargo.toml --target-dir "$target/net"
"$target/net/debug/culvert-net" --agent "$AGENT" --edge "${EDGE:?}" "$@"
