//! Several agents with one URL.

use std::collections::BTreeSet;

use crate::support::agent::{self, Agent};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wait_for;

fn named(name: &'static str) -> Upstream {
    Upstream::http(move |_, wire| wire.respond("200 OK", "", name.as_bytes()))
}

fn pooled(edge: &Edge, upstream: &Upstream) -> Agent {
    let config = edge.config_with(&format!(
        "endpoints:\n  - name: pooled\n    url: http://pool.localhost:{}\n    pooling_enabled: \
         true\n    upstream:\n      url: {}\n",
        edge.http.port(),
        upstream.port()
    ));
    agent::agent(&config, ["start", "pooled"]).start()
}

#[test]
fn every_member_serves_and_a_dead_one_is_not_missed() {
    let edge = Edge::start();
    let (a, b) = (named("a"), named("b"));
    let (first, mut second) = (pooled(&edge, &a), pooled(&edge, &b));
    assert_eq!(first.url(), second.url());
    let ask = || try_get(&edge, first.url(), "/").map(|answer| answer.text());
    let mut seen = BTreeSet::new();
    wait_for("both members to answer", || {
        seen.extend(ask());
        seen.len() == 2
    });
    second.process().kill();
    // The edge may detect the death a moment later.
    let mut run = 0;
    wait_for("the other one to answer alone", || {
        run = if ask().as_deref() == Some("a") { run + 1 } else { 0 };
        run == 20
    });
}

#[test]
fn without_pooling_the_url_is_taken() {
    let edge = Edge::start();
    let a = named("a");
    let first = pooled(&edge, &a);
    let mut second =
        agent::agent(&edge.config, ["http", "8080"]).arg("--url").arg(first.url()).spawn();
    assert_eq!(second.wait_exit(), Some(1));
    assert!(second.stderr().contains("ERR_NGROK_334"), "{}", second.stderr());
    assert_eq!(try_get(&edge, first.url(), "/").unwrap().text(), "a");
}

/// The agent reports that its upstream got nothing, so the next member gets the request.
#[test]
fn a_member_with_a_dead_upstream_is_not_noticed() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let body = [request.method().as_bytes(), b" ", &request.body].concat();
        wire.respond("200 OK", "", &body)
    });
    let down = crate::support::upstream::nobody();
    let pooled = |port: u16| {
        let config = edge.config_with(&format!(
            "endpoints:\n  - name: pooled\n    url: http://pool.localhost:{}\n    \
             pooling_enabled: true\n    upstream:\n      url: {port}\n",
            edge.http.port(),
        ));
        agent::agent(&config, ["start", "pooled"]).start()
    };
    let mut dead = [pooled(down.port()), pooled(down.port())];
    let live = pooled(upstream.port());
    for _ in 0..4 {
        // On one connection and on several.
        let mut visitor = live.visit(&edge);
        for (method, body) in [("GET", &b""[..]), ("POST", b"body"), ("HEAD", b""), ("PUT", b"x")] {
            let answer = visitor.ask(method, "/", "", body);
            assert_eq!(answer.status(), 200, "{method}: {answer:?}");
            let expected =
                if method == "HEAD" { vec![] } else { [method.as_bytes(), b" ", body].concat() };
            assert_eq!(answer.body, expected);
        }
    }
    // It was not for want of visitors that nothing failed.
    for agent in &mut dead {
        agent.process().wait_stderr("failed to reach the upstream");
    }
    drop(live);
    // Without a member that serves, the page is the agent's.
    let url = dead[0].url();
    wait_for("the agent's page", || {
        try_get(&edge, url, "/").is_some_and(|page| {
            page.status() == 502 && page.field("ngrok-error-code") == Some("ERR_NGROK_8012")
        })
    });
}
