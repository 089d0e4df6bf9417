#!/bin/sh
# Tests the scripts of the cross builds without a compiler: errors for invalid input, the choice
# of the toolchain, and refused results. rustup, cargo and zig are stubs; the programs are
# written here, byte by byte.
set -eu
cd "$(dirname "$0")/../../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
. tests/checks.sh
. tests/skips.sh
# says TEXT: tests that the output of the last command has this line.
says() {
	check "  says: $1" said "$1"
}
said() {
	grep -qF -e "$1" "$work/last" || {
		cat "$work/last"
		return 1
	}
}
last() {
	cp "$work/out" "$work/last"
}

# --- programs ------------------------------------------------------------------
# program.py FILE BITS ORDER MACHINE FP-ABI WORD[*TIMES]...: writes a program whose text is an
# instruction without effect, and these words, in functions `start` and `behind`.
cat >"$work/program.py" <<'END'
import struct, sys

path, bits, order, machine, fp_abi, *words = sys.argv[1:]
wide, o = bits == "64", {"big": ">", "little": "<"}[order]
word = "Q" if wide else "I"
text = struct.pack(o + "I", 0)
for code in words:
    code, _, times = code.partition("*")
    text += struct.pack(o + "I", int(code, 16)) * int(times or 1)
flags = struct.pack(o + "H6BIIII", 0, 64, 2, 1, 0, 0, int(fp_abi), 0, 0, 0, 0)
names = b"\0start\0behind\0"
shape = o + ("IBBHQQ" if wide else "IIIBBH")


def symbol(name, at, size):
    if wide:
        return struct.pack(shape, name, 2, 0, 1, at, size)
    return struct.pack(shape, name, at, size, 2, 0, 1)


head, segment = (64, 56) if wide else (52, 32)
base, start = 0x400000, 0x400000 + head + segment
symbols = bytes(struct.calcsize(shape)) + symbol(1, start, 4) + symbol(7, start + 4, len(text) - 4)
titles = b"\0.text\0.MIPS.abiflags\0.symtab\0.strtab\0.shstrtab\0"
body, sections = b"", [(0,) * 10]
for title, kind, attributes, data, link, entry in (
    (b".text", 1, 6, text, 0, 0),
    (b".MIPS.abiflags", 0x7000002A, 2, flags, 0, 24),
    (b".symtab", 2, 0, symbols, 4, struct.calcsize(shape)),
    (b".strtab", 3, 0, names, 0, 0),
    (b".shstrtab", 3, 0, titles, 0, 0),
):
    at = head + segment + len(body)
    address = base + at if attributes else 0
    sections.append((titles.index(title), kind, attributes, address, at, len(data), link, 0, 4, entry))
    body += data
size = len(text) + len(flags)
load = (1, 5, head + segment, start, start, size, size, 4)
if not wide:
    load = (1, head + segment, start, start, size, size, 5, 4)
out = b"\x7fELF" + bytes([2 if wide else 1, 1 if o == "<" else 2, 1]) + bytes(9)
out += struct.pack(
    o + "HHI" + word * 3 + "IHHHHHH",
    2, int(machine), 1, start, head, head + segment + len(body), 0, head, segment, 1,
    64 if wide else 40, len(sections), 5,
)
out += struct.pack(o + ("IIQQQQQQ" if wide else "IIIIIIII"), *load) + body
for section in sections:
    out += struct.pack(o + "II" + word * 4 + "II" + word * 2, *section)
open(path, "wb").write(out)
END
program() {
	python3 "$work/program.py" "$@"
}

echo "soft-float:"
for kind in "32 big" "32 little" "64 big" "64 little"; do
	# shellcheck disable=SC2086 # bits and order
	program "$work/soft" $kind 8 3 24420001 03e00008
	check "$kind: a program without FPU is let through" exits 0 python3 cross/elf.py check "$work/soft"
	# shellcheck disable=SC2086
	program "$work/hard" $kind 8 1 24420001
	check "$kind: one that says it wants one is refused" exits 1 python3 cross/elf.py check "$work/hard"
done
# add.d, lwxc1, lwc1, ldc1, swc1, sdc1, mtc1, movf
for word in 46201000 4c410001 c4400000 d4400000 e4400000 f4400000 44820000 00401001; do
	program "$work/hard" 32 big 8 3 24420001 $word
	check "instruction $word is refused" exits 1 python3 cross/elf.py check "$work/hard" "$work/hard"
	last
	says "instruction $word at 0x40005c in behind"
done
program "$work/hard" 64 little 8 3 24420001 46201000
check "in 64 bits too, without symbols" exits 1 python3 cross/elf.py check "$work/hard"
last
says "instruction 46201000 at 0x400080"
program "$work/arm" 32 little 40 0 46201000
check "other processors are not asked" exits 0 python3 cross/elf.py check "$work/arm"

# --- stubs ----------------------------------------------------------------------
CARGO_TARGET_DIR=$work/target
PATH=$work/bin:$PATH
export CARGO_TARGET_DIR PATH
mkdir -p "$work/bin" "$work/target/cross/zig/bin"
cat >"$work/target/cross/zig/bin/python" <<'END'
#!/bin/sh
case "$*" in
"-m ziglang version") ;;
"-m ziglang cc "*)
	while [ $# -gt 0 ]; do
		[ "$1" != -o ] || : >"$2"
		shift
	done
	;;
*) exec python3 "$@" ;;
esac
END
# Installed targets of stable: $TARGETS, components of nightly: $COMPONENTS. Result of a build:
# $PROGRAM.
cat >"$work/bin/rustup" <<END
#!/bin/sh
case \$1 in
target) echo "\${TARGETS:-}" ;;
component) echo "\${COMPONENTS:-}" ;;
run)
	case "\$*" in
	*"cargo fetch"* | *"rustc --print"*) exit ;;
	esac
	echo "\$*; \$RUSTFLAGS" >>$work/calls
	while [ \$# -gt 0 ]; do
		case \$1 in
		--profile) profile=\$2 ;;
		--target) target=\$2 ;;
		--target-dir) dir=\$2 ;;
		esac
		shift
	done
	mkdir -p "\$dir/\$target/\$profile"
	cp "\$PROGRAM" "\$dir/\$target/\$profile/culvert"
	;;
