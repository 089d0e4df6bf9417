#!/bin/sh
# Faults of the machine: system calls of the agent that fail, each call once, and calls that an
# old kernel lacks. The cases and expected results are in faults.py and calls.txt. First
# `culvert update`, killed at each of its calls: update.py.
#
# usage: run.sh [--long]     by default each call once, for `make test`
# CULVERT_AGENT= another build of the agent. Needs strace and the right to trace.
set -u
cd "$(dirname "$0")/../../.." || exit 1

target=${CARGO_TARGET_DIR:-$PWD/target}
agent=${CULVERT_AGENT:-$target/debug/culvert}
edge=$target/debug/culvert-edge

. tests/skips.sh
for program in strace openssl python3; do
	command -v $program >/dev/null 2>&1 || {
		skipped "faults of the machine" "$program is not installed"
		exit 0
	}
done
if ! strace -o /dev/null true 2>/dev/null; then
	skipped "faults of the machine" "tracing is not allowed"
	exit 0
fi
cargo build --quiet --locked --all-features --bins || exit 1
long=
[ "${1:-}" != --long ] || long=--long
python3 -B tests/system/faults/update.py $long "$agent" || exit 1
exec env PYTHONPATH="$PWD/tests/support" python3 -B tests/system/faults/faults.py "$edge" "$agent" "$@"
