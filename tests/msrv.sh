#!/bin/sh
# The MSRV in Cargo.toml: no package of any lock file needs a newer Rust. The code itself is
# checked by clippy (incompatible_msrv, clippy.toml).
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
. tests/checks.sh
host=$(rustc -vV | sed -n 's/^host: //p')
promised=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)

# newer FILE: prints the packages in the output of `cargo metadata` that need a newer Rust.
newer() {
	python3 - "$promised" "$1" <<-'END'
		import json, sys

		def number(version):
		    return [int(part) for part in version.split(".")[:2]]

		promised = number(sys.argv[1])
		for package in json.load(open(sys.argv[2]))["packages"]:
		    asked = package["rust_version"]
		    if asked and number(asked) > promised:
		        print(package["name"], package["version"], "asks for", asked)
	END
}
old_enough() {
	cargo metadata --quiet --locked --format-version 1 --all-features --filter-platform "$host" \
		--manifest-path "$1" >"$work/metadata" &&
		newer "$work/metadata" >"$work/newer" || return 1
	cat "$work/newer"
	[ ! -s "$work/newer" ]
}
for manifest in Cargo.toml tests/*/Cargo.toml; do
	check "$manifest: $promised is enough for all packages" old_enough "$manifest"
done
printf '{"packages": [{"name": "a", "version": "1.0.0", "rust_version": "1.99"}]}' >"$work/metadata"
check "the check finds one that asks for more" test "$(newer "$work/metadata")" = "a 1.0.0 asks for 1.99"
echo "msrv: $passed passed, $failed failed"
[ "$failed" = 0 ]
