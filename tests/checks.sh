#!/bin/sh
# For scripts that test: counted checks, and waiting for a condition. Sourced. Who sources
# it says with `evidence` what is worth seeing when a check fails.
passed=0
failed=0

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

# until_ok COMMAND...: asks for up to 30 s.
until_ok() {
	tries=0
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries + 1))
		[ $tries -lt 300 ] || return 1
		sleep 0.1
	done
}
