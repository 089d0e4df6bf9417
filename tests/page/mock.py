"""A mock of the agent's web server: the page and the routes that it uses, over a
store of exchanges. For work on the page only; the tests drive the real agent."""

import base64
import datetime
import gzip
import http.client
import http.server
import itertools
import json
import pathlib
import queue
import threading
import time

PAGE = pathlib.Path(__file__).resolve().parents[2] / "src/web/page"


def captured(number, tunnel, request, response, duration, remote="203.0.113.7"):
    """Returns an entry of the API, from the bytes of both directions."""

    def side(raw):
        head = raw.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        headers = {}
        for line in head[1:]:
            name, value = line.split(":", 1)
            headers.setdefault(name, []).append(value.strip())
        return head[0], headers, base64.b64encode(raw).decode()

    first, headers, raw = side(request)
    method, uri, proto = first.split(" ", 2)
    entry = {
        "uri": f"/api/requests/http/{number:016x}", "id": f"{number:016x}", "tunnel_name": tunnel,
        "remote_addr": remote, "start": datetime.datetime.now().astimezone().isoformat(), "duration": duration,
        "request": {"method": method, "proto": proto, "uri": uri, "headers": headers, "raw": raw}, "response": None,
    }
    if response:
        first, headers, raw = side(response)
        proto, status = first.split(" ", 1)
        entry["response"] = {"status": status, "status_code": int(status[:3]), "proto": proto, "headers": headers, "raw": raw}
    return entry


class Agent:
    """The store, its listeners, and the server."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.entries = []
        self.numbers = itertools.count(1)
        self.listeners = []
        self.lock = threading.Lock()
        metrics = {"count": 12, "gauge": 1, "rate1": 0.21, "rate5": 0.11, "rate15": 0.04, "p50": 4.1e6, "p90": 3.2e7, "p95": 5e7, "p99": 1.2e9}
        self.tunnels = {"web": {
            "name": "web", "ID": "1", "uri": "/api/tunnels/web", "public_url": "http://web.localhost:4080", "proto": "http",
            "config": {"addr": upstream, "inspect": True}, "metrics": {"conns": metrics, "http": metrics},
        }}
        agent = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def reply(self, status, body=None, **headers):
                data = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                if body is not None:
                    self.send_header("Content-Type", "application/json")
                if status != 204:
                    self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                path = self.path.split("?")[0]
                if path in ("/", "/inspect/http", "/status"):
                    data = (PAGE / "page.html.gz").read_bytes()
                    self.send_response(200)
                    self.send_header("Content-Type", "text/html; charset=utf-8")
                    self.send_header("Content-Encoding", "gzip")
                    self.send_header("Content-Length", str(len(data)))
                    self.send_header("Content-Security-Policy", (PAGE / "page.csp").read_text())
                    self.end_headers()
                    self.wfile.write(data)
                elif path == "/api/events":
                    self.events()
                elif path == "/api/requests/http":
                    with agent.lock:
                        self.reply(200, {"requests": agent.entries[::-1][:500], "uri": path})
                elif path.startswith("/api/requests/http/"):
                    with agent.lock:
                        found = [entry for entry in agent.entries if entry["uri"] == path]
                    self.reply(200, found[0]) if found else self.reply(404, {"msg": "no such request"})
                elif path == "/api/status":
                    self.reply(200, {"status": "online", "agent_version": "0.1.0", "uri": path, "session": {"legs": [{"region": "eu", "latency": "23ms"}]}})
                elif path == "/api/tunnels":
                    self.reply(200, {"tunnels": list(agent.tunnels.values()), "uri": path})
                elif path == "/api/endpoints":
                    self.reply(200, {"endpoints": [
                        {"name": t["name"], "uri": "/api/endpoints/" + t["name"], "url": t["public_url"], "upstream": {"url": t["config"]["addr"]}}
                        for t in agent.tunnels.values()]})
                else:
                    self.reply(404, {"msg": "not found"})

            def events(self):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                mine = queue.Queue()
                agent.listeners.append(mine)
                try:
                    while True:
                        name, data = mine.get()
                        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
                        self.wfile.flush()
                except OSError:
                    agent.listeners.remove(mine)

            def body(self):
                return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")

            def do_POST(self):
                body = self.body()
                if self.path == "/api/requests/http":
                    with agent.lock:
                        found = [entry for entry in agent.entries if entry["id"] == body["id"]]
                    if not found:
                        return self.reply(404, {"msg": "no such request"})
                    raw = base64.b64decode(found[0]["request"]["raw"])
                    change = body.get("request")
                    if change:
                        content = base64.b64decode(change["body"])
                        lines = [f"{change['method']} {change['uri']} HTTP/1.1"]
                        lines += [f"{name}: {value}" for name, values in change["headers"].items() for value in values]
                        if content:
                            lines.append(f"Content-Length: {len(content)}")
                        raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + content
                    self.reply(204, X_Culvert_Request_Id=agent.send(raw, found[0]["tunnel_name"]))
                elif self.path == "/api/endpoints":
                    name = body["name"]
                    agent.tunnels[name] = {
                        "name": name, "uri": "/api/tunnels/" + name, "public_url": body.get("url", f"http://{name}.localhost:4080"),
                        "proto": "http", "config": {"addr": body["upstream"]["url"], "inspect": True}, "metrics": {}}
                    self.reply(201, {})
                else:
                    self.reply(404, {"msg": "not found"})

            def do_DELETE(self):
                if self.path == "/api/requests/http":
                    with agent.lock:
                        agent.entries.clear()
                elif self.path.startswith("/api/tunnels/"):
                    agent.tunnels.pop(self.path.rsplit("/", 1)[1], None)
                self.reply(204)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # A page that is closed also closes its connections.
        self.server.handle_error = lambda *_: None
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def put(self, entry):
        with self.lock:
            self.entries = [other for other in self.entries if other["id"] != entry["id"]] + [entry]
        for listener in list(self.listeners):
            listener.put(("requests", [entry]))

    def send(self, raw, tunnel="web", remote="203.0.113.7"):
        """Sends a request to the upstream unchanged and stores the exchange."""
        number = next(self.numbers)
        host, port = self.upstream.removeprefix("http://").rsplit(":", 1)
        began = time.monotonic()
        self.put(captured(number, tunnel, raw, None, 0, remote))
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.connect()
        connection.sock.sendall(raw)
        answer = http.client.HTTPResponse(connection.sock, method=raw.split(b" ", 1)[0].decode())
        answer.begin()
        body = answer.read()
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        names = [(name, value) for name, value in answer.getheaders() if name.lower() != "transfer-encoding"]
        lines += [f"{name}: {value}" for name, value in names]
        self.put(captured(number, tunnel, raw, "\r\n".join(lines).encode() + b"\r\n\r\n" + body, int((time.monotonic() - began) * 1e9), remote))
        return f"{number:016x}"
