"""Where the page runs: an upstream that notes what it gets, and either the real edge
and agent or the stand-in of mock.py before it."""

import gzip
import json
import re
import signal
import socket
import struct
import subprocess
import zlib

import mock
from loopback import PATIENCE, Edge, Handler, HttpServer, free_port, serve, until


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

        class Noting(Handler):
            def respond(self):
                body = self.body()
                hits.append((self.command, self.path, list(self.headers.items()), body))
                path = self.path.split("?")[0]
                if path == "/close":
                    self.close_connection = True
                    return
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
                if path != "/gzip":
                    self.answer(out, status, kind, more)
                    return
                self.send_response(status)
                for name, value in [("Content-Type", kind), ("Transfer-Encoding", "chunked"), *more]:
                    self.send_header(name, value)
                self.end_headers()
                for piece in (out[:10], out[10:], b""):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = respond

        self.url = f"http://127.0.0.1:{serve(HttpServer(('127.0.0.1', 0), Noting))}"

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
        self.edge = Edge(f"{binaries}/culvert-edge", work)
        web = free_port()
        config, log = work + "/agent.yml", work + "/agent.log"
        with open(self.edge.ready["agent_config"]) as file:
            text = file.read()
        with open(config, "w") as file:
            file.write(text.replace("agent:\n", f"agent:\n  web_addr: 127.0.0.1:{web}\n", 1))
        command = [f"{binaries}/culvert", "http", upstream.url, "--name", "web", "--url", "http://web.localhost"]
        with open(log, "w") as out:
            self.agent = subprocess.Popen(command + ["--config", config, "--log", "stdout"], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.url = f"http://127.0.0.1:{web}"
        self.port = self.edge.address("http_addr")[1]
        until(PATIENCE, lambda: "started tunnel" in open(log).read() or self.agent.poll() is not None)
        if "started tunnel" not in open(log).read():
            self.close()
            raise SystemExit("the endpoint is not up:\n" + open(log).read())

    def visit(self, raw):
        """Sends the bytes of one request to the edge and reads the answer."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as visitor:
            visitor.sendall(raw.replace(b"\r\n", f"\r\nConnection: close\r\nHost: web.localhost:{self.port}\r\n".encode(), 1))
            while visitor.recv(65536):
                pass

    def close(self):
        self.agent.send_signal(signal.SIGINT)
        try:
            self.agent.wait(15)
        except subprocess.TimeoutExpired:
            self.agent.kill()
        self.edge.stop()
