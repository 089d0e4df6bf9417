#!/bin/sh
# make dist TARGET=...: packages of a static build, below target/dist/:
#   culvert-VERSION-TARGET.tar.gz        for any system: program, scripts, documents
#   culvert_VERSION-1_ARCH.ipk           OpenWrt, one for each name of the architecture
#   culvert_VERSION-1_ARCH.deb           Debian, where it has the architecture
#   culvert-VERSION-r1_ARCH.openwrt.apk  OpenWrt 25.12 and newer (version 3 of the format)
#   culvert-VERSION-r1_ARCH.alpine.apk   Alpine, where it has the architecture (version 2)
# Made with tar, gzip and a few lines of shell for ar: nothing else is needed. The
# same commit gives the same bytes: names sorted, times from SOURCE_DATE_EPOCH or
# the commit, owners root.
#
# usage: dist.sh TARGET|all
# PROGRAM=FILE packs an existing binary instead of building one.
set -eu
cd "$(dirname "$0")/.."
. cross/common.sh

[ $# -eq 1 ] || {
	echo "usage: cross/dist.sh TARGET|all" >&2
	exit 2
}
choose "$1"
if [ "$1" = all ]; then
	for triple in $wanted; do
		sh cross/dist.sh "$triple"
	done
	exit
fi
triple=$wanted
program=${PROGRAM:-}
if [ -z "$program" ]; then
	sh cross/build.sh "$triple" >/dev/null
	program=$target/cross/$triple/culvert
fi

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
openwrt=$(column "$triple" 6)
debian=$(column "$triple" 7)
alpine=$(column "$triple" 8)
description="Tunnel agent for small machines: ngrok's protocol, configuration and commands"
out=$target/dist
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
mkdir -p "$out"
umask 022

# --- helpers -------------------------------------------------------------------
# put MODE FROM TO: copies a file and creates its directories.
put() {
	mkdir -p "${3%/*}"
	cp "$2" "$3"
	chmod "$1" "$3"
}
# pack DIRECTORY FILE.tar.gz: packs its content reproducibly, as ustar for the tar of opkg and
# BusyBox.
pack() {
	(cd "$1" && find . | LC_ALL=C sort | tar --no-recursion --format=ustar --owner=0 --group=0 \
		--numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - -T -) | gzip -9n >"$2"
}
# Writes an ar archive of these files. ar itself is a part of binutils, which not every machine
# has. The format is a line of text before each file.
archive() {
	printf '!<arch>\n'
	for member in "$@"; do
		size=$(wc -c <"$member" | tr -d ' ')
		printf '%-16s%-12s%-6s%-6s%-8s%-10s`\n' "${member##*/}" "$SOURCE_DATE_EPOCH" 0 0 100644 "$size"
		cat "$member"
		[ $((size % 2)) -eq 0 ] || echo
	done
}
# managed TREE COMMAND: notes the command that updates the package, for `culvert update`.
managed() {
	mkdir -p "$1/usr/share/culvert"
	printf '%s\n' "$2" >"$1/usr/share/culvert/package-managed"
	chmod 644 "$1/usr/share/culvert/package-managed"
}
# apk FORMAT ARCH FILE TREE SCRIPTS DEPENDS
apk() {
	python3 -B cross/apk.py "$1" "$3" "$4" "$5" "$SOURCE_DATE_EPOCH" name=culvert \
		"version=$version-r1" "arch=$2" "description=$description" \
		"license=MIT OR Apache-2.0" "depends=$6"
	echo "$3"
}
installed_kib() {
	du -sk --apparent-size "$1" | cut -f1
}
documents() { # directory
	python3 -B cross/documents.py "$1"
	for licence in LICENSE-*; do
		put 644 "$licence" "$1/$licence"
	done
}

