#!/usr/bin/env python3
"""Creates an archive for the kernel's first root, compressed with gzip.

usage: cpio.py ARCHIVE DIRECTORY [PATH=OWNER:MODE ...]
All files belong to root, independent of the calling user, except for the named paths:
PATH is below DIRECTORY, OWNER is a number, MODE is octal.
"""

import gzip
import os
import stat
import sys


def record(name, mode, owner, data, number):
    """One file in the format `newc`."""
    name = name.encode() + b"\0"
    fields = [number, mode, owner, owner, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return padded(head) + padded(data)


def padded(data):
    return data + bytes(-len(data) % 4)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    archive, directory = sys.argv[1:3]
    special = dict(argument.split("=") for argument in sys.argv[3:])
    names = []
    for base, directories, files in os.walk(directory):
        names += [os.path.relpath(os.path.join(base, name), directory) for name in directories + files]
    with gzip.GzipFile(archive, "wb", compresslevel=1, mtime=0) as out:
        for number, name in enumerate(sorted(names), 1):
            path = os.path.join(directory, name)
            mode, owner, data = os.lstat(path).st_mode, 0, b""
            if name in special:
                owner, permissions = special.pop(name).split(":")
                owner, mode = int(owner), stat.S_IFMT(mode) | int(permissions, 8)
            if stat.S_ISLNK(mode):
                data = os.readlink(path).encode()
            elif stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    data = file.read()
            out.write(record(name, mode, owner, data, number))
        out.write(record("TRAILER!!!", 0, 0, b"", 0))
    if special:
        sys.exit(f"cpio.py: not in {directory}: {', '.join(special)}")


main()
