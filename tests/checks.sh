#!/bin/sh
# For scripts that test: counted checks, and waiting for a condition. Sourced. Who sources
# it has a directory $work, and may say by an `evidence` of its own what is worth seeing when
# a check fails.
passed=0
failed=0
evidence() {
	: # What failed has said why.
}

# check WHAT COMMAND...: one line, counted.
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

# exits STATUS COMMAND...: that is how it ends. What it writes goes to $work/out, and is
# shown when it does not.
exits() {
	wanted=$1
	shift
	status=0
	# shellcheck disable=SC2154 # theirs
	"$@" >"$work/out" 2>&1 || status=$?
	[ "$status" = "$wanted" ] || {
		cat "$work/out"
		echo "exit $status, not $wanted"
		return 1
	}
}

# until_ok COMMAND...: asks for up to 30 s.
until_ok() {
	tries=0
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || return 1
		sleep 0.1
	done
}
