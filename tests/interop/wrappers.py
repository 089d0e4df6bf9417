"""Runs the wrappers of ngrok's agent, from PyPI and npm, with our agent against our
edge. Standard library only; loopback only.

usage: wrappers.py EDGE AGENT NAME=COMMAND... (a command is split at blanks)
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"hello {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    edge, agent, *wrappers = sys.argv[1:]
    # In a namespace of our own the loopback interface is down at first.
    subprocess.run(["ip", "link", "set", "lo", "up"], stderr=subprocess.DEVNULL, check=False)
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        # The npm package looks for a program of this name.
        shutil.copy(agent, os.path.join(work, "ngrok"))
        ready = os.path.join(work, "ready.json")
        any_port = "127.0.0.1:0"
        process = subprocess.Popen(
            [edge, "dev", "--agent-addr", any_port, "--http-addr", any_port]
            + ["--https-addr", any_port, "--tcp-ports", "0", "--dir", f"{work}/edge"]
            + ["--ready-file", ready],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + 30
            while not os.path.exists(ready) and time.monotonic() < end:
                time.sleep(0.05)
            with open(ready, encoding="utf-8") as file:
                ports = json.load(file)
            config = os.path.join(work, ports["agent_config"])
            http_port = ports["http_addr"].rsplit(":", 1)[1]
            for wrapper in wrappers:
                name, command = wrapper.split("=", 1)
                fill = {"AGENT": f"{work}/ngrok", "DIR": work, "CONFIG": config}
                fill |= {"EDGE": http_port, "UPSTREAM": str(upstream.server_port)}
                words = [fill.get(word, word) for word in command.split()]
                run = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
                lines = run.stdout.splitlines()
                passed += sum(line.startswith("ok ") for line in lines)
                bad = [line for line in lines if line.startswith("FAIL")]
                failed += len(bad) + (run.returncode != 0)
                print("\n".join(f"{name}: {line}" for line in lines))
                if run.returncode != 0 or bad:
                    print(run.stderr[:2000], file=sys.stderr)
        finally:
            process.kill()
            process.wait()
    print(f"interop: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
