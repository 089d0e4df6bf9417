#!/bin/sh
# For scripts that test: the one way to leave a test out. Sourced. `make test` reads the file
# $CULVERT_TEST_SKIPS, lists its lines at the end, and fails with CI=1 unless skips.txt
# excuses them. Rust tests use tests/world/skips.rs.

# skipped WHAT REASON
skipped() {
	echo "SKIPPED: $1: $2"
	[ -z "${CULVERT_TEST_SKIPS:-}" ] || echo "$1: $2" >>"$CULVERT_TEST_SKIPS"
}
