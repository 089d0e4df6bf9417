"""Drives the official SDKs with culvert-edge and reports, check by check, what
works. Standard library only; loopback only.

usage: drive.py EDGE-BINARY NAME=COMMAND... (a command is split at blanks)
"""

import concurrent.futures
import json
import os
import queue
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading

from loopback import PATIENCE, Edge, Failed, Handler, eventually, loopback_up, require, serve_echo, serve_http

# --- an SDK in a process of its own ---------------------------------------------


class Client:
    def __init__(self, command, directory):
        # No variable of the user's reaches the SDK, above all no authtoken.
        env = {"PATH": os.environ["PATH"], "HOME": directory, "LANG": "C.UTF-8"}
        self.errors = open(os.path.join(directory, "client.log"), "ab")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            env=env, text=True,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def ask(self, what, **arguments):
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.process.stdin.flush()
        try:
            line = self.lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failed(f"{what}: no answer from the SDK within {PATIENCE} s") from None
        if line is None:
            raise Failed(f"{what}: the SDK's process ended ({self.process.wait()})")
        return json.loads(line)

    def do(self, what, **arguments):
        answer = self.ask(what, **arguments)
        require("error" not in answer, f"{what}: {answer.get('error')}")
        return answer

    def remote_addresses(self):
        """Returns the peers of the process's sockets, all families."""
        inodes = set()
        directory = f"/proc/{self.process.pid}/fd"
        for fd in os.listdir(directory):
            try:
                link = os.readlink(os.path.join(directory, fd))
            except FileNotFoundError:
                continue
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
        found = []
        for table in ("tcp", "tcp6", "udp", "udp6"):
            with open(f"/proc/{self.process.pid}/net/{table}", encoding="ascii") as lines:
                for line in list(lines)[1:]:
                    fields = line.split()
                    if fields[9] in inodes:
                        found.append(address(fields[2].split(":")[0]))
        return found

    def stop(self):
        self.process.kill()
        self.process.wait()


def address(text):
    """An address of /proc/net/tcp: words of 32 bits in this machine's order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    raw = b"".join(struct.pack("=I", word) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def is_local(text):
    return text.startswith("127.") or text in ("::1", "0.0.0.0", "::") or text.startswith("::ffff:127.")


# --- visitors -------------------------------------------------------------------


def http(edge, url, method="GET", path="/", body=b""):
    """Sends one request to the edge's HTTP listener. Returns (status, body)."""
    host = url.split("://")[1].rstrip("/")
    with socket.create_connection(edge.address("http_addr"), timeout=PATIENCE) as visitor:
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        if method == "POST":
            head += f"Content-Length: {len(body)}\r\n"
        visitor.sendall(head.encode() + b"\r\n" + body)
        answer = b""
        while data := visitor.recv(65536):
            answer += data
    head, _, rest = answer.partition(b"\r\n\r\n")
    require(head.startswith(b"HTTP/1.1 "), f"no answer to {method} {path}: {answer[:80]!r}")
    return int(head.split()[1]), rest


def with_fields(edge, url, fields, method="GET", body=b""):
    """Sends a request with header lines. Returns (status, head)."""
    host = url.split("://")[1].rstrip("/")
    with socket.create_connection(edge.address("http_addr"), timeout=PATIENCE) as visitor:
        head = f"{method} /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}"
        head += f"Content-Length: {len(body)}\r\n" if body else ""
        visitor.sendall(head.encode() + b"\r\n" + body)
        answer = b""
        while data := visitor.recv(65536):
            answer += data
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
    require(head.startswith("HTTP/1.1 "), f"no answer: {answer[:80]!r}")
    return int(head.split()[1]), head.lower()


def get_hello(edge, url, path="/a"):
    status, body = http(edge, url, path=path)
    require((status, body) == (200, f"hello {path}".encode()), f"{status} {body[:200]!r}")
    return True


