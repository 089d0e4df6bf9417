#!/bin/sh
# Reads the packages of `make dist` with the tools of their users: tar, dpkg-deb and, as root,
# dpkg in a separate directory. The program in them is a stub, because only the packages are
# tested.
set -eu
cd "$(dirname "$0")/../../.."
. tests/skips.sh
command -v dpkg-deb >/dev/null 2>&1 || {
	skipped packages "dpkg-deb is missing"
	exit 0
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
. tests/checks.sh
here=$PWD
has() { # FILE TEXT
	grep -q -e "$2" "$1" || {
		echo "no line like: $2"
		cat "$1"
		return 1
	}
}

printf '#!/bin/sh\necho stand-in\n' >"$work/culvert"
pack() { # TARGET DIRECTORY
	CARGO_TARGET_DIR=$2 PROGRAM=$work/culvert sh cross/dist.sh "$1" >/dev/null
}
for triple in mipsel-unknown-linux-musl armv5te-unknown-linux-musleabi x86_64-unknown-linux-musl; do
	pack $triple "$work/one"
done
sleep 1
for triple in mipsel-unknown-linux-musl armv5te-unknown-linux-musleabi x86_64-unknown-linux-musl; do
	pack $triple "$work/two"
done
cd "$work/one/dist"
check "the same bytes a second later" diff -r "$work/one/dist" "$work/two/dist"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$OLDPWD/Cargo.toml" | head -n 1)

echo "tar.gz:"
tar -tvzf "culvert-$version-mipsel-unknown-linux-musl.tar.gz" >"$work/list"
for line in '^-rwxr-xr-x 0/0 .*/culvert$' '^-rw------- 0/0 .*/culvert.yml$' '^-rwxr-xr-x .*/init/busybox-sysv/culvert$' \
	'^-rwxr-xr-x .*/init/runit/culvert/run$' '/init/systemd/culvert.service$' '/init/openrc/culvert$' \
	'/init/openwrt/culvert.init$' '/init/openwrt/culvert.keep$' '/README.md$' '/LICENSE-MIT$'; do
	check "$line" has "$work/list" "$line"
done
# Every relative link of a document has a target.
links() { # directory
	find "$1" -name '*.md' | while read -r page; do
		grep -o ']([^)#]*' "$page" | sed 's/^](//' | while read -r link; do
			case $link in
			'' | http*) ;;
			*) [ -e "${page%/*}/$link" ] || echo "$page: $link" ;;
			esac
		done
	done >"$work/broken"
	cat "$work/broken"
	[ ! -s "$work/broken" ]
}
mkdir -p "$work/tar"
tar -xzf "culvert-$version-mipsel-unknown-linux-musl.tar.gz" -C "$work/tar"
check "links of the documents" links "$work/tar"

echo "OpenWrt:"
for arch in mipsel_24kc mipsel_74kc arm_arm926ej-s arm_cortex-a9 x86_64; do
	package=culvert_$version-1_$arch.ipk
	mkdir -p "$work/ipk-$arch"
	check "$package is a tar of three" tar -xzf "$package" -C "$work/ipk-$arch"
	(
		cd "$work/ipk-$arch"
		tar -xzf control.tar.gz
		tar -tvzf data.tar.gz >list
	)
	check "its architecture is $arch" has "$work/ipk-$arch/control" "^Architecture: $arch$"
done
check "its user is made" has "$work/ipk-mipsel_24kc/control" '^Require-User: culvert:culvert$'
check "the configuration is kept on upgrade" has "$work/ipk-mipsel_24kc/conffiles" '^/etc/config/culvert$'
check "the script" has "$work/ipk-mipsel_24kc/list" '^-rwxr-xr-x 0/0 .*\./etc/init.d/culvert$'
check "the UCI configuration is root's alone" has "$work/ipk-mipsel_24kc/list" '^-rw------- 0/0 .*\./etc/config/culvert$'
keep=$work/ipk-mipsel_24kc/keep
tar -xOzf "$work/ipk-mipsel_24kc/data.tar.gz" ./lib/upgrade/keep.d/culvert >"$keep"
for file in /etc/config/culvert /etc/culvert/ /usr/bin/culvert /etc/init.d/culvert /lib/upgrade/keep.d/culvert; do
	check "an update of the system keeps $file" has "$keep" "^$file$"
	check "which is a file of the package" has "$work/ipk-mipsel_24kc/list" "\.$file"
