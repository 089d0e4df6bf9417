//! SIGHUP and SIGUSR1, and a restart that the edge requests: the new configuration is applied,
//! and everything without a change stays.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::agent;
use crate::support::api::Api;
use crate::support::edge::Edge;
use crate::support::peer::{AUTH, BadEdge};
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::{until_within, wait_for};

/// Replaces the endpoints of a configuration: names and ports.
fn write(config: &Path, endpoints: &[(&str, u16)]) {
    let text = fs::read_to_string(config).unwrap();
    let mut text = text.split("endpoints:").next().unwrap().to_owned() + "endpoints:\n";
    for (name, port) in endpoints {
        text += &format!(
            "  - name: {name}\n    url: http://{name}.localhost\n    upstream: {{url: {port}}}\n"
        );
    }
    fs::write(config, text).unwrap();
}

fn named(name: &'static str) -> Upstream {
    Upstream::http(move |_, wire| wire.respond("200 OK", "", name.as_bytes()))
}

fn shown(edge: &Edge, name: &str) -> Option<String> {
    let url = format!("http://{name}.localhost:{}", edge.http.port());
    try_get(edge, &url, "/").filter(|answer| answer.status() == 200).map(|answer| answer.text())
}

#[test]
fn hup_starts_stops_changes_and_keeps() {
    let (edge, echo, other) = (Edge::start(), named("echo"), named("other"));
    let config = edge.config_with("endpoints:\n");
    write(&config, &[("kept", echo.port()), ("gone", echo.port()), ("moved", echo.port())]);
    let args = ["start", "--all", "--log-level", "info"];
    let mut agent = agent::agent(&config, args).expect(3).start();
    // A visitor of an unchanged endpoint, and one of an endpoint with another upstream.
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.get("/").text(), "echo");

    write(&config, &[("kept", echo.port()), ("moved", other.port()), ("new", other.port())]);
    agent.process().signal("HUP");
    wait_for("the new one", || shown(&edge, "new").as_deref() == Some("other"));
    wait_for("the old one to go", || shown(&edge, "gone").is_none());
    assert_eq!(shown(&edge, "moved").as_deref(), Some("other"));
    assert_eq!(visitor.get("/").text(), "echo", "the same connection");
    let line = agent.process().wait_stderr("configuration reloaded");
    assert!(line.contains("started=1 stopped=1 changed=1"), "{line}");
    // The changed endpoint kept its URL, and was not bound again.
    assert_eq!(agent.process().count_stderr("\"started tunnel\""), 4);

    fs::write(&config, "version: 3\nagent: [\n").unwrap();
    agent.process().signal("HUP");
    agent.process().wait_stderr("invalid configuration not applied");
    assert_eq!(visitor.get("/").text(), "echo");
    assert_eq!(shown(&edge, "new").as_deref(), Some("other"));
    assert_eq!(agent.process().count_stderr("session closed"), 0);
}

#[test]
fn a_change_that_fails_does_not_claim_an_endpoint_of_the_api() {
    let (edge, upstream) = (Edge::start(), named("mine"));
    let config = crate::support::api::config(&edge, "endpoints:\n");
    write(&config, &[("a", upstream.port())]);
    let mut agent = agent::agent(&config, ["start", "--all", "--log-level", "info"]).start();
    let api = Api::of(agent.process());
    let url = "http://b.localhost";
    let body = json!({"name": "b", "url": url, "upstream": {"url": upstream.port()}});
    api.create("/api/endpoints", body);

    // The file is read, and its certificate is invalid.
    let good = fs::read_to_string(&config).unwrap();
    let pem = |kind| format!("\"-----BEGIN {kind}-----\\nAAAA\\n-----END {kind}-----\"");
    let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let broken = good.replace("http://a.localhost", "tls://a.localhost")
        + &format!("    agent_tls_termination: {{server_certificate: {certificate}, ")
        + &format!("server_private_key: {key}}}\n");
    fs::write(&config, broken).unwrap();
    agent.process().signal("HUP");
    agent.process().wait_stderr("cannot start endpoint");

    fs::write(&config, good).unwrap();
    agent.process().signal("HUP");
    wait_for("the endpoint of the file", || shown(&edge, "a").as_deref() == Some("mine"));
    assert_eq!(shown(&edge, "b").as_deref(), Some("mine"), "the file does not name it");
}

