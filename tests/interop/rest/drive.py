"""Runs every action that the REST API of our edge serves, with ngrok's API client from PyPI
(imported as `ngrok`, so it has a virtual environment of its own). Loopback only.

usage: drive.py EDGE AGENT
"""

import os
import subprocess
import sys
import tempfile

import ngrok
import requests
from loopback import Edge, serve_http, until


class Run:
    """Counts what holds and what does not."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, holds):
        print(("ok    " if holds else "FAIL  ") + name, flush=True)
        self.passed += bool(holds)
        self.failed += not holds

    def attempt(self, name, action):
        """Calls the action. An error is a failed check."""
        try:
            return action()
        except Exception as error:  # pylint: disable=broad-except
            self.check(f"{name}: {error!r}", False)
            return None

    def done(self, name, action):
        """Calls an action without a result."""
        before = self.failed
        self.attempt(name, action)
        if self.failed == before:
            self.check(name, True)


def five(run, name, service, prefix, create, update):
    """Runs create, get, list, update and delete. Returns the object and a function that deletes
    it."""
    made = run.attempt(f"{name} create", lambda: service.create(**create))
    if made is None:
        return None, lambda: None
    run.check(f"{name} create", made.id.startswith(prefix + "_"))
    run.check(f"{name} get", run.attempt(name, lambda: service.get(made.id).uri) == made.uri)
    listed = run.attempt(name, lambda: [each.id for each in service.list(limit="1")])
    run.check(f"{name} list", listed is not None and made.id in listed)
    field, value = next(iter(update.items()))
    changed = run.attempt(name, lambda: service.update(made.id, **update))
    run.check(f"{name} update", changed is not None and getattr(changed, field) == value)

    def delete():
        run.attempt(f"{name} delete", lambda: service.delete(made.id))
        try:
            service.get(made.id)
            run.check(f"{name} delete", False)
        except ngrok.NotFoundError as error:
            run.check(f"{name} delete", error.operation_id.startswith("op_"))

    return made, delete


def accounts(run, client):
    """Objects that need no other one."""
    text = {"description": "changed"}
    _, delete = five(
        run, "credentials", client.credentials, "cr",
        {"acl": ["bind:a.localhost"], "description": "d", "metadata": "m"},
        {"acl": ["bind:b.localhost"]},
    )
    delete()
    made, delete = five(run, "api_keys", client.api_keys, "ak", {"description": "d"}, text)
    if made is not None:
        other = ngrok.Client(made.token, base_url=client.http_client.base_url)
        run.check("a created key", other.api_keys.get(made.id).id == made.id)
    delete()


def names(run, client):
    """Reserved domains and addresses."""
    text = {"description": "changed"}
    domains = client.reserved_domains
    made, delete = five(
        run, "reserved_domains", domains, "rd", {"domain": "kept.example.test"}, text
    )
    if made is not None:
        name = "reserved_domains delete_certificate"
        run.done(name, lambda: domains.delete_certificate(made.id))
        policy = domains.delete_certificate_management_policy
        run.done(f"{name}_management_policy", lambda: policy(made.id))
    delete()
    _, delete = five(run, "reserved_addrs", client.reserved_addrs, "ra", {}, text)
    delete()


def restrictions(run, client):
    """IP policies, their rules, and a restriction that is not enforced."""
    policy, delete_policy = five(
        run, "ip_policies", client.ip_policies, "ipp", {}, {"description": "changed"}
    )
    if policy is None:
        return
    _, delete_rule = five(
        run, "ip_policy_rules", client.ip_policy_rules, "ipr",
        {"cidr": "127.0.0.0/8", "ip_policy_id": policy.id, "action": "allow"},
        {"cidr": "127.0.0.1/32"},
    )
    _, delete_restriction = five(
        run, "ip_restrictions", client.ip_restrictions, "ipx",
        {"type": "agent", "ip_policy_ids": [policy.id]},
        {"description": "changed", "ip_policy_ids": [policy.id]},
    )
    delete_restriction()
    delete_rule()
    delete_policy()


def certificates(run, client, edge):
    """Certificates: those of the edge itself."""
    text = {"description": "changed"}
    pem, key = (open(f"{edge.directory}/edge/{name}", encoding="utf-8").read()
                for name in ("ca.pem", "ca.key"))
    _, delete = five(
        run, "tls_certificates", client.tls_certificates, "cert",
        {"certificate_pem": pem, "private_key_pem": key}, text,
    )
    delete()
    _, delete = five(
        run, "certificate_authorities", client.certificate_authorities, "ca", {"ca_pem": pem}, text
    )
    delete()


def vaults(run, client):
    """A vault and a secret in it."""
    text = {"description": "changed"}
    vault, delete_vault = five(run, "vaults", client.vaults, "vault", {"name": "door"}, text)
    if vault is None:
        return
    secret, delete_secret = five(
        run, "vault_secrets", client.secrets, "secret",
        {"name": "code", "value": "1234", "vault_id": vault.id}, text,
    )
    if secret is not None:
        found = [each.id for each in client.vaults.get_secrets_by_vault(vault.id)]
        run.check("vaults get_secrets_by_vault", found == [secret.id])
    delete_secret()
    delete_vault()


def read_only(run, name, service):
    """Runs list and get."""
    found = run.attempt(f"{name} list", lambda: list(service.list()))
    run.check(f"{name} list", bool(found))
    if found:
        run.check(f"{name} get", service.get(found[0].id).id == found[0].id)


def sessions(run, client, served, config, agent, upstream):
    """A running agent: what is online, then its remote commands."""
    log = os.path.join(os.path.dirname(config), "agent.log")
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [agent, "http", str(upstream), "--config", config, "--log", "stderr"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )
    try:
        online = until(30, lambda: list(client.tunnel_sessions.list()))
        run.check("tunnel_sessions list", bool(online))
        until(30, lambda: "endpoint online" in open(log, encoding="utf-8").read()
              or list(client.endpoints.list()))
        for name in ("endpoints", "tunnels"):
            if name in served:
                read_only(run, name, getattr(client, name))
        if not online:
            return
        service = client.tunnel_sessions
        run.check("tunnel_sessions get", service.get(online[0].id).id == online[0].id)
        try:
            service.update(online[0].id)
            run.check("tunnel_sessions update is refused", False)
        except ngrok.Error as error:
            run.check("tunnel_sessions update is refused", bool(error.error_code))
        run.attempt("tunnel_sessions restart", lambda: service.restart(online[0].id))
        again = until(30, lambda: [
            each for each in service.list() if each.id != online[0].id])
        run.check("tunnel_sessions restart", bool(again))
        if again:
            run.attempt("tunnel_sessions stop", lambda: service.stop(again[0].id))
        until(30, lambda: process.poll() is not None)
        run.check("tunnel_sessions stop", process.poll() == 0)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def drive(run, edge, agent):
    with open(edge.ready["api_key_file"], encoding="utf-8") as file:
        key = file.read().strip()
    base = f"http://{edge.ready['api_addr']}"
    client = ngrok.Client(key, base_url=base)
    headers = {"authorization": f"Bearer {key}", "ngrok-version": "2"}
    root = requests.get(base + "/", headers=headers, timeout=20).json()
    served = {uri[len(base) + 1:] for uri in root.values()
              if isinstance(uri, str) and uri.startswith(base + "/")} - {""}
    parts = {
        ("credentials", "api_keys"): lambda: accounts(run, client),
        ("reserved_domains", "reserved_addrs"): lambda: names(run, client),
        ("ip_policies", "ip_policy_rules", "ip_restrictions"): lambda: restrictions(run, client),
        ("tls_certificates", "certificate_authorities"): lambda: certificates(run, client, edge),
        ("vaults", "vault_secrets"): lambda: vaults(run, client),
        ("tunnel_sessions", "endpoints", "tunnels"): lambda: sessions(
            run, client, served, os.path.join(edge.directory, edge.ready["agent_config"]),
            agent, serve_http()),
    }
    covered = {name for part in parts for name in part} | {"self"}
    run.check(f"every served resource is covered: {sorted(served)}", served <= covered)
    for part, action in parts.items():
        if served & set(part):
            action()
        else:
            print("absent " + " ".join(part))
    wrong = ngrok.Client("wrong_key", base_url=base)
    try:
        wrong.credentials.list()
        run.check("a wrong key", False)
    except ngrok.Error as error:
        run.check("a wrong key", error.http_status_code == 401)


def main():
    edge, agent = sys.argv[1:]
    # In a new namespace the loopback interface is down at first.
    subprocess.run(["ip", "link", "set", "lo", "up"], stderr=subprocess.DEVNULL, check=False)
    run = Run()
    with tempfile.TemporaryDirectory() as work:
        edge = Edge(edge, work)
        try:
            drive(run, edge, agent)
        finally:
            edge.stop()
    print(f"interop: {run.passed} passed, {run.failed} failed")
    sys.exit(1 if run.failed or not run.passed else 0)


main()
