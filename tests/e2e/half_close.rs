//! Each direction of a TCP connection ends separately, and an end with an error does not look
//! like an orderly one.

use crate::support::agent::{self, Agent};
use crate::support::certs;
use crate::support::edge::Edge;
use crate::support::process::plant_secret;
use crate::support::serve::Serve;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{is_reset, proc, wait_for};

/// States and a timer in the kernel's tables.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;
const KEEP_ALIVE: u8 = 2;

#[test]
fn the_visitor_ends_first_and_still_gets_the_answer() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let all = wire.read_rest().unwrap();
        wire.write(format!("{} bytes", all.len())).unwrap();
    });
    let agent = agent::tcp(&edge, upstream.port());
    for size in [0, 1, 100_000, 1_000_000] {
        let mut visitor = agent.visit(&edge);
        visitor.wire.write(vec![b'x'; size]).unwrap();
        visitor.wire.half_close();
        let answer = visitor.wire.read_rest().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), format!("{size} bytes"));
    }
}

#[test]
fn the_upstream_ends_first_and_still_gets_the_rest() {
    let edge = Edge::start();
    let (told, hear) = std::sync::mpsc::channel();
    let upstream = Upstream::tcp(move |mut wire| {
        wire.write("greeting").unwrap();
        wire.half_close();
        told.send(wire.read_rest().unwrap()).unwrap();
    });
    let agent = agent::tcp(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    assert_eq!(visitor.wire.read_rest().unwrap(), b"greeting");
    visitor.wire.write(vec![b'y'; 500_000]).unwrap();
    visitor.wire.half_close();
    let rest = hear.recv_timeout(crate::support::PATIENCE).unwrap();
    assert_eq!(rest.len(), 500_000);
}

#[test]
fn a_reset_by_the_upstream_is_not_a_clean_end() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let _ = wire.read_exact(4);
        let _ = wire.write(vec![b'z'; 1000]);
        wire.reset();
    });
    let agent = agent::tcp(&edge, upstream.port());
    for _ in 0..10 {
        let mut visitor = agent.visit(&edge);
        visitor.wire.write("ping").unwrap();
        let error = visitor.wire.read_rest().expect_err("an end that looks clean");
        assert!(is_reset(&error), "{error}");
    }
}

#[test]
fn a_reset_by_the_visitor_ends_the_upstream_connection() {
    let edge = Edge::start();
    let upstream = Upstream::echo();
    let agent = agent::tcp(&edge, upstream.port());
    for _ in 0..10 {
        let mut visitor = agent.visit(&edge);
        visitor.wire.write("ping").unwrap();
        assert_eq!(visitor.wire.read_exact(4).unwrap(), b"ping");
        visitor.wire.reset();
        wait_for("the upstream's connection to end", || upstream.open() == 0);
    }
}

/// An upload without a length: the upstream must be able to detect whether it is complete.
#[test]
fn an_upload_that_breaks_off_is_not_a_clean_end() {
    let mut edge = Edge::start();
    let (told, hear) = std::sync::mpsc::channel();
    let upstream = Upstream::tcp(move |mut wire| {
        let _ = wire.read_exact(4);
        let _ = wire.write("pong");
        told.send(wire.read_rest().map(|rest| rest.len())).unwrap();
    });
    let agent = agent::tcp(&edge, upstream.port());
    for session_lost in [false, false, false, true] {
        let mut visitor = agent.visit(&edge);
        visitor.wire.write("ping and a part").unwrap();
        assert_eq!(visitor.wire.read_exact(4).unwrap(), b"pong");
        match session_lost {
            true => edge.kill(),
            false => visitor.wire.reset(),
        }
        let end = hear.recv_timeout(crate::support::PATIENCE).unwrap();
        let error = end.expect_err("an end that looks clean");
        assert!(is_reset(&error), "{error}");
    }
}

/// The response has ended before; the end of the upload alone would close the stream.
#[test]
fn an_upload_that_breaks_off_behind_the_answer_is_not_a_clean_end() {
    let edge = Edge::start();
    let (told, hear) = std::sync::mpsc::channel();
    let upstream = Upstream::tcp(move |mut wire| {
        let _ = wire.read_exact(4);
        let _ = wire.write("pong");
        wire.half_close();
        told.send(wire.read_rest().map(|rest| rest.len())).unwrap();
    });
    let agent = agent::tcp(&edge, upstream.port());
    for _ in 0..5 {
        let mut visitor = agent.visit(&edge);
        visitor.wire.write("ping and a part").unwrap();
        assert_eq!(visitor.wire.read_rest().unwrap(), b"pong");
        visitor.wire.reset();
        let end = hear.recv_timeout(crate::support::PATIENCE).unwrap();
        let error = end.expect_err("an end that looks clean");
        assert!(is_reset(&error), "{error}");
    }
}