esac
END
chmod 755 "$work/bin/rustup" "$work/target/cross/zig/bin/python"

echo "toolchains:"
program "$work/soft" 64 little 8 3 03e00008
program "$work/hard" 64 little 8 3 24420001 46201000
triple=mips64el-unknown-linux-muslabi64
built=$work/target/cross/$triple/culvert
export PROGRAM="$work/soft"
check "rustup has the target" exits 0 env TARGETS="$triple" COMPONENTS=rust-src-x sh cross/build.sh $triple
last
says "$built"
says "(stable, release)"
check "the program is there, without symbols" test -s "$built"
check "and with them" test -s "$built.symbols"
cp "$work/calls" "$work/last"
says "run stable cargo build"
says "--remap-path-prefix=$PWD/="
says "target-feature=+soft-float"
check "nothing of the standard library is built" exits 1 grep -e -Zbuild-std "$work/calls"
: >"$work/calls"
check "rustup has a nightly with the library's source" exits 0 env COMPONENTS=rust-src-x sh cross/build.sh $triple
cp "$work/calls" "$work/last"
says "run nightly cargo build"
says "-Zbuild-std=std,panic_abort"
: >"$work/calls"
check "a tiny build takes the nightly" exits 0 \
	env TARGETS="$triple" COMPONENTS=rust-src-x sh cross/build.sh --tiny $triple
cp "$work/calls" "$work/last"
says "run nightly cargo build"
says "--no-default-features"

echo "what is refused:"
rm "$built"
check "a program that wants an FPU" exits 1 env PROGRAM="$work/hard" TARGETS="$triple" sh cross/build.sh $triple
last
says "46201000 at 0x400080 in behind"
check "it is not put in place" test ! -e "$built"
for script in build test dist size; do
	check "$script.sh nonsense" exits 2 sh cross/$script.sh nonsense
	last
	says "target 'nonsense' is unknown; known targets:"
	says "  riscv64gc-unknown-linux-musl"
done
check "a name with signs" exits 2 sh cross/build.sh 'mips.*'
check "make, a name with a quote" exits 2 make cross TARGET="x'y"
last
says "target 'x'y' is unknown; known targets:"
check "make, no name" exits 0 make cross TARGET=
last
says "mips64el-unknown-linux-muslabi64"
check "build.sh list" exits 0 sh cross/build.sh list
last
says "mips64el-unknown-linux-muslabi64"

echo "budgets:"
triple=mips-unknown-linux-musl
export TARGETS=$triple COMPONENTS=rust-src-x
program "$work/soft" 32 big 8 3 03e00008
check "a program that is small enough" exits 0 env PROGRAM="$work/soft" sh cross/size.sh --check $triple
last
says "size: 2 passed, 0 failed"
program "$work/large" 32 big 8 3 '24420001*600000'
check "one that is not" exits 1 env PROGRAM="$work/large" sh cross/size.sh --check $triple
last
says "OVER by"
says "$triple, release, is over its budget; the biggest contributors:"
says "behind"
says "2,400,000"
says "size: 1 passed, 1 failed"

# --- memmove ---------------------------------------------------------------------
cat >"$work/moves.c" <<'END'
#include <stdio.h>
#include <string.h>

void *tested_memmove(void *to, const void *from, size_t n);
void *tested_memcpy(void *to, const void *from, size_t n);

static int moves(void *(*move)(void *, const void *, size_t), int apart)
{
	unsigned char expected[256], found[256];

	for (size_t n = 0; n <= 70; n++)
		for (size_t from = 0; from < 40; from++)
			for (size_t to = apart ? 128 : 0; to < (apart ? 144 : 80); to++) {
				for (int i = 0; i < 256; i++)
					expected[i] = found[i] = (unsigned char)(7 * i + 1);
				memmove(expected + to, expected + from, n);
				if (move(found + to, found + from, n) != found + to ||
				    memcmp(expected, found, sizeof(found))) {
					printf("%zu bytes from %zu to %zu\n", n, from, to);
					return 1;
				}
			}
	return 0;
}

int main(void)
{
	return moves(tested_memmove, 0) || moves(tested_memcpy, 1);
}
END
# The names of the tested functions are the C library's.
build_moves() {
	cc -Os -fno-builtin -fno-tree-loop-distribute-patterns -Wno-attributes \
		-c cross/memmove.c -o "$work/memmove.o" &&
		objcopy --redefine-sym memmove=tested_memmove --redefine-sym memcpy=tested_memcpy \
			"$work/memmove.o" &&
		cc "$work/moves.c" "$work/memmove.o" -o "$work/moves"
}
echo "memmove:"
if command -v cc >/dev/null 2>&1 && command -v objcopy >/dev/null 2>&1; then
	check "memmove.c compiles" build_moves
	check "all lengths, alignments and overlaps" "$work/moves"
else
	skipped memmove "cc or objcopy is missing"
fi

echo "what is missing:"
rm -r "$work/target/cross/zig"
check "no zig to be had" exits 1 env PIP_NO_INDEX=1 sh cross/build.sh $triple
last
says "pip could not install ziglang 0.17 from PyPI"

echo "cross: $passed passed, $failed failed"
[ "$failed" = 0 ]
