#!/usr/bin/env python3
"""`culvert update`, killed at its n-th system call, and the order of the calls that matter.

At each moment the name of the program has a whole program, the old or the new one, and the next
update succeeds. For a power cut the trace of a run without faults is checked: the new program
and the record are on the disk before they get their names, and the directory afterwards.

usage: update.py [--long] AGENT     --long: every call; by default those that concern files
"""

import argparse
import base64
import collections
import functools
import hashlib
import http.server
import os
import platform
import re
import shutil
import subprocess
import tempfile
import threading

CALLS = (
    "openat write fsync fdatasync rename renameat renameat2 link linkat unlink unlinkat fchmod"
    " fchown flock execve vfork clone clone3 wait4 waitid"
).split()
NEW = b"#!/bin/sh\necho culvert version 9.9.9\n"
LATE = 60
STRACE = shutil.which("strace")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Feed:
    """A signed feed, and a server for it."""

    def __init__(self, directory, target):
        channel = os.path.join(directory, "feed/stable")
        os.makedirs(channel)
        key = os.path.join(directory, "key.pem")
        run = functools.partial(subprocess.run, check=True, capture_output=True)
        run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key])
        public = run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"]).stdout[-32:]
        number = os.urandom(8)
        encode = lambda rest: base64.b64encode(b"Ed" + number + rest).decode()
        manifest = os.path.join(channel, "manifest")
        digest = hashlib.sha256(NEW).hexdigest()
        with open(manifest, "w") as file:
            file.write(
                "culvert-update 1\nchannel stable\nserial 1\nversion 9.9.9\n"
                f"date 2026-11-01T00:00:00Z\nfile {target} {len(NEW)} {digest} new\n"
            )
        sign = ["openssl", "pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", manifest]
        with open(manifest + ".sig", "w") as file:
            file.write(f"untrusted comment: test\n{encode(run(sign).stdout)}\n")
        with open(os.path.join(channel, "new"), "wb") as file:
            file.write(NEW)
        handler = functools.partial(Quiet, directory=directory)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.config = os.path.join(directory, "agent.yml")
        with open(self.config, "w") as file:
            file.write(
                "version: 3\nagent:\n"
                f"  update_url: http://127.0.0.1:{server.server_port}/feed\n"
                f"  update_key: {encode(public)}\n"
            )


class Trial:
    """A fresh copy of the program."""

    def __init__(self, directory, agent, feed):
        self.dir = os.path.join(directory, "bin")
        shutil.rmtree(self.dir, ignore_errors=True)
        os.mkdir(self.dir)
        self.path = os.path.join(self.dir, "culvert")
        # The update replaces the name and never writes to the file.
        os.link(agent, self.path)
        self.trace = os.path.join(directory, "trace")
        self.words = [self.path, "update", "--yes", "--config", feed.config]

    def update(self, options=()):
        tracer = [STRACE, "-f", "-y", "-s", "9", "-o", self.trace, *options] if options else []
        # Without package managers, whose calls are not of interest.
        env = {"PATH": "/nonexistent", "HOME": "/nonexistent"}
        done = subprocess.run(
            tracer + self.words, env=env, capture_output=True, text=True, timeout=LATE,
            stdin=subprocess.DEVNULL,
        )
        return done

    def read(self, name):
        try:
            with open(os.path.join(self.dir, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None


def order(trace):
    """Returns the calls that matter for a power cut, in their order."""
    found = []
    with open(trace, errors="replace") as file:
        for line in file:
            if " = -1 " in line:
                continue
            call = re.match(r"\d+ +(?:<[^>]*> +)?(\w+)\((.*)", line)
            if not call:
                continue
            name, rest = call.groups()
            names = re.findall(r"/bin(?:/([.\w]+))?[>\"]", rest)
            if name in ("fsync", "fdatasync"):
                found.append(("sync", names[0] or "directory"))
            elif name.startswith("rename"):
                found.append(("rename", *names))
            elif name.startswith("link"):
                found.append(("link", *names))
    return found


EXPECTED = [
    ("sync", ".culvert.new"),
    ("link", "culvert", ".culvert.old"),
    ("sync", ".culvert.update.new"),
    ("rename", ".culvert.update.new", ".culvert.update"),
    ("sync", "directory"),
    ("rename", ".culvert.new", "culvert"),
    ("sync", "directory"),
]


def check(trial, old, what):
    """Returns what is wrong after a killed update; empty if nothing is."""
    now = trial.read("culvert")
    if now not in (old, NEW):
        return f"{what}: the program is not whole: {len(now or b'')} bytes"
    kept = trial.read(".culvert.old")
    if kept not in (None, old):
        return f"{what}: the old program is not whole"
    if now == NEW and kept is None:
        return f"{what}: the old program was not kept"
    if now == NEW and b"to 9.9.9\n" not in (trial.read(".culvert.update") or b""):
        return f"{what}: the new program has no record"
    if now == old:
        again = trial.update()
        if again.returncode or trial.read("culvert") != NEW:
            return f"{what}: the next update fails: {again.stderr}"
        names = sorted(os.listdir(trial.dir))
        if names != [".culvert.old", ".culvert.update", "culvert"]:
            return f"{what}: the next update leaves {names}"
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("agent")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="culvert-update-") as directory:
        agent = os.path.join(directory, "agent")
        shutil.copy(options.agent, agent)
        with open(agent, "rb") as file:
            old = file.read()
        libc = "musl" if b"/lib/ld-linux" not in old and b"GLIBC_" not in old else "gnu"
        feed = Feed(directory, f"{platform.machine()}-unknown-linux-{libc}")

        trial = Trial(directory, agent, feed)
        done = trial.update(["-e", "signal=none"])
        if done.returncode or trial.read("culvert") != NEW:
            raise SystemExit(f"the update without faults fails: {done.stdout}{done.stderr}")
        seen = order(trial.trace)
        if seen != EXPECTED:
            raise SystemExit(f"the order of calls is {seen}")
        # Calls are counted by thread. The n-th of each name is reached in some thread.
        counts = collections.Counter()
        with open(trial.trace, errors="replace") as file:
            calls = collections.Counter(re.findall(r"^(\d+) +(\w+)\(", file.read(), re.M))
        for (_, name), count in calls.items():
            counts[name] = max(counts[name], count)
        tried = replaced = 0
        problems = []
        for name in counts if options.long else [name for name in CALLS if name in counts]:
            for n in range(1, counts[name] + 1):
                trial = Trial(directory, agent, feed)
                inject = f"inject={name}:signal=KILL:when={n}"
                trial.update(["-e", f"trace={name}", "-e", "signal=none", "-e", inject])
                tried += 1
                replaced += trial.read("culvert") == NEW
                problems += filter(None, [check(trial, old, f"{name} {n}")])
        print("\n".join(problems + [f"update: killed {tried} times, {replaced} after the rename"]))
        # Kills before and after the rename, else the injection has no effect.
        if problems or not 0 < replaced < tried:
            raise SystemExit(1)


main()
