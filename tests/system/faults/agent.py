"""One agent under test: its possible lives, its start, the checks on it, and its limits.
A life is one configuration from the start to the end of the program."""

import collections
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from relay import LOGIN, Relay
from terminal import Terminal
from loopback import until
from peers import BIG, Hung, echo, request

# Phases of a life, in which calls are made to fail.
PHASES = ("start", "serve", "reload", "reconnect", "restart", "idle", "stop")

# Its configuration: the path to the edge, whose TLS may end before it (so that a restart can be
# requested), the endpoints, whether it has a terminal, and the threads in which the short form
# searches for calls.
Life = collections.namedtuple("Life", "name way meddling endpoints terminal phases threads")

LIVES = [
    Life(
        "base",
        way=None,
        meddling=False,
        endpoints=("web", "dead", "files", "bulk"),
        terminal=False,
        phases=("start", "serve", "reload", "reconnect", "idle", "stop"),
        threads=(),
    ),
    # TLS upstreams that are verified, TLS that ends at the agent, or both; through a proxy.
    Life(
        "tls",
        way="http",
        meddling=True,
        endpoints=("web", "secure", "told", "ended", "both"),
        terminal=False,
        phases=PHASES,
        threads=("dial", "worker"),
    ),
    # A session whose bytes pass a further thread.
    Life(
        "bridge",
        way="https",
        meddling=False,
        endpoints=("web", "bulk"),
        terminal=False,
        phases=("start", "serve", "reconnect", "idle", "stop"),
        threads=("proxy-tls",),
    ),
    # At a terminal the reload signal means the terminal's end.
    Life(
        "console",
        way="socks5",
        meddling=True,
        endpoints=("web",),
        terminal=True,
        phases=("start", "serve", "reconnect", "restart", "idle", "stop"),
        threads=("dial", "console"),
    ),
]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Place:
    """The environment of one agent at a time: a directory, names, ports."""

    def __init__(self, peers, program, number, life):
        self.peers, self.program, self.number, self.life = peers, program, number, life
        self.dir = f"{peers.work}/place{number}"
        os.mkdir(self.dir)
        self.relay = Relay(peers, life.way, life.meddling)
        self.visitors = peers.address("http_addr")
        self.secure_visitors = peers.address("https_addr")
        self.web = ("127.0.0.1", free_port())
        self.config = self.dir + "/agent.yml"
        self.log = self.dir + "/log"
        self.extra = 0
        self.write()

    def host(self, name):
        return f"{name}{self.number}.edge.test"

    def endpoint(self, name):
        """Its URL, its upstream, and its other keys."""
        peers, here = self.peers, "127.0.0.1"
        trust = {"tls_verify": True, "tls_verify_cas": peers.ready["ca"]}
        ends = {
            "agent_tls_termination": {
                "server_certificate": peers.pem,
                "server_private_key": peers.key,
            }
        }
        deaf = peers.deaf.getsockname()[1]
        return {
            "web": ("http", f"http://{here}:{peers.upstream}", {}, {}),
            "extra": ("http", f"{here}:{peers.upstream}", {}, {}),
            "dead": ("http", f"http://{here}:{deaf}", {}, {}),
            "files": ("http", f"file://{peers.work}/site", {}, {}),
            "bulk": ("tcp", f"{here}:{peers.echo}", {}, {}),
            "secure": ("http", f"https://localhost:{peers.secure}", trust, {}),
            "told": ("tcp", f"tls://{here}:{peers.told}", trust | {"proxy_protocol": "2"}, {}),
            "ended": ("tls", f"{here}:{peers.upstream}", {}, ends),
            "both": ("tls", f"tls://{here}:{peers.secure}", trust, ends),
        }[name]

    def write(self):
        peers, way = self.peers, self.life.way
        agent = {
            "authtoken": peers.token,
            "connect_url": f"edge.test:{0 if way else self.relay.port}",
            "connect_cas": peers.ready["ca"],
            "dns_resolver_ips": [f"127.0.0.1:{peers.names}"],
            "dns_public_resolvers": False,
            "crl_url": f"http://127.0.0.1:{peers.lists}/list.crl",
            "state_dir": self.dir + "/state",
            "web_addr": f"{self.web[0]}:{self.web[1]}",
            "memory_limit": "16MiB",
            "heartbeat_interval": "1s",
            "log": self.log,
            "log_format": "logfmt",
        }
        if way:
            agent["connect_url"] = "edge.test:443"
            agent["proxy_url"] = f"{way}://{LOGIN[0]}:{LOGIN[1]}@localhost:{self.relay.port}"
        endpoints = []
        for name in (*self.life.endpoints, "extra"):
            scheme, upstream, options, more = self.endpoint(name)
            label = f"extra{self.extra}x" if name == "extra" else name
            url = "tcp://" if scheme == "tcp" else f"{scheme}://{self.host(label)}"
            upstream = {"url": upstream} | options
            endpoints.append({"name": name, "url": url, "upstream": upstream} | more)
        with open(self.config + ".new", "w") as file:
            # JSON is YAML.
            json.dump({"version": 3, "agent": agent, "endpoints": endpoints}, file, indent=1)
        os.rename(self.config + ".new", self.config)

    # The view of visitors and users ---------------------------------------------

    def ask(self, name, method="GET", path="/", body=b"", **rest):
        """A visitor of an HTTP endpoint, optionally inside of TLS that is not the edge's."""
        if name in ("ended", "both"):
            to, rest["tls"] = self.secure_visitors, self.peers.trust
        else:
            to = self.visitors
        return request(to, self.host(name), method, path, body, **rest)

    def api(self, method, path, body=None):
        head = "Content-Type: application/json\r\n" if body is not None else ""
        body = json.dumps(body).encode() if body is not None else b""
        return request(self.web, "localhost", method, path, body, head)

    def tcp(self, name):
        status, body = self.api("GET", f"/api/tunnels/{name}")
        if status != 200:
            return None
        port = json.loads(body)["public_url"].rsplit(":", 1)[-1]
        return ("127.0.0.1", int(port)) if port.isdigit() else None

    def serves(self):
        """Checks everything that the agent serves."""
        for name in self.life.endpoints:
            if name in ("bulk", "told"):
                tcp = self.tcp(name)
                if tcp is None or echo(tcp, b"hello") != b"hello":
                    return False
            elif name != "dead":
                path = "/index.html" if name == "files" else "/"
                if self.ask(name, path=path, patience=PATIENT) != (200, b"served"):
                    return False
        return True

    def work(self):
        """Sends visitors of all kinds. Their responses are not checked, because a call may
        just have failed. But each gets a response or an end."""
        for name in self.life.endpoints:
            if name in ("bulk", "told"):
                if tcp := self.tcp(name):
                    echo(tcp, BIG[:400_000])
            elif name == "files":
                self.ask(name, path="/big")
                self.ask(name, path="/big", head="Range: bytes=5-300000\r\n")
                self.ask(name, path="/dir/")
                self.ask(name, path="/missing")
            else:
                self.ask(name)
                if name != "dead":
                    self.ask(name, "POST", body=BIG[:200_000])
                    self.ask(name, path="/big")
        if self.life.name != "base":
            return
        self.api("GET", "/")
        status, body = self.api("GET", "/api/requests/http?limit=3")
        # A response that was truncated is incomplete.
        if status == 200 and (found := re.search(rb'"id":"(\w+)"', body)):
            self.api("POST", "/api/requests/http", {"id": found[1].decode()})
        other = {"name": "other", "proto": "http", "addr": str(self.peers.upstream)}
        self.api("POST", "/api/tunnels", other | {"hostname": self.host("other")})
        self.api("DELETE", "/api/tunnels/other")

    def extra_serves(self):
        return self.ask(f"extra{self.extra}x") == (200, b"served")

    def reload(self, agent, limit):
        """Checks that a changed configuration is read and applied."""
        self.extra += 1
        self.write()
        agent.signal(signal.SIGHUP)
        return until(limit, self.extra_serves)


