#!/bin/sh
# Extracts files of Debian packages of any architecture, independent of this machine's package
# manager: lists, state and packages are in a separate directory.
#
# usage: debian.sh DIRECTORY ARCHITECTURE PACKAGE=PATTERN ...
# The files of PACKAGE that match PATTERN, such as './boot/vmlinuz-*', are put below
# DIRECTORY/root. A package without files that depends on another one, such as
# linux-image-armmp, is replaced by that one.
set -eu

fail() {
	echo "$*" >&2
	exit 1
}

command -v apt-get >/dev/null 2>&1 || fail "there is no apt-get here to fetch packages with"
dir=$1
arch=$2
shift 2
mkdir -p "$dir/state/lists/partial" "$dir/cache/archives/partial" "$dir/packages" "$dir/root"
dir=$(cd "$dir" && pwd)
log=$dir/apt.log

# The sources are this machine's. Those without the architecture are skipped, with a line in the
# log.
apt() {
	tool=$1
	shift
	"$tool" -o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" \
		-o "Dir::State=$dir/state" -o Dir::State::status=/dev/null -o "Dir::Cache=$dir/cache" \
		-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
		-o APT::Sandbox::User= "$@"
}

# download PACKAGE: prints the file's path.
download() {
	if ! ls "$dir/packages/$1"_*.deb >/dev/null 2>&1; then
		[ -n "${updated:-}" ] || apt apt-get update >"$log" 2>&1 || true
		updated=yes
		(cd "$dir/packages" && apt apt-get download "$1" >>"$log" 2>&1) || {
			tail -n 5 "$log" >&2
			fail "the package $1 for $arch cannot be had"
		}
	fi
	for file in "$dir/packages/$1"_*.deb; do :; done
}

for pair in "$@"; do
	package=${pair%%=*}
	download "$package"
	case $package in
	linux-image-*)
		download "$(dpkg-deb -f "$file" Depends | sed 's/[ ,].*//')"
		;;
	esac
	dpkg-deb --fsys-tarfile "$file" | tar -x -C "$dir/root" --wildcards "${pair#*=}" ||
		fail "there is no ${pair#*=} in ${file##*/}"
done
