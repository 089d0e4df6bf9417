#!/usr/bin/env python3
"""Resident memory of an agent, in KB: idle, and with 64 busy connections.

usage: memory.py [--idle] AGENT EDGE
Runs AGENT beside EDGE (culvert-edge) on loopback; both are ended with it. Prints one
figure a line. The agent must be one of this machine's own kind: under an emulator it
would be the emulator that is measured.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

CONNECTIONS = 64
PATIENCE = 60
EACH = 1 << 20  # bytes of each connection before it is measured


def until(what, ask):
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            sys.exit(f"memory.py: waited in vain for {what}")
        time.sleep(0.05)


def resident(pid):
    """Reads smaps_rollup, which counts pages, or VmRSS, which lacks the parts that each
    processor has not added yet. Only root may read the former."""
    for name, key in ("smaps_rollup", "Rss:"), ("status", "VmRSS:"):
        try:
            with open(f"/proc/{pid}/{name}") as file:
                for line in file:
                    if line.startswith(key):
                        return int(line.split()[1])
        except PermissionError:
            continue


def settled(pid):
    """Returns the highest of a few samples."""
    most = 0
    for _ in range(10):
        most = max(most, resident(pid))
        time.sleep(0.1)
    return most


def echo_server():
    """Listens; a child process echoes."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    pid = os.fork()
    if pid:
        port = listener.getsockname()[1]
        listener.close()
        return pid, port
    poll = selectors.DefaultSelector()
    poll.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in poll.select():
            if key.fileobj is listener:
                poll.register(listener.accept()[0], selectors.EVENT_READ)
                continue
            try:
                data = key.fileobj.recv(65536)
                key.fileobj.sendall(data)
            except OSError:
                data = b""
            if not data:
                poll.unregister(key.fileobj)
                key.fileobj.close()


def busy(pid, address):
    """Returns the RSS during 64 visitors, each with 16 KiB in flight all the time."""
    poll = selectors.DefaultSelector()
    moved, visitors = {}, []
    for _ in range(CONNECTIONS):
        visitor = socket.create_connection(address)
        visitor.sendall(bytes(16384))
        poll.register(visitor, selectors.EVENT_READ)
        moved[visitor] = 0
        visitors.append(visitor)
    most = 0
    looked = 0
    deadline = time.monotonic() + PATIENCE
    while min(moved.values()) < EACH or looked < 10:
        if time.monotonic() > deadline:
            sys.exit(f"memory.py: only {min(moved.values())} bytes came back on a connection")
        for key, _ in poll.select(1):
            data = key.fileobj.recv(65536)
            if not data:
                sys.exit("memory.py: a connection was closed")
            moved[key.fileobj] += len(data)
            key.fileobj.sendall(data)
        if min(moved.values()) > EACH // 2:
            most = max(most, resident(pid))
            looked += 1
    for visitor in visitors:
        visitor.close()
    return most


def main():
    arguments = [a for a in sys.argv[1:] if a != "--idle"]
    if len(arguments) != 2:
        sys.exit(__doc__)
    agent, edge = map(os.path.abspath, arguments)
    children = []
    with tempfile.TemporaryDirectory() as directory:
        try:
            ready = os.path.join(directory, "ready.json")
            any_port = "127.0.0.1:0"
            log = open(os.path.join(directory, "log"), "w")
            children.append(
                subprocess.Popen(
                    [edge, "dev", "--dir", directory, "--ready-file", ready, "--agent-addr", any_port,
                     "--http-addr", any_port, "--https-addr", any_port, "--tcp-ports", "0"],
                    stdout=log, stderr=log, cwd=directory,
                ).pid
            )
            until("the edge", lambda: os.path.exists(ready) and os.path.getsize(ready))
            with open(ready) as file:
                config = os.path.join(directory, json.load(file)["agent_config"])
            echo, port = echo_server()
            children.append(echo)
            process = subprocess.Popen(
                [agent, "tcp", str(port), "--config", config, "--log", "stderr"],
                stdout=subprocess.PIPE, stderr=log, env={"HOME": "/nonexistent"},
            )
            children.append(process.pid)
            line = process.stdout.readline().decode()
            if " -> " not in line:
                with open(log.name) as file:
                    sys.exit("memory.py: the agent did not start: " + line + file.read())
            host, port = line.split(" -> ")[0].removeprefix("tcp://").rsplit(":", 1)
            address = ("127.0.0.1", int(port))
            # The first connection allocates memory that later ones share.
            with socket.create_connection(address) as first:
                first.sendall(b"hello")
                first.recv(5, socket.MSG_WAITALL)
            # A second after the next heartbeat the memory of the start has been released.
            time.sleep(12.5)
            print(settled(process.pid))
            if "--idle" not in sys.argv:
                print(busy(process.pid, address))
        finally:
            for child in reversed(children):
                try:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                except (ProcessLookupError, ChildProcessError):
                    pass


main()
