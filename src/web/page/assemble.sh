#!/bin/sh
# make page: the page's sources become one document, page.html.gz, and the hashes of
# its script and style become the policy, page.csp. Both are in the repository, so
# that a build needs neither zopfli nor openssl; a test fails when they are not up to date.
# zopfli makes gzip files that are 4 % smaller than those of gzip -9.
set -eu
cd "$(dirname "$0")"
sh ../../../tests/prepare.sh openssl zopfli

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Indents, blank lines and comment lines are omitted. (No text of
# several lines may begin a line with any of these.)
slim() {
	cat "$@" | sed -e 's/^[[:space:]]*//' -e '/^\/\//d' -e '/^$/d'
}

{
	echo "(() => {'use strict';"
	slim bytes.js format.js app.js
	printf '})();'
} >"$work/script"
slim style.css | awk 'NR > 1 { printf "\n" } { printf "%s", $0 }' >"$work/style"

# Replaces a mark by a file, with all of its bytes unchanged.
fill() {
	mark=$1
	file=$2
	awk -v mark="$mark" -v file="$file" '{
		at = index($0, mark)
		if (!at) { print; next }
		printf "%s", substr($0, 1, at - 1)
		first = 1
		while ((getline line < file) > 0) { printf "%s%s", (first ? "" : "\n"), line; first = 0 }
		print substr($0, at + length(mark))
	}'
}
sed -e 's/^[[:space:]]*//' index.html | fill '/*STYLE*/' "$work/style" |
	fill '/*SCRIPT*/' "$work/script" >"$work/page.html"

hash() {
	openssl dgst -sha256 -binary "$1" | base64
}
printf "%s" "default-src 'none'; script-src 'sha256-$(hash "$work/script")'; \
style-src 'sha256-$(hash "$work/style")'; img-src data: blob:; connect-src 'self'; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
require-trusted-types-for 'script'; trusted-types 'none'" >page.csp
zopfli --i1000 -c "$work/page.html" >page.html.gz
echo "page.html.gz: $(wc -c <page.html.gz) bytes, unpacked $(wc -c <"$work/page.html")"
