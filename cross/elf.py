#!/usr/bin/env python3
"""Properties and changes of an ELF file of any architecture, for the cross builds,
where the system's own binutils know the system's own architecture alone.

elf.py strip IN OUT     copies what a loader reads; no symbols, no debuggers' sections
elf.py check FILE [SYMBOLS]
                        fails if the file is not static, or a MIPS file is not soft-float;
                        SYMBOLS is the same program with symbols, which show where
elf.py sizes FILE       bytes by section, by crate and by symbol; wants symbols
elf.py resident FILE    bytes that the loader maps: an upper bound of what the file itself
                        can take in memory, for machines that run under an emulator
"""

import re
import shutil
import struct
import subprocess
import sys
from collections import Counter

PT_LOAD, PT_INTERP = 1, 3
SHT_SYMTAB, SHT_NOBITS, SHT_MIPS_ABIFLAGS = 2, 8, 0x7000002A
SHF_ALLOC, SHF_EXECINSTR = 2, 4
STT_OBJECT, STT_FUNC = 1, 2
EM_MIPS = 8


def fail(text):
    sys.exit("elf.py: " + text)


class Elf:
    """A parsed file: `segments` and `sections` are dictionaries."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        data = self.data
        if data[:4] != b"\x7fELF":
            fail(f"{path} is no ELF file")
        self.wide = data[4] == 2
        self.order = "<" if data[5] == 1 else ">"
        self.word = "Q" if self.wide else "I"
        head = "HHI" + self.word * 3 + "IHHHHHH"
        names = "type machine version entry phoff shoff flags ehsize phentsize phnum shentsize shnum shstrndx"
        self.header = self.unpack(head, 16, names)
        if self.wide:
            names = "type flags offset vaddr paddr filesz memsz align"
            shape = "IIQQQQQQ"
        else:
            names = "type offset vaddr paddr filesz memsz flags align"
            shape = "IIIIIIII"
        h = self.header
        self.segments = [
            self.unpack(shape, h["phoff"] + n * h["phentsize"], names) for n in range(h["phnum"])
        ]
        names = "name type flags addr offset size link info align entsize"
        w = self.word
        self.section_shape = "II" + w * 4 + "II" + w * 2
        self.sections = [
            self.unpack(self.section_shape, h["shoff"] + n * h["shentsize"], names)
            for n in range(h["shnum"])
        ]
        strings = self.sections[h["shstrndx"]]
        for section in self.sections:
            section["text"] = self.string(strings["offset"] + section["name"])

    def unpack(self, shape, offset, names):
        return dict(zip(names.split(), struct.unpack_from(self.order + shape, self.data, offset)))

    def string(self, offset):
        return self.data[offset : self.data.index(0, offset)].decode()

    def symbols(self):
        """(name, address, size, section) of functions and objects; one for each address."""
        table = next((s for s in self.sections if s["type"] == SHT_SYMTAB), None)
        if table is None:
            fail("the file has no symbols; build it with cross/build.sh, which keeps them")
        strings = self.sections[table["link"]]["offset"]
        shape, names = (
            ("IBBHQQ", "name info other shndx value size")
            if self.wide
            else ("IIIBBH", "name value size info other shndx")
        )
        places = {}
        for at in range(table["offset"], table["offset"] + table["size"], table["entsize"]):
            symbol = self.unpack(shape, at, names)
            if symbol["info"] & 15 in (STT_OBJECT, STT_FUNC) and 0 < symbol["shndx"] < len(self.sections):
                name, address = self.string(strings + symbol["name"]), symbol["value"]
                places[address] = (name, address, symbol["size"], self.sections[symbol["shndx"]]["text"])
        return list(places.values())

    def symbol_at(self, address):
        """Returns the last symbol that begins at an address or before it."""
        before = [s for s in self.symbols() if s[1] <= address]
        return max(before, key=lambda s: s[1])[0] if before else "nothing that has a name"


def strip(source, target):
    elf = Elf(source)
    # The loaded sections keep their headers, so that tools for ELF can still read the file. The
    # rest of the file is removed.
    end = max(s["offset"] + s["filesz"] for s in elf.segments if s["type"] == PT_LOAD)
    kept = [s for s in elf.sections if s["flags"] & SHF_ALLOC]
    names = b"\0"
    headers = [dict.fromkeys(elf.sections[0], 0)]
    old = [0]
    for section in kept:
        headers.append(dict(section, name=len(names)))
        names += section["text"].encode() + b"\0"
        old.append(elf.sections.index(section))
    table = dict.fromkeys(elf.sections[0], 0)
    table.update(name=len(names), type=3, offset=end, align=1)
    names += b".shstrtab\0"
    table["size"] = len(names)
    headers.append(table)
    for header in headers[1:-1]:
        header["link"] = old.index(header["link"]) if header["link"] in old else 0
    body = bytearray(elf.data[:end] + names)
    # RISC-V has a segment that is not loaded and describes the attributes of the linker's
    # input.
    for number, segment in enumerate(elf.segments):
        if segment["offset"] + segment["filesz"] > end:
            at = elf.header["phoff"] + number * elf.header["phentsize"]
            body[at : at + 4] = bytes(4)  # PT_NULL
    body += bytes(-len(body) % 8)
    shoff = len(body)
    order = "name type flags addr offset size link info align entsize".split()
    for header in headers:
        body += struct.pack(elf.order + elf.section_shape, *(header[n] for n in order))
    h = elf.header
    struct.pack_into(elf.order + elf.word, body, 40 if elf.wide else 32, shoff)
    struct.pack_into(
        elf.order + "HH", body, h["ehsize"] - 4, len(headers), len(headers) - 1
    )
    with open(target, "wb") as file:
        file.write(body)


def check(path, symbols=None):
    elf = Elf(path)
    if any(s["type"] == PT_INTERP for s in elf.segments):
        fail(f"{path} is not static: it names a dynamic loader")
    if elf.header["machine"] != EM_MIPS:
        return
    flags = next((s for s in elf.sections if s["type"] == SHT_MIPS_ABIFLAGS), None)
    # Seventh byte of the section: 3 is soft-float.
    if flags is None or elf.data[flags["offset"] + 7] != 3:
        fail(f"{path} says that it wants a floating-point unit, which most MIPS routers lack")
    # The attribute may be wrong if the program contains assembly.
    for address, word in mips_float(elf):
        where = Elf(symbols).symbol_at(address) if symbols else "a program without symbols"
        fail(
            f"{path} wants a floating-point unit, which most MIPS routers lack:"
            f" instruction {word:08x} at {address:#x} in {where}"
        )


def mips_float(elf):
    """Returns addresses and words of the instructions that need an FPU."""
    # COP1, COP1X, and to and from memory: LWC1, LDC1, SWC1, SDC1.
    units = {0x11, 0x13, 0x31, 0x35, 0x39, 0x3D}
    for section in elf.sections:
        if section["flags"] & SHF_EXECINSTR and section["type"] != SHT_NOBITS:
            code = elf.data[section["offset"] : section["offset"] + section["size"] // 4 * 4]
            for number, (word,) in enumerate(struct.iter_unpack(elf.order + "I", code)):
                # MOVF and MOVT are among the others: they test a condition of the FPU.
                if word >> 26 in units or word & 0xFC0207FF == 1:
                    yield section["addr"] + number * 4, word


def crate(name):
    """Returns the crate of a symbol. C code is recognized by its well-known prefixes."""
    legacy = re.match(r"_ZN(\d+)", name)
    if legacy:
        start = legacy.end()
        path = name[start : start + int(legacy.group(1))]
        # <X as Y>::f is spelt _$LT$X$u20$as...
        inner = re.match(r"_?\$LT\$(?:\$[A-Za-z0-9]+\$|[^A-Za-z])*([a-z][a-z0-9_]*)", path)
        return inner.group(1) if inner else path
    modern = re.search(r"C(?:s[0-9A-Za-z]*_)?(\d+)_?([a-z][a-z0-9_]*)", name) if name.startswith("_R") else None
    if modern:
        return modern.group(2)[: int(modern.group(1))]
    if re.match(r"(ring_core|p256|p384|bn_|LIMBS|x25519|fiat_|sha\d+_|aes_|gcm_|chacha|poly1305|ecp_|k25519|_?beeu)", name):
        return "ring (C)"
    return "libc and the compiler's runtime"


def readable(names):
    """Returns the names in the source, if this machine has c++filt."""
    filt = shutil.which("c++filt")
    if filt:
        done = subprocess.run([filt], input="\n".join(names), capture_output=True, text=True)
        told = done.stdout.splitlines()
        if done.returncode == 0 and len(told) == len(names):
            names = told
    return [re.sub(r"\[[0-9a-f]{6,16}\]|::h[0-9a-f]{16}$|17h[0-9a-f]{16}E$", "", name) for name in names]


def sizes(path):
    elf = Elf(path)
    print(f"{'section':<44} {'bytes':>10}")
    for section in sorted(elf.sections, key=lambda s: -s["size"]):
        if section["flags"] & SHF_ALLOC and section["type"] != SHT_NOBITS and section["size"] >= 4096:
            print(f"  {section['text']:<42} {section['size']:>10,}")
    symbols = [s for s in elf.symbols() if not s[3].startswith((".bss", ".tbss"))]
    symbols.sort(key=lambda s: -s[2])
    crates = Counter()
    for name, _, size, _ in symbols:
        crates[crate(name)] += size
    print(f"{'crate (generic code counts for its type)':<44} {'bytes':>10}")
    for name, size in crates.most_common(18):
        print(f"  {name:<42} {size:>10,}")
    print(f"{'symbol':<44} {'bytes':>10}")
    biggest = symbols[:20]
    for name, (_, _, size, _) in zip(readable([s[0] for s in biggest]), biggest):
        print(f"  {name[:86]:<86} {size:>10,}")


def resident(path):
    print(sum(s["memsz"] for s in Elf(path).segments if s["type"] == PT_LOAD))


def main():
    commands = {"strip": strip, "check": check, "sizes": sizes, "resident": resident}
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        fail(__doc__)
    commands[sys.argv[1]](*sys.argv[2:])


main()
