//! WebSockets: any size, idle for long, many at the same time, both ends.

use std::net::TcpListener;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::websocket::{open, receive, send, serve_echo};
use crate::support::wire::Wire;
use crate::support::{Noise, skipped, wait_for};

/// Response to an upgrade.
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[test]
fn messages_of_all_sizes_come_back() {
    let (edge, upstream) = (Edge::start(), Upstream::http(serve_echo));
    let agent = agent::http(&edge, upstream.port());
    let mut socket = open(agent.visit(&edge));
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 200_000, 1_000_000] {
        let payload = Noise::bytes(size as u64, size);
        let echo = std::thread::scope(|scope| {
            // A large message does not fit the buffers in both directions: a thread must read
            // while it is sent.
            let mut reader = socket.clone_plain();
            let read = scope.spawn(move || receive(&mut reader).unwrap());
            send(&mut socket, 2, &payload, true).unwrap();
            read.join().unwrap()
        });
        assert!(echo == (2, payload), "{size} bytes");
    }
    send(&mut socket, 8, &[3, 232], true).unwrap();
    assert_eq!(receive(&mut socket).unwrap(), (8, vec![3, 232]));
    assert_eq!(socket.read_rest().unwrap_or_default(), b"");
    drop(socket);
    wait_for("the upstream's connection to end", || upstream.open() == 0);
}

/// More sockets than the agent has workers: idle ones must not occupy any.
#[test]
fn many_idle_sockets_speak_again_and_leave_room_for_others() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| match request.field("upgrade") {
        Some(_) => serve_echo(request, wire),
        None => wire.respond("200 OK", "", b"room"),
    });
    let agent = agent::http(&edge, upstream.port());
    let mut sockets: Vec<_> = (0..150).map(|_| open(agent.visit(&edge))).collect();
    assert_eq!(agent.visit(&edge).get("/").text(), "room");
    for round in 0..3u8 {
        for (n, socket) in sockets.iter_mut().enumerate() {
            let payload = [round, n as u8];
            send(socket, 1, &payload, true).unwrap();
            assert_eq!(receive(socket).unwrap(), (1, payload.to_vec()));
        }
    }
    // All at once, too.
    for socket in &mut sockets {
        send(socket, 9, b"ping", true).unwrap();
    }
    for socket in &mut sockets {
        assert_eq!(receive(socket).unwrap(), (9, b"ping".to_vec()));
    }
    drop(sockets);
    wait_for("the upstream's connections to end", || upstream.open() == 0);
}

#[test]
fn an_idle_socket_hears_what_the_upstream_says_unasked() {
    let edge = Edge::start();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::tcp(move |mut wire| {
        wire.read_request().unwrap();
        wire.write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .unwrap();
        for n in 0..3u8 {
            wait.lock().unwrap().recv().unwrap();
            send(&mut wire, 1, &[n], false).unwrap();
        }
        // The end without a closing frame.
    });
    let mut agent = agent::http(&edge, upstream.port());
    let mut socket = open(agent.visit(&edge));
    for n in 0..3u8 {
        // Until the agent has finished its work, as far as it is visible from outside: its
        // worker has ended or sleeps.
        crate::support::wait_idle(agent.pid());
        go.send(()).unwrap();
        assert_eq!(receive(&mut socket).unwrap(), (1, vec![n]));
    }
    assert_eq!(socket.read_rest().unwrap_or_default(), b"");
    agent.process().assert_running();
}

#[test]
fn over_tls_to_the_edge() {
    let (edge, upstream) = (Edge::start(), Upstream::http(serve_echo));
    let agent = agent::http(&edge, upstream.port());
    let name = agent.url().trim_start_matches("http://").rsplit_once(':').unwrap().0.to_owned();
    let url = format!("https://{name}:{}", edge.https.port());
    let mut socket = open(crate::support::visitor::Visitor::connect(&edge, &url));
    send(&mut socket, 1, b"hello", true).unwrap();
    assert_eq!(receive(&mut socket).unwrap(), (1, b"hello".to_vec()));
}

/// Two thousand at the same time through one agent. One thread serves the upstream's sockets,
/// in the order of the visitors.
#[test]
fn two_thousand_websockets_are_served_at_the_same_time() {
    const SOCKETS: usize = 2_000;
    // Two descriptors of this process for each, and two of the other programs.
    let mut prlimit = std::process::Command::new("prlimit");
    let pid = std::process::id().to_string();
    let limit = format!("--nofile={}", 5 * SOCKETS);
    if !prlimit.args(["--pid", &pid, &limit]).output().is_ok_and(|out| out.status.success()) {
        return skipped("the limit of open files cannot be raised");
    }
    let edge = Edge::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let upstream = std::thread::spawn(move || {
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            let mut wire = Wire::new(listener.accept().unwrap().0);
            wire.read_head().unwrap();
            wire.write(SWITCHED).unwrap();
            sockets.push(wire);
        }
        for wire in &mut sockets {
            let line = wire.read_line().unwrap();
            wire.write(format!("{line} too\n")).unwrap();
        }
        sockets
    });
    let agent = agent::http(&edge, port);
    let host = agent.visit(&edge).host().to_owned();
    let mut visitors: Vec<Wire> = (0..SOCKETS)
        .map(|n| {
            let mut wire = Wire::connect(edge.http).unwrap();
            wire.write(format!(
                "GET /{n} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            ))
            .unwrap();
            let answer = wire.read_head().unwrap();
            assert_eq!(answer.status(), 101, "socket {n}: {answer:?}");
            wire
        })
        .collect();
    for (n, wire) in visitors.iter_mut().enumerate() {
        wire.write(format!("{n}\n")).unwrap();
        assert_eq!(wire.read_line().unwrap(), format!("{n} too"));
    }
    let sockets = upstream.join().unwrap();
    drop(visitors);
    for mut wire in sockets {
        assert_eq!(wire.read_rest().unwrap_or_default(), b"");
    }
}
