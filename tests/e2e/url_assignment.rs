//! Assigned URLs, and the text of refusals.

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;

#[test]
fn the_wanted_url_is_given() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let port = edge.http.port();
    for wanted in
        ["http://mine.localhost", "my-other.localhost", &format!("http://p.localhost:{port}")]
    {
        let agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
            .arg(format!("--url={wanted}"))
            .start();
        let name = wanted.trim_start_matches("http://").split(':').next().unwrap();
        let host = agent.url().split_once("://").unwrap().1.split(':').next().unwrap();
        assert_eq!(host, name);
        let url = format!("http://{name}:{port}");
        assert_eq!(try_get(&edge, &url, "/").unwrap().status(), 200, "{wanted}");
    }
}

#[test]
fn a_wanted_tcp_port_is_given() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let first = agent::tcp(&edge, upstream.port());
    let url = first.url().to_owned();
    drop(first);
    let again = agent::agent(&edge.config, ["tcp", &upstream.port().to_string(), "--url", &url]);
    let again = again.start();
    assert_eq!(again.url(), url);
    let mut visitor = again.visit(&edge);
    visitor.wire.write("tcp").unwrap();
    assert_eq!(visitor.wire.read_exact(3).unwrap(), b"tcp");
}

#[test]
fn an_https_url_when_one_is_asked_for() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::agent(&edge.config, ["http", &upstream.port().to_string()])
        .arg("--url=https://safe.localhost")
        .start();
    assert_eq!(agent.url(), format!("https://safe.localhost:{}", edge.https.port()));
    let ca = edge.ca.to_str().unwrap().to_owned();
    let text =
        crate::support::visitor::curl_text(&["--cacert", &ca, &format!("{}/s", agent.url())]);
    assert_eq!(text, "GET /s ");
}

/// Starts an agent that must be refused. Returns its standard error.
#[track_caller]
fn refused(edge: &Edge, args: &[&str]) -> String {
    let mut agent = agent::agent(&edge.config, args).spawn();
    assert!(matches!(agent.wait_exit(), Some(1 | 2)), "{args:?}\n{}", agent.report());
    assert!(agent.stdout().is_empty(), "{}", agent.stdout());
    agent.stderr()
}

#[test]
fn a_taken_url_is_refused_with_its_code() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let text = refused(&edge, &["http", "8080", "--url", agent.url()]);
    assert!(text.contains("ERR_NGROK_334"), "{text}");
    assert!(text.contains("ERROR:  "), "{text}");
}

#[test]
fn malformed_and_foreign_urls_are_refused_with_a_code() {
    let edge = Edge::start();
    for url in [
        "http://not-ours.example.com",
        "http://a..localhost",
        "http://-a.localhost",
        "http://a_b!.localhost",
        "http://a.localhost/path",
        "ftp://a.localhost",
        "http://a.localhost:1",
        &format!("http://{}.localhost", "x".repeat(64)),
    ] {
        let text = refused(&edge, &["http", "8080", "--url", url]);
        assert!(text.contains("ERR_NGROK_"), "{url}\n{text}");
    }
}

#[test]
fn a_wrong_token_ends_the_program_with_the_edges_words() {
    let edge = Edge::start();
    for token in ["2abcDEF_not-a-token-of-this-edge", "rubbish-rubbish"] {
        crate::support::process::plant_secret(token);
        let mut agent = agent::agent(&edge.config, ["http", "8080", "--authtoken", token]).spawn();
        assert_eq!(agent.wait_exit(), Some(1));
        let text = agent.stderr();
        let code = ["ERR_NGROK_105", "ERR_NGROK_107"].iter().any(|code| text.contains(code));
        assert!(code && text.contains("ERROR:  "), "{text}");
    }
}

#[test]
fn one_refused_endpoint_stops_all_the_others() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let endpoint = |name: &str, url: &str| {
        format!("  - {{name: {name}, url: '{url}', upstream: {{url: {}}}}}\n", upstream.port())
    };
    let bad = endpoint("bad", "http://not-ours.example.com");
    let good = endpoint("good", "http://good.localhost");
    let config = edge.config_with(&format!("endpoints:\n{bad}{good}"));
    let mut agent = agent::agent(&config, ["start", "--all"]).start();
    assert!(agent.url().starts_with("http://good.localhost"), "{}", agent.url());
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
    let line = agent.process().wait_stderr("endpoint refused");
    assert!(line.contains("name=bad") && line.contains("ERR_NGROK_"), "{line}");
    drop(agent);
    // Also when it is the last one, and not with `--strict`, by name, or without good ones.
    let last = edge.config_with(&format!("endpoints:\n{good}{bad}"));
    drop(agent::agent(&last, ["start", "--all"]).start());
    let alone = edge.config_with(&format!("endpoints:\n{bad}"));
    for (config, args) in [
        (&last, &["start", "--all", "--strict"][..]),
        (&config, &["start", "good", "bad"]),
        (&alone, &["start", "--all"]),
    ] {
        let mut agent = agent::agent(config, args).expect(0).spawn();
        assert_eq!(agent.wait_exit(), Some(1), "{args:?}");
        assert!(agent.stderr().contains("endpoint 'bad': "), "{}", agent.stderr());
    }
}
