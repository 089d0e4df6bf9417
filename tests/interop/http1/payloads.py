"""HTTP/1 payloads on which readers are known to disagree, and mutations of them.

Every request payload ends with a request for /behind: a reader that sees another end of
the first request sees another target, or none."""

import random

BEHIND = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

FRAMING = [
    "Content-Length: 5", "content-length:5", "Content-Length: 05", "Content-Length: 5 ",
    "Content-Length:\t5", "Content-Length: +5", "Content-Length: -5", "Content-Length: 0x5",
    "Content-Length: 5,5", "Content-Length: 5, 5", "Content-Length: 5;a", "Content-Length: 5 5",
    "Content-Length: 5.0", "Content-Length: 5e0", "Content-Length: \"5\"", "Content-Length:",
    "Content-Length: 0", "Content-Length: 4294967301", "Content-Length: 18446744073709551621",
    "Content-Length: 99999999999999999999", "Content-Length : 5", "Content-Length\t: 5",
    " Content-Length: 5", "Content-Length: 5\r\nContent-Length: 5",
    "Content-Length: 5\r\nContent-Length: 6", "Content-Length: 6\r\nContent-Length: 5",
    "Content-Length:\r\n 5", "Content-Length: 5\r\n 5", "Content-Length: 5\r", "Content-Length: \x005",
    "Content-Length: 5\x00", "Content-Length\x00: 5", "Content_Length: 5", "Content-Length: \x0b5",
    "Content-Length: 5\x0c", "X: y\nContent-Length: 5", "X: y\rContent-Length: 5",
    "X: y\r\r\nContent-Length: 5", "Content-Length: 5\nX: y",
    "Transfer-Encoding: chunked", "transfer-encoding:chunked", "Transfer-Encoding: Chunked",
    "Transfer-Encoding: CHUNKED ", "Transfer-Encoding:\tchunked", "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked", " Transfer-Encoding: chunked", "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx", "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked", "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked, gzip", "Transfer-Encoding: gzip",
    "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: ,chunked", "Transfer-Encoding: chunked,",
    "Transfer-Encoding: chunked;a=b", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding: chunked\x00",
    "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: chunked\x0c", "Transfer-Encoding\x00: chunked",
    "Transfer_Encoding: chunked", "Transfer-Encoding:\r\n chunked", "Transfer-Encoding: chunked\r\n x",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "Transfer-Encoding: cow",
    "Transfer-Encoding:", "X: y\nTransfer-Encoding: chunked", "X: y\rTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\nX: y", "Transfer-Encoding: chunked\rX: y",
    "Content-Length: 5\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 5",
    "Content-Length: 15\r\nTransfer-Encoding: chunked", "Content-Length: 15\r\nTransfer-Encoding : chunked",
    "Content-Length: 15\r\nTransfer-Encoding: xchunked", "Content-Length: 15\r\n Transfer-Encoding: chunked",
    "Content-Length: 15\r\nTransfer-Encoding\x0b: chunked", "Content-Length: 15\r\nX: y\rTransfer-Encoding: chunked",
    "Content-Length: 15\r\nTransfer-Encoding: identity", "Content-Length: 0\r\nTransfer-Encoding: chunked",
    "Connection: Content-Length\r\nContent-Length: 5", "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
    "Expect: 100-continue\r\nContent-Length: 5", "",
]

SYNTAX = [
    "no colon", ": empty", " folded", "a b: c", "a\t: c", "a: b\x00c", "a: b\rc", "a: b\x7f", "a: b\x01",
    "a\x00: b", "a\xe9: b", "a: \xe9", "a(b): c", "a@b: c", "a: b\r\n c", "a: b\r\n\tc: d", "a:", "a:\x0b", "a: b\r",
    "\ra: b", "a\r: b", "Host : a", "host: b", "Host: b", "Host:", "Host: a b", "Host: a@b", "Host: a\x00",
    "Connection: close", "Connection: keep-alive", "Upgrade: h2c\r\nConnection: Upgrade",
]

LINES = [
    "GET / HTTP/1.1", "GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET /a b HTTP/1.1", "GET\t/ HTTP/1.1",
    "GET / HTTP/1.0", "GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/0.9", "GET / http/1.1", "GET /",
    "GET / HTTP/1.1 ", " GET / HTTP/1.1", "GET / HTTP/1.1\r", "GET /\x00 HTTP/1.1", "GET /\x7f HTTP/1.1",
    "GET /\xe9 HTTP/1.1", "GET /#a HTTP/1.1", "GET http://a/x HTTP/1.1", "GET http://b/x HTTP/1.1",
    "GET * HTTP/1.1", "OPTIONS * HTTP/1.1", "G@T / HTTP/1.1", "get / HTTP/1.1", "CONNECT a:443 HTTP/1.1",
    "PRI * HTTP/2.0", "\r\nGET / HTTP/1.1", "\nGET / HTTP/1.1", "\x16\x03\x01GET / HTTP/1.1",
    "GET / HTTP/1.1\nX: y", "GET / HTTP/+1.1", "GET / HTTP/1.10", "GET / HTTP/11", "GET / HTTPS/1.1",
]

