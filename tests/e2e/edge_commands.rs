//! Commands of `culvert-edge` for a running edge: invite, watch, turn out.

use std::net::SocketAddr;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{TempDir, agent, certs, wait_for};

/// Runs a command in the directory of an edge, which has its edge.yml.
fn run(edge: &Serve, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert-edge"));
    command.args(args).current_dir(edge.dir().path()).output().unwrap()
}

#[track_caller]
fn text(edge: &Serve, args: &[&str]) -> String {
    let output = run(edge, args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(edge: &Serve, args: &[&str]) -> Value {
    let text = text(edge, args);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e}: {text}"))
}

#[test]
fn an_operator_invites_watches_and_turns_out() {
    let (edge, upstream) = (Serve::start(""), Upstream::hello());
    let made = json(&edge, &["token", "add", "friend", "--acl", "bind:*.tunnels.test", "--json"]);
    let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
    plant_secret(token);
    let list = text(&edge, &["token", "list"]);
    assert!(list.contains(id) && list.contains("bind:*.tunnels.test"), "{list}");
    assert!(list.contains("friend") && !list.contains(token), "{list}");
    assert_eq!(text(&edge, &["agents"]), "No agent is connected.\n");

    let config = edge.config("friend.yml", token);
    let port = upstream.port().to_string();
    let mut friend =
        agent::agent(&config, ["http", &port, "--url", "http://f.tunnels.test"]).start();
    let session = json(&edge, &["agents", "--json"])[0]["id"].as_str().unwrap().to_owned();
    assert!(text(&edge, &["agents"]).contains(&session));
    let endpoints = text(&edge, &["endpoints"]);
    assert!(
        endpoints.contains("http://f.tunnels.test") && endpoints.contains(&port),
        "{endpoints}"
    );
    let check = text(&edge, &["check"]);
    assert!(check.contains("agents 1, endpoints 1"), "{check}");
    assert_eq!(json(&edge, &["check", "--json"])["domain"], "tunnels.test");

    text(&edge, &["token", "set-acl", id, "bind:other.tunnels.test"]);
    friend.process().wait_stderr("endpoint stopped by the edge");
    assert_eq!(text(&edge, &["endpoints"]), "No endpoint is online.\n");
    text(&edge, &["kick", &session]);
    assert_eq!(friend.process().wait_exit(), Some(0));
    wait_for("the session to be gone", || text(&edge, &["agents"]).starts_with("No agent"));
    text(&edge, &["token", "remove", id, "--json"]);
    assert_eq!(json(&edge, &["token", "list", "--json"]), serde_json::json!([]));
}

#[test]
fn an_authtoken_of_edge_yml_has_no_time_of_creation() {
    let edge = Serve::start("credentials: [{id: a, authtoken: a_token, acl: ['bind:*']}]\n");
    let list = text(&edge, &["token", "list"]);
    let line = list.lines().nth(1).unwrap_or_default();
    assert_eq!(line.split_whitespace().nth(1), Some("-"), "{list}");
}

#[test]
fn domains_are_added_and_removed() {
    let edge = Serve::start("");
    let made = json(&edge, &["domains", "--add", "app.other.test", "--json"]);
    assert!(text(&edge, &["domains"]).contains("app.other.test"));
    text(&edge, &["domains", "--remove", made["id"].as_str().unwrap()]);
    assert!(!text(&edge, &["domains"]).contains("app.other.test"));
}

#[test]
fn a_policy_is_checked_without_a_running_edge() {
    let dir = TempDir::new();
    let check = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_culvert-edge"));
        let output = command.args(["policy", "check"]).args(args).current_dir(dir.path()).output();
        let output = output.unwrap();
        let texts = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        (output.status.code(), texts.concat())
    };
    dir.write(
        "bad.yml",
        "on_http_request:\n  - expressions: [\"req.nothing == 'a'\"]\n    actions:\n      - type: \
         denny\n",
    );
    dir.write(
        "ids.yml",
        "on_tcp_connect:\n  - actions:\n      - {type: restrict-ips, config: {ip_policies: [ipp_1]}}\n",
    );
    dir.write(
        "login.yml",
        "on_http_request:\n  - actions:\n      - {type: oauth, config: {provider: github}}\n",
    );
    dir.write("edge.yml", "domain: tunnels.test\n");
    let clients = "domain: tunnels.test\noauth: {github: {client_id: a, client_secret: b}}\n";
    dir.write("clients.yml", clients);
    for (args, code, expected) in [
        (&["bad.yml"][..], 1, "ERROR:  bad.yml:4:15: on_http_request[0].actions[0].type: "),
        (&["ids.yml"], 1, "ids.yml:3:52: on_tcp_connect[0].actions[0].config.ip_policies: names"),
        (&["login.yml"], 1, "login.yml:3:31: on_http_request[0].actions[0].config: 'client_id' "),
        (&["login.yml", "--config", "clients.yml"], 0, "Valid traffic policy at login.yml\n"),
        (&["login.yml", "--protocol", "tcp"], 1, "is a phase of HTTP endpoints"),
        (&["ids.yml", "--internal"], 1, "(error 2262)"),
        (&["missing.yml"], 1, "cannot read the traffic policy missing.yml: "),
        (&["/dev/zero"], 1, "it has more than 524288 bytes"),
        (&["ids.yml", "--protocol", "udp"], 2, "use http, tcp or tls"),
        (&[], 2, "not provided: file"),
    ] {
        let (status, said) = check(args);
        assert!(said.contains(expected), "{args:?}: {said}");
        assert_eq!(status, Some(code), "{args:?}: {said}");
    }
    // A condition that does not compile is found by the same compiler as at a Bind.
    dir.write(
        "condition.yml",
        "on_http_request:\n  - expressions: [\"req.nothing == 'a'\"]\n    actions: [{type: deny}]\n",
    );
    let (_, said) = check(&["condition.yml"]);
    assert!(said.contains("condition.yml:2:19: ") && said.contains("(error 2200)"), "{said}");
    assert!(!dir.path().join(".culvert").exists(), "nothing is created");
}

