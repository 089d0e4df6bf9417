"""Compares how the edge reads HTTP/1 payloads with nginx, Node and Python's library.

usage: compare.py VERDICTS, the program `http1-verdicts` of tests/fuzz. Prints where the
edge accepts what another refuses. Fails if two readers accept a payload and see another
end of a message, in the payload or in the output of the edge."""

import functools
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import payloads
from loopback import Failed, eventually, free_port, require

HERE = os.path.dirname(os.path.abspath(__file__))
SILENCE = 4  # seconds that a reader may take for a payload


class Recorder:
    """Requests by the port of the client that sent them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = {}

    def add(self, port, request):
        with self.lock:
            self.seen.setdefault(port, []).append(request)

    def of(self, port):
        with self.lock:
            return list(self.seen.get(port, []))


def exchange(port, payload, used=None):
    """Sends a payload, ends its side, waits for the end. Returns its own port and the response."""
    while True:
        peer = socket.create_connection(("127.0.0.1", port), timeout=SILENCE)
        own = peer.getsockname()[1]
        if used is None or own not in used:
            break
        peer.close()
    if used is not None:
        used.add(own)
    answer = b""
    with peer:
        try:
            peer.sendall(payload)
            peer.shutdown(socket.SHUT_WR)
            while piece := peer.recv(65536):
                answer += piece
        except OSError:
            pass
    return own, answer


# --- readers of requests ----------------------------------------------------------


class Python(http.server.BaseHTTPRequestHandler):
    """Python's http.server, with bodies as its own client reads them."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE

    def handle_any(self):
        body = self.read_body()
        if body is None:
            self.close_connection = True
            return
        self.server.recorder.add(self.client_address[1], [self.command, self.path, body.hex()])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def read_body(self):
        if "chunked" in (self.headers.get("Transfer-Encoding") or "").lower():
            # The library has a decoder for its client only.
            response = http.client.HTTPResponse(_Reader(self.rfile))
            response.chunked, response.chunk_left, response.length = True, None, None
            try:
                return response.read()
            except (http.client.HTTPException, OSError, ValueError, OverflowError, MemoryError):
                return None
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            return None
        body = self.rfile.read(length) if length >= 0 else None
        return body if body is None or len(body) == length else None

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.handle_any
        raise AttributeError(name)

    def log_message(self, *_):
        pass


class _Reader:
    """The file of a request, for a response: it must not be closed."""

    def __init__(self, file):
        self.file = file

    def makefile(self, _):
        return self

    def __getattr__(self, name):
        return getattr(self.file, name)

    def close(self):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


def serve(handler):
    server = Server(("127.0.0.1", 0), handler)
    server.recorder = Recorder()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1], server.recorder


class BehindNginx(socketserver.StreamRequestHandler):
    """Records the requests of nginx: one on each connection, with a length."""

    timeout = SILENCE

    def handle(self):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        length = re.search(rb"(?im)^content-length: (\d+)\r$", head)
        body = self.rfile.read(int(length[1]) if length else 0)
        port = int(re.search(rb"(?im)^x-client: (\d+)\r$", head)[1])
        self.server.recorder.add(port, [method, target, body.hex()])
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")


NGINX = """
daemon off; worker_processes 2; pid {dir}/pid; error_log {dir}/error.log; events {{}}
http {{
    access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
    uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
    client_header_timeout 2s; client_body_timeout 2s; keepalive_timeout 2s; lingering_close off;
    proxy_read_timeout 2s; proxy_ignore_client_abort on; merge_slashes off;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_set_header X-Client $remote_port; proxy_pass http://127.0.0.1:{upstream}; }}
    }}
    server {{
        listen 127.0.0.1:{responses};
        location / {{ proxy_http_version 1.1; proxy_pass http://127.0.0.1:$arg_port; }}
    }}
}}
"""


def start_nginx(directory, upstream):
    port, responses = free_port(), free_port()
    path = os.path.join(directory, "nginx.conf")
    with open(path, "w") as file:
        file.write(NGINX.format(dir=directory, port=port, responses=responses, upstream=upstream))
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    process = subprocess.Popen([program, "-p", directory, "-c", path], stderr=subprocess.DEVNULL)
    eventually("nginx", lambda: socket.create_connection(("127.0.0.1", port), 1).close() or True)
    return process, port, responses