# --- the archive for any system ---------------------------------------------------
base=culvert-$version-$triple
tree=$work/tar/$base
put 755 "$program" "$tree/culvert"
put 600 cross/init/culvert.yml "$tree/culvert.yml"
put 755 cross/init/culvert.init "$tree/init/busybox-sysv/culvert"
put 644 cross/init/culvert.default "$tree/init/busybox-sysv/culvert.default"
put 755 cross/init/culvert.openrc "$tree/init/openrc/culvert"
put 755 cross/init/runit/run "$tree/init/runit/culvert/run"
put 755 cross/init/runit/finish "$tree/init/runit/culvert/finish"
put 755 cross/init/runit/log/run "$tree/init/runit/culvert/log/run"
put 644 cross/init/culvert.service "$tree/init/systemd/culvert.service"
put 755 cross/openwrt/culvert.init "$tree/init/openwrt/culvert.init"
put 644 cross/openwrt/culvert.config "$tree/init/openwrt/culvert.config"
put 644 cross/openwrt/culvert.keep "$tree/init/openwrt/culvert.keep"
documents "$tree"
pack "$work/tar" "$out/$base.tar.gz"
echo "$out/$base.tar.gz"

# --- OpenWrt ------------------------------------------------------------------------
if [ -n "$openwrt" ]; then
	tree=$work/ipk/data
	put 755 "$program" "$tree/usr/bin/culvert"
	put 755 cross/openwrt/culvert.init "$tree/etc/init.d/culvert"
	put 600 cross/openwrt/culvert.config "$tree/etc/config/culvert"
	# Without endpoints: they are in /etc/config/culvert by default.
	put 600 cross/openwrt/culvert.yml "$tree/etc/culvert/culvert.yml"
	put 644 cross/openwrt/culvert.keep "$tree/lib/upgrade/keep.d/culvert"
	# Flash is small: the licence, and the address of the other documents.
	put 644 LICENSE-MIT "$tree/usr/share/licenses/culvert/LICENSE-MIT"
	managed "$tree" "opkg update && opkg upgrade culvert"
	printf '2.0\n' >"$work/ipk/debian-binary"
	for arch in $(echo "$openwrt" | tr , ' '); do
		control=$work/ipk/control-$arch
		mkdir -p "$control"
		cat >"$control/control" <<-END
			Package: culvert
			Version: $version-1
			Depends: procd
			Section: net
			Architecture: $arch
			Installed-Size: $(($(installed_kib "$tree") * 1024))
			Require-User: culvert:culvert
			License: MIT OR Apache-2.0
			Maintainer: the culvert authors
			Description: $description
		END
		printf '/etc/config/culvert\n/etc/culvert/culvert.yml\n' >"$control/conffiles"
		cp cross/openwrt/postinst cross/openwrt/prerm cross/openwrt/postrm "$control/"
		chmod 755 "$control/postinst" "$control/prerm" "$control/postrm"
		pack "$tree" "$work/ipk/data.tar.gz"
		pack "$control" "$work/ipk/control.tar.gz"
		# OpenWrt's packages are a tar of the three parts, not an ar.
		package=$out/culvert_$version-1_$arch.ipk
		(cd "$work/ipk" && tar --format=ustar --owner=0 --group=0 --numeric-owner \
			--mtime="@$SOURCE_DATE_EPOCH" -cf - ./debian-binary ./data.tar.gz ./control.tar.gz) |
			gzip -9n >"$package"
		echo "$package"
	done

	# From 25.12 on: the lists that opkg kept in its database are files of the package.
	managed "$tree" "apk update && apk upgrade culvert"
	lists=$tree/lib/apk/packages
	mkdir -p "$lists"
	printf '/etc/config/culvert\n/etc/culvert/culvert.yml\n' >"$lists/culvert.conffiles"
	echo culvert:culvert >"$lists/culvert.rusers"
	(cd "$tree" && find . -type f | LC_ALL=C sort | sed 's/^\.//') >"$work/list"
	mv "$work/list" "$lists/culvert.list"
	chmod 644 "$lists"/culvert.*
	scripts=$work/apk/openwrt
	mkdir -p "$scripts"
	# apk does not name the package; OpenWrt's functions need it.
	sed '1a export pkgname=culvert' cross/openwrt/postinst >"$scripts/post-install"
	sed '1a export pkgname=culvert' cross/openwrt/prerm >"$scripts/pre-deinstall"
	cp cross/openwrt/postrm "$scripts/post-deinstall"
	for arch in $(echo "$openwrt" | tr , ' '); do
		apk 3 "$arch" "$out/culvert-$version-r1_$arch.openwrt.apk" "$tree" "$scripts" procd
	done
