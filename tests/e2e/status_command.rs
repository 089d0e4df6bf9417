//! `culvert status`: what the running agent's local API says, for people and scripts.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::api::{Api, idle_agent};
use crate::support::edge::Edge;
use crate::support::upstream::{Upstream, nobody};
use crate::support::{TempDir, wait_for};

/// Runs `culvert status` with a `web_addr`. Returns its exit code and standard output.
fn status(dir: &TempDir, web_addr: &str, args: &[&str]) -> (i32, String) {
    let config = dir.write("status.yml", format!("version: 3\nagent:\n  web_addr: {web_addr}\n"));
    run(&config, args)
}

fn run(config: &Path, args: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_culvert"))
        .arg("status")
        .arg("--config")
        .arg(config)
        .args(args)
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_running_agent_is_online_with_its_endpoints() {
    let (edge, upstream, dir) = (Edge::start(), Upstream::hello(), TempDir::new());
    let (_agent, api) = idle_agent(&edge);
    let body = json!({"name": "web", "proto": "http", "addr": upstream.port().to_string()});
    let url = api.create("/api/tunnels", body)["public_url"].as_str().unwrap().to_owned();
    let address = api.addr.to_string();
    let (code, text) = status(&dir, &address, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("status     online for "), "{text}");
    let endpoint = format!("endpoint   web: {url} -> http://localhost:{}\n", upstream.port());
    assert!(text.contains(&endpoint), "{text}");
    assert!(text.contains("\nsession    "), "{text}");

    // As an agent accepts it that listens on every address.
    let (code, text) = status(&dir, &format!("':{}'", api.addr.port()), &[]);
    assert_eq!(code, 0, "{text}");

    let (code, text) = status(&dir, &address, &["--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &value["status"]), (0, &json!("online")));
    assert_eq!(value["tunnels"][0]["public_url"], json!(url));
    assert_eq!(value["web_addr"], json!(address));
}

#[test]
fn an_agent_without_a_session_is_not_online() {
    let (mut edge, dir) = (Edge::start(), TempDir::new());
    let (_agent, api): (_, Api) = idle_agent(&edge);
    edge.kill();
    let address = api.addr.to_string();
    wait_for("the session to be lost", || status(&dir, &address, &[]).0 == 3);
    let (_, text) = status(&dir, &address, &[]);
    assert!(text.starts_with("status     reconnecting for "), "{text}");
    assert!(text.contains("\nerror      "), "{text}");
}

#[test]
fn without_an_agent_the_code_is_that_of_a_stopped_service() {
    let dir = TempDir::new();
    let (code, text) = status(&dir, &nobody().to_string(), &[]);
    assert_eq!(code, 3);
    assert!(text.starts_with("status     not running: no agent responds at "), "{text}");
    let (code, text) = status(&dir, &nobody().to_string(), &["--json"]);
    assert_eq!(
        (code, &serde_json::from_str::<Value>(&text).unwrap()["status"]),
        (3, &json!("not running"))
    );
    // Another program on the port.
    let other = Upstream::hello();
    assert_eq!(status(&dir, &other.addr.to_string(), &[]).0, 3);
    // One that never responds is waited for, but not forever.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(status(&dir, &silent.local_addr().unwrap().to_string(), &[]).0, 3);
    let (code, text) = status(&dir, "false", &[]);
    assert_eq!((code, text.as_str()), (1, ""));
}
