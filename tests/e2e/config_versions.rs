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
