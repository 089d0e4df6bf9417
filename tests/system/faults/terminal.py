"""A terminal with a user: its content, its state, and typed keys."""

import fcntl
import os
import struct
import termios
import threading

# Sequences by which the status screen acquires and releases the terminal.
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
            # The other end is closed.
            os.close(self.master)

    def press(self, key):
        os.write(self.master, key)

    def resize(self):
        """Sets two sizes in turn. A program with a screen draws it again."""
        self.width = 161 - self.width
        size = struct.pack("HHHH", 24, self.width, 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def has_screen(self):
        """Returns whether a program has acquired it, by the bytes written to it."""
        return self.seen.rfind(ENTER) > self.seen.rfind(LEAVE)

    def is_usual(self):
        """Returns whether it is restored: echo is on, Ctrl+S works."""
        return termios.tcgetattr(self.slave) == self.usual

    def drawn(self):
        """Returns how often a whole screen was drawn."""
        return self.seen.count(WHOLE)

    def end(self):
        os.close(self.slave)