#[test]
fn nothing_is_left_open_afterwards() {
    let edge = Edge::start();
    let upstream = Upstream::echo();
    let agent = agent::tcp(&edge, upstream.port());
    let use_once = |reset: bool| {
        let mut visitor = agent.visit(&edge);
        visitor.wire.write("ping").unwrap();
        assert_eq!(visitor.wire.read_exact(4).unwrap(), b"ping");
        match reset {
            true => visitor.wire.reset(),
            false => visitor.wire.half_close(),
        }
    };
    use_once(false);
    wait_for("the first connection to end", || upstream.open() == 0);
    let pids = [agent.pid(), edge.pid()];
    let sockets = |pid| proc::sockets(pid, CLOSE_WAIT);
    wait_for("no socket in CLOSE_WAIT", || pids.iter().all(|p| sockets(*p) == 0));
    let before = pids.map(proc::fds);
    for n in 0..40 {
        use_once(n % 2 == 0);
    }
    wait_for("connections to end", || upstream.open() == 0);
    wait_for("no socket in CLOSE_WAIT", || pids.iter().all(|p| sockets(*p) == 0));
    wait_for("file descriptors as before", || {
        pids.iter().zip(before).all(|(p, before)| proc::fds(*p) <= before)
    });
}

/// A window that leaks with each reset would block the last transfer.
#[test]
fn resets_in_mid_transfer_cost_the_session_nothing() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let block = vec![b'w'; 64 * 1024];
        while wire.write(&block).is_ok() {}
    });
    let agent = agent::tcp(&edge, upstream.port());
    for _ in 0..100 {
        let mut visitor = agent.visit(&edge);
        visitor.wire.read_exact(300_000).unwrap();
        visitor.wire.reset();
    }
    let mut visitor = agent.visit(&edge);
    let much = visitor.wire.read_exact(16_000_000).unwrap();
    assert!(much.iter().all(|b| *b == b'w'));
    drop(visitor);
    wait_for("the upstream's connections to end", || upstream.open() == 0);
}

const TOKEN: &str = "2planted0credential0half0closed_0123456789ABCDEFGHIJK";

/// Starts an edge with this limit.
fn start_edge(seconds: u32) -> Serve {
    plant_secret(TOKEN);
    Serve::start(&format!(
        "credentials: [{{id: one, authtoken: {TOKEN}}}]\nlimits: {{half_closed_seconds: {seconds}}}\n"
    ))
}

/// Starts an edge with this limit, and an agent with a TCP endpoint.
fn start_limited(upstream: &Upstream, seconds: u32) -> (Serve, Agent) {
    let edge = start_edge(seconds);
    let port = upstream.port().to_string();
    let agent = agent::agent(&edge.config("agent.yml", TOKEN), ["tcp", &port]).start();
    (edge, agent)
}

fn visit(agent: &Agent) -> Wire {
    let port: u16 = agent.url().rsplit(':').next().unwrap().parse().unwrap();
    Wire::connect(([127, 0, 0, 1], port).into()).unwrap()
}

#[test]
fn visitors_that_end_their_side_hold_a_silent_upstream_for_ever() {
    // It never responds, and never ends its side.
    let upstream = Upstream::tcp(|mut wire| {
        let _ = wire.read_rest();
        wire.wait_reset();
    });
    let (edge, agent) = start_limited(&upstream, 1);
    // In their first read, and parked at the reactor.
    for pieces in [1, 8] {
        let mut visitors: Vec<Wire> = (0..10).map(|_| visit(&agent)).collect();
        for visitor in &mut visitors {
            for _ in 0..pieces {
                visitor.write("ping").unwrap();
            }
            visitor.half_close();
        }
        for visitor in &mut visitors {
            let error = visitor.read_rest().expect_err("an end that looks clean");
            assert!(is_reset(&error), "{error}");
        }
        wait_for("the upstream's connections to end", || upstream.open() == 0);
        wait_for("no socket in CLOSE_WAIT", || proc::sockets(edge.pid(), CLOSE_WAIT) == 0);
    }
}

