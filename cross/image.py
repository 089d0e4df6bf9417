#!/usr/bin/env python3
"""Writes an OCI image for several architectures as one archive: the program and nothing else.

The same input gives the same bytes. No daemon and no registry is needed: `skopeo copy
oci-archive:FILE docker://...` publishes it.

usage: image.py OUT VERSION MTIME TARGET=PROGRAM...
"""

import datetime
import gzip
import hashlib
import io
import json
import sys
import tarfile

# Architectures as in Go, with the variant.
PLATFORMS = {
    "x86_64": ("amd64", ""), "i686": ("386", ""), "armv5te": ("arm", "v5"), "armv7": ("arm", "v7"),
    "aarch64": ("arm64", "v8"), "mips": ("mips", ""), "mipsel": ("mipsle", ""),
    "mips64": ("mips64", ""), "mips64el": ("mips64le", ""), "powerpc64": ("ppc64", ""),
    "powerpc64le": ("ppc64le", ""), "s390x": ("s390x", ""), "riscv64gc": ("riscv64", ""),
}
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Blobs:
    """Contents by their digests."""

    def __init__(self):
        self.blobs = {}

    def add(self, media_type, data, **more):
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}


def encoded(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def archive(entries, mtime):
    """Returns a tar of (name, content, mode); a directory has no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data, mode in entries:
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = mode, mtime
            if data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


def image(blobs, target, program, version, mtime):
    with open(program, "rb") as file:
        data = file.read()
    marker = b"pull a newer image\n"
    names = ["usr", "usr/bin", "usr/share", "usr/share/culvert"]
    entries = [(name, None, 0o755) for name in names] + [("tmp", None, 0o1777)]
    entries += [("usr/bin/culvert", data, 0o755), ("usr/share/culvert/package-managed", marker, 0o644)]
    layer = archive(entries, mtime)
    architecture, variant = PLATFORMS[target.split("-")[0]]
    platform = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
    created = datetime.datetime.fromtimestamp(mtime, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    config = blobs.add(CONFIG, encoded(platform | {
        "created": created,
        "config": {
            "Entrypoint": ["/usr/bin/culvert"], "User": "65534:65534", "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": created, "created_by": "cross/image.py"}],
    }))
    layers = [blobs.add(LAYER, gzip.compress(layer, 9, mtime=0))]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    return blobs.add(MANIFEST, encoded(manifest), platform=platform)


def main():
    out, version, mtime = sys.argv[1], sys.argv[2], int(sys.argv[3])
    blobs = Blobs()
    programs = sorted(argument.split("=", 1) for argument in sys.argv[4:])
    manifests = [image(blobs, target, path, version, mtime) for target, path in programs]
    whole = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
    name = {"org.opencontainers.image.ref.name": version}
    index = {"schemaVersion": 2, "manifests": [blobs.add(INDEX, encoded(whole), annotations=name)]}
    entries = [("blobs", None, 0o755), ("blobs/sha256", None, 0o755)]
    entries += [(f"blobs/sha256/{digest}", data, 0o644) for digest, data in sorted(blobs.blobs.items())]
    entries += [("index.json", encoded(index), 0o644)]
    entries += [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}', 0o644)]
    with open(out, "wb") as file:
        file.write(archive(entries, mtime))


main()
