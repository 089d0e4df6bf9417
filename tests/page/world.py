"""Where the page runs: an upstream that notes what it gets, and either the real edge
and agent or the stand-in of mock.py before it."""

import gzip
import http.server
import json
import os
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import zlib

import mock


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x20\xa0\x90" * width for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Upstream:
    """Answers by the path and remembers every request: (method, path, headers, body)."""

    def __init__(self):
        self.hits = []
        hits = self.hits

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hits.append((self.command, self.path, list(self.headers.items()), body))
                path = self.path.split("?")[0]
                status = int(re.search(r"/status/(\d+)", path).group(1)) if "/status/" in path else 200
                kind, out, more = "text/plain; charset=utf-8", b"hello " + path.encode(), []
                if path == "/json":
                    kind, out = "application/vnd.test+json", b'{"ok":true,"big":12345678901234567890,"list":[1,2]}'
                elif path == "/json/broken":
                    kind, out = "application/json", b'{"a": 1,\n "b": tru}'
                elif path == "/gzip":
                    kind, out = "application/json", gzip.compress(json.dumps({"packed": "yes"}).encode())
                    more = [("Content-Encoding", "gzip")]
                elif path == "/png":
                    kind, out = "image/png", png(40, 30)
                elif path == "/xss":
                    kind = "text/html"
                    out = b"<script>window.pwned=1;alert(1)</script><img src=x onerror=alert(2)><h1>evil</h1>"
                    more = [("X-Answer", "<img src=x onerror=alert(3)>")]
                elif path == "/xss.svg":
                    kind, out = "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(4)</script></svg>'
                elif path == "/counter":
                    kind, out = "application/json", json.dumps({"same": 1, "n": len(hits)}).encode()
                elif path == "/long":
                    out = b"0123456789abcdef" * 65536
                elif path == "/echo":
                    out = body
                self.send_response(status)
                self.send_header("Content-Type", kind)
                chunked = path == "/gzip"
                self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(out)))))
                for name, value in more:
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if chunked:
                    for piece in (out[:10], out[10:]):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    out = b"0\r\n\r\n"
                self.wfile.write(out)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def count(self, path):
        return sum(1 for hit in self.hits if hit[1] == path)


class Mock:
    """The page over the stand-in."""

    def __init__(self, upstream, _work):
        self.agent = mock.Agent(upstream.url)
        self.url = self.agent.url

    def visit(self, raw):
        self.agent.send(raw)

    def close(self):
        pass


class Real:
    """The page of the real agent, through the real edge."""

    def __init__(self, upstream, work, binaries):
        self.children = []
        ready = work + "/ready.json"
        self.start(work + "/edge.log", f"{binaries}/culvert-edge", "dev", "--dir", work + "/edge", "--ready-file", ready,
                   "--agent-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--https-addr", "127.0.0.1:0", "--tcp-ports", "0")
        self.wait(lambda: os.path.exists(ready) and os.path.getsize(ready), "the edge is ready")
        with open(ready) as file:
            told = json.load(file)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.web = free.getsockname()[1]
        config = work + "/agent.yml"
        with open(told["agent_config"]) as file:
            text = file.read()
        with open(config, "w") as file:
            file.write(text.replace("agent:\n", f"agent:\n  web_addr: 127.0.0.1:{self.web}\n", 1))
        log = work + "/agent.log"
        self.start(log, f"{binaries}/culvert", "http", upstream.url, "--name", "web", "--url", "http://web.localhost", "--config", config, "--log", "stdout")
        self.url = f"http://127.0.0.1:{self.web}"
        self.edge = int(re.search(r":(\d+)$", told["http_addr"]).group(1))
        self.wait(lambda: "started tunnel" in open(log).read() or " -> " in open(log).read(), "the endpoint is up")

    def start(self, log, *command):
        with open(log, "w") as out:
            self.children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT))

    def wait(self, condition, what):
        until = time.monotonic() + 30
        while not condition():
            if time.monotonic() > until or any(child.poll() is not None for child in self.children):
                self.close()
                raise SystemExit(f"not within 30 s: {what}")
            time.sleep(0.05)

    def visit(self, raw):
        """Sends the bytes of one request to the edge and reads the answer."""
        with socket.create_connection(("127.0.0.1", self.edge), 10) as visitor:
            visitor.sendall(raw.replace(b"\r\n", f"\r\nConnection: close\r\nHost: web.localhost:{self.edge}\r\n".encode(), 1))
            while visitor.recv(65536):
                pass

    def close(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGINT)
        for child in self.children:
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