BODIES = [
    "5\r\nhello\r\n0\r\n\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", " 5\r\nhello\r\n0\r\n\r\n",
    "5\t\r\nhello\r\n0\r\n\r\n", "05\r\nhello\r\n0\r\n\r\n", "000000000000000000005\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n", "+5\r\nhello\r\n0\r\n\r\n", "-5\r\nhello\r\n0\r\n\r\n", "5_0\r\nhello\r\n0\r\n\r\n",
    "5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhello\r\n0\n\n", "5\r\nhello\r\n0\r\n\n",
    "5\rhello\r\n0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5;\r\nhello\r\n0\r\n\r\n", "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n", "5;\x00\r\nhello\r\n0\r\n\r\n", "5 5\r\nhello\r\n0\r\n\r\n", "5,5\r\nhello\r\n0\r\n\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nA: b\r\n\r\n", "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
    "5\r\nhello\r\n0\r\n folded\r\n\r\n", "5\r\nhello\r\n0\r\nA: b\n\r\n", "5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "100000005\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n", "\r\n5\r\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n00\r\n\r\n", "5\r\nhello\r\n0;x\r\n\r\n",
    "5\r\nhello\r\n0 \r\n\r\n", "g\r\nhello\r\n0\r\n\r\n", "\r\n", "5;" + "x" * 5000 + "\r\nhello\r\n0\r\n\r\n", "A\r\n0123456789\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\nA : b\r\n\r\n", "5\r\nhello\r\n0\r\n: b\r\n\r\n", "5 ;a\r\nhello\r\n0\r\n\r\n", "5\xa0\r\nhello\r\n0\r\n\r\n",
]

STATUS = [
    "HTTP/1.1 200 OK", "HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200 OK", "HTTP/1.1  200 OK", "HTTP/1.1 200OK",
    "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "HTTP/1.1 +20 OK", "HTTP/1.1 099 OK", "HTTP/1.2 200 OK", "HTTP/2 200 OK",
    "http/1.1 200 OK", "ICY 200 OK", "HTTP/1.1 200 O\x00K", "HTTP/1.1 200 O\rK", "HTTP/1.1 204 No", "HTTP/1.1 304 Not",
    "HTTP/1.1 205 Reset", "HTTP/1.1 999 Odd", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", "HTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK",
    "HTTP/1.1 101 Switching", "HTTP/1.1 200 \xe9", "HTTP/1.1\t200 OK", " HTTP/1.1 200 OK", "\r\nHTTP/1.1 200 OK",
]


def latin(text):
    return text.encode("latin-1")


def mutations(seeds, count, words):
    """Some of the seeds with a few bytes changed: the same ones on every run."""
    dice = random.Random(1)
    for _ in range(count):
        text = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(text) + 1)
            kind = dice.randrange(4)
            if kind == 0 and at < len(text):
                text[at] = dice.choice(b"\r\n\t :;,0\0\x7fA")
            elif kind == 1:
                del text[at : at + dice.randint(1, 4)]
            else:
                text[at:at] = latin(dice.choice(words))
        yield bytes(text)


WORDS = ["\r\n", "\n", "\r", " ", "\t", ":", ",", ";", "0", "5", "\x00", "Content-Length: 5\r\n",
         "Transfer-Encoding: chunked\r\n", "chunked", "X: y\r\n", "\r\n ", "HTTP/1.1"]


def requests():
    found = []
    for line in FRAMING:
        for body in (b"hello", CHUNKS):
            head = latin(f"POST /first HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n" if line else "POST /first HTTP/1.1\r\nHost: a\r\n\r\n")
            found.append(head + body)
    for line in SYNTAX:
        found.append(latin(f"GET /first HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"))
        found.append(latin(f"POST /first HTTP/1.1\r\nHost: a\r\n{line}\r\nContent-Length: 5\r\n\r\nhello"))
    for line in LINES:
        found.append(latin(f"{line}\r\nHost: a\r\n\r\n"))
        found.append(latin(f"{line}\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n") + CHUNKS)
    for body in BODIES:
        found.append(latin(f"POST /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
    seeds = [text for text in found if b"/first" in text]
    found.extend(mutations(seeds, 200, WORDS))
    return list(dict.fromkeys(text + BEHIND for text in found))


def responses():
    found = []
    for line in FRAMING:
        for body in (b"hello", CHUNKS):
            found.append(latin(f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n" if line else "HTTP/1.1 200 OK\r\n\r\n") + body)
    for line in SYNTAX:
        found.append(latin(f"HTTP/1.1 200 OK\r\n{line}\r\nContent-Length: 5\r\n\r\nhello"))
    for line in STATUS:
        found.append(latin(f"{line}\r\nContent-Length: 5\r\n\r\nhello"))
        found.append(latin(f"{line}\r\nTransfer-Encoding: chunked\r\n\r\n") + CHUNKS)
    for body in BODIES:
        found.append(latin(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"))
    found.extend(mutations(list(found), 150, WORDS))
    return list(dict.fromkeys(found))
