#!/bin/sh
# make test-cross TARGET=..., TARGET=all: builds the agent for a target and runs the tests of
# every build (tests/e2e/portable.rs) with it, under qemu-user with the oldest supported
# processor, beside an edge of this machine. Prints a table. Fails if a target fails.
#
# usage: test.sh TARGET|all
#        test.sh --program FILE TARGET    tests this program in place of a build of its own
set -eu
cd "$(dirname "$0")/.."
. cross/common.sh
given=
if [ "${1:-}" = --program ] && [ $# -eq 3 ]; then
	given=$2
	shift 2
	known "$1"
fi
[ $# -eq 1 ] || {
	echo "usage: cross/test.sh TARGET|all, cross/test.sh --program FILE TARGET" >&2
	exit 2
}
choose "$1"

# program_of TARGET: prints the path of its agent.
program_of() {
	echo "${given:-$target/cross/$1/culvert}"
}

# agent_of TARGET: prints the command that runs its agent here.
agent_of() {
	how=$(column "$1" 5)
	program=$(program_of "$1")
	if [ -n "$how" ] && ! command -v "${how%% *}" >/dev/null 2>&1; then
		sh tests/prepare.sh "${how%% *}" >&2 || return 1
	fi
	echo "${how:+$how }$program"
}

sh tests/prepare.sh xz >&2

# stories: runs the tests with CULVERT_AGENT, output to a file.
stories() {
	if cargo nextest --version >/dev/null 2>&1; then
		cargo nextest run --locked --all-features --no-fail-fast --test e2e portable::
	else
		cargo test --locked --all-features --test e2e portable::
	fi
}

# memory TARGET: idle RSS in KB; n/a under an emulator, which would be measured too.
memory() {
	case $1 in
	x86_64-* | i686-*)
		# The tests have built the edge.
		python3 cross/memory.py --idle "$(program_of "$1")" "$target/debug/culvert-edge" || echo failed
		;;
	*) echo n/a ;;
	esac
}

out=$(mktemp)
table=$(mktemp)
trap 'rm -f "$out" "$table"' EXIT
trap 'exit 130' INT
passed=0
failed=0
for triple in $wanted; do
	if [ -z "$given" ] && ! sh cross/build.sh "$triple" >/dev/null; then
		failed=$((failed + 1))
		printf '%-33s %9s %9s %8s  %s\n' "$triple" - - - "does not build" >>"$table"
		continue
	fi
	program=$(program_of "$triple")
	size=$(wc -c <"$program" | tr -d ' ')
	xz=$(xz -9e -c "$program" | wc -c | tr -d ' ')
	result="no emulator"
	if command=$(agent_of "$triple"); then
		echo "testing $command" >&2
		if CULVERT_AGENT=$command stories >"$out" 2>&1; then
			result=ok
		else
			result=FAILED
			cat "$out" >&2
		fi
	fi
	if [ "$result" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
	printf '%-33s %9s %9s %8s  %s\n' "$triple" "$size" "$xz" "$(memory "$triple")" "$result" >>"$table"
done

printf '%-33s %9s %9s %8s  %s\n' target bytes xz "RSS, KB" result
cat "$table"
echo "cross: $passed passed, $failed failed"
[ "$failed" = 0 ]
