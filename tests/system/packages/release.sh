#!/bin/sh
# What `make release` publishes, read with the tools of its users, as far as they are installed:
# signify, sha256sum, apk-tools, buildah. The program in it is a stub.
#
# usage: release.sh            the stub only
#        release.sh --build [TARGET]   also builds a commit twice, in two directories, and
#                              compares the programs and everything that is made of them
set -eu
cd "$(dirname "$0")/../../.."
. tests/skips.sh
sh tests/prepare.sh signify-openbsd git
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
. tests/checks.sh
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
triple=x86_64-unknown-linux-musl

printf '#!/bin/sh\necho culvert version %s\n' "$version" >"$work/stub"
chmod 755 "$work/stub"
signify-openbsd -G -n -p "$work/feed.pub" -s "$work/feed.sec"
release() { # DIRECTORY ARGUMENTS
	directory=$1
	shift
	CARGO_TARGET_DIR=$directory PROGRAM=$work/stub KEY=$work/feed.sec SOURCE_DATE_EPOCH=1790000000 \
		sh cross/release.sh "$@" >/dev/null 2>"$work/err"
}
# refused TEXT ARGUMENTS
refused() {
	text=$1
	shift
	if release "$work/refused" "$@"; then
		echo "not refused: $*"
		return 1
	fi
	grep -q -e "$text" "$work/err" || {
		cat "$work/err"
		return 1
	}
}

release "$work/one" "$version" $triple
sleep 1
release "$work/two" "$version" $triple
out=$work/one/publish/$version
echo "release:"
check "the same bytes a second later" diff -r "$out" "$work/two/publish/$version"
check "another version is refused" refused "Cargo.toml has" 99.0.0 $triple
check "an unknown target is refused" refused "is unknown" "$version" sparc
keyless() {
	! CARGO_TARGET_DIR=$work/refused PROGRAM=$work/stub KEY='' sh cross/release.sh "$version" "$triple" \
		>/dev/null 2>"$work/err" && grep -q "KEY is missing" "$work/err"
}
check "a missing key is refused" keyless
check "no key was made" [ "$(find "$work/refused" "$out" -name '*.sec' 2>/dev/null | wc -l)" -eq 0 ]
unsigned() {
	CARGO_TARGET_DIR=$work/unsigned PROGRAM=$work/stub KEY=none sh cross/release.sh "$version" "$triple" \
		>/dev/null 2>"$work/err"
	grep -q "not signed" "$work/err" && [ ! -e "$work/unsigned/publish/$version/SHA256SUMS.sig" ]
}
check "KEY=none leaves out the signatures" unsigned
sums() {
	(cd "$out" && sha256sum -c --quiet SHA256SUMS) &&
		[ "$(find "$out" -type f | wc -l)" -eq $(($(wc -l <"$out/SHA256SUMS") + 2)) ]
}
check "SHA256SUMS has every file" sums
verified() { # FILE
	signify-openbsd -V -q -p "$work/feed.pub" -m "$1" -x "$1.sig"
}
check "its signature" verified "$out/SHA256SUMS"
check "the signature of the manifest" verified "$out/feed/stable/manifest"
listed() {
	line="file $triple $(wc -c <"$work/stub") $(sha256sum "$work/stub" | cut -c1-64) culvert-$version-$triple"
	grep -qxF "$line" "$out/feed/stable/manifest"
}
check "the manifest has the program" listed
sbom() {
	python3 -B - "$out/culvert-$version.cdx.json" <<-'END'
		import json, sys
		document = json.load(open(sys.argv[1]))
		names = {component["name"] for component in document["components"]}
		assert document["bomFormat"] == "CycloneDX" and document["specVersion"] == "1.5"
		assert {"rustls", "ring", "mio"} <= names, names
		# Neither macros nor packages of tests and of the edge.
		assert not names & {"serde_derive", "syn", "rcgen", "argh", "socket2"}, names
		assert all(c["licenses"] and c["hashes"] for c in document["components"])
		refs = {d["ref"] for d in document["dependencies"]}
		assert all(ref in refs for d in document["dependencies"] for ref in d["dependsOn"])
	END
}
check "the SBOM has what is linked" sbom
managed() {
	dpkg-deb --fsys-tarfile "$out"/culvert_"$version"-1_amd64.deb |
		tar -xO ./usr/share/culvert/package-managed | grep -q "^apt-get install"
}
if command -v dpkg-deb >/dev/null 2>&1; then
	check "the package names the command that updates it" managed
fi

echo "apk:"
# APK=FILE names an apk of version 3, which reads both formats.
apk=${APK:-$(command -v apk || true)}
if [ -n "$apk" ] && "$apk" --version | grep -q 'apk-tools 3'; then
	for kind in openwrt alpine; do
		package=$out/culvert-$version-r1_x86_64.$kind.apk
		installs() {
			root=$work/root-$kind
			mkdir -p "$root"
			# Not procd and not a shell, which the package needs.
			"$apk" verify --allow-untrusted "$package" >/dev/null &&
				"$apk" extract --allow-untrusted --no-chown --destination "$root" "$package" >/dev/null &&
				cmp "$root/usr/bin/culvert" "$work/stub" &&
				[ "$(stat -c %a "$root/etc/culvert/culvert.yml")" = 600 ] &&
				[ -x "$root/etc/init.d/culvert" ] &&
				[ -s "$root/usr/share/culvert/package-managed" ]
		}
		check "$kind: apk verifies and extracts it" installs
	done
else
	skipped "packages for apk" "apk-tools 3 is not installed"
fi

echo "image:"
if command -v buildah >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
	image() {
		store="--storage-driver vfs --root $work/store --runroot $work/run"
		# shellcheck disable=SC2086 # options
		container=$(buildah $store from --isolation chroot "oci-archive:$out/culvert-$version.oci.tar" | tail -n 1)
		# shellcheck disable=SC2086
		mounted=$(buildah $store mount "$container") &&
			cmp "$mounted/usr/bin/culvert" "$work/stub" &&
			buildah $store inspect --format '{{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.User}}' \
				"$container" >"$work/config" &&
			buildah $store rm "$container" >/dev/null &&
			grep -qx '\[/usr/bin/culvert\] 65534:65534' "$work/config"
	}
	check "buildah reads it" image
else
	skipped "the image" "buildah is not installed"
fi

if [ "${1:-}" = --build ]; then
	echo "two builds:"
	triple=${2:-$triple}
	evidence() {
		tail -n 20 "$work"/a*.log
	}
	builds=
	for directory in "$work/a" "$work/a-longer-name"; do
		git clone -q . "$directory"
		mkdir -p "$directory/target/cross"
		# The compiler is the same one. It is not downloaded twice.
		[ ! -d target/cross/zig ] || ln -s "$PWD/target/cross/zig" "$directory/target/cross/zig"
		(
			cd "$directory"
			unset CARGO_TARGET_DIR
			KEY=$work/feed.sec sh cross/release.sh "$version" "$triple"
		) >"$directory.log" 2>&1 &
		build=$!
		builds="$builds $build"
		# Missing programs are installed before that line, by one of them at a time. The optimization
		# of the whole program, half of the time, has one thread: both builds run at once.
		until grep -q "^building for" "$directory.log" 2>/dev/null || ! kill -0 $build 2>/dev/null; do
			sleep 1
		done
	done
	built() {
		result=0
		for build in $builds; do
			wait "$build" || result=$?
		done
		return $result
	}
	check "both succeed" built
	check "the same bytes" diff -r "$work/a/target/publish" "$work/a-longer-name/target/publish"
fi
echo "release: $passed passed, $failed failed"
[ "$failed" = 0 ]
