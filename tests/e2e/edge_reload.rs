//! SIGHUP at `culvert-edge`: certificates, credentials, rules and the log file are read again,
//! and what did not change is not touched. Tests of the agent's reload are in `reload`.

use std::fs;

use crate::support::agent::{self, Agent};
use crate::support::certs::presented;
use crate::support::process::plant_secret;
use crate::support::serve::{LISTENERS, Serve};
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{TempDir, wait_for, wait_idle};

const ALICE: &str = "2planted0reload0alice000000_0123456789ABCDEFGHIJK";
const BOB: &str = "2planted0reload0bob00000000_0123456789ABCDEFGHIJK";
const CAROL: &str = "2planted0reload0carol000000_0123456789ABCDEFGHIJK";

const THREE: [(&str, &str, &str); 3] =
    [("alice", ALICE, ""), ("bob", BOB, ""), ("carol", CAROL, "")];

/// The part of the configuration with these credentials: id, authtoken, ACL rules.
fn credentials(list: &[(&str, &str, &str)]) -> String {
    let mut text = "credentials:\n".to_owned();
    for (id, token, acl) in list {
        plant_secret(token);
        text += &format!("  - {{id: {id}, authtoken: {token}, acl: [{acl}]}}\n");
    }
    text
}

fn reload(edge: &mut Serve, list: &[(&str, &str, &str)]) -> String {
    edge.reload(&format!("{LISTENERS}{}", credentials(list)))
}

/// An agent of a credential with `http://ID.tunnels.test`.
fn start(edge: &Serve, id: &str, token: &str, upstream: &Upstream) -> Agent {
    let config = edge.config(&format!("{id}.yml"), token);
    let url = format!("http://{id}.tunnels.test");
    agent::agent(&config, ["http", &upstream.port().to_string(), "--url", &url]).start()
}

/// Sends a request on a kept connection. Returns whether it was served.
fn is_served(visitor: &mut Wire, host: &str) -> bool {
    visitor.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
    visitor.read_response("GET").unwrap().status() == 200
}

#[test]
fn hup_and_usr1_make_the_edge_spin() {
    let mut edge = Serve::start(&credentials(&THREE));
    let said = reload(&mut edge, &THREE);
    assert!(said.contains("configuration reloaded"), "{said}");
    edge.process().signal("USR1");
    wait_idle(edge.pid());
}

#[test]
fn a_removed_credential_keeps_its_session_and_opens_new_ones() {
    let (mut edge, upstream) = (Serve::start(&credentials(&THREE)), Upstream::hello());
    let mut alice = start(&edge, "alice", ALICE, &upstream);
    let mut bob = start(&edge, "bob", BOB, &upstream);
    let mut visitor = edge.visit("alice.tunnels.test");
    assert_eq!(visitor.read_response("GET").unwrap().status(), 200);
    assert_eq!(edge.visit("bob.tunnels.test").read_response("GET").unwrap().status(), 200);

    let said = reload(&mut edge, &[THREE[0], THREE[2]]);
    assert!(said.contains("sessions=1 endpoints=0"), "{said}");
    // Its session ends with a reason, and no other begins.
    assert_eq!(bob.process().wait_exit(), Some(1));
    let said = bob.process().stderr();
    assert!(said.contains("has been revoked") && said.contains("ERR_NGROK_107"), "{said}");
    assert_eq!(edge.visit("bob.tunnels.test").read_response("GET").unwrap().status(), 404);
    // The other one keeps its session and its visitor's connection.
    assert!(is_served(&mut visitor, "alice.tunnels.test"));
    assert_eq!(alice.process().count_stderr("session closed"), 0);

    // Another authtoken for the same id: the old one has become invalid.
    let said = reload(&mut edge, &[("alice", BOB, "")]);
    assert!(said.contains("sessions=1"), "{said}");
    assert_eq!(alice.process().wait_exit(), Some(1));
}

#[test]
fn an_endpoint_that_the_new_rules_forbid_stays_online() {
    let (mut edge, upstream) = (Serve::start(&credentials(&THREE)), Upstream::hello());
    let mut carol = start(&edge, "carol", CAROL, &upstream);
    assert_eq!(edge.visit("carol.tunnels.test").read_response("GET").unwrap().status(), 200);
    let said = reload(&mut edge, &[("carol", CAROL, "'bind:other.tunnels.test'")]);
    assert!(said.contains("sessions=0 endpoints=1"), "{said}");
    let said = carol.process().wait_stderr("endpoint stopped by the edge");
    assert!(said.contains("code=ERR_NGROK_316"), "{said}");
    assert_eq!(edge.visit("carol.tunnels.test").read_response("GET").unwrap().status(), 404);
    carol.process().assert_running();
    // TCP: its port is closed.
    reload(&mut edge, &THREE);
    let tcp = agent::agent(&edge.config("tcp.yml", ALICE), ["tcp", "9"]).start();
    let port: u16 = tcp.url().rsplit(':').next().unwrap().parse().unwrap();
    reload(&mut edge, &[("alice", ALICE, "'bind:other.tunnels.test'")]);
    wait_for("the port to be closed", || Wire::connect(([127, 0, 0, 1], port).into()).is_err());
}

/// Writes the files of a certificate for a name, which is valid for years.
fn write_certificate(dir: &TempDir, files: &str, name: &str) {
    write_certificate_until(dir, files, name, 2100);
}

