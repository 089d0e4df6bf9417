#!/usr/bin/env python3
"""Writes an .apk package: version 2 of the format for Alpine, version 3 for OpenWrt 25.12 and newer.

The same input gives the same bytes: names are sorted, times are given, owners are root. The
packages are not signed: the owner of a repository signs its index.

usage: apk.py 2|3 OUT TREE SCRIPTS MTIME KEY=VALUE...
  TREE     directory with the files
  SCRIPTS  directory with pre-install, post-install, pre-deinstall, post-deinstall (each optional)
  keys     name version arch description license depends (separated by blanks)
"""

import gzip
import hashlib
import io
import os
import struct
import sys
import tarfile
import zlib

SCRIPTS = ["pre-install", "post-install", "pre-deinstall", "post-deinstall"]


def walk(tree):
    """Returns the directories below a tree and the files of each, sorted; the top is ''."""
    found = {}
    for directory, names, files in os.walk(tree):
        names.sort()
        found[os.path.relpath(directory, tree).replace(".", "", 1) if directory == tree else
              os.path.relpath(directory, tree)] = sorted(files)
    return dict(sorted(found.items()))


def read(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


def mode(*path):
    return os.stat(os.path.join(*path)).st_mode & 0o7777


def scripts(directory):
    """Returns the scripts that exist, by name."""
    names = [name for name in SCRIPTS if os.path.exists(os.path.join(directory, name))]
    return {name: read(directory, name) for name in names}


# --- version 2: three gzip streams (here two: without a signature), each of a part of a tar ---


def member(tar, name, data, permissions, mtime, checksum=False, directory=False):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), permissions, mtime
    info.uname = info.gname = "root"
    if directory:
        info.type = tarfile.DIRTYPE
    if checksum:
        info.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(data).hexdigest()}
    tar.addfile(info, io.BytesIO(data))


def packed(fill, last):
    """Returns a gzip stream with the members that `fill` adds; the end of the tar if `last`."""
    buffer = io.BytesIO()
    tar = tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT)
    fill(tar)
    size = tar.offset
    tar.close()
    data = buffer.getvalue() if last else buffer.getvalue()[:size]
    return gzip.compress(data, 9, mtime=0)


def version_2(out, tree, script_dir, mtime, info):
    def data(tar):
        for directory, files in walk(tree).items():
            if directory:
                member(tar, directory, b"", 0o755, mtime, directory=True)
            for name in files:
                path = os.path.join(directory, name)
                member(tar, path, read(tree, path), mode(tree, path), mtime, checksum=True)

    files = packed(data, True)
    size = sum(len(read(tree, d, f)) for d, names in walk(tree).items() for f in names)
    lines = [f"pkgname = {info['name']}", f"pkgver = {info['version']}"]
    lines += [f"pkgdesc = {info['description']}", f"builddate = {mtime}", f"size = {size}"]
    lines += [f"arch = {info['arch']}", f"license = {info['license']}", f"origin = {info['name']}"]
    lines += [f"depend = {name}" for name in info.get("depends", "").split()]
    lines += [f"datahash = {hashlib.sha256(files).hexdigest()}"]

    def control(tar):
        member(tar, ".PKGINFO", "".join(line + "\n" for line in lines).encode(), 0o644, mtime)
        for name, text in scripts(script_dir).items():
            member(tar, f".{name}", text, 0o755, mtime)

    with open(out, "wb") as file:
        file.write(packed(control, False) + files)


# --- version 3: a tree of values (ADB), and the contents of the files behind it ---

INT, INT_32, INT_64 = 0x10000000, 0x20000000, 0x30000000
BLOB_8, BLOB_16, BLOB_32 = 0x80000000, 0x90000000, 0xA0000000
ARRAY, OBJECT = 0xD0000000, 0xE0000000


