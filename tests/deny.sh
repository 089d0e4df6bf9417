#!/bin/sh
# Licences, duplicates and sources of all packages, and known vulnerabilities where the list of
# them can be fetched: cargo-deny with deny.toml.
set -u
cd "$(dirname "$0")/.." || exit 1
PATH=$PATH:${HOME:-}/.cargo/bin
. tests/skips.sh
if ! cargo deny --version >/dev/null 2>&1; then
	skipped "licences and sources of packages" "cargo-deny is not installed"
	exit 0
fi
out=$(mktemp)
trap 'rm -f "$out"' EXIT
cargo deny --locked check licenses bans sources || exit 1
if cargo deny --locked check advisories >"$out" 2>&1; then
	tail -n 1 "$out"
elif grep -q "failed to fetch advisory database" "$out"; then
	skipped "known vulnerabilities" "their list cannot be fetched"
else
	cat "$out"
	exit 1
fi
