//! One stuck visitor or upstream does not slow others.

use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::{Noise, PATIENCE};

#[test]
fn a_visitor_who_does_not_read_hinders_nobody() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| match request.target() {
        "/endless" => {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
            let piece = vec![b'e'; 64 * 1024];
            loop {
                wire.write(&piece)?;
            }
        }
        _ => wire.respond("200 OK", "", &Noise::bytes(3, 1_000_000)),
    });
    let agent = agent::http(&edge, upstream.port());
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let mut visitor = agent.visit(&edge);
            visitor.send("GET", "/endless", "", b"").unwrap();
            assert_eq!(visitor.wire.read_head().unwrap().status(), 200);
            visitor
        })
        .collect();
    let mut fast = agent.visit(&edge);
    for _ in 0..20 {
        let answer = fast.get("/");
        assert!(answer.body == Noise::bytes(3, 1_000_000));
    }
    // The slow ones were not truncated: their further bytes are right.
    for mut visitor in slow {
        assert_eq!(visitor.wire.read_exact(2_000_000).unwrap(), vec![b'e'; 2_000_000]);
    }
}

#[test]
fn an_upstream_that_does_not_read_hinders_nobody() {
    let edge = Edge::start();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::tcp(move |mut wire| {
        if wire.read_exact(4).unwrap() == b"hold" {
            wait.lock().unwrap().recv().unwrap();
            let rest = wire.read_rest().unwrap();
            wire.write(rest.len().to_string()).unwrap();
        } else {
            let _ = crate::support::upstream::echo(&mut wire);
        }
    });
    let agent = agent::tcp(&edge, upstream.port());
    let mut stuck = agent.visit(&edge);
    stuck.wire.write("hold").unwrap();
    let mut writer = stuck.wire.clone_plain();
    // More than all buffers between the ends hold.
    const MUCH: usize = 32 * 1024 * 1024;
    let upload = thread::spawn(move || {
        writer.write(vec![b'u'; MUCH]).unwrap();
        writer.half_close();
    });
    let mut fast = agent.visit(&edge);
    fast.wire.write("fast").unwrap();
    for n in 0..50u8 {
        let block = vec![n; 10_000];
        fast.wire.write(&block).unwrap();
        assert_eq!(fast.wire.read_exact(block.len()).unwrap(), block);
    }
    assert!(!upload.is_finished(), "the upstream reads nothing: somebody buffers without bound");
    go.send(()).unwrap();
    assert_eq!(stuck.wire.read_rest().unwrap(), MUCH.to_string().as_bytes());
    upload.join().unwrap();
}

#[test]
fn a_slow_reader_gets_everything_while_a_fast_one_does_too() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        let bytes: usize = request.target()[1..].parse().unwrap();
        wire.respond("200 OK", "", &Noise::bytes(4, bytes))
    });
    let agent = agent::http(&edge, upstream.port());
    let (step, steps) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let mut slow = agent.visit(&edge);
        let slow = scope.spawn(move || {
            slow.send("GET", "/4000000", "", b"").unwrap();
            slow.wire.read_head().unwrap();
            let mut body = Vec::new();
            // A piece for each response of the fast one.
            for _ in 0..20 {
                body.extend(slow.wire.read_exact(200_000).unwrap());
                steps.recv_timeout(PATIENCE).unwrap();
            }
            assert!(body == Noise::bytes(4, 4_000_000));
        });
        let mut fast = agent.visit(&edge);
        for _ in 0..20 {
            assert_eq!(fast.get("/2000000").body.len(), 2_000_000);
            step.send(()).unwrap();
        }
        slow.join().unwrap();
    });
}
