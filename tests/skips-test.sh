#!/bin/sh
# Tests of skips.sh: each skipped test is listed, and CI accepts the excused ones only.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
. tests/checks.sh
. tests/skips.sh

listed() {
	CULVERT_TEST_SKIPS=$work/list
	: >"$work/list"
	skipped "a modem" "it is missing" >"$work/out"
	skipped "official SDKs" "only with CI=1" >>"$work/out"
	grep -qxF 'SKIPPED: a modem: it is missing' "$work/out" && grep -qxF 'a modem: it is missing' "$work/list"
}
check "a skipped test is printed and listed" listed
check "CI refuses what is not excused" test "$(unexcused "$work/list" tests/skips.txt)" = "a modem: it is missing"
printf 'official SDKs: only with CI=1\n' >"$work/list"
check "CI accepts what is excused" test -z "$(unexcused "$work/list" tests/skips.txt)"
: >"$work/list"
check "an empty list is accepted" test -z "$(unexcused "$work/list" tests/skips.txt)"

# A script that reports a skipped test by itself is not in the list.
silent() {
	! grep -rnE --include='*.sh' '(echo|printf) .*([sS]kipped|SKIPPED|not tried)' tests cross |
		grep -vE '^tests/(all|skips|skips-test)\.sh:'
}
check "no script has a way of its own" silent
echo "skips: $passed passed, $failed failed"
[ "$failed" = 0 ]
