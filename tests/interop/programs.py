"""Runs ngrok's agent 2.3 at culvert-edge, and Vite behind culvert and culvert-edge. Standard
library only; loopback only.

usage: programs.py EDGE AGENT vite=PROGRAM [agent2=PROGRAM]
"""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile

from loopback import PATIENCE, Edge, Failed, Handler, eventually, free_port, require, serve_http

# Vite accepts every name below localhost.
DOMAIN = "tunnel.test"


class ShowsHead(Handler):
    """Answers with the header of the request; redirects /old to its own address."""

    def do_GET(self):
        if self.path == "/old":
            target = f"http://{self.headers['Host']}/new"
            self.answer(b"", status=302, headers=[("Location", target)])
        else:
            self.answer(str(self.headers).encode())


class Program:
    """A program in a directory of its own, with its output in a file."""

    def __init__(self, command, directory):
        os.makedirs(directory, exist_ok=True)
        self.log = os.path.join(directory, "output.log")
        env = {"PATH": os.environ["PATH"], "HOME": directory, "LANG": "C.UTF-8"}
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)

    def text(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_for(self, pattern):
        """Returns the first match in the output."""

        def match():
            require(self.process.poll() is None, f"ended: {self.text()[-2000:]}")
            return re.search(pattern, self.text())

        return eventually(f"{pattern!r} in the output", match)

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


class Visitor:
    """A connection to the edge's HTTP listener for one public host."""

    def __init__(self, edge, host):
        self.host = host
        self.socket = socket.create_connection(edge.address("http_addr"), timeout=PATIENCE)
        self.reader = self.socket.makefile("rb")

    def get(self, path, fields=""):
        """Returns status, header in lower case, and body."""
        head = f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\n{fields}\r\n"
        self.socket.sendall(head.encode())
        lines = []
        while (line := self.reader.readline().decode("latin-1").rstrip("\r\n")):
            lines.append(line)
        require(lines, f"no answer to {path}")
        head = "\n".join(lines).lower()
        length = re.search(r"^content-length: (\d+)", head, re.MULTILINE)
        if length:
            body = self.reader.read(int(length[1]))
        elif "transfer-encoding: chunked" in head:
            body = b""
            while size := int(self.reader.readline(), 16):
                body += self.reader.read(size)
                self.reader.readline()
            self.reader.readline()
        else:
            body = b""
        return int(lines[0].split()[1]), head, body.decode("utf-8", "replace")

    def message(self):
        """Returns the next text message of a WebSocket."""
        first, length = self.reader.read(2)
        if length == 126:
            length = int.from_bytes(self.reader.read(2), "big")
        require(first == 0x81, f"not a text message: {first:#x}")
        return json.loads(self.reader.read(length))

    def close(self):
        self.socket.close()


def host_of(url):
    return url.split("://")[1]


# --- ngrok's agent 2.3 ------------------------------------------------------------


def agent2(edge, _agent, program, work):
    """`auth` and `host_header: rewrite` of its configuration."""
    upstream = serve_http(ShowsHead)
    config = os.path.join(work, "ngrok2.yml")
    with open(config, "w", encoding="utf-8") as file:
        json.dump({
            "authtoken": edge.token,
            "server_addr": f"localhost:{edge.address('agent_addr')[1]}",
            "root_cas": edge.ready["ca"],
            "console_ui": False, "web_addr": False, "update": False, "log": "stdout",
            "tunnels": {"web": {
                "proto": "http", "addr": upstream, "bind_tls": False, "subdomain": "two",
                "auth": "ann:correct horse", "host_header": "rewrite"}},
        }, file)
    ngrok = Program([program, "start", "--all", "--config", config], os.path.join(work, "ngrok2"))
    try:
        host = host_of(ngrok.wait_for(r"started tunnel.* url=(\S+)")[1])
        visitor = Visitor(edge, host)
        status, head, _ = visitor.get("/")
        require(status == 401 and "www-authenticate: basic" in head, f"without a credential: {head}")
        pair = base64.b64encode(b"ann:correct horse").decode()
        credential = f"Authorization: Basic {pair}\r\n"
        status, head, body = visitor.get("/", credential)
        require(status == 200, f"with the credential: {head}")
        require(f"Host: localhost:{upstream}" in body, f"the upstream got {body}")
        require(f"X-Forwarded-Host: {host}" in body, f"the upstream got {body}")
        status, head, _ = visitor.get("/old", credential)
        require(status == 302, f"the redirect is {head}")
        visitor.close()
    finally:
        ngrok.stop()


# --- Vite -------------------------------------------------------------------------


def vite(edge, agent, program, work):
    """Its check of the host, its page, and its hot reload through `--host-header`."""
    site = os.path.join(work, "site")
    os.makedirs(site)
    with open(os.path.join(site, "index.html"), "w", encoding="utf-8") as file:
        file.write('<script type="module" src="/main.js"></script>\n')
    script = os.path.join(site, "main.js")
    with open(script, "w", encoding="utf-8") as file:
        file.write("console.log(1);\n")
    port = free_port()
    server = Program(
        ["node", program, site, "--host", "127.0.0.1", "--port", str(port), "--strictPort"],
        os.path.join(work, "vite"))
    agents = []

    def share(name, *flags):
        command = [agent, "http", f"127.0.0.1:{port}", "--url", f"http://{name}.{DOMAIN}"]
        command += ["--config", edge.ready["agent_config"], "--log", "stdout", *flags]
        agents.append(Program(command, os.path.join(work, name)))
        return host_of(agents[-1].wait_for(r"started tunnel.* url=(\S+)")[1])

    try:
        server.wait_for(r"127\.0\.0\.1")
        visitor = Visitor(edge, share("plain"))
        status, head, _ = visitor.get("/")
        require(status == 403, f"Vite accepts the public host: {head}")
        visitor.close()
        host = share("rewritten", "--host-header=rewrite")
        visitor = Visitor(edge, host)
        status, head, body = visitor.get("/", "Accept: text/html\r\n")
        require(status == 200 and "/@vite/client" in body, f"the page: {head}")
        status, head, body = visitor.get("/@vite/client")
        token = re.search(r'wsToken = "([^"]+)"', body)
        require(status == 200 and token, f"Vite's client: {head}")
        visitor.get("/main.js")
        socket_fields = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Protocol: vite-hmr\r\nOrigin: http://{host}\r\n")
        reload = Visitor(edge, host)
        status, head, _ = reload.get(f"/?token={token[1]}", socket_fields)
        require(status == 101, f"the WebSocket: {head}")
        require(reload.message()["type"] == "connected", "no message of Vite")
        with open(script, "w", encoding="utf-8") as file:
            file.write("console.log(2);\n")
        changed = reload.message()
        require(changed["type"] in ("update", "full-reload"), f"after a change: {changed}")
        reload.close()
        visitor.close()
    finally:
        for program in (*agents, server):
            program.stop()


CHECKS = {
    "agent2": ("ngrok's agent 2.3: auth, host_header: rewrite", agent2),
    "vite": ("Vite refuses the public host, and serves with --host-header=rewrite", vite),
}


def main():
    binary, agent, *programs = sys.argv[1:]
    # In a new namespace the loopback interface is down at first.
    subprocess.run(["ip", "link", "set", "lo", "up"], stderr=subprocess.DEVNULL, check=False)
    failed = 0
    for pair in programs:
        name, program = pair.split("=", 1)
        title, check = CHECKS[name]
        with tempfile.TemporaryDirectory(prefix="culvert-interop-") as work:
            edge = Edge(binary, work, "--domain", DOMAIN)
            try:
                check(edge, agent, program, work)
                print(f"ok    {title}", flush=True)
            except (Failed, OSError, ValueError) as error:
                failed += 1
                print(f"FAIL  {title}: {error}\n--- edge.log, its end:\n{edge.text()[-3000:]}")
            finally:
                edge.stop()
    print(f"interop: {len(programs) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not programs else 0)


main()
