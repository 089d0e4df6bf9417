#!/bin/sh
# For scripts that test in namespaces of their own: nothing of this machine is changed and no
# packet leaves it. Sourced. Where none can be made the tests are skipped.

. tests/skips.sh

# apart WHAT PROGRAMS SCRIPT [ARGUMENT...]: builds the agent and the edge, has `SCRIPT inside
# WORK BIN ARGUMENT...` run as process 1 of the namespaces, with a directory that is removed
# then and the place of the builds, and ends as it ends. WHAT is the name of the tests;
# PROGRAMS are what prepare.sh installs.
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