fi

# --- Alpine ------------------------------------------------------------------------
if [ -n "$alpine" ]; then
	tree=$work/apk/alpine
	put 755 "$program" "$tree/usr/bin/culvert"
	put 755 cross/init/culvert.openrc "$tree/etc/init.d/culvert"
	put 600 cross/init/culvert.yml "$tree/etc/culvert/culvert.yml"
	put 644 LICENSE-MIT "$tree/usr/share/licenses/culvert/LICENSE-MIT"
	managed "$tree" "apk update && apk upgrade culvert"
	scripts=$work/apk/alpine-scripts
	mkdir -p "$scripts"
	cp cross/alpine/pre-install cross/alpine/post-install "$scripts/"
	apk 2 "$alpine" "$out/culvert-$version-r1_$alpine.alpine.apk" "$tree" "$scripts" /bin/sh
fi

# --- Debian ------------------------------------------------------------------------
if [ -n "$debian" ]; then
	tree=$work/deb/data
	put 755 "$program" "$tree/usr/bin/culvert"
	put 644 cross/init/culvert.service "$tree/usr/lib/systemd/system/culvert.service"
	put 755 cross/init/culvert.init "$tree/etc/init.d/culvert"
	put 644 cross/init/culvert.default "$tree/etc/default/culvert"
	put 600 cross/init/culvert.yml "$tree/etc/culvert/culvert.yml"
	managed "$tree" "apt-get install --only-upgrade culvert"
	# Documents at Debian's places: the licences are in `copyright`.
	doc=$tree/usr/share/doc/culvert
	documents "$doc"
	rm "$doc"/LICENSE-* "$doc/CHANGELOG.md"
	gzip -9n <CHANGELOG.md >"$doc/changelog.gz"
	maintainer="the culvert authors <culvert@localhost>"
	gzip -9n >"$doc/changelog.Debian.gz" <<-END
		culvert ($version-1) unstable; urgency=medium

		  * Made from the sources of this version; what is new in it: changelog.gz.

		 -- $maintainer  $(LC_ALL=C date -u -d "@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')
	END
	{
		cat cross/deb/copyright
		sed 's/^$/./; s/^/ /' LICENSE-MIT
	} >"$doc/copyright"
	put 644 cross/deb/lintian-overrides "$tree/usr/share/lintian/overrides/culvert"
	control=$work/deb/control
	mkdir -p "$control"
	cat >"$control/control" <<-END
		Package: culvert
		Version: $version-1
		Architecture: $debian
		Maintainer: $maintainer
		Installed-Size: $(installed_kib "$tree")
		Depends: adduser
		Section: net
		Priority: optional
		Description: $description
		 culvert puts a service that runs on this machine on a public URL. It dials out
		 to an edge over TLS, so the machine needs no public address and no open port.
	END
	(cd "$tree" && find etc -type f | LC_ALL=C sort | sed 's,^,/,') >"$control/conffiles"
	(cd "$tree" && find . -type f ! -path './etc/*' | LC_ALL=C sort | sed 's,^\./,,' | xargs md5sum) >"$control/md5sums"
	for script in postinst prerm postrm; do
		put 755 "cross/deb/$script" "$control/$script"
	done
	pack "$tree" "$work/deb/data.tar.gz"
	pack "$control" "$work/deb/control.tar.gz"
	printf '2.0\n' >"$work/deb/debian-binary"
	package=$out/culvert_$version-1_$debian.deb
	archive "$work/deb/debian-binary" "$work/deb/control.tar.gz" "$work/deb/data.tar.gz" >"$package"
	echo "$package"
fi
