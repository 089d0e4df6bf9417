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
