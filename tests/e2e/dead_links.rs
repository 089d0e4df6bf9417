//! Links that die silently: the heartbeat detects them, on both sides and in both directions,
//! and everything recovers with the network.

use crate::support::agent::{self, Agent};
use crate::support::edge::Edge;
use crate::support::relay::{ALL, Carries, Relay};
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wait_for;

/// The shortest heartbeat that the edge allows.
const LIVELY: &str = "  heartbeat_interval: 1s\n  heartbeat_tolerance: 1s\n  connect_timeout: 2s\n";

fn behind(edge: &Edge, relay: &Relay, upstream: &Upstream) -> Agent {
    let config = edge.config_via(relay.addr, LIVELY);
    agent::agent(&config, ["http", &upstream.port().to_string()]).start()
}

#[track_caller]
fn wait_back(edge: &Edge, url: &str) {
    wait_for("the endpoint to be back", || {
        try_get(edge, url, "/back").is_some_and(|answer| answer.text() == "GET /back ")
    });
}

#[test]
fn a_black_hole_both_ways_and_each_way() {
    for carries in [
        Carries { to_edge: false, to_agent: false },
        Carries { to_edge: true, to_agent: false },
        Carries { to_edge: false, to_agent: true },
    ] {
        let (edge, upstream) = (Edge::start(), Upstream::hello());
        let relay = Relay::to(edge.agent);
        let mut agent = behind(&edge, &relay, &upstream);
        let url = agent.url().to_owned();
        wait_back(&edge, &url);
        relay.set(carries);
        agent.process().wait_stderr("session closed");
        relay.set(ALL);
        wait_back(&edge, &url);
        agent.process().assert_running();
        assert_eq!(agent.process().stdout().lines().count(), 1, "{carries:?}");
    }
}

/// With full buffers everywhere: the heartbeat must not wait behind data.
#[test]
fn a_black_hole_under_load() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| match request.target() {
        "/endless" => {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")?;
            loop {
                wire.write([b'e'; 65_536])?;
            }
        }
        _ => crate::support::upstream::hello(request, wire),
    });
    let relay = Relay::to(edge.agent);
    let mut agent = behind(&edge, &relay, &upstream);
    let url = agent.url().to_owned();
    let mut visitors: Vec<_> = (0..8)
        .map(|_| {
            let mut visitor = agent.visit(&edge);
            visitor.send("GET", "/endless", "", b"").unwrap();
            visitor.wire.read_exact(1_000_000).unwrap();
            visitor
        })
        .collect();
    relay.set(Carries { to_edge: false, to_agent: true });
    agent.process().wait_stderr("session closed");
    wait_for("the agent to let go of the upstream", || upstream.open() == 0);
    relay.set(ALL);
    wait_back(&edge, &url);
    for visitor in &mut visitors {
        // Truncated, which the announced length shows.
        let mut sink = vec![0; 65_536];
        while visitor.wire.read_some(&mut sink).is_ok_and(|n| n > 0) {}
    }
    agent.process().assert_running();
}

/// No false alarm: a link that is busy in both directions is not dead.
#[test]
fn a_busy_link_is_not_taken_for_a_dead_one() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let relay = Relay::to(edge.agent);
    let config = edge.config_via(relay.addr, LIVELY);
    let mut agent = agent::agent(&config, ["tcp", &upstream.port().to_string()]).start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut visitor = agent.visit(&edge);
            scope.spawn(move || {
                let mut reader = visitor.wire.clone_plain();
                let reading = std::thread::spawn(move || reader.read_rest().unwrap().len());
                let block = vec![b'b'; 1 << 20];
                for _ in 0..48 {
                    visitor.wire.write(&block).unwrap();
                }
                visitor.wire.half_close();
                assert_eq!(reading.join().unwrap(), 48 << 20);
            });
        }
    });
    assert_eq!(agent.process().count_stderr("session closed"), 0);
}

#[test]
fn a_frozen_edge_and_a_frozen_agent() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let relay = Relay::to(edge.agent);
    let mut agent = behind(&edge, &relay, &upstream);
    let url = agent.url().to_owned();
    edge.process().signal("STOP");
    agent.process().wait_stderr("session closed");
    edge.process().signal("CONT");
    wait_back(&edge, &url);
    let from = edge.process().stderr_lines();
    agent.process().signal("STOP");
    edge.process().wait_stderr_from(from, "agent disconnected");
    let answer = try_get(&edge, &url, "/").expect("an answer though the agent is gone");
    assert!([404, 502, 503].contains(&answer.status()), "{answer:?}");
    agent.process().signal("CONT");
    wait_back(&edge, &url);
}
