//! Slow and greedy clients of the local API harm neither the tunnel nor other clients.

use std::io::Write;
use std::net::TcpStream;

use serde_json::json;

use crate::support::agent::agent;
use crate::support::api::{Api, config, idle_agent};
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::try_get;
use crate::support::{proc, wait_for, wait_idle};

#[test]
fn thousands_of_slow_connections() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let mut agent = agent(&config(&edge, ""), ["http", &upstream.port().to_string()]).start();
    let (api, url) = (Api::of(agent.process()), agent.url().to_owned());
    let ask_both = || {
        assert_eq!(try_get(&edge, &url, "/").expect("an answer of the tunnel").text(), "GET / ");
        assert_eq!(api.get("/api/status")["status"], "online");
    };
    // The endpoint may serve just before the status shows it.
    wait_for("the status", || api.get("/api/status")["status"] == "online");
    ask_both();
    let (rss, fds) = (proc::rss(agent.pid()), proc::fds(agent.pid()));
    let begun = [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        "POST /api/tunnels HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{",
    ];
    // Most of them were closed by the agent; these descriptors are the test's.
    let mut slow = Vec::new();
    for n in 0..2_000 {
        let mut socket = TcpStream::connect(api.addr).expect("connects");
        let _ = socket.write_all(begun[n % begun.len()].as_bytes());
        slow.push(socket);
        if slow.len() > 400 {
            slow.remove(0);
        }
        if n % 100 == 0 {
            ask_both();
        }
    }
    assert!(proc::fds(agent.pid()) <= fds + 40, "{} descriptors", proc::fds(agent.pid()));
    // A byte now and then changes nothing.
    for round in 0..20 {
        for socket in &mut slow {
            let _ = socket.write_all(b"x");
        }
        if round % 5 == 0 {
            ask_both();
        }
    }
    let after = proc::rss(agent.pid());
    assert!(after <= rss + 1024, "{rss} KiB before, {after} KiB with slow clients");
    drop(slow);
    wait_for("all of them to be gone", || proc::fds(agent.pid()) <= fds);
    ask_both();
    agent.process().assert_running();
}

#[test]
fn a_client_that_takes_no_answer_is_given_up() {
    let edge = Edge::start();
    let (mut agent, api) = idle_agent(&edge);
    let fds = proc::fds(agent.pid());
    let mut greedy: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut socket = TcpStream::connect(api.addr).unwrap();
            socket.set_nonblocking(true).unwrap();
            // Endless pages, of which it reads nothing.
            let _ = socket.write(&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2_000));
            socket
        })
        .collect();
    let online = || api.try_ask("GET", "/api/status", "", b"").is_ok_and(|a| a.status() == 200);
    wait_for("one of them to go for another client", online);
    for socket in &mut greedy {
        let _ = socket.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    drop(greedy);
    wait_for("them to be gone", || proc::fds(agent.pid()) <= fds);
    agent.process().assert_running();
}

/// The tunnel's visitors use up all descriptors: the API keeps a few for itself.
#[test]
fn without_descriptors_the_api_still_answers() {
    let edge = Edge::start();
    let silent = Upstream::tcp(|mut wire| drop(wire.read_rest()));
    let builder = agent(&config(&edge, ""), ["tcp", &silent.addr.to_string()]).limit_files(32);
    let mut agent = builder.start();
    let api = Api::of(agent.process());
    let before = proc::fds(agent.pid());
    let visitors: Vec<_> = (0..60).map(|_| agent.visit(&edge)).collect();
    // All but ten, which visitors must not use.
    wait_for("the descriptors to be used up", || {
        let open = proc::fd_numbers(agent.pid());
        (0..32 - 10).all(|fd| open.contains(&fd))
    });
    agent.process().wait_stderr("no descriptors or memory");
    for _ in 0..20 {
        assert_eq!(api.get("/api/status")["status"], "online");
        assert_eq!(api.get("/api/tunnels")["tunnels"][0]["name"], "command_line");
    }
    drop(visitors);
    wait_for("descriptors to be free again", || proc::fds(agent.pid()) <= before);
    assert_eq!(api.get("/api/status")["status"], "online");
    agent.process().assert_running();
}

#[test]
fn a_thousand_tunnels_come_and_go_and_leave_nothing() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let (mut agent, api) = idle_agent(&edge);
    let pid = agent.pid();
    let round = |n: usize| {
        let name = format!("t{}", n % 7);
        let body = json!({"name": name, "proto": "http", "addr": upstream.port()});
        let tunnel = api.create("/api/tunnels", body);
        let uri = tunnel["uri"].as_str().unwrap();
        assert_eq!(api.call("DELETE", uri, None).0, 204, "round {n}");
    };
    (0..100).for_each(round);
    wait_idle(pid);
    let (rss, fds, threads) = (proc::rss(pid), proc::fds(pid), proc::threads(pid));
    (100..1_000).for_each(round);
    wait_idle(pid);
    assert_eq!(api.get("/api/tunnels")["tunnels"], json!([]));
    wait_for("descriptors and threads as before", || {
        proc::fds(pid) <= fds && proc::threads(pid) <= threads
    });
    let after = proc::rss(pid);
    assert!(after <= rss + rss / 10 + 128, "{rss} KiB after 100 rounds, {after} KiB after 1000");
    agent.process().assert_running();
}
