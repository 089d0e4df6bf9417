#!/bin/sh
# For scripts that test: counted checks, and waiting for a condition. Sourced. The script has a
# directory $work, and may define `evidence`, which prints what to read after a failed check.
passed=0
failed=0
evidence() {
	: # The failed command has printed its reason.
}

# check WHAT COMMAND...: prints one line and counts it.
check() {
	what=$1
	shift
	if "$@"; then
		passed=$((passed + 1))
		echo "  ok: $what"
	else
		failed=$((failed + 1))
		echo "  FAILED: $what"
		evidence
	fi
}

# exits STATUS COMMAND...: checks the exit code. The output is written to $work/out, and shown
# after a failure.
exits() {
	wanted=$1
	shift
	status=0
	# shellcheck disable=SC2154 # set by the script
	"$@" >"$work/out" 2>&1 || status=$?
	[ "$status" = "$wanted" ] || {
		cat "$work/out"
		echo "exit $status, not $wanted"
		return 1
	}
}

# until_ok COMMAND...: repeats it for up to 30 s.
until_ok() {
	tries=0
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || return 1
		sleep 0.1
	done
}
