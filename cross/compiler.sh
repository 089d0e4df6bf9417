#!/bin/sh
# Writes DIRECTORY/cc, C compiler and linker for one target, and DIRECTORY/ar: zig, with the
# options of rustc and the cc crate translated.
#
# usage: compiler.sh DIRECTORY ZIG ZIG-TARGET ZIG-OPTIONS STUBS
# STUBS is passed to the linker for libunwind and for parts of the C library:
# cross/no-unwind.c and cross/memmove.c or their objects, and -g if zig must keep the symbols.
set -eu
dir=$1 zig=$2 target=$3 options=$4 stubs=$5
mkdir -p "$dir"

# zig has musl's source for every ABI, but assumes that 64-bit MIPS has an FPU, and passes this
# to clang. Clang gives the first variable priority over its options, for the C library too;
# without that, the linker would refuse the mixture. zig's cache is separate, because it does
# not depend on that variable.
environment=
case $options in
*soft_float*)
	environment="export CCC_OVERRIDE_OPTIONS='#+-msoft-float' \\
	ZIG_GLOBAL_CACHE_DIR=\"\$ZIG_GLOBAL_CACHE_DIR-soft\" ZIG_LOCAL_CACHE_DIR=\"\$ZIG_LOCAL_CACHE_DIR-soft\""
	;;
esac
# The cc crate adds --target=RUST-TARGET, a name that zig does not know; rustc adds a linker
# option for i686 that zig does not need. With -Os zig builds a small C library. It has no
# unwind tables if the linker gets these options.
{
	echo '#!/bin/sh'
	[ -z "$environment" ] || printf '%s\n' "$environment"
	cat <<-END
		n=\$#
		while [ \$n -gt 0 ]; do
			case \$1 in
			--target=* | -Wl,-melf_*) ;;
			-lunwind) set -- "\$@" -Os -fno-unwind-tables -fno-asynchronous-unwind-tables $stubs ;;
			*) set -- "\$@" "\$1" ;;
			esac
			shift
			n=\$((n - 1))
		done
		exec $zig cc -target $target $options "\$@"
	END
} >"$dir/cc.$$"
printf '#!/bin/sh\nexec %s ar "$@"\n' "$zig" >"$dir/ar.$$"
chmod 755 "$dir/cc.$$" "$dir/ar.$$"
# Cargo compares the time of change: a file with the same content is not replaced.
for tool in cc ar; do
	if cmp -s "$dir/$tool.$$" "$dir/$tool"; then
		rm "$dir/$tool.$$"
	else
		mv "$dir/$tool.$$" "$dir/$tool"
	fi
done
