#!/bin/sh
# Static release builds for the targets of targets.tsv, on one Linux machine:
# zig is compiler, linker and libc for the C side of every target, and the
# standard library is built from source where no ready one is installed.
#
# usage: build.sh [--tiny] TARGET|all|list [cargo arguments, default: --bin culvert]
# Prints the path of each binary; it lies in target/cross/TARGET/, with --tiny
# in target/cross/TARGET/tiny/. NAME.symbols beside it is the same program with
# its symbols.
# Toolchains; the first one that is installed is used:
# Toolchains, the first that is there:
#   1. rustup's stable with this target installed (rustup target add TARGET)
#   2. rustup's nightly with rust-src (rustup toolchain install nightly -c rust-src)
#   3. Debian's rustc-web, cargo-web, rust-web-src; installed if none of them is
#      present, as root on a Debian
# Zig comes from PyPI (ziglang) into a virtual environment below target/.
set -eu
cd "$(dirname "$0")/.."
. cross/common.sh
out=$target/cross
mkdir -p "$out"

fail() {
	echo "cross/build.sh: $*" >&2
	exit 1
}

tiny=
if [ "${1:-}" = --tiny ]; then
	tiny=yes
	shift
fi
[ $# -ge 1 ] || fail "usage: build.sh [--tiny] TARGET|all|list [cargo arguments]"
choose "$1"
shift
[ $# -gt 0 ] || set -- --bin culvert

# --- zig -------------------------------------------------------------------
python_with_venv() {
	for python in python3 /usr/bin/python3; do
		"$python" -c 'import ensurepip, venv' 2>/dev/null && return
	done
	return 1
}
zig() {
	venv=$out/zig
	if ! "$venv/bin/python" -m ziglang version >/dev/null 2>&1; then
		python_with_venv || sh tests/prepare.sh python3 >&2 ||
			fail "no python3 with venv; on Debian: apt-get install python3-venv"
		python_with_venv || fail "no python3 with venv; on Debian: apt-get install python3-venv"
		"$python" -m venv "$venv" >&2 || fail "python3 could not make $venv"
		"$venv/bin/pip" install --quiet --disable-pip-version-check 'ziglang==0.17.*' >&2 ||
			fail "pip could not install ziglang 0.17 from PyPI, the C compiler and linker of the cross builds"
	fi
	ZIG="$venv/bin/python -m ziglang"
	ZIG_GLOBAL_CACHE_DIR=$out/zig-cache
	ZIG_LOCAL_CACHE_DIR=$out/zig-cache
	export ZIG_GLOBAL_CACHE_DIR ZIG_LOCAL_CACHE_DIR
}

# compiler DIR ZIG-TARGET ZIG-OPTIONS: DIR/cc, DIR/ar and the objects that they link.
compiler() {
	sh cross/compiler.sh "$1" "$ZIG" "$2" "$3" "-g $1/no-unwind.o $1/memmove.o"
	for stub in no-unwind memmove; do
		"$1/cc" -Os -fPIC -fomit-frame-pointer -ffunction-sections \
			-c "cross/$stub.c" -o "$1/$stub.o" || fail "zig cannot compile for $2"
	done
}

# --- toolchain: sets $tool ---------------------------------------------------
# Debian's rustc is the same program as its rustc-web, but may be too old.
have_debian() {
	needed=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"$/\1/p' Cargo.toml)
	[ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] &&
		[ "$(/usr/bin/rustc --version | cut -d. -f2)" -ge "$needed" ] &&
		[ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library" ]
}
toolchain() {
	if command -v rustup >/dev/null 2>&1; then
		# A tiny build has a standard library of its own: nightly options.
		if [ -z "$tiny" ] &&
			rustup target list --installed --toolchain stable 2>/dev/null | grep -qx "$1"; then
			tool=stable
			return
		fi
		if rustup component list --installed --toolchain nightly 2>/dev/null | grep -q '^rust-src'; then
			tool=nightly
			return
		fi
	fi
	tool=debian
	if ! have_debian && command -v apt-get >/dev/null 2>&1; then
		sh tests/prepare.sh /usr/bin/rustc /usr/bin/cargo /usr/lib/rustlib/src/rust >&2 || true
	fi
	have_debian ||
		fail "no Rust toolchain for $1; install one of:" \
			"rustup target add $1 (if rustup has it) |" "rustup toolchain install nightly -c rust-src |" \
			"apt-get install rustc-web cargo-web rust-web-src"
}

# build TARGET [cargo arguments]
build() {
	triple=$1
	shift
	zig
	dir=$out/$triple
	[ -z "$tiny" ] || dir=$dir/tiny
	compiler "$dir" "$(column "$triple" 2)" "$(column "$triple" 3)"
	toolchain "$triple"
	upper=$(echo "$triple" | tr 'a-z-' 'A-Z_')
	lower=$(echo "$triple" | tr '-' '_')
	export "CARGO_TARGET_${upper}_LINKER=$dir/cc"
	export "CC_$lower=$dir/cc" "AR_$lower=$dir/ar"
	# Without unwinding: a panic prints its place and aborts.
	cflags="-ffunction-sections -fdata-sections -fno-unwind-tables -fno-asynchronous-unwind-tables"
	case $triple in
	# zig links to a fixed address (hence the Rust options in targets.tsv); on
	# 32-bit MIPS, code that knows it is a tenth smaller.
	mips-* | mipsel-*) cflags="$cflags -fno-pic" ;;
	esac
	# The C code of ring is its slow part where it has no assembly. The Rust code around it is
	# 40 KB smaller on MIPS if it is optimized for size. On x86_64 assembly processes the bytes,
	# and C parts of a handshake.
	if [ -z "$tiny" ]; then
		case $triple in
		x86_64-*) cflags="$cflags -Os" ;;
		*) cflags="$cflags -O3" ;;
		esac
		set -- "$@" --config 'profile.release.package.ring.opt-level="s"'
	fi
	export "CFLAGS_$lower=$cflags"
	# zig has the C library and start files; rustc must not use its own. It still names a directory
	# for them, of which zig warns.
	RUSTFLAGS="-C target-feature=+crt-static -C link-self-contained=no -A linker_messages"
	RUSTFLAGS="$RUSTFLAGS -C force-unwind-tables=no $(column "$triple" 4)"
	# Symbols are removed here and kept beside the program.
	CARGO_PROFILE_RELEASE_STRIP=none
	export RUSTFLAGS CARGO_PROFILE_RELEASE_STRIP
	std=
	case $tool in
	stable) cargo="rustup run stable cargo" ;;
	nightly) cargo="rustup run nightly cargo" std=yes ;;
	debian)
		cargo=/usr/bin/cargo std=yes
		RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
		PATH=/usr/bin:$PATH
		export RUSTC RUSTC_BOOTSTRAP PATH
		;;
	esac
	# The program contains the names of source files, for panics. Without the directories of this
	# machine they are the same everywhere, and shorter.
	$cargo fetch --quiet --locked >&2 || fail "cargo cannot download the dependencies"
	library=$(${RUSTC:-${cargo%cargo}rustc} --print sysroot)/lib/rustlib/src/rust/library
	for directory in "$PWD" "$library" "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
		RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$directory/="
	done
	profile=release
	if [ -n "$tiny" ]; then
		profile=tiny
		set -- "$@" --no-default-features
		RUSTFLAGS="$RUSTFLAGS $TINY"
	fi
	if [ -n "$std" ]; then
		set -- "$@" -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
	fi
	echo "building for $triple ($tool, $profile) ..." >&2
	# Results of an earlier build are removed.
	rm -f "$dir/build/$triple/$profile/culvert" "$dir/build/$triple/$profile/culvert-edge"
	# shellcheck disable=SC2086 # $cargo may be several words
	$cargo build --quiet --locked --profile $profile --target "$triple" --target-dir "$dir/build" "$@" >&2 ||
		fail "the build for $triple failed"
	for binary in culvert culvert-edge; do
		built=$dir/build/$triple/$profile/$binary
		if [ -f "$built" ]; then
			"$venv/bin/python" cross/elf.py strip "$built" "$dir/$binary.new"
			"$venv/bin/python" cross/elf.py check "$dir/$binary.new" "$built"
			chmod 755 "$dir/$binary.new"
			cp "$built" "$dir/$binary.symbols"
			mv "$dir/$binary.new" "$dir/$binary"
			echo "$dir/$binary"
		fi
	done
}

# Differences between the release and the tiny profile, each with its bytes on mipsel:
# docs/internals/build.md.
TINY="-Zunstable-options -Cpanic=immediate-abort -Zlocation-detail=none"
TINY="$TINY -Zfmt-debug=shallow -Cllvm-args=-inline-threshold=0"

# A command of its own and not a part of a condition: there `set -e` would have no effect, and a
# build that elf.py refuses would be installed.
for triple in $wanted; do
	(build "$triple" "$@") </dev/null
done
