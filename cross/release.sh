#!/bin/sh
# make release VERSION=...: everything that is published, below target/publish/VERSION/:
#   the packages of make dist, the programs alone, an OCI image, SHA256SUMS, an SBOM
#   (CycloneDX), and the feed of `culvert update` (docs/reference/update.md)
# The same commit gives the same bytes: make test-release builds twice and compares.
#
# usage: release.sh VERSION [TARGET|all]
#   KEY=FILE        secret key of signify or usign that signs SHA256SUMS and the manifest.
#                   A key is never made here; KEY=none publishes without signatures.
#   CHANNEL=NAME    channel of the feed: stable (default), beta or unstable
#   SERIAL=N        its serial number; by default the time of the commit
#   EXPIRES=TIME    end of its validity, as in 2027-05-01T00:00:00Z
#   MIN_FROM=V      oldest version that may update directly
#   PROGRAM=FILE    packs an existing program (one target only), for tests
set -eu
cd "$(dirname "$0")/.."
. cross/common.sh

fail() {
	echo "cross/release.sh: $*" >&2
	exit 1
}
if [ -z "${1:-}" ]; then
	echo "usage: make release VERSION=0.1.0 KEY=feed.sec [TARGET=all]" >&2
	exit 2
fi
version=$1
choose "${2:-all}"
own=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
[ "$version" = "$own" ] || fail "VERSION is $version, and Cargo.toml has $own; change one of them"
if [ -z "${PROGRAM:-}" ]; then
	[ -z "$(git status --porcelain)" ] || fail "files differ from the commit; commit or remove them"
fi

key=${KEY:-}
[ -n "$key" ] || fail "KEY is missing: the secret key of signify or usign (signify -G -n -p feed.pub -s feed.sec), or none"
signer=
if [ "$key" != none ]; then
	[ -r "$key" ] || fail "the key $key cannot be read"
	for program in signify-openbsd signify usign; do
		if command -v $program >/dev/null 2>&1; then
			signer=$program
			break
		fi
	done
	[ -n "$signer" ] || fail "neither signify nor usign is installed; on Debian: apt-get install signify-openbsd"
fi
# sign FILE: writes FILE.sig.
sign() {
	[ -n "$signer" ] || return 0
	"$signer" -S -s "$key" -m "$1" -x "$1.sig"
}

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
channel=${CHANNEL:-stable}
out=$target/publish/$version
feed=$out/feed/$channel
rm -rf "$out"
mkdir -p "$feed"
umask 022

# --- programs and packages -----------------------------------------------------------
images=
files=
for triple in $wanted; do
	program=${PROGRAM:-}
	if [ -z "$program" ]; then
		sh cross/build.sh "$triple" >/dev/null
		program=$target/cross/$triple/culvert
	fi
	PROGRAM=$program sh cross/dist.sh "$triple" >"$out/made"
	while read -r package; do
		mv "$package" "$out/"
	done <"$out/made"
	rm "$out/made"
	name=culvert-$version-$triple
	cp "$program" "$feed/$name"
	chmod 755 "$feed/$name"
	images="$images $triple=$feed/$name"
	size=$(wc -c <"$program" | tr -d ' ')
	files="${files}file $triple $size $(sha256sum "$program" | cut -c1-64) $name
"
	sbom_target=${sbom_target:-$triple}
done
# shellcheck disable=SC2086 # a word a target
python3 -B cross/image.py "$out/culvert-$version.oci.tar" "$version" "$SOURCE_DATE_EPOCH" $images
python3 -B cross/sbom.py "$out/culvert-$version.cdx.json" "$SOURCE_DATE_EPOCH" "$sbom_target"

# --- the feed -------------------------------------------------------------------------
{
	echo "culvert-update 1"
	echo "channel $channel"
	echo "serial ${SERIAL:-$SOURCE_DATE_EPOCH}"
	echo "version $version"
	[ -z "${MIN_FROM:-}" ] || echo "min-from $MIN_FROM"
	echo "date $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
	[ -z "${EXPIRES:-}" ] || echo "expires $EXPIRES"
	printf '%s' "$files"
} >"$feed/manifest"
sign "$feed/manifest"

# --- checksums --------------------------------------------------------------------------
(cd "$out" && find . -type f | LC_ALL=C sort | sed 's,^\./,,' | xargs sha256sum) >"$out.sums"
mv "$out.sums" "$out/SHA256SUMS"
sign "$out/SHA256SUMS"
[ -n "$signer" ] || echo "not signed: KEY=none" >&2
echo "$out"
