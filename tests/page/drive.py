"""Drives the page in a headless Chromium and reports, check by check, what works.

usage: drive.py mock|BINARIES [PICTURES]

BINARIES is the directory of culvert and culvert-edge. In PICTURES screenshots are kept.
"""

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request

import places
from loopback import Failed, require
from webdriver import ENTER, ESCAPE, Browser

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def request(method, path, headers=(), body=b""):
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Page:
    """The browser, with functions for the page."""

    def __init__(self, browser, place, upstream):
        self.browser, self.place, self.upstream = browser, place, upstream

    def visit(self, *args, **more):
        raw = request(*args, **more)
        if isinstance(self.place, places.Mock):
            raw = raw.replace(b"\r\n", b"\r\nHost: web.localhost:4080\r\n", 1)
        self.place.visit(raw)

    def fresh(self):
        """Loads the page without captured requests."""
        self.browser.open(self.place.url + "/inspect/http")
        self.browser.wait_text("#live", "live")
        self.browser.click("#clear")
        self.browser.wait_text("#toast", "All requests deleted")
        self.browser.wait_text("#empty", "No requests yet")
        self.upstream.hits.clear()

    def rows(self):
        return self.browser.script(
            "return [...document.querySelectorAll('.row')].filter(r => !r.hidden).map(r => [...r.children].map(c => c.textContent))")

    def wait_rows(self, n):
        self.browser.wait(f"{n} rows with a status", lambda: len(self.rows()) == n and all(row[3] != "\u2026" for row in self.rows()))

    def open_row(self, path):
        number = [row[2] for row in self.rows()].index(path) + 1
        self.browser.script("[...document.querySelectorAll('.row')].filter(r => !r.hidden)[arguments[0] - 1].click()", number)
        self.browser.wait_text("#detail h1", path)

    def show(self, side, tab):
        self.browser.script("document.getElementById(arguments[0]).click()", f"{side}-{tab}")

    def focus(self):
        return self.browser.script("return document.activeElement.id || document.activeElement.tagName")


@check
def one_request_paints_the_page_under_a_strict_policy(page):
    answer = urllib.request.urlopen(urllib.request.Request(page.place.url + "/inspect/http", headers={"Accept-Encoding": "gzip"}))
    policy = answer.headers["Content-Security-Policy"]
    require(policy and policy.startswith("default-src 'none'") and "unsafe" not in policy, f"policy {policy!r}")
    size = len(answer.read())
    require(size <= 40 * 1024, f"{size} bytes")
    page.fresh()
    # Requests of the browser, except for the API.
    others = page.browser.script(
        "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin + '/api/'))")
    require(others == [], f"further requests: {others}")
    require(page.browser.script("const s = document.createElement('script'); try { s.text = 'window.ran = 1'; document.head.append(s) } catch {} return window.ran || 0") == 0, "a script of somebody else ran")
    page.browser.console()


@check
def a_request_appears_by_itself(page):
    page.fresh()
    page.browser.script("window.stayed = 1")
    page.visit("POST", "/status/404?x=1", body=b"ab")
    page.wait_rows(1)
    row = page.rows()[0]
    require(row[1:4] == ["POST", "/status/404?x=1", "404"], row)
    require("ms" in row[4] and row[5] == "17 B" and row[6].endswith("web"), row)
    page.visit("GET", "/second")
    page.wait_rows(2)
    require(page.rows()[0][2] == "/second", "the newest is not first")
    require(page.browser.script("return window.stayed") == 1, "the page was loaded again")


@check
def what_was_there_before_is_shown(page):
    page.fresh()
    page.visit("GET", "/before")
    page.wait_rows(1)
    page.browser.open(page.place.url + "/")
    page.wait_rows(1)