def start_node(recorder):
    command = ["node", os.path.join(HERE, "server.mjs")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    port = json.loads(process.stdout.readline())

    def read():
        for line in process.stdout:
            client, *request = json.loads(line)
            recorder.add(client, request)

    threading.Thread(target=read, daemon=True).start()
    return process, port


# --- comparison -------------------------------------------------------------------


def show(payload):
    text = repr(payload)[2:-1]
    return text if len(text) < 200 else text[:160] + "..." + text[-36:]


def verdicts(program, kind, texts):
    lines = "".join(f"{kind}{text.hex()}\n" for text in texts)
    done = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    require(len(found) == len(texts), "a verdict for each payload")
    return found


def path_of(target):
    """Turns a URL into a path, like the edge: others keep it, for the same request."""
    return re.sub(r"(?i)^https?://[^/?]*", "", target) or "/"


def normal(request):
    method, target, body = request
    return [method, path_of(target), body]


class Report:
    def __init__(self):
        self.faults, self.stricter, self.looser = [], 0, []

    def compare(self, what, payload, ours, reader, theirs):
        """Compares both lists of requests up to the end of the shorter one."""
        for mine, other in zip(ours, theirs):
            if normal(mine) != normal(other):
                self.faults.append(f"{what}: {reader} reads {other}, the edge {mine}: {show(payload)}")
                return
        if len(ours) > len(theirs):
            self.looser.append(f"{reader}: {what}: {show(payload)}")
        self.stricter += len(theirs) > len(ours)


def compare_requests(program, readers, report):
    texts = payloads.requests()
    ours = verdicts(program, "q", texts)
    passed = [bytes.fromhex(verdict["forwarded"]) for verdict in ours]
    for name, (port, recorder) in readers.items():
        used = set()
        with ThreadPoolExecutor(16) as pool:
            raw = list(pool.map(lambda text: exchange(port, text, used)[0], texts))
            forwarded = list(pool.map(lambda text: exchange(port, text, used)[0] if text else 0, passed))
        last = exchange(port, payloads.BEHIND, used)[0]
        eventually(f"the last request at {name}", lambda: recorder.of(last) or None)
        total = sum(len(requests) for requests in recorder.seen.values())
        require(total > 150, f"{name} saw {total} requests")
        for text, verdict, client in zip(texts, ours, raw):
            report.compare("a request", text, verdict["requests"], name, recorder.of(client))
        for text, verdict, client in zip(passed, ours, forwarded):
            report.compare("a request that the edge passes on", text, verdict["requests"], name, recorder.of(client))
    accepted = sum(1 for verdict in ours if verdict["requests"])
    require(accepted > 60, f"the edge accepts {accepted}")
    print(f"{len(texts)} payloads of requests, {accepted} with a request that the edge accepts")


class Scripted:
    """An upstream on a port of its own that sends one payload to each client."""

    def __init__(self, payload):
        self.payload = payload
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.send, args=(peer,), daemon=True).start()

    def send(self, peer):
        with peer:
            try:
                peer.settimeout(SILENCE)
                while b"\r\n\r\n" not in peer.recv(65536):
                    pass
                peer.sendall(self.payload)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass
            except OSError:
                pass

    def close(self):
        self.listener.close()


def python_get(port, path="/"):
    """Status and body, or None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SILENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return [response.status, response.read().hex()]
    except (http.client.HTTPException, OSError, ValueError, OverflowError, MemoryError):
        return None
    finally:
        connection.close()


def python_second(port):
    """Returns the first line after the first response on a connection, or None."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=SILENCE) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            file = peer.makefile("rb")
            first = http.client.HTTPResponse(_Reader(file), method="GET")
            first.begin()
            first.read()
            return file.readline().decode("latin-1").strip()
    except (http.client.HTTPException, OSError, ValueError, OverflowError, MemoryError):
        return None


# Known differences of a reader of responses, with the reason why they are harmless: only the
# edge reads the upstream's bytes, and the bytes that it passes on are checked separately.
KNOWN = [
    ("Python", "a bare CR ends a line for it", lambda head, _: re.search(rb"\r(?!\n)", head)),
    ("Python", "a malformed line ends the head for it", lambda head, _: malformed(head)),
    ("Python", "it knows chunked alone, without a blank", lambda head, _: odd_coding(head)),
    ("Python", "it reads chunks behind 204 and 304", lambda _, status: status in (204, 304)),
    ("Python", "of interim responses it knows 100 alone", lambda _, status: status == 103),
    ("Node", "before 20 a bare CR ends a line for it", lambda head, _: old_node() and re.search(rb"\r(?!\n)", head)),
    ("Node", "before 20 it reads a body behind 204", lambda _, status: old_node() and status == 204),
    ("nginx", "of interim responses it knows 100 alone", lambda _, status: status == 103),
    ("nginx", "a tab is not a blank for it", lambda head, _: b":\t" in head),
]


