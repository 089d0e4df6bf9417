#!/bin/sh
# For scripts that test: the only way to skip a test. Sourced. Rust tests use
# tests/support/skips.rs.

# skipped WHAT REASON: a line on standard output, and in the file $CULVERT_TEST_SKIPS.
skipped() {
	echo "SKIPPED: $1: $2"
	[ -z "${CULVERT_TEST_SKIPS:-}" ] || echo "$1: $2" >>"$CULVERT_TEST_SKIPS"
}

# unexcused FILE EXCUSES: prints the lines of the list that no expression of EXCUSES matches.
unexcused() {
	grep -vE '^(#|$)' "$2" >"$1.excuses" || true
	sort -u "$1" | grep -vE -f "$1.excuses" || true
	rm -f "$1.excuses"
}
