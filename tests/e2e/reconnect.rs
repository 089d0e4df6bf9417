//! The edge stops and returns; agents and URLs survive it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::peer::BadEdge;
use crate::support::upstream::{Upstream, nobody};
use crate::support::visitor::{echoes, says_hello, try_get};
use crate::support::{proc, wait_for, wait_idle};

#[test]
fn an_edge_that_is_not_there_yet_is_waited_for() {
    let mut edge = Edge::start();
    let upstream = Upstream::hello();
    edge.kill();
    let mut process = agent::agent(&edge.config, ["http", &upstream.port().to_string()]).spawn();
    process.wait_stderr("connect session");
    process.assert_running();
    edge.restart();
    let agent = agent::Agent::wait(process, 1);
    assert_eq!(agent.visit(&edge).get("/late").text(), "GET /late ");
}

#[test]
fn five_restarts_give_the_same_urls_back() {
    let mut edge = Edge::start();
    let (web, raw) = (Upstream::hello(), Upstream::echo());
    let mut http = agent::http(&edge, web.port());
    let mut tcp = agent::tcp(&edge, raw.port());
    let (http_url, tcp_url) = (http.url().to_owned(), tcp.url().to_owned());
    for round in 0..5 {
        edge.restart();
        wait_for("the HTTP endpoint to be back", || says_hello(&edge, &http_url));
        wait_for("the TCP endpoint to be back", || echoes(&edge, &tcp_url));
        http.process().assert_running();
        tcp.process().assert_running();
        // No second start line: the URL did not change.
        assert_eq!(http.process().stdout().lines().count(), 1, "round {round}");
    }
    assert!(http.process().count_stderr("session closed") >= 5);
}

#[test]
fn visitors_in_the_seconds_after_a_restart_of_the_edge_get_404() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent::http(&edge, upstream.port());
    let url = agent.url().to_owned();
    let host = url.trim_start_matches("http://").split(':').next().unwrap().to_owned();
    // A killed edge has no time to write anything.
    wait_for("the name in the state directory", || {
        let names = std::fs::read_to_string(edge.dir().join("edge/names.json"));
        names.is_ok_and(|text| text.contains(&host))
    });
    agent.process().signal("STOP");
    edge.restart();
    let answer = try_get(&edge, &url, "/").expect("a page");
    assert_eq!(answer.status(), 503);
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    let unknown = try_get(&edge, &url.replace("//", "//x"), "/").expect("a page");
    assert_eq!(unknown.status(), 404);
    agent.process().signal("CONT");
    wait_for("the endpoint to be back", || says_hello(&edge, &url));
}

#[test]
fn an_edge_that_restarts_during_traffic() {
    let mut edge = Edge::start();
    let upstream = Upstream::http(|request, wire| match request.target() {
        "/endless" => {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n")?;
            loop {
                wire.write([b'e'; 10_000])?;
            }
        }
        _ => wire.respond("200 OK", "", b"here"),
    });
    let mut agent = agent::http(&edge, upstream.port());
    let url = agent.url().to_owned();
    for _ in 0..3 {
        let running: Vec<_> = (0..10)
            .map(|_| {
                let mut visitor = agent.visit(&edge);
                visitor.send("GET", "/endless", "", b"").unwrap();
                visitor.wire.read_exact(10_000).unwrap();
                visitor
            })
            .collect();
        edge.kill();
        for mut visitor in running {
            // Truncated: the length was announced.
            let mut sink = [0; 65_536];
            while visitor.wire.read_some(&mut sink).is_ok_and(|n| n > 0) {}
        }
        wait_for("the agent to let go of the upstream", || upstream.open() == 0);
        edge.restart();
        wait_for("the endpoint to be back", || {
            try_get(&edge, &url, "/").is_some_and(|a| a.text() == "here")
        });
    }
    agent.process().assert_running();
}

#[test]
fn an_agent_that_dies_frees_its_url_for_the_next() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let wanted = format!("http://next.localhost:{}", edge.http.port());
    for _ in 0..5 {
        let args = ["http", &upstream.port().to_string(), "--url", &wanted];
        let mut agent = crate::support::until("the URL to be free", || {
            let mut process = agent::agent(&edge.config, args).spawn();
            wait_for("the agent to start or to be refused", || {
                process.stdout().contains(" -> ") || process.ended().is_some()
            });
            if process.ended().is_some() {
                assert!(process.stderr().contains("ERR_NGROK_334"), "{}", process.report());
                return None;
            }
            Some(process)
        });
        assert_eq!(try_get(&edge, &wanted, "/").unwrap().text(), "GET / ");
        agent.kill();
    }
}

