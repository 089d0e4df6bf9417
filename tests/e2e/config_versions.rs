//! Endpoints that a configuration file starts, before and after an upgrade to another version.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use culvert::config::{Cas, file};

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;

/// Writes a file of version 2 for this edge, with these tunnels.
fn version_2(edge: &Edge, tunnels: &str) -> PathBuf {
    let known = file::load_one(&edge.config).unwrap().agent;
    let Cas::File(ca) = &known.connect_cas else { panic!("the edge has a CA of its own") };
    let path = edge.dir().join("version-2.yml");
    let text = format!(
        "version: \"2\"\nauthtoken: {} # of the edge\nserver_addr: {}\nroot_cas: {}\n\
         crl_noverify: true\nregion: eu\ntunnels:\n{tunnels}",
        known.authtoken.expose(),
        known.connect_url,
        ca.display()
    );
    fs::write(&path, text).unwrap();
    path
}

/// The edge's URLs are plain HTTP unless they are asked to be HTTPS.
#[test]
fn schemes_of_https_give_an_http_url() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let port = upstream.port();
    let config = version_2(
        &edge,
        &format!(
            "  any: {{proto: http, addr: {port}, schemes: [https]}}\n  \
             named: {{proto: http, addr: {port}, schemes: https, hostname: named.localhost}}\n"
        ),
    );
    for (name, host) in [("any", "https://"), ("named", "https://named.localhost:")] {
        let started = started(&config, &[name], 1);
        assert!(started.iter().all(|(url, _)| url.starts_with(host)), "{name}: {started:?}");
    }
}

/// Agents of version 2 and their wrappers ask so.
#[cfg(feature = "web")]
#[test]
fn bind_tls_of_the_local_api_gives_an_http_url() {
    let edge = Edge::start();
    let (_agent, api) = crate::support::api::idle_agent(&edge);
    for (n, (key, value, scheme)) in [
        ("bind_tls", serde_json::json!(true), "https://"),
        ("bind_tls", serde_json::json!(false), "http://"),
        ("schemes", serde_json::json!(["https"]), "https://"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = n.to_string();
        let body = serde_json::json!({"name": name, "proto": "http", "addr": "80", key: value});
        let tunnel = api.create("/api/tunnels", body);
        assert!(tunnel["public_url"].as_str().unwrap().starts_with(scheme), "{tunnel}");
    }
}

/// A container has no configuration file.
#[test]
fn the_edge_cannot_be_given_without_a_file() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let known = file::load_one(&edge.config).unwrap().agent;
    let Cas::File(ca) = &known.connect_cas else { panic!("the edge has a CA of its own") };
    let empty = edge.dir().join("empty.yml");
    // A URL with a port is one of the edge that the variable names.
    let more = format!(
        "version: 3\nagent: {{connect_url: nowhere.invalid, connect_cas: host}}\nendpoints:\n  \
         - {{name: a, url: 'http://env.localhost:{}', upstream: {{url: {}}}}}\n",
        edge.http.port(),
        upstream.port()
    );
    fs::write(&empty, more).unwrap();
    // Quotes and a line end, as `--env-file` and `$(cat file)` leave them.
    let token = format!("\"{}\"\r\n", known.authtoken.expose());
    let agent = |args: &[&str]| {
        agent::agent(&empty, [&["start", "a"], args].concat()).env("NGROK_AUTHTOKEN", &token)
    };
    let agent_of_env = agent(&[])
        .env("CULVERT_CONNECT_URL", &known.connect_url)
        .env("CULVERT_CONNECT_CAS", ca)
        .start();
    assert!(agent_of_env.url().starts_with("http://env.localhost"), "{}", agent_of_env.url());
    drop(agent_of_env);
    let flags = ["--connect-url", &known.connect_url, "--connect-cas", ca.to_str().unwrap()];
    let agent_of_flags = agent(&flags)
        .env("CULVERT_CONNECT_URL", "nowhere.invalid")
        .env("CULVERT_CONNECT_CAS", "host")
        .start();
    assert!(agent_of_flags.url().starts_with("http://env.localhost"), "{}", agent_of_flags.url());
    let mut refused = agent(&[]).env("CULVERT_CONNECT_URL", "https://e.example").spawn();
    assert_eq!(refused.wait_exit(), Some(1));
    let text = refused.stderr();
    assert!(text.contains("CULVERT_CONNECT_URL: \"https://e.example\" has a scheme"), "{text}");
}

fn started(config: &Path, names: &[&str], expected: usize) -> BTreeSet<(String, String)> {
    let agent = agent::agent(config, [&["start"], names].concat()).expect(expected).start();
    agent.endpoints.iter().cloned().collect()
}

#[test]
fn a_file_of_version_2_starts_the_same_before_and_after_its_upgrade() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let port = upstream.port();
    let config = version_2(
        &edge,
        &format!(
            "  web:\n    proto: http\n    addr: {port}\n    schemes: [http, https]\n  \
             mine: {{proto: http, addr: {port}, domain: mine.localhost}}\n  old: {{proto: http, addr: {port}, hostname: old.localhost, \
             schemes: [http]}}\n  bytes: {{proto: tcp, addr: {port}}}\n"
        ),
    );
    let before = started(&config, &["mine", "old"], 2);
    let urls: Vec<&str> = before.iter().map(|(url, _)| url.as_str()).collect();
    assert!(urls.contains(&&*format!("https://mine.localhost:{}", edge.https.port())), "{urls:?}");
    assert!(urls.contains(&&*format!("http://old.localhost:{}", edge.http.port())), "{urls:?}");
    // One name, two schemes.
    assert_eq!(started(&config, &["web"], 2).len(), 2);

    let mut upgrade = Command::new(env!("CARGO_BIN_EXE_culvert"));
    upgrade.args(["config", "upgrade", "--config"]).arg(&config);
    let output = upgrade.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(fs::read_to_string(&config).unwrap().starts_with("version: 3\nagent:\n"));
    assert_eq!(started(&config, &["mine", "old"], 2), before);

    let agent = agent::agent(&config, ["start", "--all"]).expect(5).start();
    assert!(agent.endpoints.iter().any(|(url, _)| url.starts_with("tcp://")));
    let url = format!("http://old.localhost:{}", edge.http.port());
    assert_eq!(try_get(&edge, &url, "/").unwrap().status(), 200);
}