def echo(url, payload):
    """Sends payload to a TCP endpoint, half-closes, reads until the end."""
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as visitor:
        def send():
            visitor.sendall(payload)
            visitor.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        back = b""
        while data := visitor.recv(65536):
            back += data
        sender.join(PATIENCE)
    require(back == payload, f"sent {len(payload)} bytes, {len(back)} came back")
    return True


# --- the checks, in order; each may use the results of earlier ones in `s` -------


class State:
    pass


def connect(s):
    s.client.do("connect", server=s.edge.ready["agent_addr"], ca=s.edge.ready["ca"], token=s.edge.token)


def wrong_token(s):
    answer = s.client.ask(
        "connect", server=s.edge.ready["agent_addr"], ca=s.edge.ready["ca"], token="no-such-token")
    require("ERR_NGROK_" in answer.get("error", ""), f"answered {answer}")


def wrong_ca(s):
    answer = s.client.ask(
        "connect", server=s.edge.ready["agent_addr"], ca="trusted", token=s.edge.token)
    require("error" in answer, "connected to an edge whose CA it does not trust")


def http_endpoint(s):
    s.url = s.client.do("listen", proto="http", to=f"http://127.0.0.1:{s.http}")["url"]
    get_hello(s.edge, s.url)


def http_upload(s):
    body = os.urandom(3_000_000)
    status, back = http(s.edge, s.url, "POST", "/up", body)
    require(status == 200 and back == body, f"{status}, {len(back)} of {len(body)} bytes came back")


def http_parallel(s):
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: get_hello(s.edge, s.url, f"/{n}"), range(100)))


def http_domain(s):
    answer = s.client.do(
        "listen", proto="http", to=f"http://127.0.0.1:{s.http}", domain="interop.localhost")
    s.named = answer["url"]
    require("://interop.localhost" in s.named, f"asked for interop.localhost, got {s.named}")
    get_hello(s.edge, s.named)


def http_taken(s):
    answer = s.client.ask(
        "listen", proto="http", to=f"http://127.0.0.1:{s.http}", domain="interop.localhost")
    require("ERR_NGROK_334" in answer.get("error", ""), f"a taken name was answered {answer}")


def options(s, calls, *expected):
    """Binds with these calls of the builder. `expected`: header lines, status, text of the head."""
    url = s.client.do("listen", proto="http", to=f"http://127.0.0.1:{s.http}", calls=calls)["url"]
    for fields, status, text in expected:
        got, head = with_fields(s.edge, url, fields)
        require(got == status and text in head, f"{calls} {fields!r}: {head}")
    s.client.do("close", url=url)


def option_basic_auth(s):
    options(
        s, [["basic_auth", ["ann", "correct horse"]]],
        ("", 401, "www-authenticate: basic"),
        ("Authorization: Basic YW5uOmNvcnJlY3QgaG9yc2U=\r\n", 200, ""))


def option_traffic_policy(s):
    deny = {"type": "deny", "config": {"status_code": 410}}
    rule = {"expressions": ["'no' in req.headers['x-pass']"], "actions": [deny]}
    options(
        s, [["traffic_policy", [json.dumps({"on_http_request": [rule]})]]],
        ("X-Pass: no\r\n", 410, ""), ("X-Pass: yes\r\n", 200, ""), ("", 200, ""))


def option_headers(s):
    options(
        s, [["response_header", ["X-Edge", "1"]], ["remove_response_header", ["Content-Type"]],
            ["request_header", ["X-Via", "2"]], ["remove_request_header", ["Cookie"]]],
        ("Cookie: a\r\n", 200, "x-edge: 1"))


class ShowsHost(Handler):
    """GET answers the field Host."""

    def do_GET(self):
        self.answer(self.headers["Host"].encode())


def option_host_header(s):
    upstream = serve_http(ShowsHost)
    for rewrites, host in [(True, "127.0.0.1"), (False, None)]:
        url = s.client.do(
            "listen", proto="http", to=f"http://127.0.0.1:{upstream}",
            calls=[["host_header_rewrite", [rewrites]]])["url"]
        status, body = http(s.edge, url)
        expected = host or url.split("://")[1].rstrip("/")
        require((status, body.decode()) == (200, expected), f"rewrite {rewrites}: {status} {body}")
        s.client.do("close", url=url)


