#!/usr/bin/env python3
"""Writes the packages that are linked into the agent as a CycloneDX 1.5 document.

Only `cargo metadata` is asked, with Cargo.lock as it is. The same commit gives the same bytes.

usage: sbom.py OUT MTIME TARGET
"""

import datetime
import json
import subprocess
import sys
import uuid


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(data):
    """Returns the ids of the packages that the root needs at run time, and the edges."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    # Macros run in the compiler and are not linked.
    is_macro = lambda package: any("proc-macro" in target["kind"] for target in package["targets"])
    macros = {package["id"] for package in data["packages"] if is_macro(package)}
    edges, waiting = {}, [data["resolve"]["root"]]
    while waiting:
        package = waiting.pop()
        if package in edges:
            continue
        normal = lambda dep: any(kind["kind"] is None for kind in dep["dep_kinds"])
        deps = (dep["pkg"] for dep in nodes[package]["deps"] if normal(dep))
        edges[package] = sorted(dep for dep in deps if dep not in macros)
        waiting += edges[package]
    return edges


def checksums():
    """Returns the SHA-256 of each package of Cargo.lock."""
    found, name = {}, {}
    with open("Cargo.lock") as file:
        for line in file:
            key, _, value = line.strip().partition(" = ")
            if line.startswith("[[package]]"):
                name = {}
            name[key] = value.strip('"')
            if key == "checksum":
                found[name["name"], name["version"]] = name["checksum"]
    return found


def component(package, sums, kind):
    purl = f"pkg:cargo/{package['name']}@{package['version']}"
    found = {
        "type": kind, "bom-ref": purl, "name": package["name"], "version": package["version"],
        "purl": purl,
    }
    if package["license"]:
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if (package["name"], package["version"]) in sums:
        digest = sums[package["name"], package["version"]]
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return found


def main():
    out, mtime, target = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    data, sums = metadata(target), checksums()
    packages = {package["id"]: package for package in data["packages"]}
    edges, root = linked(data), data["resolve"]["root"]
    ref = lambda package: component(packages[package], sums, "library")["bom-ref"]
    components = [component(packages[p], sums, "library") for p in edges if p != root]
    time = datetime.datetime.fromtimestamp(mtime, datetime.timezone.utc)
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(packages[root], sums, "application"),
            "properties": [{"name": "target", "value": target}],
        },
        "components": sorted(components, key=lambda c: c["purl"]),
        "dependencies": sorted(
            ({"ref": ref(p), "dependsOn": sorted(map(ref, needs))} for p, needs in edges.items()),
            key=lambda d: d["ref"],
        ),
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    with open(out, "w") as file:
        json.dump(document, file, indent=1, sort_keys=True)
        file.write("\n")


main()
