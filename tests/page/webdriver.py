"""Chromium through chromedriver's WebDriver protocol, with Python's library alone."""

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request

from loopback import Failed

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, ESCAPE, TAB, DOWN, UP = "\ue007", "\ue00c", "\ue004", "\ue015", "\ue013"


class Browser:
    """One session of a browser with a profile of its own."""

    def __init__(self, chromium, chromedriver, work, size=(1280, 800), hosts=()):
        self.driver = subprocess.Popen(
            [chromedriver, "--port=0", f"--log-path={work}/chromedriver.log"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.base = None
        for line in self.driver.stdout:
            if "successfully on port" in line:
                self.base = "http://127.0.0.1:" + line.strip().rstrip(".").split()[-1]
                break
        if self.base is None:
            raise Failed("chromedriver did not start")
        # Names that the browser resolves itself, as those below localhost.
        excluded = "".join(f", EXCLUDE {host}" for host in ("127.0.0.1", "localhost", *hosts))
        arguments = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-default-apps", "--disable-extensions", "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP * ~NOTFOUND" + excluded,
            f"--window-size={size[0]},{size[1]}", f"--user-data-dir={work}/profile",
        ]
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": chromium, "args": arguments},
        }}})
        self.session = "/session/" + answer["sessionId"]

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise Failed(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def close(self):
        try:
            self.call("DELETE", self.session)
        except (Failed, OSError):
            pass
        self.driver.terminate()
        self.driver.wait()

    def open(self, url):
        self.call("POST", self.session + "/url", {"url": url})

    def script(self, code, *arguments):
        """Runs `code` in the page and returns its value."""
        return self.call("POST", self.session + "/execute/sync", {"script": code, "args": list(arguments)})

    def find(self, css):
        return self.call("POST", self.session + "/element", {"using": "css selector", "value": css})[ELEMENT]

    def click(self, css):
        self.call("POST", f"{self.session}/element/{self.find(css)}/click", {})

    def write(self, css, text):
        """Replaces what stands in a field."""
        element = self.find(css)
        self.call("POST", f"{self.session}/element/{element}/clear", {})
        if text:
            self.call("POST", f"{self.session}/element/{element}/value", {"text": text})

    def keys(self, text):
        """Types at whatever has the focus."""
        actions = []
        for key in text:
            actions += [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", self.session + "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def text(self, css):
        """The visible text of all that matches."""
        return self.script("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText).join('\\n')", css)

    def count(self, css):
        return self.script("return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length", css)

    def wait(self, what, condition, seconds=20):
        """The value of `condition()` once it is one."""
        until = time.monotonic() + seconds
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > until:
                raise Failed(f"not within {seconds} s: {what}")
            time.sleep(0.05)

    def wait_text(self, css, part):
        try:
            return self.wait(f"{part!r} in {css}", lambda: part in self.text(css))
        except Failed as error:
            raise Failed(f"{error}; there is {self.text(css)!r:.600}") from None

    def console(self):
        """What the page's console got since the last look."""
        return self.call("POST", self.session + "/se/log", {"type": "browser"})

    def dialog(self):
        """The text of an alert that is open, or None."""
        try:
            return self.call("GET", self.session + "/alert/text")
        except Failed:
            return None

    def devtools(self, command, **parameters):
        return self.call("POST", self.session + "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", self.session + "/screenshot")))

    def size(self, width, height, phone=False):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def dark(self, on):
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if on else "light"}])
