#!/bin/sh
# The web page in a headless Chromium: the real agent behind the real edge, on loopback.
# Skipped where Chromium is missing; `prepare.sh chromium chromedriver` installs it.
#
# usage: run.sh [mock] [PICTURES]     mock: the page over a stand-in for the agent
set -eu
cd "$(dirname "$0")/../.."
PATH=$PATH:$HOME/.cargo/bin
target=${CARGO_TARGET_DIR:-$PWD/target}

. tests/skips.sh
status=0
if command -v node >/dev/null 2>&1; then
	node --test --test-reporter=tap tests/page/pure.mjs >"$target/page-pure.log" 2>&1 || status=1
	grep '^not ok' "$target/page-pure.log" || true
	echo "page: $(sed -n 's/^# pass //p' "$target/page-pure.log") passed, $(sed -n 's/^# fail //p' "$target/page-pure.log") failed"
else
	skipped "web page, its functions" "node is not installed"
fi

for program in chromium chromedriver python3; do
	if ! command -v $program >/dev/null 2>&1; then
		skipped "web page, in a browser" "$program is not installed"
		exit $status
	fi
done

where=mock
if [ "${1:-}" = mock ]; then
	shift
else
	cargo build --quiet --locked --features edge --bins
	where=$target/debug
fi
PYTHONPATH=$PWD/tests/support python3 -B tests/page/drive.py "$where" "$@" || status=1
exit $status
