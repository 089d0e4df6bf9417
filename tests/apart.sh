#!/bin/sh
# For scripts that test in their own namespaces: this machine is not changed and no packet
# leaves it. Sourced. Without namespaces the tests are skipped.

. tests/skips.sh

# apart WHAT PROGRAMS SCRIPT [ARGUMENT...]: builds the agent and the edge, runs `SCRIPT inside
# WORK BIN ARGUMENT...` as process 1 of the namespaces, and exits with its status. WORK is a
# directory that is removed afterwards, BIN the directory of the builds. WHAT is the name of the
# tests; PROGRAMS are those for prepare.sh.
apart() {
	what=$1 programs=$2 script=$3
	shift 3
	[ "$(id -u)" = 0 ] || skip "this needs root"
	# shellcheck disable=SC2086 # one word a program
	sh tests/prepare.sh unshare $programs
	unshare -mpnuf --mount-proc true 2>/dev/null || skip "no namespaces can be made here"
	cargo build --quiet --locked --all-features --bins
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT
	status=0
	unshare -mpnuf --mount-proc --kill-child \
		sh "$script" inside "$work" "${CARGO_TARGET_DIR:-$PWD/target}/debug" "$@" || status=$?
	exit $status
}

skip() {
	skipped "$what" "$1"
	exit 0
}