@check
def the_detail_shows_query_headers_and_bodies(page):
    page.fresh()
    page.visit("POST", "/json?name=a%20b&c=d", ["X-Mine: yes", "Content-Type: application/x-www-form-urlencoded"], b"f=1&g=two+words")
    page.wait_rows(1)
    page.open_row("/json?name=a%20b&c=d")
    page.browser.wait_text("#request-panel", "a b")
    require("two words" in page.browser.text("#request-panel .pairs"), "no form")
    body = page.browser.text("#response-panel pre")
    require('{\n  "ok": true,\n  "big": 12345678901234567890,' in body, body)
    page.show("request", "Headers")
    require("X-Mine\tyes" in page.browser.text("#request-panel"), page.browser.text("#request-panel"))
    page.show("request", "Raw")
    require("X-Mine: yes" in page.browser.text("#request-panel") and "f=1&g=two+words" in page.browser.text("#request-panel"), "raw")
    page.show("request", "Hex")
    require("00000000  50 4f 53 54 20" in page.browser.text("#request-panel"), "hex")
    page.show("request", "Summary")


@check
def the_place_of_a_fault_in_json_is_marked(page):
    page.fresh()
    page.visit("GET", "/json/broken")
    page.wait_rows(1)
    page.open_row("/json/broken")
    page.browser.wait_text("#response-panel", "line 2, column 7")
    require(page.browser.text("#response-panel mark") == "t", "the mark")


@check
def packed_and_chunked_bodies_and_images_are_shown(page):
    page.fresh()
    page.visit("GET", "/gzip")
    page.visit("GET", "/png")
    page.wait_rows(2)
    page.open_row("/gzip")
    page.browser.wait_text("#response-panel pre", '"packed": "yes"')
    page.open_row("/png")
    page.browser.wait_text("#response-panel figcaption", "40 \u00d7 30")


@check
def replay_hits_the_upstream_again(page):
    page.fresh()
    page.visit("POST", "/counter", ["X-Mine: 7"], b"payload")
    page.wait_rows(1)
    page.open_row("/counter")
    page.browser.wait_text("#detail", "Replay")
    page.browser.click("#detail .main")
    page.wait_rows(2)
    hits = [hit for hit in page.upstream.hits if hit[1] == "/counter"]
    require(len(hits) == 2, f"{len(hits)} hits")
    for method, _, headers, body in hits:
        require(method == "POST" and body == b"payload" and ("X-Mine", "7") in headers, f"{method} {headers} {body}")
    # The copy is selected when it arrives, with a link to its original.
    page.browser.wait_text("#detail", "replayed")
    page.browser.script("[...document.querySelectorAll('#detail button')].find(b => b.textContent === 'Diff with original').click()")
    page.browser.wait_text("#diff-response", '+   "n": 2')
    require('-   "n": 1' in page.browser.text("#diff-response"), "the old line")
    require('    "same": 1' in page.browser.text("#diff-response"), "the common line")
    page.browser.keys(ESCAPE)
    require(page.browser.count("#dialog") == 0, "Esc closes the dialog")


@check
def a_replay_with_changes_arrives_as_changed(page):
    page.fresh()
    page.visit("GET", "/echo", ["X-Old: 1"])
    page.wait_rows(1)
    page.open_row("/echo")
    page.browser.wait_text("#detail", "Edit and replay")
    page.browser.keys("e")
    page.browser.wait_text("#dialog", "Headers, one a line")
    page.browser.write("#dialog .short input", "PUT")
    page.browser.write("#dialog input[autofocus]", "/echo?changed=1")
    page.browser.script(
        "const [lines, body] = document.querySelectorAll('#dialog textarea'); lines.value = lines.value.replace('X-Old: 1', 'X-New: 2\\nX-New: 3'); body.value = 'new body \u00e9'")
    page.browser.click("#dialog .main")
    page.wait_rows(2)
    method, path, headers, body = page.upstream.hits[-1]
    require((method, path, body.decode()) == ("PUT", "/echo?changed=1", "new body \u00e9"), f"{method} {path} {body}")
    require([v for n, v in headers if n == "X-New"] == ["2", "3"] and "X-Old" not in dict(headers), headers)