PATIENT = 12


class Agent:
    """A running program."""

    def __init__(self, place, trace=None, options=()):
        self.place = place
        # Files that are kept between runs are written in the first one.
        shutil.rmtree(place.dir + "/state", ignore_errors=True)
        self.errors = place.dir + "/err"
        for name in (self.errors, place.log):
            open(name, "w").close()
        command = [place.program, "start", "--all", "--config", place.config]
        if trace:
            # In its own session: the tracer must not get events of the terminal.
            command = ["strace", "-I2", "-DDD", "-f", "-Y", "-qq", "-o", trace, *options, *command]
        environment = {"HOME": place.dir, "PATH": os.environ["PATH"], "TERM": "xterm"}
        environment["SSL_CERT_FILE"] = place.peers.ready["ca"]
        self.terminal = None
        # It may run without the screen.
        self.plain = False
        source = subprocess.DEVNULL
        with open(self.errors, "a") as err, open(place.dir + "/out", "w") as out:
            if place.life.terminal:
                self.terminal = Terminal()
                source = out = self.terminal.slave
                command = ["setsid", "--ctty", *command]
            self.process = subprocess.Popen(
                command, stdin=source, stdout=out, stderr=err, env=environment
            )
        self.pid = self.process.pid
        self.files = self.threads = None

    def ended(self):
        return self.process.poll() is not None

    def signal(self, number):
        if not self.ended():
            self.process.send_signal(number)

    def words(self):
        with open(self.errors) as file:
            return file.read()

    def log(self):
        with open(self.place.log) as file:
            return file.read()

    def serves(self):
        try:
            return not self.ended() and self.place.serves() and self.shows()
        except Hung:
            return False

    def shows(self):
        """Checks the terminal, if it has one."""
        if not self.terminal or self.draws():
            return True
        return self.plain and self.leaves_it_alone()

    def open_files(self):
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0

    def open_threads(self):
        """Returns the threads by name, except the workers, whose number varies."""
        names = collections.Counter()
        for task in glob.glob(f"/proc/{self.pid}/task/*/comm"):
            try:
                with open(task) as file:
                    names[file.read().strip()] += 1
            except OSError:
                pass
        del names["worker"]
        return names

    def cpu(self):
        """Returns the seconds of processor time so far."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def tracer(self):
        try:
            with open(f"/proc/{self.pid}/status") as file:
                lines = [line for line in file if line.startswith("TracerPid:")]
            return int(lines[0].split()[1])
        except (OSError, IndexError):
            return 0

    def leave_tracer(self):
        """Ends a tracer: a call that fails once would fail once in each later thread."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if tracer := self.tracer():
                try:
                    os.kill(tracer, number)
                except ProcessLookupError:
                    pass
                until(10, lambda: self.tracer() == 0)

    def attach(self, trace, options):
        tracer = subprocess.Popen(
            ["strace", "-f", "-Y", "-qq", "-o", trace, *options, "-p", str(self.pid)],
            stderr=subprocess.DEVNULL,
        )

        def all_traced():
            try:
                for task in os.listdir(f"/proc/{self.pid}/task"):
                    with open(f"/proc/{self.pid}/task/{task}/status") as file:
                        if "TracerPid:\t0\n" in file.read():
                            return False
                return True
            except OSError:
                return self.ended()

        until(10, lambda: all_traced() or tracer.poll() is not None)
        return tracer

    def detach(self, tracer):
        tracer.send_signal(signal.SIGTERM)
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()

    def kill(self):
        self.leave_tracer()
        if not self.ended():
            self.process.kill()
        self.process.wait()
        if self.terminal:
            self.terminal.end()
            self.terminal = None

    # The terminal ---------------------------------------------------------------

    def draws(self):
        """Checks that the screen is shown and follows the terminal's size."""
        terminal = self.terminal
        if not terminal.has_screen() or terminal.is_usual():
            return False
        before = terminal.drawn()
        terminal.resize()
        return until(3, lambda: terminal.drawn() > before)

    def leaves_it_alone(self):
        """Checks that the terminal shows text, including typed text."""
        return not self.terminal.has_screen() and self.terminal.is_usual()

    def sit_before_it(self):
        """Resizes the terminal, stops the program and continues it."""
        terminal = self.terminal
        terminal.resize()
        terminal.press(b"\x1a")
        until(2, lambda: not terminal.has_screen())
        terminal.resize()

        def goes_on():
            # It may not have stopped yet.
            self.signal(signal.SIGCONT)
            return terminal.has_screen()

        until(4, goes_on)

    # The phases -----------------------------------------------------------------

    def restarted(self, before):
        """Returns whether the request of the edge was carried out or refused."""
        relay = self.place.relay
        return relay.sessions > before or any(a.get("Error") for a in relay.answers)

    def act(self, phase, enough=lambda: False):
        """Runs a phase until everything is served again, or until `enough` returns true."""

        def over():
            return self.ended() or enough() or self.serves()

        if phase == "start":
            until(8, over)
        elif phase == "serve":
            self.place.work()
            if self.terminal:
                self.sit_before_it()
        elif phase == "reload":
            self.place.reload(self, 2)
            self.signal(signal.SIGUSR1)
        elif phase == "reconnect":
            self.place.relay.cut()
            until(4, over)
        elif phase == "restart":
            before = self.place.relay.sessions
            self.place.relay.ask_for_restart()
            until(4, lambda: self.ended() or self.restarted(before) and over())
        elif phase == "idle":
            # Workers end after five seconds, and their memory is released.
            time.sleep(8)
        elif phase == "stop":
            if self.terminal:
                # Ctrl+C.
                self.terminal.press(b"\x03")
            else:
                self.signal(signal.SIGTERM)
            until(20, self.ended)
