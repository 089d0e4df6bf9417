"""Logs in at a real OpenID provider in front of an endpoint of culvert-edge: with a client of
cookies, and in Chromium if it is installed. Standard library only; loopback only.

usage: drive.py EDGE AGENT PACKAGES
"""

import html
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

from loopback import Edge, Failed, Handler, eventually, free_port, loopback_up, require, serve_http

HOST = "app.localhost"


class ShowsHead(Handler):
    """Answers with path and header of the request."""

    def do_GET(self):
        self.answer(f"path: {self.path}\n{self.headers}".encode())


class Client:
    """A client that keeps cookies by host, as a browser does."""

    def __init__(self):
        self.cookies = {}

    def request(self, method, url, body=None):
        """Returns status, header and body. Redirects are not followed."""
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
        jar = self.cookies.setdefault(parts.netloc, {})
        headers = {"Host": parts.netloc, "Accept": "text/html"}
        if jar:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        target = parts.path + ("?" + parts.query if parts.query else "")
        connection.request(method, target or "/", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        for name, value in answer.getheaders():
            if name.lower() == "set-cookie":
                key, value = value.split(";")[0].split("=", 1)
                jar.pop(key, None)
                if value:
                    jar[key] = value
        connection.close()
        return answer.status, dict(answer.getheaders()), text

    def follow(self, url, body=None):
        """Returns the URL and the body of the first response that is not a redirect."""
        method = "GET" if body is None else "POST"
        for _ in range(20):
            status, header, text = self.request(method, url, body)
            if status not in (302, 303):
                return status, url, text
            url, method, body = urllib.parse.urljoin(url, header["Location"]), "GET", None
        raise Failed(f"too many redirects, the last to {url}")

    def log_in(self, url, name):
        """Logs in at the pages of the provider. Returns the last response."""
        status, at, text = self.follow(url)
        for _ in range(4):
            form = re.search(r'<form[^>]*action="([^"]+)"', text)
            if status != 200 or form is None:
                break
            fields = re.findall(r'<input[^>]*name="(prompt)"[^>]*value="([^"]+)"', text)
            fields += [("login", name), ("password", "any")] if 'name="login"' in text else []
            action = urllib.parse.urljoin(at, html.unescape(form.group(1)))
            status, at, text = self.follow(action, urllib.parse.urlencode(fields))
        return status, at, text


def check_client(url):
    client = Client()
    status, at, text = client.log_in(url + "/page?x=1", "alice")
    require(status == 200 and at == url + "/page?x=1", f"{status} at {at}: {text[:300]}")
    for line in ("path: /page?x=1", "ngrok-auth-user-email: alice@a.example", "ngrok-auth-user-id: alice"):
        require(line in text, f"{line} in {text}")
    status, _, _ = client.request("GET", url + "/ngrok/logout")
    require(status == 200, f"logout: {status}")
    status, header, _ = client.request("GET", url + "/")
    require(status == 302 and "/auth?" in header["Location"], f"after the logout: {status}")
    # The session at the provider goes on, so no form appears.
    status, at, text = client.follow(url + "/again")
    require(status == 200 and "path: /again" in text, f"{status} at {at}: {text[:300]}")
    # An explicit login shows the form again.
    status, at, text = client.follow(url + "/ngrok/login")
    require('name="login"' in text, f"{status} at {at}: {text[:300]}")


def check_faults(url):
    client = Client()
    _, header, _ = client.request("GET", url + "/")
    location = header["Location"]
    state = urllib.parse.parse_qs(urllib.parse.urlsplit(location).query)["state"][0]
    for query, status in (
        (f"code=x&state={state}", 502),  # not a code of the provider
        (f"code=x&state={state}A", 400),
        ("code=x", 400),
        (f"error=access_denied&state={state}", 403),
    ):
        got, _, text = client.request("GET", f"{url}/ngrok/callback?{query}")
        require(got == status, f"{query}: {got}, not {status}: {text[:200]}")
    other = Client()
    got, _, _ = other.request("GET", f"{url}/ngrok/callback?code=x&state={state}")
    require(got == 400, f"another browser: {got}")


def check_browser(url, work):
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../page"))
    from webdriver import ENTER, Browser

    browser = Browser(shutil.which("chromium"), shutil.which("chromedriver"), work, hosts=[HOST])
    try:
        browser.open(url + "/page")
        browser.wait("the form", lambda: browser.count("input[name=login]") == 1)
        browser.write("input[name=login]", "bob")
        browser.write("input[name=password]", "any")
        browser.keys(ENTER)
        browser.wait("the next form", lambda: browser.count("input[name=login]") == 0)
        if "/interaction/" in browser.script("return location.href"):
            browser.click("button[type=submit]")
        browser.wait("the page", lambda: browser.script("return location.href") == url + "/page")
        browser.wait_text("body", "ngrok-auth-user-email: bob@a.example")
        cookies = browser.script("return document.cookie")
        require("session" not in cookies, f"scripts can read {cookies}")
        browser.open(url + "/ngrok/logout")
        browser.wait_text("body", "logged out")
    finally:
        browser.close()


def main():
    program, agent, packages = sys.argv[1:]
    here = os.path.dirname(os.path.abspath(__file__))
    loopback_up()
    with tempfile.TemporaryDirectory(prefix="culvert-oidc-") as work:
        edge = Edge(program, work)
        children = []
        try:
            port = edge.address("http_addr")[1]
            url = f"http://{HOST}:{port}"
            provider_port = free_port()
            issuer = f"http://127.0.0.1:{provider_port}"
            with open(work + "/provider.log", "ab") as log:
                children.append(subprocess.Popen(
                    ["node", here + "/provider.mjs", packages, str(provider_port), url + "/ngrok/callback"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log))

                def answers():
                    discovery = "/.well-known/openid-configuration"
                    status, _, _ = Client().request("GET", issuer + discovery)
                    require(status == 200, f"the provider returned {status}")
                    return True

                eventually("the provider", answers)
                children.append(subprocess.Popen(
                    [agent, "http", str(serve_http(ShowsHead)), "--config", edge.ready["agent_config"],
                     "--url", url, "--oidc", issuer, "--oidc-client-id", "edge",
                     "--oidc-client-secret", "a secret: 100%", "--log", "stderr"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log))

            def ready():
                status, header, text = Client().request("GET", url + "/")
                require(status == 302, f"{status} {text[:200]}")
                return True

            eventually("a redirect to the provider", ready)
            check_client(url)
            check_faults(url)
            print("oidc: a client of cookies logged in at oidc-provider")
            if shutil.which("chromium") and shutil.which("chromedriver"):
                check_browser(url, work)
                print("oidc: Chromium logged in at oidc-provider")
            else:
                print("oidc: chromium is not installed", file=sys.stderr)
        except Failed as error:
            with open(work + "/provider.log", encoding="utf-8", errors="replace") as log:
                print(f"oidc: {error}\n{log.read()[-3000:]}\n{edge.text()[-3000:]}", file=sys.stderr)
            return 1
        finally:
            for child in children:
                child.kill()
                child.wait()
            edge.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
