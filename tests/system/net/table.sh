#!/bin/sh
# make bench-net: the faults of tests/system/net beside ssh -R and dbclient -R, static release
# builds; writes the table into docs/reference/faults.md.
set -eu
cd "$(dirname "$0")/../../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
triple=$(uname -m)-unknown-linux-musl
if [ -z "${AGENT:-}" ]; then
	sh cross/build.sh "$triple" --bin culvert >/dev/null
	sh cross/build.sh "$triple" --features edge --bin culvert-edge >/dev/null
	AGENT=$target/cross/$triple/culvert
	EDGE=$target/cross/$triple/culvert-edge
fi
export AGENT EDGE
table=$(mktemp)
trap 'rm -f "$table"' EXIT
sh tests/system/net/run.sh --rivals --table "$table" "$@" || echo "some did worse than they must, see above" >&2
[ -s "$table" ] || exit 1
sed -i -e '/^<!-- table -->$/,/^<!-- end -->$/{
	/^<!-- table -->$/{
		r '"$table"'
		b
	}
	/^<!-- end -->$/!d
}' docs/reference/faults.md
echo "docs/reference/faults.md has the new table"
