"""Types the tour of README.md into terminals, in a clean home, and runs make demo in one.

usage: tour.py     in the project's directory, in a network namespace of its own
"""

import contextlib
import os
import pathlib
import re
import signal
import sys
import tempfile

from terminal import BUILD, PATIENCE, Failed, Terminal

BLOCK = re.compile(r"<!-- tour: (terminal|output) (\d) -->\n```\w*\n(.*?)```", re.S)
# Expected text in a terminal before the next one is opened.
READY = {"1": "culvert-edge is ready.", "2": "http://me.localhost:4080 ->"}
# The environment of a new user. Nothing else of this process reaches the terminals.
KEPT = ("PATH", "LANG", "USER", "LOGNAME")
# Directory of the toolchain, if it depends on the home.
TOOLCHAIN = {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup"}


def environment(home):
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    for name, directory in TOOLCHAIN.items():
        kept[name] = os.environ.get(name) or str(pathlib.Path.home() / directory)
    if "RUSTUP_TOOLCHAIN" in os.environ:
        kept["RUSTUP_TOOLCHAIN"] = os.environ["RUSTUP_TOOLCHAIN"]
    kept |= {"HOME": home, "TMPDIR": home, "TERM": "xterm", "PS1": "$ "}
    return kept | {"CARGO_NET_OFFLINE": "true", "CARGO_TERM_COLOR": "never"}


def tour(home):
    blocks = {(kind, number): text for kind, number, text in BLOCK.findall(pathlib.Path("README.md").read_text())}
    numbers = sorted(number for kind, number in blocks if kind == "terminal")
    if numbers != ["1", "2", "3"]:
        raise Failed(f"README.md has the terminals {numbers}")
    with contextlib.ExitStack() as opened:
        terminals = {}
        for number in numbers:
            # The third one is "anywhere".
            directory = home if number == "3" else os.getcwd()
            terminal = terminals[number] = Terminal(number, directory, environment(home))
            opened.callback(terminal.close)
            terminal.type(blocks["terminal", number])
            if number in READY:
                terminal.wait(READY[number], BUILD if number == "1" else PATIENCE)
        for line in blocks["output", "3"].splitlines():
            terminals["3"].wait(line)
        terminals["2"].wait("200 OK")
        for number in ("2", "1"):
            terminals[number].interrupt()
            terminals[number].type("echo status=$?\n")
            terminals[number].wait("status=0")


def programs_below(home):
    """Returns the processes of the demo: their arguments contain the directory."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if pathlib.Path(os.fsdecode(words[0])).name.startswith("culvert") and home.encode() in b" ".join(words):
                found.append(int(path.parent.name))
    return found


def typed(terminal, _home):
    terminal.type("\x1a")  # Ctrl-Z has no effect
    terminal.type("\x03")


def programs_first(_terminal, home):
    """Ctrl-C on a busy machine: the programs end before the script reads the signal."""
    programs = programs_below(home)
    if len(programs) != 2:
        raise Failed(f"make demo has the programs {programs}")
    for pid in programs:
        os.kill(pid, signal.SIGINT)


def demo(home, stop=typed):
    terminal = Terminal("demo", os.getcwd(), environment(home), ("make", "demo"))
    try:
        terminal.wait("inspector: http://127.0.0.1:", BUILD)
        terminal.wait("Ctrl-C ends it.")
        stop(terminal, home)
        status = terminal.end()
    finally:
        terminal.close()
    after = terminal.output.partition("Ctrl-C ends it.")[2]
    if status != 0 or re.search("make|error", after, re.I):
        raise Failed(f"make demo ended with {status}:\n{terminal.output}")
    if leftover := [path for path in pathlib.Path(home).glob("culvert-demo.*")]:
        raise Failed(f"make demo left {leftover}")


def demo_in_another_order(home):
    demo(home, programs_first)


def main():
    passed = failed = 0
    for check in (tour, demo, demo_in_another_order):
        with tempfile.TemporaryDirectory() as home:
            try:
                check(home)
                passed += 1
                print(f"ok: {check.__name__}")
            except Failed as error:
                failed += 1
                print(f"FAILED: {check.__name__}: {error}")
    print(f"tour: {passed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
