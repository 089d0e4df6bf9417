//! Events and long polls: bytes of an upstream are passed on at once, and it is notified when
//! its client disconnects.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::wait_for;

#[test]
fn each_event_arrives_before_the_next_is_made() {
    let edge = Edge::start();
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::http(move |_, wire| {
        wire.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        for n in 0..20 {
            wire.write(format!("id: {n}\ndata: event {n}\n\n"))?;
            wait.lock().unwrap().recv().map_err(io::Error::other)?;
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/events", "Accept: text/event-stream\r\n", b"").unwrap();
    let head = visitor.wire.read_head().unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    // Without a length the edge may frame the stream in chunks.
    let chunked = head.field("transfer-encoding").is_some();
    for n in 0..20 {
        let event = match chunked {
            true => String::from_utf8(visitor.wire.read_chunk().unwrap()).unwrap(),
            false => String::from_utf8(visitor.wire.read_until(b"\n\n").unwrap()).unwrap(),
        };
        assert_eq!(event, format!("id: {n}\ndata: event {n}\n\n"));
        go.send(()).unwrap();
    }
}

#[test]
fn the_upstream_hears_that_the_listener_left() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        wire.read_request().unwrap();
        wire.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            .unwrap();
        // Sends nothing more and waits for the end.
        let _ = wire.read_rest();
    });
    let agent = agent::http(&edge, upstream.port());
    for _ in 0..2 {
        let mut visitor = agent.visit(&edge);
        visitor.send("GET", "/events", "", b"").unwrap();
        assert_eq!(visitor.wire.read_head().unwrap().status(), 200);
        assert_eq!(upstream.open(), 1);
        drop(visitor);
        wait_for("the upstream's connection to end", || upstream.open() == 0);
    }
}

#[test]
fn a_long_poll_is_answered_when_there_is_something() {
    let edge = Edge::start();
    let (go, wait) = mpsc::channel::<String>();
    let wait = Mutex::new(wait);
    let upstream = Upstream::http(move |_, wire| {
        let news = wait.lock().unwrap().recv().map_err(io::Error::other)?;
        wire.respond("200 OK", "", news.as_bytes())
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    for n in 0..5 {
        visitor.send("GET", "/poll", "", b"").unwrap();
        wait_for("the request to arrive", || upstream.open() == 1);
        go.send(format!("news {n}")).unwrap();
        assert_eq!(visitor.wire.read_response("GET").unwrap().text(), format!("news {n}"));
    }
}