@check
def what_strangers_send_stays_text(page):
    page.fresh()
    evil = "<script>window.pwned=1;alert(9)</script>"
    page.visit("POST", "/xss?<img/src=x/onerror=alert(5)>=<script>alert(6)</script>", [f"X-Evil: {evil}", "User-Agent: <img src=x onerror=alert(7)>"],
               b"<script>window.pwned=1;alert(8)</script>")
    page.visit("GET", "/xss.svg")
    page.visit("POST", "/echo", ["Content-Type: application/xml"], b"<a><script>alert(1)</script><b onload='alert(2)'/></a>")
    page.visit("POST", "/echo", ["Content-Type: application/json"], b'{"<img src=x onerror=alert(1)>": "</pre><script>alert(1)</script>"}')
    page.wait_rows(4)
    for row in page.rows():
        page.open_row(row[2])
        for tab in ("Headers", "Raw", "Hex", "Summary"):
            page.show("request", tab)
            page.show("response", tab)
    page.open_row("/xss?<img/src=x/onerror=alert(5)>=<script>alert(6)</script>")
    page.show("request", "Headers")
    require(evil in page.browser.text("#request-panel"), "the header is not shown as text")
    require("<h1>evil</h1>" in page.browser.text("#response-panel"), "the body is not shown as text")
    page.browser.keys("d")
    page.open_row("/xss.svg")
    page.browser.keys("d")
    page.browser.wait_text("#dialog", "Difference")
    page.browser.keys(ESCAPE + "e")
    page.browser.wait_text("#dialog", "Edit and replay")
    page.browser.keys(ESCAPE)
    require(page.browser.dialog() is None, f"a dialog: {page.browser.dialog()}")
    require(page.browser.script("return window.pwned || 0") == 0, "a script ran")
    require(page.browser.script("return document.querySelectorAll('main script, main h1 h1, #list img, dialog script').length") == 0, "markup came through")
    told = [entry for entry in page.browser.console() if "Content Security Policy" in entry["message"] or "TrustedHTML" in entry["message"]]
    require(told == [], f"the policy had to stop something: {told}")
    page.show("request", "Summary")


@check
def filters_are_anded(page):
    page.fresh()
    for method, path in [("GET", "/api/a"), ("POST", "/api/b"), ("GET", "/status/404"), ("POST", "/api/status/503"), ("GET", "/long")]:
        page.visit(method, path, ["X-Tag: " + ("red" if method == "GET" else "blue")])
    page.wait_rows(5)
    page.browser.click("#more")
    paths = lambda: sorted(row[2] for row in page.rows())

    def field(name, value, expected):
        page.browser.script("const f = document.getElementById(arguments[0]); f.value = arguments[1]; f.dispatchEvent(new Event('input', {bubbles: true}))", name, value)
        require(paths() == sorted(expected), f"{name} {value}: {paths()}")

    field("f-method", "POST", ["/api/b", "/api/status/503"])
    field("f-status", "5xx", ["/api/status/503"])
    field("f-method", "", ["/api/status/503"])
    field("f-status", "4xx, 5xx", ["/status/404", "/api/status/503"])
    field("f-path", "/api", ["/api/status/503"])
    field("f-status", "", ["/api/a", "/api/b", "/api/status/503"])
    field("f-text", "x-tag: blue", ["/api/b", "/api/status/503"])
    field("f-text", "nothing like it", [])
    require("No request passes" in page.browser.text("#empty"), "said nothing")
    field("f-text", "", ["/api/a", "/api/b", "/api/status/503"])
    field("f-path", "", ["/api/a", "/api/b", "/status/404", "/api/status/503", "/long"])
    field("f-size", ">100k", ["/long"])
    field("f-size", "", ["/api/a", "/api/b", "/status/404", "/api/status/503", "/long"])
    field("f-duration", ">1m", [])
    page.visit("GET", "/hidden-by-the-filter")
    page.browser.wait_text("#count", "0 of 6")
    field("f-duration", "", ["/api/a", "/api/b", "/status/404", "/api/status/503", "/long", "/hidden-by-the-filter"])
    page.browser.click("#more")


