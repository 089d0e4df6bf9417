#!/bin/sh
# The documents: links, anchors, paths and module names. links.py lists what it checks.
set -eu
cd "$(dirname "$0")/../.."

. tests/skips.sh
if ! command -v python3 >/dev/null 2>&1; then
	skipped "documents" "python3 is not installed"
	exit 0
fi
python3 -B tests/docs/links.py --self-test
python3 -B tests/docs/links.py