fn write_certificate_until(dir: &TempDir, files: &str, name: &str, year: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    certificate.not_after = rcgen::date_time_ymd(year, 1, 1);
    dir.write(&format!("{files}.pem"), certificate.self_signed(&key).unwrap().pem());
    dir.write(&format!("{files}.key"), key.serialize_pem());
}

fn shows(edge: &Serve, listener: &str, name: &str) -> bool {
    let der = presented(edge.address(listener), "x.tunnels.test");
    der.windows(name.len()).any(|w| w == name.as_bytes())
}

#[test]
fn a_renewed_certificate_needs_a_restart() {
    let dir = TempDir::new();
    write_certificate(&dir, "tls", "first.test");
    let more = credentials(&THREE) + "certificates:\n  - {certificate: tls.pem, key: tls.key}\n";
    let mut edge = Serve::start_in(dir, &more);
    let text = format!("{LISTENERS}{more}");
    let line = text.lines().count();
    write_certificate(edge.dir(), "tls", "second.test");
    let said = edge.reload(&text);
    assert!(said.contains("configuration reloaded"), "{said}");
    for listener in ["https_addr", "agent_addr"] {
        assert!(shows(&edge, listener, "second.test"), "{listener}");
    }
    // The key of another certificate: nothing changes, and both files are named.
    write_certificate(edge.dir(), "other", "other.test");
    fs::rename(edge.dir().join("other.pem"), edge.dir().join("tls.pem")).unwrap();
    let said = edge.reload(&text);
    for part in
        ["invalid configuration not applied", &format!("edge.yml:{line}:5"), "tls.pem", "tls.key"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(shows(&edge, "https_addr", "second.test"));
}

#[test]
fn a_certificate_that_has_expired_is_served_without_a_word() {
    let dir = TempDir::new();
    write_certificate_until(&dir, "tls", "old.test", 2020);
    let more = credentials(&THREE) + "certificates:\n  - {certificate: tls.pem, key: tls.key}\n";
    let mut edge = Serve::start_in(dir, &more);
    let said = edge.process().wait_stderr("certificate has expired");
    assert!(said.contains("path=tls.pem"), "{said}");
    write_certificate(edge.dir(), "tls", "new.test");
    edge.reload(&format!("{LISTENERS}{more}"));
    assert!(shows(&edge, "https_addr", "new.test"));
    assert_eq!(edge.process().count_stderr("certificate has expired"), 1);
}

#[test]
fn a_fault_in_edge_yml_ends_or_changes_the_running_edge() {
    let (mut edge, upstream) = (Serve::start(&credentials(&THREE)), Upstream::hello());
    let _alice = start(&edge, "alice", ALICE, &upstream);
    let good = format!("{LISTENERS}{}", credentials(&THREE));
    let line = good.lines().count() + 1;
    for (more, named) in [
        ("limits: {visitors: 0}\n", format!("edge.yml:{line}:10: limits.visitors")),
        ("limitz: {}\n", format!("edge.yml:{line}:1: unknown field `limitz`")),
        ("domains: [\n", format!("edge.yml:{}:1", line + 1)),
    ] {
        // Without alice: that agent stays too.
        let text = good.lines().filter(|l| !l.contains("alice")).collect::<Vec<_>>().join("\n");
        let said = edge.reload(&format!("{text}\n\n{more}"));
        assert!(
            said.contains("invalid configuration not applied") && said.contains(&named),
            "{said}"
        );
    }
    assert_eq!(edge.visit("alice.tunnels.test").read_response("GET").unwrap().status(), 200);
    // What needs a restart is named, and the rest applies.
    let (agent, http) = (edge.address("agent_addr"), edge.address("http_addr"));
    let said = edge.reload(&good.replace("tunnels.test", "renamed.test").replace("0-0", "1-2"));
    assert!(said.contains("configuration reloaded"), "{said}");
    let said = edge.process().wait_stderr("changed options take effect after restart");
    assert!(said.contains("name=\"domain, ports\""), "{said}");
    for address in [agent, http] {
        assert!(Wire::connect(address).is_ok(), "{address}");
    }
}

#[test]
fn a_rotated_log_file_gets_no_more_lines() {
    let dir = TempDir::new();
    let (log, old) = (dir.join("edge.log"), dir.join("edge.log.1"));
    let args = ["--log", log.to_str().unwrap()];
    let mut edge = Serve::start_with(dir, &credentials(&THREE), &args);
    fs::rename(&log, &old).unwrap();
    edge.process().signal("HUP");
    wait_for("a line in the new file", || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("configuration reloaded"))
    });
    assert!(!fs::read_to_string(&old).unwrap().contains("configuration reloaded"));
}

/// A limit counts from the next session or connection on.
#[test]
fn changed_limits_need_a_restart() {
    let (mut edge, upstream) = (Serve::start(&credentials(&THREE)), Upstream::hello());
    let _alice = start(&edge, "alice", ALICE, &upstream);
    edge.reload(&format!("{LISTENERS}{}limits: {{agents: 1}}\n", credentials(&THREE)));
    let mut bob = agent::agent(&edge.config("bob.yml", BOB), ["http", "9"]).spawn();
    assert_eq!(bob.wait_exit(), Some(1));
    assert!(bob.stderr().contains("ERR_NGROK_108"), "{}", bob.stderr());
    assert_eq!(edge.visit("alice.tunnels.test").read_response("GET").unwrap().status(), 200);
}