#[test]
fn an_upstream_that_ends_its_side_holds_a_silent_visitor_for_ever() {
    let (told, hear) = std::sync::mpsc::channel();
    let upstream = Upstream::tcp(move |mut wire| {
        wire.write("greeting").unwrap();
        wire.half_close();
        told.send(wire.read_rest().map(|rest| rest.len())).unwrap();
    });
    let (_edge, agent) = start_limited(&upstream, 1);
    for pieces in [0, 8] {
        let mut visitor = visit(&agent);
        for _ in 0..pieces {
            visitor.write("ping").unwrap();
        }
        assert_eq!(visitor.read_exact(8).unwrap(), b"greeting");
        let end = hear.recv_timeout(crate::support::PATIENCE).unwrap();
        let error = end.expect_err("an end that looks clean");
        assert!(is_reset(&error), "{error}");
    }
}

#[test]
fn a_reset_behind_the_visitors_end_is_not_noticed() {
    let upstream = Upstream::tcp(|mut wire| {
        let _ = wire.read_rest();
        wire.wait_reset();
    });
    let (edge, agent) = start_limited(&upstream, 0);
    for _ in 0..5 {
        let mut visitor = visit(&agent);
        visitor.write("ping").unwrap();
        visitor.half_close();
        wait_for("the edge to see the end", || proc::sockets(edge.pid(), CLOSE_WAIT) == 1);
        visitor.reset();
        wait_for("the upstream's connection to end", || upstream.open() == 0);
    }
}

#[test]
fn an_upgraded_connection_that_one_side_has_ended_stays_for_ever() {
    for upstream_ends in [true, false] {
        let (ended, wait_ended) = std::sync::mpsc::channel();
        let upstream = Upstream::tcp(move |mut wire| {
            wire.read_request().unwrap();
            wire.write("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").unwrap();
            let is_reset = match upstream_ends {
                true => {
                    wire.half_close();
                    wire.read_rest().is_err_and(|e| is_reset(&e))
                }
                false => {
                    // TLS without close_notify is not an end: the reset comes at once.
                    if wire.read_rest().is_ok() {
                        wire.wait_reset();
                    }
                    true
                }
            };
            ended.send(is_reset).unwrap();
        });
        let edge = start_edge(1);
        let args = ["http", &upstream.port().to_string(), "--url", "https://up.tunnels.test"];
        let _agent = agent::agent(&edge.config("agent.yml", TOKEN), args).start();
        for tls in [false, true] {
            let mut visitor = match tls {
                true => certs::connect(
                    edge.address("https_addr"),
                    "up.tunnels.test",
                    &edge.dir().join("state/ca.pem"),
                ),
                false => Wire::connect(edge.address("http_addr")).unwrap(),
            };
            let request = "GET / HTTP/1.1\r\nHost: up.tunnels.test\r\nConnection: Upgrade\r\n\
                           Upgrade: x\r\n\r\n";
            visitor.write(request).unwrap();
            assert_eq!(visitor.read_head().unwrap().status(), 101, "tls: {tls}");
            if !upstream_ends {
                visitor.half_close();
            }
            let is_reset = wait_ended.recv_timeout(crate::support::PATIENCE).unwrap();
            assert!(is_reset, "tls: {tls}");
        }
    }
}

#[test]
fn bytes_behind_an_upgrade_are_lost_when_the_upstream_ends_first() {
    let (told, hear) = std::sync::mpsc::channel();
    let upstream = Upstream::tcp(move |mut wire| {
        wire.read_request().unwrap();
        wire.write("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").unwrap();
        wire.half_close();
        told.send(wire.read_rest().map(|rest| rest.len())).unwrap();
    });
    let edge = Edge::start();
    let agent = agent::http(&edge, upstream.port());
    for len in [5, 100_000] {
        let mut visitor = agent.visit(&edge);
        let host = visitor.host().to_owned();
        let head =
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        visitor.wire.write(head).unwrap();
        assert_eq!(visitor.wire.read_head().unwrap().status(), 101);
        assert_eq!(visitor.wire.read_rest().unwrap(), b"");
        visitor.wire.write(vec![b'u'; len]).unwrap();
        visitor.wire.half_close();
        let received = hear.recv_timeout(crate::support::PATIENCE).unwrap();
        assert_eq!(received.unwrap(), len);
    }
}

/// Both directions are open and silent: only the kernel can notice that the peer has gone.
#[test]
fn visitors_that_lost_their_power_are_not_noticed() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let agent = agent::tcp(&edge, upstream.port());
    let mut visitors = [(); 3].map(|()| agent.visit(&edge));
    for visitor in &mut visitors {
        visitor.wire.write("ping").unwrap();
        assert_eq!(visitor.wire.read_exact(4).unwrap(), b"ping");
    }
    wait_for("keep-alive timers on the sockets of visitors and the agent", || {
        let timers = proc::socket_timers(edge.pid(), ESTABLISHED);
        timers.len() == 4 && timers.iter().all(|timer| *timer == KEEP_ALIVE)
    });
}
