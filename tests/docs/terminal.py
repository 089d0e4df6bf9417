"""A shell in a terminal, as a user has it: for the tests of documents and of make demo."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

PATIENCE = 60  # seconds for anything that should happen
BUILD = 800  # seconds for a command that builds the programs


class Failed(Exception):
    """Something did not happen."""


class Terminal:
    """An interactive shell. What it prints is in `output`."""

    def __init__(self, name, directory, environment, shell=("sh",)):
        self.name, self.output, self.status = name, "", None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execvpe(shell[0], list(shell), environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def read(self, seconds=0.2):
        """Reads what the terminal has; returns false at its end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False  # EIO: the last process has ended
        self.output += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def wait(self, text, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while text not in self.output:
            if not self.read() or time.monotonic() > end:
                raise Failed(f"terminal {self.name} does not show {text!r}:\n{self.output}")

    def interrupt(self):
        """Types Ctrl-C and waits for the prompt. What is typed before that is discarded."""
        self.type("\x03")
        end = time.monotonic() + PATIENCE
        while not self.output.endswith("$ "):
            if not self.read() or time.monotonic() > end:
                raise Failed(f"terminal {self.name} shows no prompt after Ctrl-C:\n{self.output}")

    def end(self, seconds=PATIENCE):
        """Waits for the end; returns the exit status."""
        end = time.monotonic() + seconds
        while self.read():
            if time.monotonic() > end:
                raise Failed(f"terminal {self.name} does not end:\n{self.output}")
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def close(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGHUP)
            try:
                self.end(20)
            except Failed:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self.fd)
