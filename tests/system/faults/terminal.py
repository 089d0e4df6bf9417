"""A terminal with somebody before it: what is on it, what state it is in, what he presses."""

import fcntl
import os
import struct
import termios
import threading

# How the status screen takes the terminal, and gives it back.
ENTER, LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
WHOLE = b"\x1b[2J"


class Terminal:
    def __init__(self):
        self.master, self.slave = os.openpty()
        self.width = 80
        self.resize()
        self.usual = termios.tcgetattr(self.slave)
        self.seen = bytearray()
        threading.Thread(target=self.look, daemon=True).start()

    def look(self):
        try:
            while data := os.read(self.master, 65536):
                self.seen += data
        except OSError:
            # Nobody has the other end any more.
            os.close(self.master)

    def press(self, key):
        os.write(self.master, key)

    def resize(self):
        """Two sizes in turn. Whoever shows a screen draws it anew."""
        self.width = 161 - self.width
        size = struct.pack("HHHH", 24, self.width, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def has_screen(self):
        """Somebody has taken it: by what was written to it."""
        return self.seen.rfind(ENTER) > self.seen.rfind(LEAVE)

    def is_usual(self):
        """As it was: what is typed is seen, Ctrl+S works."""
        return termios.tcgetattr(self.slave) == self.usual

    def drawn(self):
        """How often a whole screen was drawn."""
        return self.seen.count(WHOLE)

    def end(self):
        os.close(self.slave)