done
# The links of `enable` have the numbers of the script.
for link in "S$(sed -n 's/^START=//p' "$here/cross/openwrt/culvert.init")" "K$(sed -n 's/^STOP=//p' "$here/cross/openwrt/culvert.init")"; do
	check "it stays enabled: $link" has "$keep" "^/etc/rc.d/${link}culvert$"
done
for script in postinst prerm postrm; do
	check "$script can be run" test -x "$work/ipk-mipsel_24kc/$script"
done
check "the program" has "$work/ipk-mipsel_24kc/list" '^-rwxr-xr-x 0/0 .*\./usr/bin/culvert$'

echo "Debian:"
for arch in mipsel armel amd64; do
	package=culvert_$version-1_$arch.deb
	dpkg-deb -I "$package" >"$work/info"
	check "$package: dpkg-deb reads it, architecture $arch" has "$work/info" "^ Architecture: $arch$"
	dpkg-deb -c "$package" >"$work/list"
	check "the configuration is its owner's alone" has "$work/list" '^-rw------- 0/0 .*\./etc/culvert/culvert.yml$'
	check "the unit" has "$work/list" '\./usr/lib/systemd/system/culvert.service$'
	for file in copyright changelog.gz changelog.Debian.gz README.md; do
		check "$file" has "$work/list" "^-rw-r--r-- .*\./usr/share/doc/culvert/$file$"
	done
done
if [ "$(id -u)" = 0 ] && [ "$(dpkg --print-architecture)" = amd64 ]; then
	# A root with only the programs that dpkg and the package's scripts call.
	root=$work/root
	mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates" "$root/bin" "$root/etc" "$root/sbin"
	: >"$root/var/lib/dpkg/status"
	: >"$root/var/lib/dpkg/available"
	sh "$here/tests/prepare.sh" busybox
	cp "$(command -v busybox)" "$root/bin/busybox"
	for applet in sh chown chmod mkdir rm rmdir cat; do
		ln -s busybox "$root/bin/$applet"
	done
	printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
	printf 'root:x:0:\n' >"$root/etc/group"
	# shellcheck disable=SC2016 # the script's own
	printf '#!/bin/sh\ngrep "^$2:" /etc/$1\n' >"$root/bin/getent"
	printf '#!/bin/sh\necho culvert:x:555:555::/:/bin/false >>/etc/passwd\necho culvert:x:555: >>/etc/group\n' >"$root/bin/adduser"
	ln -s busybox "$root/bin/grep"
	chmod 755 "$root/bin/getent" "$root/bin/adduser"
	package=culvert_$version-1_amd64.deb
	# An empty database: packages of this machine do not count.
	install() {
		dpkg --root="$root" --force-depends --force-not-root --log=/dev/null -i "$package"
	}
	check "it installs" exits 0 install
	check "the program runs" exits 0 chroot "$root" /usr/bin/culvert
	check "the configuration belongs to its user" test "$(stat -c %u:%a "$root/etc/culvert/culvert.yml")" = 555:600
	echo '# mine' >>"$root/etc/culvert/culvert.yml"
	check "it installs over itself" exits 0 install
	check "what the user wrote is still there" has "$root/etc/culvert/culvert.yml" '^# mine$'
	check "its owner too" test "$(stat -c %u:%a "$root/etc/culvert/culvert.yml")" = 555:600
	check "it can be removed" exits 0 dpkg --root="$root" --force-not-root --log=/dev/null -r culvert
	check "the configuration stays" test -e "$root/etc/culvert/culvert.yml"
	check "and purged" exits 0 dpkg --root="$root" --force-not-root --log=/dev/null -P culvert
	check "nothing stays" test ! -e "$root/etc/culvert/culvert.yml"
else
	skipped "packages: installation of the .deb" "this needs root on amd64"
fi
echo "packages: $passed passed, $failed failed"
[ "$failed" = 0 ]
