#!/bin/sh
# make test-fresh: `make demo` and `make test` on a fresh Debian. debootstrap makes a root
# directory with a minimal system, make and a Rust toolchain; the project in it is a clone of
# the commit that is checked out. Needs root on a Debian, 8 GB of disk and the network of this
# machine for the packages. Takes half an hour.
#
# SUITE=trixie       another release than this machine's, from the same mirror
# RUSTUP_TOOLCHAIN=  another toolchain than the default one
# TRY=demo           `make demo` alone
# KEEP=1             keeps the root directory for inspection
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"

if [ "${1:-}" = root ]; then
	# --- process 1 of the namespaces, still with this machine's files -----------------
	root=$2
	mount --bind "$root" "$root"
	mount --rbind /sys "$root/sys"
	mount --rbind /dev "$root/dev"
	mount -t proc none "$root/proc"
	mount --bind "$3" "$root/opt/rust"
	mount -o remount,bind,ro "$root/opt/rust"
	cd "$root"
	mkdir -p old
	pivot_root . old
	umount -l old
	rmdir old
	cd /root/culvert
	exec sh tests/fresh.sh inside
fi

if [ "${1:-}" = inside ]; then
	# --- inside of the root -------------------------------------------------------------
	. tests/checks.sh
	work=/tmp
	demo=
	evidence() {
		cat /tmp/demo.log
	}
	url() {
		url=$(sed -n 's/^open it in a browser, or: curl //p' /tmp/demo.log)
		[ -n "$url" ]
	}
	# Packages are installed and the project is built first: the step's limit applies.
	started() {
		until url; do
			kill -0 "$demo" 2>/dev/null || return 1
			sleep 1
		done
	}
	answers() {
		curl -fsS --noproxy '*' -m 20 "${url}README.md" >/tmp/readme && cmp /tmp/readme README.md
	}
	ended() {
		kill -TERM "$demo"
		until_ok not_running
	}
	not_running() {
		! kill -0 "$demo"
	}
	sh -c 'cc --version || curl --version' >/tmp/out 2>&1 && {
		echo "FAILED: this root is not fresh: it has a compiler or curl"
		exit 1
	}
	make demo >/tmp/demo.log 2>&1 &
	demo=$!
	check "make demo starts" started
	sh tests/prepare.sh curl
	case ${url:-} in */ | '') ;; *) url=$url/ ;; esac
	check "make demo answers a request" answers
	check "make demo ends" ended
	evidence() {
		: # `make test` prints its own.
	}
	[ "${TRY:-}" = demo ] || {
		# Everything that a test needs is installed: a skipped test without an excuse is a failure.
		status=0
		FAIL_ON_SKIP=1 make test </dev/null || status=$?
		check "make test passes" [ "$status" = 0 ]
	}
	echo "fresh: $passed passed, $failed failed"
	[ "$failed" = 0 ]
	exit
fi

fail() {
	echo "make test-fresh: $*" >&2
	exit 1
}
[ "$(id -u)" = 0 ] || fail "only root can make a root directory: sudo make test-fresh"
command -v apt-get >/dev/null 2>&1 || fail "this machine is not a Debian: apt-get is missing"
command -v rustc >/dev/null 2>&1 || fail "Rust is missing: https://rustup.rs"
sh tests/prepare.sh debootstrap git unshare
. tests/debian.sh
suite=${SUITE:-$(debian_release)}
debian_sources "$suite" || fail "apt-get has no source of $(debian_release)"

target=${CARGO_TARGET_DIR:-$here/target}
root=$target/fresh-$suite
rm -rf "$root"
mkdir -p "$target/fresh-packages"
trap '[ -n "${KEEP:-}" ] || rm -rf "$root"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
toolchain=$(rustc --print sysroot)
echo "==> Debian $suite with $("$toolchain/bin/rustc" --version), commit $(git rev-parse --short HEAD)"
[ -z "$(git status --porcelain)" ] || echo "changes that are not committed are left out"
debootstrap --variant=minbase --include=make --cache-dir="$target/fresh-packages" \
	"$suite" "$root" "$mirror" >"$target/fresh.log" 2>&1 || {
	tail -n 20 "$target/fresh.log" >&2
	fail "debootstrap failed"
}

configure_debian "$root"
mkdir -p "$root/root/.cargo" "$root/opt/rust"
for file in .cargo/config.toml .npmrc .config/pip; do
	[ ! -e "$HOME/$file" ] || {
		mkdir -p "$root/root/$(dirname $file)"
		cp -RL "$HOME/$file" "$root/root/$file"
	}
done
set -- HOME=/root TRY="${TRY:-}" TERM="${TERM:-dumb}" PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
for name in $(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p'); do
	case $name in
	http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | CARGO_HTTP_* | CARGO_NET_* | \
		CARGO_REGISTRIES_* | CARGO_SOURCE_* | PIP_INDEX_URL | PIP_EXTRA_INDEX_URL | npm_config_*)
		set -- "$@" "$name=$(printenv "$name")"
		;;
	esac
done
git clone --quiet --no-hardlinks "$here" "$root/root/culvert"

pivot=$(command -v pivot_root)
[ -n "$pivot" ] || fail "pivot_root is missing"
unshare -mpuf --kill-child --propagation private env -i "$@" \
	sh tests/fresh.sh root "$root" "$toolchain"
