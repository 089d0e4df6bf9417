"""One agent under test: what it is started with, what is asked of it, what it may use."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

from world import BIG, Relay, Hung, echo, request, until

# The phases of its life, in which calls are made to fail.
PHASES = ("start", "serve", "reload", "reconnect", "idle", "stop")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Place:
    """Where one agent at a time lives: a directory, names, ports."""

    def __init__(self, world, program, number):
        self.world, self.program, self.number = world, program, number
        self.dir = f"{world.work}/place{number}"
        os.mkdir(self.dir)
        self.relay = Relay(world.address("agent_addr"))
        self.visitors = world.address("http_addr")
        self.web = ("127.0.0.1", free_port())
        self.config = self.dir + "/agent.yml"
        self.log = self.dir + "/log"
        self.extra = 0
        self.write()

    def host(self, name):
        return f"{name}{self.number}.edge.test"

    def write(self):
        world, host = self.world, self.host
        endpoints = [
            ("web", f"http://{host('web')}", f"http://127.0.0.1:{world.upstream}"),
            ("dead", f"http://{host('dead')}", f"http://127.0.0.1:{world.deaf.getsockname()[1]}"),
            ("files", f"http://{host('files')}", f"file://{world.work}/site"),
            ("bulk", "tcp://", f"127.0.0.1:{world.echo}"),
            ("extra", f"http://{host(f'extra{self.extra}x')}", f"127.0.0.1:{world.upstream}"),
        ]
        text = f"""version: 3
agent:
  authtoken: {world.token}
  connect_url: "edge.test:{self.relay.port}"
  connect_cas: {world.ready["ca"]}
  dns_resolver_ips: ["127.0.0.1:{world.names}"]
  dns_public_resolvers: false
  crl_url: "http://127.0.0.1:{world.lists}/list.crl"
  state_dir: {self.dir}/state
  web_addr: {self.web[0]}:{self.web[1]}
  memory_limit: 16MiB
  heartbeat_interval: 1s
  log: {self.log}
  log_format: logfmt
endpoints:
"""
        for name, url, upstream in endpoints:
            text += f'- {{name: {name}, url: "{url}", upstream: {{url: "{upstream}"}}}}\n'
        with open(self.config + ".new", "w") as file:
            file.write(text)
        os.rename(self.config + ".new", self.config)

    # What visitors and users see ------------------------------------------------

    def get(self, name, path="/", **rest):
        return request(self.visitors, self.host(name), "GET", path, **rest)

    def api(self, method, path, body=None):
        head = "Content-Type: application/json\r\n" if body is not None else ""
        body = json.dumps(body).encode() if body is not None else b""
        return request(self.web, "localhost", method, path, body, head)

    def tcp(self):
        status, body = self.api("GET", "/api/tunnels/bulk")
        if status != 200:
            return None
        port = json.loads(body)["public_url"].rsplit(":", 1)[-1]
        return ("127.0.0.1", int(port)) if port.isdigit() else None

    def serves(self):
        """Everything that it is there for."""
        if self.get("web", patience=PATIENT) != (200, b"served"):
            return False
        if self.get("files", "/index.html") != (200, b"served"):
            return False
        tcp = self.tcp()
        return tcp is not None and echo(tcp, b"hello") == b"hello"

    def work(self):
        """Visitors of all kinds. What they get is not looked at: a call may just have
        failed. But each gets something."""
        web = self.host("web")
        self.get("web")
        request(self.visitors, web, "POST", "/", BIG[:200_000])
        self.get("web", "/big")
        tcp = self.tcp()
        if tcp:
            echo(tcp, BIG[:400_000])
        self.get("files", "/big")
        self.get("files", "/big", head="Range: bytes=5-300000\r\n")
        self.get("files", "/dir/")
        self.get("files", "/missing")
        self.get("dead")
        self.api("GET", "/")
        status, body = self.api("GET", "/api/requests/http?limit=3")
        # An answer that broke off is not all of it.
        if status == 200 and (found := re.search(rb'"id":"(\w+)"', body)):
            self.api("POST", "/api/requests/http", {"id": found[1].decode()})
        other = {"name": "other", "proto": "http", "addr": str(self.world.upstream)}
        self.api("POST", "/api/tunnels", other | {"hostname": self.host("other")})
        self.api("DELETE", "/api/tunnels/other")

    def extra_serves(self):
        return self.get(f"extra{self.extra}x") == (200, b"served")

    def reload(self, agent, limit):
        """A changed configuration is read, and what it says is so."""
        self.extra += 1
        self.write()
        agent.signal(signal.SIGHUP)
        return until(limit, self.extra_serves)


PATIENT = 12


class Agent:
    """A running program."""

    def __init__(self, place, trace=None, options=()):
        self.place = place
        # What is kept between runs is written at the first one.
        shutil.rmtree(place.dir + "/state", ignore_errors=True)
        self.errors = place.dir + "/err"
        for name in (self.errors, place.log):
            open(name, "w").close()
        command = [place.program, "start", "--all", "--config", place.config]
        if trace:
            command = ["strace", "-I2", "-D", "-f", "-qq", "-o", trace, *options, *command]
        environment = {"HOME": place.dir, "PATH": os.environ["PATH"]}
        with open(self.errors, "a") as err, open(place.dir + "/out", "w") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment
            )
        self.pid = self.process.pid
        self.files = None

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
            return not self.ended() and self.place.serves()
        except Hung:
            return False

    def open_files(self):
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0

    def cpu(self):
        """Seconds of processor time so far."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def tracer(self):
        try:
            with open(f"/proc/{self.pid}/status") as file:
                lines = [line for line in file if line.startswith("TracerPid:")]
            return int(lines[0].split()[1])
        except (OSError, IndexError):
            return 0

    def leave_tracer(self):
        """Ends a tracer: what fails once would fail once in each thread to come."""
        tracer = self.tracer()
        if tracer:
            try:
                os.kill(tracer, signal.SIGTERM)
            except ProcessLookupError:
                pass
            until(10, lambda: self.tracer() == 0)

    def attach(self, trace, options):
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", trace, *options, "-p", str(self.pid)],
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

    # The phases -----------------------------------------------------------------

    def act(self, phase):
        """What happens in a phase."""
        if phase == "start":
            until(8, lambda: self.ended() or self.serves())
        elif phase == "serve":
            self.place.work()
        elif phase == "reload":
            self.place.reload(self, 2)
            self.signal(signal.SIGUSR1)
        elif phase == "reconnect":
            self.place.relay.cut()
            until(4, lambda: self.ended() or self.serves())
        elif phase == "idle":
            # Workers go after five seconds, and with them what the program has in memory.
            time.sleep(8)
        elif phase == "stop":
            self.signal(signal.SIGTERM)
            until(20, self.ended)