@functools.cache
def old_node():
    """Returns whether Node is older than 20, as in Debian 12."""
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(version.strip().removeprefix("v").split(".")[0]) < 20


def malformed(head):
    """Returns whether a header line is not a field."""
    lines = re.split(rb"\r?\n", head)[1:]
    return any(line and not re.match(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:", line) for line in lines)


def odd_coding(head):
    codings = re.findall(rb"(?im)^transfer-encoding:[ \t]*([^\r\n]*)", head)
    return codings and [coding.lower() for coding in codings] != [b"chunked"]


def is_known(reader, payload):
    head = re.split(rb"\r?\n\r?\n", payload, maxsplit=1)[0]
    status = re.match(rb"HTTP/1\.\d (\d{3})", head)
    status = int(status[1]) if status else 0
    return any(name == reader and test(head, status) for name, _, test in KNOWN)


SECOND = b"HTTP/1.1 299 second\r\nContent-Length: 0\r\n\r\n"


def compare_responses(program, nginx_port, report):
    texts = payloads.responses()
    ours = verdicts(program, "a", texts)
    node = subprocess.Popen(["node", os.path.join(HERE, "client.mjs")], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)

    def node_get(port):
        node.stdin.write(f"{port}\n")
        node.stdin.flush()
        return json.loads(node.stdout.readline())

    def nginx_get(port):
        got = python_get(nginx_port, f"/?port={port}")
        return None if got is None or got[0] == 502 else got

    refused = 0
    for text, verdict in zip(texts, ours):
        direct = Scripted(text)
        readers = {"Python": python_get(direct.port), "nginx": nginx_get(direct.port)}
        readers["Node"] = node_get(direct.port)
        direct.close()
        if not verdict["whole"]:
            refused += 1
            report.stricter += any(readers.values())
            continue
        forwarded = bytes.fromhex(verdict["forwarded"])
        passed = Scripted(forwarded)
        through = {"Python": python_get(passed.port), "Node": node_get(passed.port)}
        passed.close()
        for name, seen in through.items():
            if seen is None and not is_known(name, forwarded):
                report.looser.append(f"{name}: a response that the edge passes on: {show(text)}")
        if None not in through.values() and through["Python"] != through["Node"]:
            if not is_known("Python", forwarded):
                report.faults.append(f"what the edge passes on: {through}: {show(text)}")
        head = forwarded.split(b"\r\n\r\n", 1)[0]
        if b"\r\nConnection: " not in head and not is_known("Python", forwarded):
            pair = Scripted(forwarded + SECOND)
            second = python_second(pair.port)
            pair.close()
            if second != "HTTP/1.1 299 second":
                report.faults.append(f"behind what the edge passes on: {second!r}: {show(text)}")
        seen = through["Node"] or through["Python"]
        for name, other in readers.items():
            if other is None:
                report.looser.append(f"{name}: a response: {show(text)}")
            elif seen is not None and other != seen and not is_known(name, text):
                report.faults.append(f"a response: {name} reads {other}, through the edge {seen}: {show(text)}")
    node.stdin.close()
    node.wait()
    require(len(texts) - refused > 100, f"the edge passes {len(texts) - refused} responses on")
    print(f"{len(texts)} payloads of responses, {refused} refused by the edge")


def main():
    program = sys.argv[1]
    report = Report()
    with tempfile.TemporaryDirectory() as directory:
        behind, seen_by_nginx = serve(BehindNginx)
        nginx, nginx_requests, nginx_responses = start_nginx(directory, behind)
        seen_by_node = Recorder()
        node, node_port = start_node(seen_by_node)
        try:
            readers = {
                "nginx": (nginx_requests, seen_by_nginx),
                "Node": (node_port, seen_by_node),
                "Python": serve(Python),
            }
            compare_requests(program, readers, report)
            compare_responses(program, nginx_responses, report)
        finally:
            for process in (nginx, node):
                process.terminate()
                process.wait()
    for line in sorted(set(report.looser)):
        print(f"accepted here, refused by {line}")
    print(f"refused here, accepted by another: {report.stricter}")
    for fault in report.faults:
        print(f"FAULT: {fault}")
    if report.faults:
        raise Failed(f"{len(report.faults)} payloads have another end for another reader")
    print("no reader that accepts what the edge accepts sees another end")


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"failed: {error}")
