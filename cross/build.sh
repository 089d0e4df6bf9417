#!/bin/sh
# Static release builds for the targets of targets.tsv, on one Linux machine:
# zig is compiler, linker and libc for the C side of every target, and the
# standard library is built from source where no ready one is installed.
#
# usage: build.sh TARGET|all [cargo arguments, default: --bin culvert]
# Prints the path of each binary; it lies in target/cross/TARGET/.
#
# Toolchains, the first that is there:
#   1. rustup's stable with this target installed (rustup target add TARGET)
#   2. rustup's nightly with rust-src (rustup toolchain install nightly -c rust-src)
#   3. Debian's rustc-web, cargo-web, rust-web-src
# Zig comes from PyPI (ziglang) into a virtual environment below target/.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
out=${CARGO_TARGET_DIR:-$root/target}/cross
case $out in /*) ;; *) out=$root/$out ;; esac
mkdir -p "$out"

fail() {
	echo "cross/build.sh: $*" >&2
	exit 1
}

[ $# -ge 1 ] || fail "usage: build.sh TARGET|all [cargo arguments]"
wanted=$1
shift
[ $# -gt 0 ] || set -- --bin culvert

# --- zig -------------------------------------------------------------------
zig() {
	venv=$out/zig
	if ! "$venv/bin/python" -m ziglang version >/dev/null 2>&1; then
		python=python3
		"$python" -c 'import ensurepip, venv' 2>/dev/null || python=/usr/bin/python3
		"$python" -m venv "$venv" >&2 ||
			fail "no python3 with venv; on Debian: apt-get install python3-venv"
		"$venv/bin/pip" install --quiet --disable-pip-version-check 'ziglang==0.17.*' >&2 ||
			fail "pip could not install ziglang"
	fi
	ZIG="$venv/bin/python -m ziglang"
	ZIG_GLOBAL_CACHE_DIR=$out/zig-cache
	ZIG_LOCAL_CACHE_DIR=$out/zig-cache
	export ZIG_GLOBAL_CACHE_DIR ZIG_LOCAL_CACHE_DIR
}

# wrapper TARGET ZIG-TARGET ZIG-OPTIONS: a C compiler and linker, and an ar.
wrapper() {
	dir=$out/$1
	mkdir -p "$dir"
	[ "$3" != - ] || set -- "$1" "$2" ""
	# The cc crate adds --target=RUST-TARGET, a name that zig does not know.
	cat >"$dir/cc" <<-END
		#!/bin/sh
		n=\$#
		while [ \$n -gt 0 ]; do
			case \$1 in --target=*) ;; *) set -- "\$@" "\$1" ;; esac
			shift
			n=\$((n - 1))
		done
		exec $ZIG cc -target $2 $3 "\$@"
	END
	printf '#!/bin/sh\nexec %s ar "$@"\n' "$ZIG" >"$dir/ar"
	chmod +x "$dir/cc" "$dir/ar"
}

# --- toolchain: sets $tool ---------------------------------------------------
# A file like target-feature is not enough to tell whether std is there: ask.
toolchain() {
	if command -v rustup >/dev/null 2>&1; then
		if rustup target list --installed --toolchain stable 2>/dev/null | grep -qx "$1"; then
			tool=stable
			return
		fi
		if rustup component list --installed --toolchain nightly 2>/dev/null | grep -q '^rust-src'; then
			tool=nightly
			return
		fi
	fi
	if [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] &&
		[ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library" ]; then
		tool=debian
		return
	fi
	fail "no toolchain for $1; one of: rustup target add $1;" \
		"rustup toolchain install nightly -c rust-src;" \
		"apt-get install rustc-web cargo-web rust-web-src"
}

build() {
	triple=$1
	zig
	wrapper "$1" "$2" "$3"
	toolchain "$triple"
	dir=$out/$triple
	shift 3
	upper=$(echo "$triple" | tr 'a-z-' 'A-Z_')
	lower=$(echo "$triple" | tr '-' '_')
	export "CARGO_TARGET_${upper}_LINKER=$dir/cc"
	export "CC_$lower=$dir/cc" "AR_$lower=$dir/ar"
	# zig brings the C library and start files; rustc must not bring its own.
	# It still names a directory for its own, which zig misses aloud.
	RUSTFLAGS="-C target-feature=+crt-static -C link-self-contained=no -A linker_messages"
	export RUSTFLAGS
	std=
	case $tool in
	stable) cargo="cargo +stable" ;;
	nightly) cargo="cargo +nightly" std=yes ;;
	debian)
		cargo=/usr/bin/cargo std=yes
		RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
		PATH=/usr/bin:$PATH
		export RUSTC RUSTC_BOOTSTRAP PATH
		;;
	esac
	if [ -n "$std" ]; then
		set -- "$@" -Zbuild-std=std,panic_abort -Zbuild-std-features=optimize_for_size
	fi
	echo "building for $triple ($tool) ..." >&2
	# shellcheck disable=SC2086 # $cargo may be two words
	$cargo build --quiet --locked --release --target "$triple" --target-dir "$dir/build" "$@" >&2
	for binary in culvert culvert-edge; do
		built=$dir/build/$triple/release/$binary
		if [ -f "$built" ]; then
			cp "$built" "$dir/$binary.new"
			case $triple in
			# Sections for debuggers that strip leaves: 115 KB that no loader reads.
			mips*) $ZIG objcopy -R .pdr "$dir/$binary.new" "$dir/$binary.pdr" >/dev/null 2>&1 &&
				mv "$dir/$binary.pdr" "$dir/$binary.new" && chmod +x "$dir/$binary.new" ;;
			esac
			mv "$dir/$binary.new" "$dir/$binary"
			echo "$dir/$binary"
		fi
	done
}

tab=$(printf '\t')
found=
while IFS=$tab read -r triple zigtarget options _; do
	case $triple in '#'* | '') continue ;; esac
	if [ "$wanted" = all ] || [ "$wanted" = "$triple" ]; then
		found=yes
		(build "$triple" "$zigtarget" "$options" "$@") </dev/null || exit 1
	fi
done <cross/targets.tsv
[ -n "$found" ] || fail "no target $wanted in cross/targets.tsv"
