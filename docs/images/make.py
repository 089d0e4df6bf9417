"""Makes the picture of README.md from the running programs: the status screen in tmux and the
inspector in Chromium. It uses the default ports: run it in a network namespace of its own.

usage: make.py BINARIES     directory of culvert and culvert-edge (docs/images/make.sh)

Writes inspector-light.png and inspector-dark.png beside this file.
"""

import base64
import html
import json
import pathlib
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter

from loopback import PATIENCE, Failed, Handler, HttpServer, serve, until
from webdriver import Browser

HERE = pathlib.Path(__file__).resolve().parent
MAX_BYTES = 150_000
COMMAND = "culvert http 8080 --url http://me.localhost"
SCREEN = (84, 26)  # columns, lines
PAGE = (860, 640)  # of the inspector, in CSS pixels

PUSH = {"ref": "refs/heads/main", "repository": {"full_name": "example/site"}, "pusher": {"name": "alice"}, "commits": 2}
VISITS = [
    ("GET", "/", None, "curl/8.5.0"),
    ("GET", "/app.css", None, "Mozilla/5.0"),
    ("GET", "/favicon.ico", None, "Mozilla/5.0"),
    ("POST", "/hooks/deploy", {"target": "staging"}, "deploy/1.2"),
    ("GET", "/api/items?page=2", None, "Mozilla/5.0"),
    ("POST", "/hooks/push", PUSH, "webhooks/3.0"),
]


class Service(Handler):
    """The local service: a site that receives webhooks."""

    def respond(self):
        self.body()
        path = self.path.split("?")[0]
        status = {"/favicon.ico": 404, "/hooks/deploy": 500}.get(path, 200)
        if path == "/app.css":
            self.answer(b"body{margin:0}" * 40, status, "text/css")
        elif path == "/":
            self.answer(b"<h1>hello</h1>", status, "text/html; charset=utf-8")
        else:
            self.answer(json.dumps({"ok": status == 200, "queued": status == 200}).encode(), status, "application/json")

    do_GET = do_POST = respond