@check
def a_long_body_is_shown_in_part(page):
    page.fresh()
    page.visit("GET", "/long")
    page.wait_rows(1)
    page.open_row("/long")
    page.browser.wait_text("#response-panel", "0123456789abcdef")
    text = page.browser.text("#response-panel")
    require("Show all 1.0 MB" in text or "were kept" in text, text[-200:])


@check
def the_keyboard_reaches_everything(page):
    page.fresh()
    for n in range(3):
        page.visit("GET", f"/key/{n}")
        page.wait_rows(n + 1)
    page.browser.script("document.activeElement.blur()")
    page.browser.keys("j")
    page.browser.wait_text("#detail h1", "/key/2")
    page.browser.keys("jj")
    page.browser.wait_text("#detail h1", "/key/0")
    page.browser.keys("k")
    page.browser.wait_text("#detail h1", "/key/1")
    selected = page.browser.script("const r = document.querySelector('[aria-selected=true]'); return [r.textContent, document.getElementById('list').getAttribute('aria-activedescendant') === r.id]")
    require("/key/1" in selected[0] and selected[1], selected)
    page.browser.keys(ENTER)
    require(page.focus() == "detail", page.focus())
    page.browser.keys(ESCAPE)
    require(page.focus() == "list", page.focus())
    page.browser.keys("/")
    require(page.focus() == "f-text", page.focus())
    page.browser.keys("key/0r")
    require(page.browser.script("return document.getElementById('f-text').value") == "key/0r", "keys are typed, not obeyed, in a field")
    page.browser.write("#f-text", "")
    page.browser.keys(ESCAPE)
    page.browser.keys("r")
    page.wait_rows(4)
    require(page.upstream.count("/key/1") == 2, "r replays")
    page.browser.keys("?")
    page.browser.wait_text("#dialog", "next, previous request")
    page.browser.keys(ESCAPE + "2")
    page.browser.wait_text("#status", "Endpoints")
    page.browser.keys("1")
    require(page.browser.count("#list") == 1, "1 leads back")


@check
def pause_keeps_the_list_still(page):
    page.fresh()
    page.visit("GET", "/a")
    page.wait_rows(1)
    page.browser.click("#pause")
    page.visit("GET", "/b")
    # An exchange may have two events, at its begin and at its end.
    page.browser.wait_text("#fresh", "new")
    require(len(page.rows()) == 1, "the list moved")
    page.browser.click("#fresh")
    page.wait_rows(2)


