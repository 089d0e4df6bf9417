//! Labelled tunnels at `culvert-edge`: `routes:` send a host to the tunnels whose labels they
//! select, and an ACL allows labels.

use crate::support::agent;
use crate::support::process::{Process, plant_secret};
use crate::support::serve::{LISTENERS, Serve};
use crate::support::upstream::Upstream;
use crate::support::wait_for;
use crate::support::wire::Message;

const ALICE: &str = "alice_token";
const BOB: &str = "bob_token";

const ROUTES: &str = "\
routes:
  - {host: app.tunnels.test, labels: {edge: app}}
  - {host: both.tunnels.test, labels: {edge: app, part: two}}
";

const CREDENTIALS: &str = "\
credentials:
  - {id: alice, authtoken: alice_token}
  - {id: bob, authtoken: bob_token, acl: ['bind:edge=app', 'bind:stage=*']}
  - {id: carol, authtoken: carol_token, acl: ['bind:app.tunnels.test']}
";

fn edge() -> Serve {
    [ALICE, BOB, "carol_token"].iter().for_each(|token| plant_secret(token));
    Serve::start(&format!("{ROUTES}{CREDENTIALS}"))
}

/// Starts an agent with a labelled tunnel.
fn tunnel(edge: &Serve, token: &str, labels: &[&str], port: u16) -> Process {
    let mut args = vec!["tunnel".to_owned(), port.to_string()];
    args.extend(labels.iter().map(|label| format!("--label={label}")));
    let name = token.trim_end_matches("_token");
    agent::agent(&edge.config(&format!("{name}.yml"), token), args).spawn()
}

/// Returns the report of an agent whose tunnel is refused.
#[track_caller]
fn refused(edge: &Serve, token: &str, labels: &[&str]) -> String {
    let mut agent = tunnel(edge, token, labels, 9);
    assert_eq!(agent.wait_exit(), Some(1), "{}", agent.report());
    agent.stderr()
}

fn visit(edge: &Serve, host: &str) -> Message {
    edge.visit(host).read_response("GET").unwrap()
}

fn is_online(edge: &Serve, host: &str) -> bool {
    visit(edge, host).status() == 200
}

#[test]
fn a_route_sends_its_host_to_tunnels_with_its_labels() {
    let (edge, upstream) = (edge(), Upstream::hello());
    assert_eq!(visit(&edge, "app.tunnels.test").status(), 404);
    let labels = ["edge=app", "part=two", "more=1"];
    let mut first = tunnel(&edge, ALICE, &labels, upstream.port());
    wait_for("both hosts", || {
        is_online(&edge, "app.tunnels.test") && is_online(&edge, "both.tunnels.test")
    });
    assert_eq!(visit(&edge, "app.tunnels.test").text(), "GET / ");
    assert_eq!(visit(&edge, "else.tunnels.test").status(), 404);

    // A second tunnel with the label shares one host.
    let other = Upstream::http(|_, wire| wire.respond("200 OK", "", b"other"));
    let second = tunnel(&edge, ALICE, &["edge=app"], other.port());
    wait_for("the pool", || visit(&edge, "app.tunnels.test").text() == "other");
    wait_for("the other member", || visit(&edge, "app.tunnels.test").text() == "GET / ");
    assert_eq!(visit(&edge, "both.tunnels.test").text(), "GET / ");

    first.signal("TERM");
    assert_eq!(first.wait_exit(), Some(0), "{}", first.report());
    wait_for("the end of the first", || !is_online(&edge, "both.tunnels.test"));
    assert_eq!(visit(&edge, "app.tunnels.test").text(), "other");
    drop(second);
}

#[test]
fn a_tunnel_is_refused_without_a_route_and_without_the_right() {
    let (edge, upstream) = (edge(), Upstream::hello());
    for (token, labels, expected) in [
        (ALICE, &["edge=other"][..], "ERR_NGROK_358"),
        (ALICE, &["part=two"], "no route for these --label"),
        (BOB, &["edge=app", "part=two"], "ERR_NGROK_399"),
        (BOB, &["stage=1"], "ERR_NGROK_358"),
        ("carol_token", &["edge=app"], "ERR_NGROK_395"),
    ] {
        let text = refused(&edge, token, labels);
        assert!(text.contains(expected), "{labels:?}: {text}");
    }
    let _agent = tunnel(&edge, BOB, &["edge=app", "stage=1"], upstream.port());
    wait_for("the allowed labels", || is_online(&edge, "app.tunnels.test"));
    // The pool of a host belongs to one credential.
    let text = refused(&edge, ALICE, &["edge=app"]);
    assert!(text.contains("ERR_NGROK_334"), "{text}");
    // The host is for labelled tunnels only.
    let config = edge.config("alice.yml", ALICE);
    let mut agent =
        agent::agent(&config, ["http", "9", "--url", "https://both.tunnels.test"]).spawn();
    assert_eq!(agent.wait_exit(), Some(1), "{}", agent.report());
    assert!(agent.stderr().contains("ERR_NGROK_320"), "{}", agent.stderr());
}

#[test]
fn a_reload_ends_tunnels_whose_route_is_gone() {
    let (mut edge, upstream) = (edge(), Upstream::hello());
    let labels = ["edge=app", "part=two"];
    let mut agent = tunnel(&edge, ALICE, &labels, upstream.port());
    wait_for("both hosts", || {
        is_online(&edge, "app.tunnels.test") && is_online(&edge, "both.tunnels.test")
    });
    let routes = ROUTES.replace("{host: app.", "{host: new.");
    let line = edge.reload(&format!("{LISTENERS}{routes}{CREDENTIALS}"));
    assert!(line.contains("configuration reloaded") && line.contains("endpoints=1"), "{line}");
    assert_eq!(visit(&edge, "app.tunnels.test").status(), 404);
    // Its other host stays.
    for _ in 0..20 {
        assert_eq!(visit(&edge, "both.tunnels.test").text(), "GET / ");
    }
    agent.assert_running();
    let line = edge.reload(&format!("{LISTENERS}routes: [{{host: a.test, labels: {{a: b}}}}]\n"));
    assert!(line.contains("routes[0].host") && line.contains("add it to 'domains'"), "{line}");
}