def option_pool(s):
    """Two endpoints with one name, and a third one that refuses company."""
    pooled = {"proto": "http", "to": f"http://127.0.0.1:{s.http}", "domain": "pool.localhost"}
    first = s.client.do("listen", calls=[["pooling_enabled", [True]]], **pooled)["url"]
    answer = s.client.ask("listen", calls=[["pooling_enabled", [False]]], **pooled)
    require("ERR_NGROK_334" in answer.get("error", ""), f"answered {answer}")
    get_hello(s.edge, first)
    s.client.do("close", url=first)


def option_remote_addr(s):
    port = s.client.do("listen", proto="tcp", to=f"tcp://127.0.0.1:{s.echo}")["url"]
    s.client.do("close", url=port)
    address = port.split("://")[1]
    url = s.client.do(
        "listen", proto="tcp", to=f"tcp://127.0.0.1:{s.echo}", calls=[["remote_addr", [address]]])["url"]
    require(url == port, f"asked for {port}, got {url}")
    echo(url, b"ping")
    s.client.do("close", url=url)


def option_filters(s):
    options(
        s, [["allow_user_agent", ["^curl/"]], ["deny_user_agent", ["7"]]],
        ("User-Agent: curl/8\r\n", 200, ""), ("User-Agent: curl/7\r\n", 403, "err_ngrok_3211"))
    options(s, [["allow_cidr", ["10.0.0.0/8"]], ["deny_cidr", ["10.1.0.0/16"]]],
            ("", 403, "err_ngrok_3205"))


def option_others(s):
    options(s, [["compression", []], ["circuit_breaker", [0.5]]], ("", 200, ""))
    options(s, [["webhook_verification", ["github", "a secret"]]], ("", 403, "err_ngrok_3204"))
    options(s, [["websocket_tcp_conversion", []]], ("", 400, "err_ngrok_3206"))


def option_names(s):
    """What concerns the endpoint's name and the SDK itself."""
    options(
        s, [["scheme", ["HTTP"]], ["forwards_to", ["a service"]], ["app_protocol", ["http1"]],
            ["verify_upstream_tls", [False]]],
        ("", 200, ""))


def tls(s, name):
    """Opens TLS to the edge's https listener without a certificate of the client."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    tcp = socket.create_connection(s.edge.address("https_addr"), timeout=PATIENCE)
    return context.wrap_socket(tcp, server_hostname=name)


def option_client_certificates(s):
    authorities = ["mutual_tlsca", [{"file": s.edge.ready["ca"]}]]
    # Its scheme is http at `culvert-edge dev`: the SDKs always send https.
    answer = s.client.ask(
        "listen", proto="http", to=f"http://127.0.0.1:{s.http}", calls=[authorities])
    require("https:// URL" in answer.get("error", ""), f"answered {answer}")
    url = s.client.do(
        "listen", proto="tls", to=f"tcp://127.0.0.1:{s.echo}", domain="known.localhost",
        calls=[authorities, ["termination", own_certificate(s)]])["url"]
    try:
        with tls(s, "known.localhost") as visitor:
            visitor.sendall(b"ping")
            answer = visitor.recv(100)
        raise Failed(f"a visitor without a certificate got {answer!r}")
    except ssl.SSLError as error:
        require("certificate" in str(error).lower(), f"the alert is {error}")
    s.client.do("close", url=url)


def own_certificate(s):
    """Certificate and key for `termination`: those of the edge's CA will do."""
    directory = os.path.dirname(s.edge.ready["ca"])
    return [{"file": os.path.join(directory, name)} for name in ("ca.pem", "ca.key")]