@check
def the_curl_command_does_the_same(page):
    page.fresh()
    page.browser.script("Object.defineProperty(navigator, 'clipboard', {value: {writeText: async t => { window.copied = t }}})")
    body = "it's \"quoted\" $HOME `id` \\ %41 \u00e9\nsecond line"
    page.visit("POST", "/echo?a='b'&c=[1]", ["X-Quote: it's", "Content-Type: text/plain"], body.encode())
    page.wait_rows(1)
    page.open_row("/echo?a='b'&c=[1]")
    page.browser.wait_text("#detail", "Copy as curl")
    page.browser.keys("c")
    command = page.browser.wait("a copy", lambda: page.browser.script("return window.copied"))
    # The host of the endpoint may not resolve here: the upstream itself is used.
    host = command.split("'")[1].split("/")[2] if command.split()[1].startswith("'") else command.split("http://")[1].split("/")[0]
    command = command.replace("http://" + host, page.upstream.url, 1)
    subprocess.run(["sh", "-c", command], check=True, timeout=20, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    method, path, headers, sent = page.upstream.hits[-1]
    require(len(page.upstream.hits) == 2, f"{len(page.upstream.hits)} hits")
    require((method, path, sent.decode()) == ("POST", "/echo?a='b'&c=[1]", body), f"{method} {path} {sent}")
    require(dict(headers).get("X-Quote") == "it's", headers)


@check
def the_har_file_holds_what_is_shown(page):
    page.fresh()
    page.browser.script("window.saved = []; const make = URL.createObjectURL; URL.createObjectURL = (b) => { b.text().then(t => window.saved.push(t)); return make(b) }; HTMLAnchorElement.prototype.click = () => {}")
    page.visit("POST", "/json?x=1", ["X-Mine: 1", "Content-Type: text/plain"], b"abc")
    page.visit("GET", "/png")
    page.wait_rows(2)
    page.browser.click("#har")
    har = json.loads(page.browser.wait("the file", lambda: page.browser.script("return window.saved[0]")))
    first, second = har["log"]["entries"]
    require(first["request"]["postData"]["text"] == "abc" and {"name": "X-Mine", "value": "1"} in first["request"]["headers"], first["request"])
    require(first["request"]["queryString"] == [{"name": "x", "value": "1"}] and first["response"]["status"] == 200, first)
    require(base64.b64decode(second["response"]["content"]["text"]) == places.png(40, 30), "the image")


@check
def the_status_tab_stops_and_starts_endpoints(page):
    page.fresh()
    page.browser.click("#nav-status")
    page.browser.wait_text("#status", "online")
    for word in ("Endpoints", "web", page.upstream.url, "p90", "Version", "Connections"):
        require(word in page.browser.text("#status"), f"no {word}")
    require(page.browser.script("return location.pathname") == "/status", "the address")
    page.browser.click("#status .endpoint .head button")
    page.browser.wait_text("#status", "Start again")
    page.browser.wait_text("#status", "No endpoint is up")
    page.browser.script("[...document.querySelectorAll('#status button')].find(b => b.textContent === 'Start again').click()")
    page.browser.wait("the endpoint is back", lambda: "Start again" not in page.browser.text("#status") and "web" in page.browser.text("#status .endpoint h3"))
    inputs = "#status .start label:nth-child({}) input"
    page.browser.write(inputs.format(1), "second")
    page.browser.write(inputs.format(2), page.upstream.url)
    page.browser.write(inputs.format(3), "http://second.localhost")
    page.browser.click("#status .start .main")
    page.browser.wait_text("#status .endpoint h3", "second")
    # An error response is shown.
    page.browser.write(inputs.format(1), "third")
    page.browser.write(inputs.format(2), "no such thing://")
    if isinstance(page.place, places.Real):
        page.browser.click("#status .start .main")
        page.browser.wait("the error", lambda: page.browser.script("return document.getElementById('toast').className") == "shown bad")
    page.browser.open(page.place.url + "/status")
    page.browser.wait_text("#status", "second")
    page.browser.script("[...document.querySelectorAll('#status .endpoint')].find(e => e.textContent.includes('second')).querySelector('.head button').click()")
    page.browser.wait("only one is left", lambda: "second" not in page.browser.text("#status .endpoint:not(.off)"))


@check
def without_events_it_looks_now_and_then(page):
    page.fresh()
    script = page.browser.devtools("Page.addScriptToEvaluateOnNewDocument", source="delete window.EventSource")
    try:
        page.browser.open(page.place.url + "/")
        page.browser.wait_text("#live", "every 4 s")
        page.visit("GET", "/polled")
        page.wait_rows(1)
    finally:
        page.browser.devtools("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


@check
def a_request_that_is_never_answered_is_pending_for_ever(page):
    if isinstance(page.place, places.Mock):
        return
    page.fresh()
    page.visit("GET", "/close")
    page.wait_rows(1)
    require(page.rows()[0][3] == "\u2715", page.rows())
    require(page.browser.count(".row .s5") == 1, "it is not red")
    page.open_row("/close")
    page.browser.wait_text("#detail .facts", "closed without an answer")
    require("has not responded" not in page.browser.text("#detail"), page.browser.text("#detail"))


@check
def the_count_hides_what_the_page_does_not_have(page):
    page.fresh()
    page.visit("GET", "/one")
    page.wait_rows(1)
    # As if the agent had more than the page asks for.
    script = page.browser.devtools("Page.addScriptToEvaluateOnNewDocument", source="""
        const real = window.fetch;
        window.fetch = async (...args) => {
            const answer = await real(...args);
            if (!String(args[0]).startsWith('/api/requests/http?')) return answer;
            return new Response(JSON.stringify({ ...await answer.json(), total: 800 }), { headers: { 'Content-Type': 'application/json' } });
        };""")
    try:
        page.browser.open(page.place.url + "/inspect/http")
        page.browser.wait_text("#count", "1 request, the newest of 800 captured")
    finally:
        page.browser.devtools("Page.removeScriptToEvaluateOnNewDocument", identifier=script["identifier"])


@check
def hundreds_of_requests_are_a_list(page):
    page.fresh()
    for n in range(400):
        page.visit("GET", f"/many/{n}")
    page.browser.wait("400 requests", lambda: "400 requests" in page.browser.text("#count"), 60)
    rows = page.rows()
    require([row[2] for row in rows] == [f"/many/{n}" for n in reversed(range(400))], "order")
    page.browser.keys("G")
    page.browser.wait_text("#detail h1", "/many/0")


@check
def a_phone_shows_one_thing_at_a_time(page):
    page.fresh()
    page.browser.size(390, 844, True)
    try:
        page.visit("GET", "/a/path/that/is/much/longer/than/the/screen/of/a/phone?and=a&query=too")
        page.wait_rows(1)
        wide = "return document.documentElement.scrollWidth"
        require(page.browser.script(wide) <= 390, "the list scrolls sideways")
        page.browser.click(".row")
        page.browser.wait_text("#detail", "Response")
        require(page.browser.script(wide) <= 390, "the detail scrolls sideways")
        require(page.browser.count("#detail .back") == 1, "no way back")
        page.browser.click("#detail .back")
        require(page.browser.count("#detail") == 0 and page.browser.count(".row") == 1, "back leads to the list")
        page.browser.click("#nav-status")
        page.browser.wait_text("#status", "Endpoints")
        require(page.browser.script(wide) <= 390, "the status tab scrolls sideways")
    finally:
        page.browser.size(1280, 800)


def pictures(page, where):
    """Takes pictures of the page in its states."""
    page.fresh()
    for method, path in [("GET", "/"), ("POST", "/json?name=a%20b"), ("GET", "/png"), ("DELETE", "/status/404"), ("PUT", "/status/503"), ("GET", "/json/broken")] * 3:
        page.visit(method, path, body=b"" if method == "GET" else b"hello")
    page.wait_rows(18)
    for name, size, dark in [("desktop", (1280, 800), False), ("dark", (1280, 800), True), ("phone", (390, 844), False)]:
        page.browser.size(*size)
        page.browser.dark(dark)
        page.browser.screenshot(f"{where}/{name}.png")
        page.open_row("/json?name=a%20b")
        page.browser.wait_text("#response-panel", "big")
        page.browser.screenshot(f"{where}/{name}-detail.png")
        page.browser.click("#nav-status")
        page.browser.wait_text("#status", "Endpoints")
        page.browser.screenshot(f"{where}/{name}-status.png")
        page.browser.click("#nav-requests")


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    work = tempfile.mkdtemp(prefix="culvert-page.")
    upstream = places.Upstream()
    place = places.Mock(upstream, work) if sys.argv[1] == "mock" else places.Real(upstream, work, sys.argv[1])
    passed = failed = 0
    try:
        browser = Browser(shutil.which("chromium"), shutil.which("chromedriver"), work)
        page = Page(browser, place, upstream)
        try:
            for function in CHECKS:
                try:
                    function(page)
                    passed += 1
                    print(f"ok      {function.__name__}", flush=True)
                except Failed as error:
                    failed += 1
                    print(f"FAILED  {function.__name__}: {error}", flush=True)
            if len(sys.argv) == 3:
                pictures(page, sys.argv[2])
            severe = [entry["message"] for entry in browser.console() if entry["level"] == "SEVERE" and "/api/" not in entry["message"]]
            if severe:
                failed += 1
                print(f"FAILED  the console is quiet: {severe}")
        finally:
            browser.close()
    finally:
        place.close()
        shutil.rmtree(work, ignore_errors=True)
    print(f"page: {passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
