"""Runs the wrappers of ngrok's agent, from PyPI and npm, with culvert and its
edge. Standard library only; loopback only.

usage: wrappers.py EDGE AGENT NAME=COMMAND... (a command is split at blanks)
"""

import os
import shutil
import subprocess
import sys
import tempfile

from loopback import Edge, serve_http


def main():
    edge, agent, *wrappers = sys.argv[1:]
    # In a new namespace the loopback interface is down at first.
    subprocess.run(["ip", "link", "set", "lo", "up"], stderr=subprocess.DEVNULL, check=False)
    upstream = serve_http()
    passed = failed = 0
    with tempfile.TemporaryDirectory() as work:
        # The npm package starts a program of this name.
        shutil.copy(agent, os.path.join(work, "ngrok"))
        edge = Edge(edge, work)
        try:
            config = os.path.join(work, edge.ready["agent_config"])
            http_port = str(edge.address("http_addr")[1])
            with open(edge.ready["api_key_file"], encoding="utf-8") as file:
                key = file.read().strip()
            api = {"NGROK_API_BASE_URL": f"http://{edge.ready['api_addr']}", "NGROK_API_KEY": key}
            for wrapper in wrappers:
                name, command = wrapper.split("=", 1)
                fill = {"AGENT": f"{work}/ngrok", "DIR": work, "CONFIG": config}
                fill |= {"EDGE": http_port, "UPSTREAM": str(upstream)}
                words = [fill.get(word, word) for word in command.split()]
                run = subprocess.run(
                    words, capture_output=True, text=True, timeout=120, check=False,
                    env=os.environ | api,
                )
                lines = run.stdout.splitlines()
                passed += sum(line.startswith("ok ") for line in lines)
                bad = [line for line in lines if line.startswith("FAIL")]
                failed += len(bad) + (run.returncode != 0)
                print("\n".join(f"{name}: {line}" for line in lines))
                if run.returncode != 0 or bad:
                    print(run.stderr[:2000], file=sys.stderr)
        finally:
            edge.stop()
    print(f"interop: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