#[test]
fn an_ip_policy_of_the_edge_is_known_to_the_check_of_policies() {
    let edge = Serve::start("");
    let check = |id: &str| {
        let policy = format!(
            "on_tcp_connect: [{{actions: [{{type: restrict-ips, config: {{ip_policies: [{id}]}}}}]}}]\n"
        );
        edge.dir().write("p.yml", &policy);
        run(&edge, &["policy", "check", "p.yml"]).status.code()
    };
    assert_eq!(check("ipp_000000000000000000000000000"), Some(1));
    let made = edge.rest().create("/ip_policies", &serde_json::json!({}));
    assert_eq!(check(made["id"].as_str().unwrap()), Some(0));
}

#[test]
fn an_api_for_other_machines_uses_tls() {
    let edge = Serve::start_with(TempDir::new(), "", &["--api-addr", "0.0.0.0:0"]);
    let listener = edge.address("api_addr");
    let local = SocketAddr::from(([127, 0, 0, 1], listener.port()));
    let key = std::fs::read_to_string(edge.dir().join("state/api_key")).unwrap();
    let mut wire = certs::connect(local, "tunnels.test", &edge.ca());
    for _ in 0..2 {
        wire.write(format!(
            "GET /self HTTP/1.1\r\nHost: tunnels.test:4041\r\nAuthorization: Bearer {}\r\n\
             Ngrok-Version: 2\r\n\r\n",
            key.trim()
        ))
        .unwrap();
        let answer = wire.read_response("GET").unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().contains("https://tunnels.test:4041/self"), "{}", answer.text());
    }
    // Without TLS the client gets no response.
    let mut plain = Wire::connect(local).unwrap();
    plain.write("GET /self HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(!plain.read_rest().unwrap_or_default().starts_with(b"HTTP/"));
    // The commands of this machine find it.
    assert_eq!(text(&edge, &["agents"]), "No agent is connected.\n");
}

#[test]
fn errors_have_the_cause_and_what_to_do() {
    let mut edge = Serve::start("");
    for (args, says) in [
        (&["kick", "ts_1"][..], "ERR_NGROK_404"),
        (&["token", "remove", "../../x"], "HTTP 404"),
        (&["token", "set-acl", "cr_000000000000000000000000000", "nonsense"], "does not exist"),
        (&["token", "add", "--acl", "nonsense"], "ERR_NGROK_215"),
        (&["domains", "--add", "a b"], "ERR_NGROK_326"),
        (&["agents", "--dir", "nowhere"], "nowhere/api_url"),
        (&["agents", "--config", "missing.yml"], "missing.yml"),
    ] {
        let output = run(&edge, args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(says) && output.stdout.is_empty(), "{args:?}: {said}");
        // Advice for an agent that refuses to stop.
        assert!(!said.contains("remove its authtoken"), "{args:?}: {said}");
    }
    // Without a command it is the generator that it was.
    assert!(text(&edge, &["token"]).contains("hash: sha256:"));
    edge.process().signal("TERM");
    edge.process().wait_exit();
    let output = run(&edge, &["check"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot reach the edge at http://127.0.0.1"), "{said}");
    // The edge has ended as it should.
    std::mem::forget(edge);
}
