"""pyngrok with our agent in the place of ngrok's.

usage: wrapper.py AGENT CONFIG EDGE-HTTP-PORT UPSTREAM-PORT

The address and the key of the edge's REST API are in NGROK_API_BASE_URL and NGROK_API_KEY.
"""

import os
import sys
import urllib.request

from pyngrok import conf, ngrok
from pyngrok.exception import PyngrokNgrokError, PyngrokNgrokHTTPError

agent, config, edge, upstream = sys.argv[1:]


def visit(url, path):
    request = urllib.request.Request(f"http://127.0.0.1:{edge}{path}")
    request.add_header("Host", url.split("//")[1])
    return urllib.request.urlopen(request, timeout=20).read().decode()


def check(name, holds):
    print(("ok    " if holds else "FAIL  ") + name, flush=True)


settings = conf.PyngrokConfig(
    ngrok_path=agent, config_path=config, auth_token=None, startup_timeout=20
)
check("version", ngrok.get_version(settings)[0].count(".") == 2)
tunnel = ngrok.connect(upstream, "http", name="web", pyngrok_config=settings)
check("connect", visit(tunnel.public_url, "/a") == "hello /a")
urls = [t.public_url for t in ngrok.get_tunnels(settings)]
check("get_tunnels", urls == [tunnel.public_url])
tunnel.refresh_metrics()
check("metrics", tunnel.metrics["conns"]["count"] == 1)
process = ngrok.get_ngrok_process(settings)
requests = f"{process.api_url}/api/requests/http"
captured = ngrok.api_request(requests)["requests"]
check("captured request", [r["request"]["uri"] for r in captured] == ["/a"])
ngrok.api_request(requests, method="POST", data={"id": captured[0]["id"]})
check("healthy", process.healthy() and process.startup_error is None)
try:
    ngrok.connect(upstream, "http", name="web2", pyngrok_config=settings, nonsense=1)
    check("an unknown option", False)
except PyngrokNgrokHTTPError as error:
    check("an unknown option", error.status_code == 400 and "nonsense" in error.body)
tcp = ngrok.connect("22", "tcp", pyngrok_config=settings)
check("tcp", tcp.public_url.startswith("tcp://"))
ngrok.disconnect(tcp.public_url, settings)
ngrok.disconnect(tunnel.public_url, settings)
check("disconnect", ngrok.get_tunnels(settings) == [])
ngrok.kill(settings)
check("kill", process.proc.wait(20) is not None)

made = ngrok.api("credentials", "create", "--description", "friend", pyngrok_config=settings)
check("api create", made.data["description"] == "friend" and made.status.startswith("201"))
settings.api_key = os.environ.pop("NGROK_API_KEY")
listed = ngrok.api("credentials", "list", pyngrok_config=settings)
check("api list", made.data["id"] in [each["id"] for each in listed.data["credentials"]])
gone = ngrok.api("credentials", "delete", made.data["id"], pyngrok_config=settings)
check("api delete", gone.status.startswith("204"))
try:
    ngrok.api("credentials", "get", made.data["id"], pyngrok_config=settings)
    check("api error", False)
except PyngrokNgrokError as error:
    check("api error", "ERR_NGROK_404" in str(error) and settings.api_key not in str(error))