def option_termination(s):
    url = s.client.do(
        "listen", proto="tls", to=f"tcp://127.0.0.1:{s.echo}", domain="ended.localhost",
        calls=[["termination", own_certificate(s)]])["url"]
    with tls(s, "ended.localhost") as visitor:
        visitor.sendall(b"ping")
        require(visitor.recv(4) == b"ping", "the upstream did not get plain bytes")
    s.client.do("close", url=url)


def option_proxy_protocol(s):
    url = s.client.do(
        "listen", proto="tcp", to=f"tcp://127.0.0.1:{s.echo}", calls=[["proxy_proto", ["1"]]])["url"]
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), PATIENCE) as visitor:
        visitor.sendall(b"ping\n")
        head = visitor.makefile("rb").readline()
    require(head.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 "), f"in front: {head!r}")
    s.client.do("close", url=url)


UNKNOWN_ACTION = json.dumps(
    {"inbound": [{"name": "a", "expressions": [], "actions": [{"type": "no-such-action"}]}],
     "outbound": []})


class Issuer(Handler):
    """The discovery document of an OpenID provider."""

    def do_GET(self):
        issuer = f"http://{self.headers['Host']}"
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        document = {"issuer": issuer, **{name: f"{issuer}/{name}" for name in names}}
        self.answer(json.dumps(document).encode(), kind="application/json")


def option_login(s):
    issuer = f"http://127.0.0.1:{serve_http(Issuer)}"
    url = s.client.do(
        "listen", proto="http", to=f"http://127.0.0.1:{s.http}",
        calls=[["oidc", [issuer, "id", "a secret"]]])["url"]
    status, _ = http(s.edge, url)
    require(status == 302, f"a visitor without a session got {status}")
    s.client.do("close", url=url)


def option_refused(s):
    for calls, code, name in [
        ([["webhook_verification", ["nobody", "a secret"]]], 364, "nobody"),
        ([["webhook_verification", ["sns", "a secret"]]], 364, "certificate"),
        ([["oauth", ["google"]]], 384, "google"),
        ([["oidc", ["ftp://issuer.example", "id", "a secret"]]], 387, "URL"),
        ([["app_protocol", ["http2"]]], 301, "--upstream-protocol"),
        ([["traffic_policy", ["on_http_request: ["]]], 9026, ""),
        # One SDK checks the form of a policy itself.
        ([["policy", [UNKNOWN_ACTION]]], 9026, ""),
    ]:
        answer = s.client.ask(
            "listen", proto="http", to=f"http://127.0.0.1:{s.http}", calls=calls)
        error = answer.get("error", "")
        require(f"ERR_NGROK_{code}" in error and name in error, f"{calls} answered {answer}")
        require("a secret" not in error, f"a secret is in {error}")


def tcp_endpoint(s):
    s.tcp = s.client.do("listen", proto="tcp", to=f"tcp://127.0.0.1:{s.echo}")["url"]
    echo(s.tcp, b"ping")


def tcp_bulk(s):
    echo(s.tcp, os.urandom(3_000_000))


def restart(s):
    s.edge.kill()
    s.edge.start()
    eventually(f"{s.url} serves again", lambda: get_hello(s.edge, s.url))
    eventually(f"{s.named} serves again", lambda: get_hello(s.edge, s.named))
    eventually(f"{s.tcp} serves again", lambda: echo(s.tcp, b"again"))


def close_http(s):
    s.client.do("close", url=s.url)

    def gone():
        status, body = http(s.edge, s.url)
        require(status == 404 and b"ERR_NGROK_3200" in body, f"{status} {body[:200]!r}")
        return True

    eventually("404 with ERR_NGROK_3200", gone, 5)
    get_hello(s.edge, s.named)


def close_tcp(s):
    s.client.do("close", url=s.tcp)

    def gone():
        try:
            echo(s.tcp, b"ping")
        except (OSError, Failed):
            return True
        raise Failed("the TCP endpoint still echoes")

    eventually("the port is closed", gone, 5)


def one_call(s):
    answer = s.client.do(
        "forward", server=s.edge.ready["agent_addr"], ca=s.edge.ready["ca"],
        token=s.edge.token, to=f"http://127.0.0.1:{s.http}")
    get_hello(s.edge, answer["url"])


def only_loopback(s):
    remote = s.client.remote_addresses()
    require(remote, "no socket seen at all")
    require(all(map(is_local, remote)), f"connected to {remote}")


def bye(s):
    s.client.do("bye")
    require(s.client.process.wait(PATIENCE) == 0, f"ended with {s.client.process.returncode}")

    def gone():
        # A session that has ended may return: its names are reserved for a while.
        status, body = http(s.edge, s.named)
        require(status in (404, 502, 503) and b"ERR_NGROK_" in body, f"{status} {body[:200]!r}")
        return True

    eventually("its endpoints do not serve any more", gone, 5)


CHECKS = [
    ("an unknown authtoken is refused with an error code", wrong_token),
    ("a CA that did not sign the edge's certificate is refused", wrong_ca),
    ("connects with a server address and CA of ours", connect),
    ("HTTP endpoint serves", http_endpoint),
    ("3 MB there and back over HTTP", http_upload),
    ("100 requests, 20 at a time", http_parallel),
    ("a requested domain is given", http_domain),
    ("a taken domain is refused with ERR_NGROK_334", http_taken),
    ("option basic auth", option_basic_auth),
    ("option for a traffic policy", option_traffic_policy),
    ("options for headers", option_headers),
    ("options for user agents and networks", option_filters),
    ("options compression, circuit breaker, webhook, WebSocket", option_others),
    ("options for scheme, upstream and its protocol", option_names),
    ("option for certificates of visitors", option_client_certificates),
    ("option for TLS that ends at the edge", option_termination),
    ("option for PROXY headers", option_proxy_protocol),
    ("option for logins", option_login),
    ("an option that is not valid or not supported is refused by name", option_refused),
    ("TCP endpoint serves, half close included", tcp_endpoint),
    ("3 MB there and back over TCP", tcp_bulk),
    ("the one-call form serves", one_call),
    ("edge killed and restarted: the same URLs serve again", restart),
    ("dials nothing but loopback", only_loopback),
    ("closed HTTP endpoint: 404 ERR_NGROK_3200, its sibling serves on", close_http),
    ("closed TCP endpoint: nothing behind it", close_tcp),
    ("closes its session and ends", bye),
]

# Methods of builders that one SDK alone has, or where the others differ.
CHECKS_OF = {
    "rust": [
        ("option for the field Host", option_host_header),
        ("option for pools", option_pool),
        ("option for the address of a TCP endpoint", option_remote_addr),
    ],
}


def checks_of(name):
    """The checks of all SDKs, with those of this one after the other options."""
    at = [check for _, check in CHECKS].index(tcp_endpoint)
    return CHECKS[:at] + CHECKS_OF.get(name, []) + CHECKS[at:]


def drive(name, command, binary):
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="culvert-interop-") as directory:
        s = State()
        s.http, s.echo = serve_http(), serve_echo()
        s.edge = Edge(binary, directory)
        s.client = Client(command, directory)
        try:
            for title, check in checks_of(name):
                try:
                    check(s)
                    passed += 1
                    print(f"ok    {name}: {title}", flush=True)
                except (Failed, OSError, AttributeError, subprocess.SubprocessError) as error:
                    # AttributeError: an earlier check left no URL.
                    failed += 1
                    print(f"FAIL  {name}: {title}: {error}", flush=True)
            if failed:
                for log in (s.edge.log, s.client.errors.name):
                    text = open(log, encoding="utf-8", errors="replace").read()
                    print(f"--- {os.path.basename(log)}, its end:\n{text[-3000:]}", flush=True)
        finally:
            s.client.stop()
            s.edge.stop()
    return passed, failed


def main():
    loopback_up()
    passed = failed = 0
    for pair in sys.argv[2:]:
        name, _, command = pair.partition("=")
        p, f = drive(name, command.split(), sys.argv[1])
        passed, failed = passed + p, failed + f
    print(f"interop: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
