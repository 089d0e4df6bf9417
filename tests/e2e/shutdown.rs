//! End of the agent: graceful at the first signal, at once at the second.

use std::sync::Mutex;
use std::sync::mpsc;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::wait_for;

/// Sends the first half of a response, and the second one after a signal. A probe is answered
/// at once.
fn in_two_halves() -> (Upstream, mpsc::Sender<()>) {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::http(move |request, wire| {
        if request.target() == "/probe" {
            return wire.respond("200 OK", "", b"still here");
        }
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
        wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        wire.write("after")
    });
    (upstream, go)
}

#[test]
fn sigterm_and_sigint_let_running_transfers_finish_and_exit_0() {
    for signal in ["TERM", "INT"] {
        let edge = Edge::start();
        let (upstream, go) = in_two_halves();
        let mut agent = agent::http(&edge, upstream.port());
        let url = agent.url().to_owned();
        let mut visitors: Vec<_> = (0..10)
            .map(|_| {
                let mut visitor = agent.visit(&edge);
                visitor.send("GET", "/", "Connection: close\r\n", b"").unwrap();
                assert_eq!(visitor.wire.read_head().unwrap().status(), 200);
                assert_eq!(visitor.wire.read_exact(5).unwrap(), b"first");
                visitor
            })
            .collect();
        agent.process().signal(signal);
        // It accepts no new visitors ...
        wait_for("new visitors to be turned away", || {
            try_get(&edge, &url, "/probe").is_none_or(|answer| answer.status() >= 400)
        });
        agent.process().assert_running();
        // ... and lets the others finish.
        for _ in &visitors {
            go.send(()).unwrap();
        }
        for visitor in &mut visitors {
            assert_eq!(visitor.wire.read_exact(5).unwrap(), b"after");
        }
        assert_eq!(agent.process().wait_exit(), Some(0), "{signal}");
    }
}

#[test]
fn without_connections_the_end_is_immediate_and_frees_the_url() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent::http(&edge, upstream.port());
    let url = agent.url().to_owned();
    assert_eq!(try_get(&edge, &url, "/").unwrap().status(), 200);
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
    wait_for("the endpoint to be gone", || {
        try_get(&edge, &url, "/").is_some_and(|answer| answer.status() == 404)
    });
}

#[test]
fn a_second_signal_ends_it_with_transfers_running() {
    let edge = Edge::start();
    let (upstream, _go) = in_two_halves();
    let mut agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "", b"").unwrap();
    visitor.wire.read_head().unwrap();
    assert_eq!(visitor.wire.read_exact(5).unwrap(), b"first");
    agent.process().signal("TERM");
    wait_for("the first signal to be obeyed", || {
        try_get(&edge, &format!("http://{}", visitor.host()), "/probe")
            .is_none_or(|answer| answer.status() >= 400)
    });
    agent.process().signal("TERM");
    agent.process().wait_exit();
    // The transfer was truncated, and does not look complete.
    assert!(visitor.wire.read_exact(5).is_err());
}

#[test]
fn sigterm_while_the_edge_is_away() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent::http(&edge, upstream.port());
    edge.kill();
    agent.process().wait_stderr("session closed");
    agent.process().signal("TERM");
    assert_eq!(agent.process().wait_exit(), Some(0));
}

#[test]
fn signals_that_mean_nothing_do_not_end_it() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent::http(&edge, upstream.port());
    for signal in ["PIPE", "CONT", "WINCH", "URG"] {
        agent.process().signal(signal);
    }
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
    agent.process().assert_running();
}

#[test]
fn the_edge_ends_with_0_when_asked() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent::http(&edge, upstream.port());
    assert_eq!(agent.visit(&edge).get("/").status(), 200);
    edge.process().signal("TERM");
    assert_eq!(edge.process().wait_exit(), Some(0));
    agent.process().wait_stderr("session closed");
    agent.process().assert_running();
}