class Adb:
    """Values in the order in which they are referred to. Offsets count from the header."""

    def __init__(self):
        self.data = bytearray(8)
        self.known = {}

    def put(self, data, align):
        if (data, align) not in self.known:
            self.data += bytes(-len(self.data) % align)
            self.known[data, align] = len(self.data)
            self.data += data
        return self.known[data, align]

    def number(self, value):
        if value < 0x10000000:
            return INT | value
        if value < 1 << 32:
            return INT_32 | self.put(struct.pack("<I", value), 4)
        return INT_64 | self.put(struct.pack("<Q", value), 4)

    def blob(self, value):
        value = value.encode() if isinstance(value, str) else value
        if not value:
            return 0
        for limit, kind, form in [(1 << 8, BLOB_8, "<B"), (1 << 16, BLOB_16, "<H"), (1 << 32, BLOB_32, "<I")]:
            if len(value) < limit:
                size = struct.pack(form, len(value))
                return kind | self.put(size + value, len(size))
        raise ValueError("too long")

    def slots(self, kind, values):
        while values and values[-1] == 0:
            values = values[:-1]
        if not values:
            return 0
        return kind | self.put(struct.pack(f"<{len(values) + 1}I", len(values) + 1, *values), 4)

    def object(self, fields):
        return self.slots(OBJECT, [fields.get(n, 0) for n in range(1, max(fields, default=0) + 1)])

    def array(self, values):
        return self.slots(ARRAY, values)

    def finish(self, root):
        self.data[:8] = struct.pack("<BBHI", 0, 0, 0, root)
        return bytes(self.data)


def block(kind, data):
    size = len(data) + 4
    return struct.pack("<I", kind << 30 | size) + data + bytes(-size % 8)


def version_3(out, tree, script_dir, mtime, info):
    def build(unique):
        adb = Adb()
        acl = lambda bits: adb.object({1: adb.number(bits), 2: adb.blob("root"), 3: adb.blob("root")})
        depends = sorted(info.get("depends", "").split())
        installed = sum(len(read(tree, d, f)) for d, names in walk(tree).items() for f in names)
        about = adb.object({
            1: adb.blob(info["name"]), 2: adb.blob(info["version"]), 3: adb.blob(unique),
            4: adb.blob(info["description"]), 5: adb.blob(info["arch"]),
            6: adb.blob(info["license"]), 7: adb.blob(info["name"]), 11: adb.number(mtime),
            12: adb.number(max(installed, 1)),
            15: adb.array([adb.object({1: adb.blob(name)}) for name in depends]),
        })
        paths = []
        for directory, files in walk(tree).items():
            entries = []
            for name in files:
                data = read(tree, directory, name)
                entries.append(adb.object({
                    1: adb.blob(name), 2: acl(mode(tree, directory, name)),
                    3: adb.number(len(data)), 4: adb.number(mtime),
                    5: adb.blob(hashlib.sha256(data).digest()),
                }))
            paths.append(adb.object({1: adb.blob(directory), 2: acl(0o755), 3: adb.array(entries)}))
        texts = {2: "pre-install", 3: "post-install", 4: "pre-deinstall", 5: "post-deinstall"}
        found = scripts(script_dir)
        texts = {n: adb.blob(found[name]) for n, name in texts.items() if name in found}
        package = {1: about, 2: adb.array(paths)}
        if texts:
            package[3] = adb.object(texts)
        return adb.finish(adb.object(package))

    # The number of the package is the digest of the whole with zeros in its place.
    unique = hashlib.sha256(build(bytes(20))).digest()[:20]
    body = struct.pack("<II", 0x2E424441, 0x676B6370) + block(0, build(unique))
    for n, (directory, files) in enumerate(walk(tree).items(), 1):
        for m, name in enumerate(files, 1):
            data = read(tree, directory, name)
            if data:
                body += block(2, struct.pack("<II", n, m) + data)
    # `ADBd`: the same, compressed by deflate.
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    with open(out, "wb") as file:
        file.write(b"ADBd" + compressor.compress(body) + compressor.flush())


def main():
    version, out, tree, script_dir, mtime = sys.argv[1:6]
    info = dict(argument.split("=", 1) for argument in sys.argv[6:])
    {"2": version_2, "3": version_3}[version](out, tree, script_dir, int(mtime), info)


main()
