"""Common parts of the suites in Python: an edge, upstreams and waiting, on loopback.

A suite's run.sh has this directory in PYTHONPATH. Standard library only."""

import fcntl
import http.server
import json
import os
import socket
import socketserver
import struct
import subprocess
import threading
import time

PATIENCE = 30  # seconds for anything that should happen


class Failed(Exception):
    """An expectation was not met."""


def require(condition, message):
    if not condition:
        raise Failed(message)


def until(limit, ask):
    """Calls it until the result is true, for at most `limit` seconds. Returns the last result."""
    end = time.monotonic() + limit
    while True:
        answer = ask()
        if answer or time.monotonic() > end:
            return answer
        time.sleep(0.05)


def eventually(what, attempt, limit=PATIENCE):
    """Calls attempt() until it neither raises nor returns None. Returns its result."""
    last = None

    def once():
        nonlocal last
        try:
            value = attempt()
            return None if value is None else (value,)
        except (OSError, Failed) as error:
            last = error
            return None

    found = until(limit, once)
    if not found:
        raise Failed(f"{what}: not within {limit} s; last: {last!r}")
    return found[0]


def loopback_up():
    """A fresh network namespace has its loopback interface down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, 0x8913, request))[1]
        if not flags & 1:
            fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


# --- upstreams ------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive; GET answers `hello PATH`, POST its body."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, body, status=200, kind="text/plain", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self):
        self.answer(f"hello {self.path}".encode())

    def do_POST(self):
        self.answer(self.body())

    def log_message(self, *_):
        pass


class Quiet:
    """For servers whose connections are meant to break."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, *_):
        pass


class HttpServer(Quiet, http.server.ThreadingHTTPServer):
    pass


class TcpServer(Quiet, socketserver.ThreadingTCPServer):
    pass


class Echo(socketserver.BaseRequestHandler):
    """Echoes; its end follows the visitor's."""

    def handle(self):
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except OSError:
            pass


def serve(server):
    """Serves in a thread that ends with this process; returns the port."""
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server.server_address[1]


def serve_http(handler=Handler):
    return serve(HttpServer(("127.0.0.1", 0), handler))


def serve_echo():
    return serve(TcpServer(("127.0.0.1", 0), Echo))


# --- the edge -------------------------------------------------------------------


class Edge:
    """`culvert-edge dev` with its files in a directory. After kill() or stop(), start() starts
    it again at the same addresses."""

    def __init__(self, binary, directory, *more):
        self.command = [binary, "dev", "--dir", directory + "/edge", *more]
        self.directory = directory
        self.log = directory + "/edge.log"
        self.ready = None
        self.start()

    def start(self):
        ready = self.directory + "/ready.json"
        if os.path.exists(ready):
            os.remove(ready)
        command = self.command + ["--ready-file", ready]
        for name in ("agent_addr", "http_addr", "https_addr"):
            command += ["--" + name.replace("_", "-"), self.ready[name] if self.ready else "127.0.0.1:0"]
        command += ["--tcp-ports", self.ready["tcp_ports"] if self.ready else "0"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(PATIENCE, lambda: os.path.exists(ready) or self.process.poll() is not None)
        if not os.path.exists(ready):
            self.kill()
            raise SystemExit(f"the edge is not ready; its status is {self.process.returncode}:\n{self.text()}")
        with open(ready, encoding="utf-8") as file:
            self.ready = json.load(file)
        with open(self.ready["authtoken_file"], encoding="utf-8") as file:
            self.token = file.read().strip()

    def text(self):
        """Returns its output."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def address(self, name):
        """Returns host and port of a listener: agent_addr, http_addr, https_addr."""
        host, port = self.ready[name].rsplit(":", 1)
        return host, int(port)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