def visit(port, host, method, target, body, agent):
    data = b"" if body is None else json.dumps(body).encode()
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", f"User-Agent: {agent}", "Accept: */*", "Connection: close"]
    if data:
        head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    with socket.create_connection(("127.0.0.1", port), 10) as visitor:
        visitor.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + data)
        while visitor.recv(65536):
            pass


class Terminal:
    """A command in a terminal of tmux."""

    def __init__(self, work, command):
        self.tmux = ["tmux", "-f", "/dev/null", "-S", f"{work}/tmux"]
        size = ["-x", str(SCREEN[0]), "-y", str(SCREEN[1])]
        subprocess.run([*self.tmux, "new-session", "-d", *size, command], check=True)

    def text(self):
        return subprocess.run([*self.tmux, "capture-pane", "-p", "-e"], check=True, capture_output=True, text=True).stdout

    def close(self):
        subprocess.run([*self.tmux, "kill-server"], check=False)


def as_html(text):
    """The screen's text with its colours as spans."""
    out, open_span = [], False
    for part in re.split(r"(\x1b\[[0-9;]*m)", text):
        if not part.startswith("\x1b"):
            out.append(html.escape(part))
            continue
        if open_span:
            out.append("</span>")
        codes = [code for code in part[2:-1].split(";") if code not in ("", "0", "39", "49", "40")]
        open_span = bool(codes)
        if codes:
            out.append(f'<span class="{" ".join("c" + code for code in codes)}">')
    return "".join(out) + ("</span>" if open_span else "")


STYLE = """
:root { --bg: #ffffff; --fg: #1f2328; --frame: #d0d7de; --bar: #f0f2f4; --red: #cf222e; --green: #116329; --yellow: #7d4e00; --cyan: #1b7c83; }
.dark { --bg: #0d1117; --fg: #e6edf3; --frame: #30363d; --bar: #161b22; --red: #ff7b72; --green: #56d364; --yellow: #e3b341; --cyan: #56d4dd; }
html, body { margin: 0; background: var(--bg); color: var(--fg); }
main { display: flex; gap: 20px; padding: 12px; align-items: stretch; }
figure { margin: 0; border: 1px solid var(--frame); border-radius: 8px; overflow: hidden; background: var(--bg); }
figcaption { background: var(--bar); border-bottom: 1px solid var(--frame); padding: 7px 14px; font: 13px sans-serif; }
pre { margin: 0; padding: 14px; font: 14px/1.45 "DejaVu Sans Mono", monospace; }
img { display: block; }
.c1 { font-weight: bold; } .c2 { opacity: .7; } .c31, .c91 { color: var(--red); } .c32, .c92 { color: var(--green); }
.c33, .c93 { color: var(--yellow); } .c36, .c96, .c34, .c94 { color: var(--cyan); } .c35 { color: var(--red); }
"""


def compose(screen, page, dark):
    image = base64.b64encode(page).decode()
    return f"""<!doctype html><meta charset="utf-8"><style>{STYLE}</style><body class="{'dark' if dark else 'light'}"><main>
<figure><figcaption>$ {COMMAND}</figcaption><pre>{screen}</pre></figure>
<figure><figcaption>http://127.0.0.1:4040</figcaption><img width="{PAGE[0]}" height="{PAGE[1]}" src="data:image/png;base64,{image}"></figure>
</main></body>"""


# --- PNG with a palette: a fifth of the bytes ----------------------------------------


def pixels(png):
    """Width, height and rows of RGB of Chromium's PNG (8 bits, RGB or RGBA, not interlaced)."""
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        chunk = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", chunk[:10])
        elif kind == b"IDAT":
            data += chunk
        at += 12 + length
    if depth != 8 or colour not in (2, 6):
        raise Failed(f"PNG of depth {depth}, colour type {colour}")
    bpp = 3 if colour == 2 else 4
    raw, rows, above = zlib.decompress(data), [], bytearray(width * bpp)
    for y in range(height):
        start = y * (width * bpp + 1)
        kind, row = raw[start], bytearray(raw[start + 1 : start + 1 + width * bpp])
        for x in range(len(row)):
            left = row[x - bpp] if x >= bpp else 0
            corner = above[x - bpp] if x >= bpp else 0
            if kind == 1:
                row[x] = (row[x] + left) & 255
            elif kind == 2:
                row[x] = (row[x] + above[x]) & 255
            elif kind == 3:
                row[x] = (row[x] + (left + above[x]) // 2) & 255
            elif kind == 4:
                p = left + above[x] - corner
                a, b, c = abs(p - left), abs(p - above[x]), abs(p - corner)
                row[x] = (row[x] + (left if a <= b and a <= c else above[x] if b <= c else corner)) & 255
        rows.append([tuple(row[i : i + 3]) for i in range(0, len(row), bpp)])
        above = row
    return width, height, rows


def with_palette(png):
    width, height, rows = pixels(png)
    counts = Counter(colour for row in rows for colour in row)
    palette = [colour for colour, _ in counts.most_common(256)]
    index = {colour: i for i, colour in enumerate(palette)}
    for colour in counts:
        if colour not in index:
            index[colour] = min(range(len(palette)), key=lambda i: sum((a - b) ** 2 for a, b in zip(palette[i], colour)))
    data = b"".join(b"\0" + bytes(index[colour] for colour in row) for row in rows)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    colours = bytes(value for colour in palette for value in colour)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"PLTE", colours) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


# -------------------------------------------------------------------------------------


def screenshot(browser, work):
    path = f"{work}/shot.png"
    browser.screenshot(path)
    return pathlib.Path(path).read_bytes()


def make(binaries, work):
    serve(HttpServer(("127.0.0.1", 8080), Service))
    edge = subprocess.Popen([f"{binaries}/culvert-edge", "dev", "--dir", f"{work}/edge", "--ready-file", f"{work}/ready", "--log", "false"], stdout=subprocess.DEVNULL)
    terminal = browser = None
    try:
        if not until(PATIENCE, pathlib.Path(work, "ready").exists):
            raise Failed("the edge is not ready")
        pathlib.Path(work, "ngrok").mkdir()
        shutil.copy(f"{work}/edge/agent.yml", f"{work}/ngrok/ngrok.yml")
        terminal = Terminal(work, f"env -u NO_COLOR XDG_CONFIG_HOME={work} {binaries}/{COMMAND}")

        def shown(text):
            if not until(PATIENCE, lambda: text in terminal.text()):
                raise Failed(f"not on the status screen: {text}\n{terminal.text()}")

        shown("http://me.localhost:4080")
        shown("http://127.0.0.1:4040")
        for each in VISITS:
            visit(4080, "me.localhost:4080", *each)
        shown("/hooks/push")
        url, screen = "http://127.0.0.1:4040", terminal.text()
        browser = Browser(shutil.which("chromium"), shutil.which("chromedriver"), work)
        for dark in (False, True):
            browser.dark(dark)
            browser.size(*PAGE)
            browser.open(url + "/inspect/http")
            browser.wait(f"{len(VISITS)} rows", lambda: browser.count(".row") == len(VISITS))
            browser.script("document.querySelector('.row').click()")
            browser.wait_text("#detail h1", "/hooks/push")
            page = screenshot(browser, work)
            composed = pathlib.Path(work, "picture.html")
            composed.write_text(compose(as_html(screen.rstrip("\n")), page, dark))
            browser.size(1700, 720)
            browser.open(composed.as_uri())
            width, height = browser.script("const r = document.querySelector('main').getBoundingClientRect(); const f = [...document.querySelectorAll('figure')].pop().getBoundingClientRect(); return [Math.ceil(f.right + 12), Math.ceil(r.bottom)]")
            browser.size(width, height)
            picture = with_palette(screenshot(browser, work))
            if len(picture) > MAX_BYTES:
                raise Failed(f"the picture has {len(picture)} bytes, at most {MAX_BYTES}")
            name = HERE / f"inspector-{'dark' if dark else 'light'}.png"
            name.write_bytes(picture)
            print(f"{name.name}: {width} x {height}, {len(picture)} bytes")
    finally:
        if browser:
            browser.close()
        if terminal:
            terminal.close()
        edge.terminate()
        edge.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        make(sys.argv[1], directory)
