#!/bin/sh
# make size: bytes of the static release binary, by feature. A line a build; nothing
# of the edge may be in the agent.
set -eu
cd "$(dirname "$0")/.."
triple=${TARGET:-$(uname -m)-unknown-linux-musl}

bytes() {
	wc -c <"$1" | tr -d ' '
}
line() {
	printf '%-44s %10s %8s\n' "$1" "$2" "$3"
}

line "$triple" bytes xz
out=${CARGO_TARGET_DIR:-target}/cross/$triple
agent=$out/culvert
edge=$out/culvert-edge
sh cross/build.sh "$triple" --bin culvert >/dev/null
plain=$(bytes "$agent")
line "culvert" "$plain" "$(xz -9e -c "$agent" | wc -c | tr -d ' ')"
sh cross/build.sh "$triple" --features edge --bin culvert --bin culvert-edge >/dev/null
with_edge=$(bytes "$agent")
line "culvert, built with --features edge" "$with_edge" -
line "culvert-edge" "$(bytes "$edge")" "$(xz -9e -c "$edge" | wc -c | tr -d ' ')"
# Cargo's features enter the compiler's hashes, which moves a few hundred bytes.
growth=$((with_edge - plain))
if [ "$growth" -gt 1024 ] || [ "$growth" -lt -1024 ]; then
	echo "the feature edge changes the agent by $growth bytes: nothing of the edge may be in it" >&2
	exit 1
fi
