"""Checks the configurations in the documents with the programs that read them.

usage: examples.py BINARIES     directory of culvert and culvert-edge
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

BLOCK = re.compile(r"^```ya?ml\n(.*?)^```", re.S | re.M)
HASH = re.compile(r"sha256:\S+")
PATIENCE = 30  # seconds


def examples():
    """(file:line, text) of each YAML block in the documents."""
    pages = [pathlib.Path("README.md"), *sorted(pathlib.Path("docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            yield f"{page}:{text.count(chr(10), 0, match.start()) + 1}", match[1]


def agent(binaries, directory, text):
    """Returns what `culvert config check` reports about an agent's configuration."""
    if "version:" not in text:
        text = "version: 3\n" + text
    file = directory / "ngrok.yml"
    file.write_text(text)
    environment = os.environ | {"HOME": str(directory)}
    done = subprocess.run([f"{binaries}/culvert", "config", "check", "--config", file], env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr + done.stdout


def policy(binaries, directory, text):
    """Returns what `culvert config check` reports about a traffic policy."""
    lines = "".join(f"      {line}\n" for line in text.splitlines())
    endpoint = "  - name: a\n    upstream: {url: 8080}\n    traffic_policy:\n"
    return agent(binaries, directory, f"endpoints:\n{endpoint}{lines}")


def edge(binaries, directory, text):
    """Returns what `culvert-edge serve` reports about an edge's configuration; starts it on
    loopback, with a certificate in place of the named one and a hash where "..." stands for one."""
    pem = directory / "pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=tunnel.example.com", "-addext", "subjectAltName=DNS:*.tunnel.example.com",
         "-keyout", f"{pem}.key", "-out", f"{pem}.crt"],
        check=True, capture_output=True,
    )
    if not re.search(r"^(domain|credentials):", text, re.M):
        # Some keys of a file, not all of it.
        text = f"domain: tunnel.example.com\ncredentials:\n  - id: part\n    hash: sha256:...\n{text}"
    text = HASH.sub("sha256:" + "0" * 64, text)
    text = re.sub(r"(certificate:) \S+", rf"\1 {pem}.crt", text)
    text = re.sub(r"(\bkey:) \S+", rf"\1 {pem}.key", text)
    text = re.sub(r"(\bcas:) [^\s}]+", rf"\1 {pem}.crt", text)
    text = re.sub(r"(state_dir:) \S+", rf"\1 {directory}/state", text)
    text = re.sub(r"(\bupdates:) \S+", rf"\1 {directory}", text)
    file, ready = directory / "edge.yml", directory / "ready"
    file.write_text(text)
    loopback = [f"--{name}-addr=127.0.0.1:0" for name in ("agent", "http", "https", "api")]
    command = [f"{binaries}/culvert-edge", "serve", "--config", file, "--ready-file", ready, "--tcp-ports", "0", *loopback]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        end = time.monotonic() + PATIENCE
        while process.poll() is None and not ready.exists() and time.monotonic() < end:
            time.sleep(0.05)
        started = ready.exists()
        process.terminate()
        output = process.communicate()[0]
    return "" if started else output


def main(binaries):
    passed = failed = 0
    for place, text in examples():
        kind = agent
        if re.search(r"^(domain|credentials|listeners|routes|fetch|oauth):", text, re.M):
            kind = edge
        elif re.search(r"^(on_\w+|inbound|outbound):", text, re.M):
            kind = policy
        with tempfile.TemporaryDirectory() as directory:
            fault = kind(binaries, pathlib.Path(directory), text)
        if fault:
            failed += 1
            print(f"FAILED: {place}: {fault}")
        else:
            passed += 1
    print(f"examples: {passed} passed, {failed} failed")
    return failed or passed == 0


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1])))
