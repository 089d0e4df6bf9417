#!/bin/sh
# Runs shellcheck on all shell scripts of the project.
set -eu
cd "$(dirname "$0")/.."
sh tests/prepare.sh shellcheck
set --
for file in $(find . \( -name target -o -name .git -o -name node_modules -o -name corpus \) -prune \
	-o -type f ! -name '*.rs' -size -200k -print | sort); do
	if head -n 1 "$file" | grep -aqE '^#!.*(/sh|/rc\.common|/openrc-run)$'; then
		set -- "$@" "$file"
	fi
done
echo "shellcheck reads $# scripts"
# SC2317 reports functions that only a trap calls as unreachable.
shellcheck -e SC2317 "$@"
echo "nothing to complain about"
