"""Relay between an agent and the edge: it can be cut, it can be a proxy of each kind, and
it can send requests to the agent in place of the edge."""

import json
import re
import select
import socket
import ssl
import struct
import threading

# Requests that proxies expect.
LOGIN = ("user", "word")
BASIC = b"Basic dXNlcjp3b3Jk"

# Frames (protocol 2.1) and the type of a stream that requests a restart (5.7).
HEADER, DATA, FIN, SYN, RESTART = 8, 1, 1, 2, 4
# Streams of this relay in the edge's range: the edge does not reach these ids.
OURS = 0x7F000000

ROOM = 1 << 18


class Relay:
    """Listens for one agent. `way` is the kind of proxy in the agent's configuration: None,
    "http", "https" or "socks5". With `meddling` the session's TLS is terminated here."""

    def __init__(self, peers, way=None, meddling=False):
        self.peers, self.way, self.meddling = peers, way, meddling
        self.edge = peers.address("agent_addr")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.pairs = []
        # Number of sessions, bytes to send in the current one, and the response.
        self.sessions = 0
        self.questions = []
        self.answers = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near, _ = self.listener.accept()
            threading.Thread(target=self.carry, args=(near,), daemon=True).start()

    def carry(self, near):
        far = None
        try:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            near.settimeout(10)
            if self.way == "https":
                near = self.peers.tls.wrap_socket(near, server_side=True)
            host, port = self.asked(near)
            to_edge = host == "edge.test"
            far = socket.create_connection(self.edge if to_edge else (host, port), 10)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.say_yes(near)
            if to_edge and self.meddling:
                near = self.peers.tls.wrap_socket(near, server_side=True)
                far = self.peers.trust.wrap_socket(far, server_hostname="edge.test")
            with self.lock:
                self.pairs.append((near, far))
                self.sessions += to_edge
                self.questions.clear()
            if not isinstance(near, ssl.SSLSocket):
                near.settimeout(None)
                far.settimeout(None)
                back = threading.Thread(target=pump, args=(far, near), daemon=True)
                back.start()
                pump(near, far)
                back.join()
            elif self.meddling:
                turns(near, far, Meddler(self))
            else:
                turns(near, far)
        except (OSError, ValueError):
            pass
        end(near, far)

    # Proxies ----------------------------------------------------------------------

    def asked(self, near):
        """Returns the destination that the agent requests."""
        if self.way is None:
            return "edge.test", 0
        if self.way == "socks5":
            if 2 not in exactly(near, exactly(near, 2)[1]):
                raise ValueError("no login")
            near.sendall(b"\5\2")
            user = exactly(near, exactly(near, 2)[1]).decode()
            word = exactly(near, exactly(near, 1)[0]).decode()
            near.sendall(bytes([1, (user, word) != LOGIN]))
            head = exactly(near, 4)
            host = exactly(near, exactly(near, 1)[0]) if head[3] == 3 else exactly(near, 4)
            host = host.decode() if head[3] == 3 else socket.inet_ntoa(host)
            return host, struct.unpack(">H", exactly(near, 2))[0]
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(near, 1)
        found = re.match(rb"CONNECT ([^ :]+):(\d+) ", head)
        if not found or BASIC not in head:
            raise ValueError("not for us")
        return found[1].decode(), int(found[2])

    def say_yes(self, near):
        if self.way == "socks5":
            near.sendall(b"\5\0\0\1\x7f\0\0\1\0\1")
        elif self.way:
            near.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")

    # Faults of the relay -----------------------------------------------------------

    def cut(self):
        """Resets all connections."""
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for one in pair:
                try:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    one.shutdown(socket.SHUT_RD)
                except OSError:
                    pass
                one.close()

    def ask_for_restart(self):
        """Sends a request in place of the edge. `answers` gets the response."""
        with self.lock:
            self.answers.clear()
            self.questions.append(struct.pack(">I", RESTART) + b"{}")


def exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ValueError("it ended")
        data += more
    return data


def end(*pair):
    for one in pair:
        if one is not None:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for one in (source, sink):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Meddler:
    """Parses frames, and inserts its own streams between those of the edge."""

    def __init__(self, relay):
        self.relay = relay
        self.rest = {True: bytearray(), False: bytearray()}
        self.number = OURS

    def of_edge(self, data):
        return b"".join(self.frames(False, data)) + self.ours()

    def of_agent(self, data):
        passed = b""
        for frame in self.frames(True, data):
            stream = int.from_bytes(frame[4:8], "big")
            if stream < OURS or stream % 2 == 1:
                passed += frame
            elif frame[3] >> 4 == DATA and len(frame) > HEADER:
                self.relay.answers.append(json.loads(frame[HEADER:]))
        return passed

    def frames(self, of_agent, data):
        rest = self.rest[of_agent]
        rest += data
        while len(rest) >= HEADER:
            size = HEADER + int.from_bytes(rest[:3], "big")
            if len(rest) < size:
                return
            yield bytes(rest[:size])
            del rest[:size]

    def ours(self):
        """Called at the end of a frame of the edge."""
        if self.rest[False] or not self.relay.questions:
            return b""
        question = self.relay.questions.pop()
        stream, self.number = self.number, self.number + 2
        head = len(question).to_bytes(3, "big") + bytes([DATA << 4 | SYN])
        return head + stream.to_bytes(4, "big") + question


def turns(near, far, meddler=None):
    """Carries both directions in one thread, because TLS has one state."""
    waiting = {near: b"", far: b""}
    other = {near: far, far: near}
    for one in other:
        one.setblocking(False)
    while True:
        if meddler:
            waiting[near] += meddler.of_edge(b"")
        reads = [one for one in other if len(waiting[other[one]]) < ROOM]
        inside = any(getattr(one, "pending", lambda: 0)() for one in reads)
        poll = select.poll()
        for one in other:
            wish = (select.POLLIN if one in reads else 0) | (select.POLLOUT if waiting[one] else 0)
            poll.register(one, wish)
        poll.poll(0 if inside else 50)
        for one in reads:
            try:
                data = one.recv(65536)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                continue
            if not data:
                return
            if meddler:
                data = meddler.of_agent(data) if one is near else meddler.of_edge(data)
            waiting[other[one]] += data
        for one in other:
            while waiting[one]:
                try:
                    waiting[one] = waiting[one][one.send(waiting[one]) :]
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    break