#[test]
fn hup_names_the_options_that_need_a_restart() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let config = edge.config_with("endpoints:\n");
    write(&config, &[("a", upstream.port())]);
    let mut agent = agent::agent(&config, ["start", "a"]).start();
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replacen("agent:\n", "agent:\n  heartbeat_interval: 4s\n  metadata: m\n", 1);
    fs::write(&config, text).unwrap();
    agent.process().signal("HUP");
    let line = agent.process().wait_stderr("changed options take effect");
    assert!(line.contains("heartbeat_interval, metadata"), "{line}");
    assert_eq!(agent.process().count_stderr("endpoint"), 0);
}

#[test]
fn usr1_ends_the_wait_for_the_next_attempt() {
    let edge = BadEdge::new();
    let agent = edge.agent(&["http", "80"], "").spawn();
    let mut session = edge.accept();
    let (stream, _) = session.wait_call(AUTH);
    // After this code the agent waits 24 s at least.
    let text = "Too many sessions.\n\nERR_NGROK_349\n";
    session.answer(stream, &json!({"Version": "", "ClientId": "", "Error": text, "Extra": {}}));
    agent.wait_stderr("connect session");
    agent.signal("USR1");
    let tcp = until_within(Duration::from_secs(15), "the next attempt", || edge.try_accept_tcp());
    let url = "http://signal.localhost";
    edge.handshake(tcp).unwrap().welcome(&[url]);
    agent.wait_stdout("the start line", |line| line.starts_with(url).then_some(()));
}

#[test]
fn a_restart_with_a_broken_configuration_is_refused() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let url = "http://again.localhost";
    let builder = edge.agent(&["http", &upstream.port().to_string()], "");
    let config = builder.config().to_owned();
    let mut agent = builder.spawn();
    let pid = agent.pid();
    let mut session = edge.accept();
    session.welcome(&[url]);
    agent.wait_stdout("the start line", |line| line.starts_with(url).then_some(()));
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, good.replace("agent:", "agnet:")).unwrap();
    let answer = session.call(4, &json!({}));
    let error = answer["Error"].as_str().unwrap_or_default();
    assert!(error.contains("configuration") && error.contains("agnet"), "{error}");
    fs::write(&config, good).unwrap();
    let answer = session.call(4, &json!({}));
    assert_eq!(answer["Error"].as_str().unwrap_or(""), "");
    // A new program in the same process: a new client.
    let mut session = edge.accept();
    let (_, auth) = session.wait_call(crate::support::peer::AUTH);
    assert_eq!(auth["ClientId"], "");
    assert_eq!(agent.pid(), pid);
    // Name by which it is found and stopped.
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "culvert\n");
    agent.assert_running();
}

#[test]
fn a_signal_that_comes_during_a_restart_ends_it() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = edge.agent(&["http", &upstream.port().to_string()], "").spawn();
    let mut session = edge.accept();
    session.welcome(&["http://again.localhost"]);
    agent.wait_stdout("the start line", |line| line.starts_with("http://again").then_some(()));
    let answer = session.call(4, &json!({}));
    assert_eq!(answer["Error"].as_str().unwrap_or(""), "");
    // It waits for a response to this one.
    session.wait_call(2);
    agent.signal("TERM");
    assert_eq!(agent.wait_exit(), Some(0));
}

#[test]
fn what_remote_management_may_not_do_is_said_in_auth_and_again_when_asked() {
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let args = ["http", &upstream.port().to_string()];
    let mut agent = edge.agent(&args, "  remote_management: false\n").spawn();
    let mut session = edge.accept();
    let (stream, auth) = session.wait_call(crate::support::peer::AUTH);
    for key in ["StopUnsupportedError", "RestartUnsupportedError", "UpdateUnsupportedError"] {
        let why = auth["Extra"][key].as_str().unwrap_or_default();
        assert!(why.contains("switched off"), "{key}: {why}");
    }
    session.answer(stream, &crate::support::peer::auth_response());
    for kind in [4, 5, 6] {
        let answer = session.call(kind, &json!({"Version": "", "PermitMajorVersion": false}));
        assert!(answer["Error"].as_str().is_some_and(|e| e.contains("switched off")), "{answer}");
    }
    agent.assert_running();
}
