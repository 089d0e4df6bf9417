"""The environment of an agent under test: an edge, upstreams, a name server, a
revocation list. All on loopback, and in this process except the edge."""

import os
import random
import socket
import socketserver
import ssl
import struct
import subprocess
import threading

from loopback import Echo, Edge, Handler, HttpServer, TcpServer, serve, serve_echo, serve_http

BIG = random.Random(7).randbytes(700_000)
# Time without response and reset after which a visitor counts as forgotten.
PATIENCE = 12


class Http(Handler):
    def do_GET(self):
        crl = getattr(self.server, "crl", b"")
        bodies = {"/big": BIG, "/list.crl": crl}
        self.answer(bodies.get(self.path, b"served"))


class TlsServer(HttpServer):
    def finish_request(self, request, client_address):
        # Only in the thread of this connection.
        with self.tls.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)


class ToldEcho(Echo):
    """A server behind TLS, with a PROXY header of the edge before it."""

    def handle(self):
        try:
            head = self.request.recv(16, socket.MSG_WAITALL)
            if head[:13] != b"\r\n\r\n\0\r\nQUIT\n\x21":
                return
            self.request.recv(struct.unpack(">H", head[14:])[0], socket.MSG_WAITALL)
            with self.server.tls.wrap_socket(self.request, server_side=True) as self.request:
                super().handle()
        except OSError:
            pass


class Names(socketserver.BaseRequestHandler):
    """A resolver: every name is 127.0.0.1, and has no IPv6 address."""

    def handle(self):
        query, sock = self.request
        end = 12
        while query[end]:
            end += 1 + query[end]
        question = query[12 : end + 5]
        is_a = question[-4:-2] == b"\0\1"
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if is_a else b""
        head = query[:2] + b"\x81\x80\0\1" + struct.pack(">H", is_a) + b"\0\0\0\0"
        sock.sendto(head + question + answer, self.client_address)


def openssl(*arguments, data=b""):
    made = subprocess.run(["openssl", *arguments], input=data, capture_output=True)
    if made.returncode:
        raise SystemExit(f"openssl {arguments[0]}: {made.stderr.decode()}")
    return made.stdout


class Peers:
    def __init__(self, work, edge):
        self.work = work
        self.upstream = serve_http(Http)
        self.echo = serve_echo()
        self.names = serve(socketserver.ThreadingUDPServer(("127.0.0.1", 0), Names))
        # Bound and not listening: refused.
        self.deaf = socket.socket()
        self.deaf.bind(("127.0.0.1", 0))
        os.mkdir(work + "/site")
        with open(work + "/site/index.html", "w") as file:
            file.write("served")
        with open(work + "/site/big", "wb") as file:
            file.write(BIG)
        os.mkdir(work + "/site/dir")
        self.edge = Edge(edge, work, "--domain", "edge.test")
        self.ready, self.token, self.address = self.edge.ready, self.edge.token, self.edge.address
        lists = HttpServer(("127.0.0.1", 0), Http)
        lists.crl = self.revocations()
        self.lists = serve(lists)
        self.certificate()
        secure = TlsServer(("127.0.0.1", 0), Http)
        told = TcpServer(("127.0.0.1", 0), ToldEcho)
        secure.tls = told.tls = self.tls
        self.secure, self.told = serve(secure), serve(told)

    def certificate(self):
        """One certificate for all TLS servers here, signed by the edge's CA; and the settings of
    both ends."""
        ca, key, pem = self.ready["ca"], self.work + "/leaf.key", self.work + "/leaf.pem"
        names = "subjectAltName=DNS:edge.test,DNS:*.edge.test,DNS:localhost,IP:127.0.0.1"
        with open(self.work + "/leaf.conf", "w") as file:
            file.write(names + "\nbasicConstraints=critical,CA:FALSE\n")
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
        wish = openssl("req", "-new", "-key", key, "-subj", "/CN=edge.test")
        signed = ["-CA", ca, "-CAkey", self.work + "/edge/ca.key", "-CAcreateserial"]
        more = ["-days", "9", "-extfile", self.work + "/leaf.conf", "-out", pem]
        openssl("x509", "-req", *signed, *more, data=wish)
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(pem, key)
        self.trust = ssl.create_default_context(cafile=ca)
        with open(pem) as chain, open(key) as own:
            self.pem, self.key = chain.read(), own.read()

    def revocations(self):
        """Returns an empty revocation list of the edge's CA."""
        directory = self.work + "/edge"
        with open(self.work + "/ca.conf", "w") as file:
            file.write(
                "[ca]\ndefault_ca=c\n[c]\ndatabase=%s/index\ncrlnumber=%s/number\n"
                "default_md=sha256\ndefault_crl_days=9\ncrl_extensions=e\n"
                "[e]\nauthorityKeyIdentifier=keyid\n" % (self.work, self.work)
            )
        open(self.work + "/index", "w").close()
        with open(self.work + "/number", "w") as file:
            file.write("01\n")
        signed = ["-keyfile", directory + "/ca.key", "-cert", directory + "/ca.pem"]
        return openssl("ca", "-gencrl", "-config", self.work + "/ca.conf", *signed)

    def end(self):
        self.edge.stop()


class Hung(Exception):
    """A visitor got neither a response nor a reset."""


def request(address, host, method, path, body=b"", head="", patience=PATIENCE, tls=None):
    """Returns status and body; (0, b"") for a connection that broke."""
    try:
        with socket.create_connection(address, timeout=patience) as sock:
            if tls:
                sock = tls.wrap_socket(sock, server_hostname=host)
            text = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}"
            if body:
                text += f"Content-Length: {len(body)}\r\n"
            whole = text.encode() + b"\r\n" + body
            if tls:
                # One thread, because TLS has one state. A response means that everything was
                # read.
                send(sock, whole)
                whole = b""
            sender = threading.Thread(target=send, args=(sock, whole))
            sender.start()
            answer = b""
            try:
                while data := sock.recv(65536):
                    answer += data
            finally:
                sock.shutdown(socket.SHUT_RDWR)
                sender.join()
                sock.close()
    except TimeoutError:
        raise Hung(f"{method} {host}{path}")
    except OSError:
        return 0, b""
    top, _, rest = answer.partition(b"\r\n\r\n")
    words = top.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        return 0, b""
    if b"\r\ntransfer-encoding: chunked" in top.lower():
        return int(words[1]), chunks(rest)
    length = [l for l in top.lower().split(b"\r\n") if l.startswith(b"content-length:")]
    if length and int(length[0].split(b":")[1]) != len(rest) and method != "HEAD":
        return 0, b""
    return int(words[1]), rest


def chunks(rest):
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        size = int(size or b"0", 16)
        if not size:
            return body
        body, rest = body + rest[:size], rest[size + 2 :]


def send(sock, data):
    try:
        sock.sendall(data)
    except OSError:
        pass


def echo(address, data, patience=PATIENCE):
    """Returns the echo of a TCP endpoint; lost bytes are missing."""
    back = b""
    try:
        with socket.create_connection(address, timeout=patience) as sock:

            def push():
                send(sock, data)
                try:
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass

            pusher = threading.Thread(target=push)
            pusher.start()
            try:
                while got := sock.recv(65536):
                    back += got
            finally:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                pusher.join()
    except TimeoutError:
        raise Hung("a TCP visitor")
    except OSError:
        pass
    return back
