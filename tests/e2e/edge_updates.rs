//! `updates:` of edge.yml: the edge serves a feed to its agents.

use crate::support::TempDir;
use crate::support::feed::{FeedKey, InstalledProgram, manifest, program, run};
use crate::support::serve::{LISTENERS, Serve, serve};
use crate::support::wire::Wire;

const CREDENTIALS: &str = "credentials: [{id: a, authtoken: a_token_of_feeds}]\n";
const FEED: &str = "/.well-known/culvert-update";

#[test]
fn an_agent_updates_from_its_edge_over_http_and_https() {
    let (dir, key) = (TempDir::new(), FeedKey::new(1));
    let new = program("9.9.9") + &"#".repeat(300_000);
    let text = manifest(7, "9.9.9", &new);
    dir.write("feed/stable/manifest", &text);
    dir.write("feed/stable/manifest.sig", key.sign(&text));
    dir.write("feed/stable/new", &new);
    let more = format!("{CREDENTIALS}updates: feed\n");
    // A name that this machine resolves.
    let edge = Serve::start_with(dir, &more, &["--domain", "localhost"]);
    let (http, https) = (edge.address("http_addr").port(), edge.address("https_addr").port());
    let ca = edge.ca();
    for url in
        [format!("http://localhost:{http}{FEED}"), format!("https://localhost:{https}{FEED}/")]
    {
        let installed = InstalledProgram::new();
        let lines = format!(
            "  connect_url: localhost:{}\n  connect_cas: {}\n  update_url: {url}\n  update_key: {}\n",
            edge.address("agent_addr").port(),
            ca.display(),
            key.public()
        );
        let (code, out, err) = run(installed.update(&lines, &["--yes"]));
        assert_eq!(code, 0, "{url}: {out}{err}");
        assert_eq!(installed.read("culvert").unwrap(), new);
    }
}

#[test]
fn only_files_of_the_feed_are_served_and_only_for_the_domain() {
    let dir = TempDir::new();
    dir.write("feed/stable/manifest", "text");
    dir.write("feed/secret", "secret");
    let edge = Serve::start_in(dir, &format!("{CREDENTIALS}updates: feed\n"));
    let mut wire = Wire::connect(edge.address("http_addr")).unwrap();
    let mut status = |line: &str, host: &str| {
        wire.write(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
        let method = line.split(' ').next().unwrap_or_default();
        wire.read_response(method).unwrap().status()
    };
    let manifest = format!("{FEED}/stable/manifest");
    assert_eq!(status(&format!("GET {manifest}"), "tunnels.test"), 200);
    assert_eq!(status(&format!("HEAD {manifest}"), "Tunnels.TEST:80"), 200);
    assert_eq!(status(&format!("DELETE {manifest}"), "tunnels.test"), 404);
    assert_eq!(status(&format!("GET {manifest}"), "a.tunnels.test"), 404);
    assert_eq!(status(&format!("GET {FEED}/stable/../secret"), "tunnels.test"), 404);
    assert_eq!(status(&format!("GET {FEED}/secret"), "tunnels.test"), 404);
    assert_eq!(status(&format!("GET {manifest}"), "tunnels.test"), 200, "the same connection");
}

#[test]
fn a_directory_that_is_missing_is_an_error_of_the_configuration() {
    let dir = TempDir::new();
    let config = dir.write("edge.yml", format!("{LISTENERS}{CREDENTIALS}updates: none\n"));
    let output = serve(&config, &dir).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("edge.yml:") && text.contains("updates: none is not a directory"),
        "{text}"
    );
}