/// After a short SIGSTOP the agent has the same session.
#[test]
fn a_short_freeze_loses_nothing() {
    let (mut edge, upstream) = (Edge::start(), Upstream::echo());
    let mut agent = agent::tcp(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    for who in 0..4 {
        let process = if who % 2 == 0 { agent.process() } else { edge.process() };
        process.signal("STOP");
        visitor.wire.write("frozen").unwrap();
        process.signal("CONT");
        assert_eq!(visitor.wire.read_exact(6).unwrap(), b"frozen");
    }
    assert_eq!(agent.process().count_stderr("session closed"), 0);
}

#[test]
fn requests_during_restarts_are_answered_or_fail_but_are_never_wrong() {
    let mut edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let body = request.target().repeat(1000);
        wire.respond("200 OK", "", body.as_bytes())
    });
    let mut agent = agent::http(&edge, upstream.port());
    let url = agent.url().to_owned();
    let address = edge.http;
    let (stop, good) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for thread in 0..4 {
            let (stop, good, url) = (&stop, &good, &url);
            scope.spawn(move || {
                let host = url.split_once("://").unwrap().1;
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let target = format!("/{thread}-{n}");
                    let ask = || {
                        let mut wire = crate::support::wire::Wire::connect(address).ok()?;
                        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
                        wire.write(head).ok()?;
                        wire.read_response("GET").ok()
                    };
                    match ask() {
                        Some(answer) if answer.status() == 200 => {
                            assert_eq!(answer.text(), target.repeat(1000));
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(answer) => assert!(answer.status() >= 400, "{answer:?}"),
                        // The edge is away: check again.
                        None => thread::yield_now(),
                    }
                }
            });
        }
        for _ in 0..3 {
            let before = good.load(Ordering::Relaxed);
            wait_for("traffic", || good.load(Ordering::Relaxed) > before + 20);
            edge.restart();
        }
        let before = good.load(Ordering::Relaxed);
        wait_for("traffic after the last restart", || good.load(Ordering::Relaxed) > before + 20);
        stop.store(true, Ordering::Relaxed);
    });
    agent.process().assert_running();
}

/// Resources of a burst are released.
#[test]
fn after_requests_and_reconnects_it_holds_no_more_than_before() {
    let (mut edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent::http(&edge, upstream.port());
    let url = agent.url().to_owned();
    let pid = agent.pid();
    let served = |edge: &Edge| try_get(edge, &url, "/").is_some_and(|a| a.status() == 200);
    assert!(served(&edge));
    wait_idle(pid);
    let before = proc::fds(pid);
    for _ in 0..3 {
        thread::scope(|scope| {
            let (edge, served) = (&edge, &served);
            for _ in 0..16 {
                scope.spawn(move || (0..10).for_each(|_| assert!(served(edge))));
            }
        });
        edge.restart();
        wait_for("the endpoint to be back", || served(&edge));
    }
    // The supervisor's, the session's, the API's, and the one worker that stays.
    wait_for("threads to end", || proc::threads(pid) <= 4);
    wait_for("file descriptors to be closed", || proc::fds(pid) <= before);
    agent.process().assert_running();
}

/// Resources of a reconnect are released, after any number of them.
#[test]
fn after_a_thousand_reconnects_it_holds_what_it_held_after_the_first() {
    use crate::support::peer::{AUTH, BIND, BadEdge, auth_response, bind_response};
    const URL: &str = "http://again.localhost";
    let (edge, upstream) = (BadEdge::new(), Upstream::hello());
    let mut agent = edge.agent(&["http", &upstream.port().to_string()], "").spawn();
    let pid = agent.pid();
    let mut session = edge.accept();
    session.welcome(&[URL]);
    agent.wait_stdout("the start line", |line| line.starts_with(URL).then_some(()));
    let again = |session: &mut crate::support::peer::Session| {
        let (stream, _) = session.wait_call(AUTH);
        session.answer(stream, &auth_response());
        let (stream, bind) = session.wait_call(BIND);
        session.answer(stream, &bind_response(&bind, "b0", URL));
    };
    let (mut rss, mut fds, mut threads) = (0, 0, 0);
    for round in 1..=1_000 {
        drop(session);
        // After the first few it would wait: a signal ends the wait.
        let tcp = crate::support::until("the agent to come back", || {
            let tcp = edge.try_accept_tcp();
            if tcp.is_none() {
                agent.hurry();
            }
            tcp
        });
        session = edge.handshake(tcp).expect("TLS handshake with the agent");
        again(&mut session);
        if round == 1 {
            wait_for("the session", || agent.count_stderr("session is back") > 0);
            wait_idle(pid);
            (rss, fds, threads) = (proc::rss(pid), proc::fds(pid), proc::threads(pid));
        }
    }
    wait_idle(pid);
    assert_eq!((proc::fds(pid), proc::threads(pid)), (fds, threads));
    let after = proc::rss(pid);
    assert!(after <= rss + rss / 20, "{rss} KiB before, {after} KiB after");
    agent.assert_running();
}

/// The tickets of a session reach the TLS library although the record layer is our own.
#[test]
fn a_reconnect_resumes_the_tls_session() {
    let edge = BadEdge::new();
    let agent = edge.agent(&["http", &nobody().port().to_string()], "").spawn();
    let mut first = edge.accept();
    assert!(!first.resumed);
    first.welcome(&["https://x.example"]);
    agent.wait_stderr("tunnel session started");
    for _ in 0..3 {
        drop(first);
        first = edge.accept();
        assert!(first.resumed, "a whole handshake where a ticket was there");
        first.welcome(&["https://x.example"]);
    }
}
