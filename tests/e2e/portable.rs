//! Functions that every build must have on every processor: byte order, word size, soft-float,
//! the kernel's structures and the C library differ, these do not. `make test-cross` runs these
//! tests with a foreign build under qemu-user, beside an edge of this machine.

use std::process::Command;
use std::thread;

use super::bulk_transfers::{MIB, drain, pour};
use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::visitor::{echoes, says_hello, try_get};
use crate::support::{Noise, TempDir, wait_for};

#[test]
fn it_starts_and_says_what_it_is() {
    let words = agent::program();
    let output = Command::new(&words[0]).args(&words[1..]).arg("version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(env!("CARGO_PKG_VERSION")), "{text}");
}

#[test]
fn an_http_endpoint_carries_16_mib_both_ways() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        // The body is returned, so both directions are busy at once.
        let head = wire.read_head().unwrap();
        let length: u64 = head.field("content-length").unwrap().parse().unwrap();
        wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).unwrap();
        let (mut buffer, mut left) = (vec![0; 64 * 1024], length);
        while left > 0 {
            let n = wire.read_some(&mut buffer).unwrap();
            assert!(n > 0, "the body ended early");
            wire.write(&buffer[..n]).unwrap();
            left -= n as u64;
        }
    });
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let (host, length) = (visitor.host().to_owned(), 16 * MIB);
    let head = format!("PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
    visitor.wire.write(head).unwrap();
    let mut reader = visitor.wire.clone_plain();
    let sent = thread::spawn(move || pour(&mut visitor.wire, 21, 16 * MIB).unwrap());
    assert_eq!(reader.read_head().unwrap().status(), 200);
    let got = drain(&mut reader, length).unwrap();
    assert!(got == sent.join().unwrap());
}

#[test]
fn a_tcp_endpoint_carries_16_mib_both_ways() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let agent = agent::tcp(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let mut reader = visitor.wire.clone_plain();
    let read = thread::spawn(move || drain(&mut reader, u64::MAX).unwrap());
    let sent = pour(&mut visitor.wire, 22, 16 * MIB).unwrap();
    visitor.wire.half_close();
    assert!(read.join().unwrap() == sent);
}

#[test]
fn fifty_visitors_at_once() {
    let (edge, upstream) = (Edge::start(), Upstream::hello());
    let agent = agent::http(&edge, upstream.port());
    let mut visitors: Vec<_> = (0..50).map(|_| agent.visit(&edge)).collect();
    for (n, visitor) in visitors.iter_mut().enumerate() {
        visitor.send("GET", &format!("/{n}"), "", b"").unwrap();
    }
    for (n, visitor) in visitors.iter_mut().enumerate() {
        let answer = visitor.wire.read_response("GET").unwrap();
        assert_eq!(answer.text(), format!("GET /{n} "));
    }
}

#[test]
fn a_directory_with_a_range_and_a_date() {
    let (edge, dir) = (Edge::start(), TempDir::new());
    let content = Noise::bytes(23, 300_000);
    let file = dir.write("www/file.bin", &content);
    let when = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    std::fs::File::options().write(true).open(file).unwrap().set_modified(when).unwrap();
    let agent = agent::http(&edge, format!("file://{}", dir.join("www").display()));
    let whole = agent.visit(&edge).get("/file.bin");
    assert!(whole.body == content);
    assert_eq!(whole.field("last-modified"), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
    let part = agent.visit(&edge).ask("GET", "/file.bin", "Range: bytes=100-199\r\n", b"");
    assert_eq!(part.status(), 206);
    assert!(part.body == content[100..200]);
    assert!(agent.visit(&edge).get("/").text().contains("file.bin"));
}

#[test]
fn the_urls_come_back_after_the_edge_was_away() {
    let mut edge = Edge::start();
    let (web, raw) = (Upstream::hello(), Upstream::echo());
    let (mut http, mut tcp) = (agent::http(&edge, web.port()), agent::tcp(&edge, raw.port()));
    let (http_url, tcp_url) = (http.url().to_owned(), tcp.url().to_owned());
    for _ in 0..2 {
        edge.restart();
        wait_for("the HTTP endpoint to be back", || says_hello(&edge, &http_url));
        wait_for("the TCP endpoint to be back", || echoes(&edge, &tcp_url));
    }
    http.process().assert_running();
    tcp.process().assert_running();
    assert_eq!(http.process().stdout().lines().count(), 1, "another URL was announced");
}

#[test]
fn a_signal_lets_a_transfer_finish_and_the_agent_exits_0() {
    let edge = Edge::start();
    let upstream = Upstream::http(|request, wire| {
        if request.target() == "/probe" {
            return wire.respond("200 OK", "", b"still here");
        }
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n")?;
        pour(wire, 24, 16 * MIB).map(|_| ())
    });
    let mut agent = agent::http(&edge, upstream.port());
    let url = agent.url().to_owned();
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "Connection: close\r\n", b"").unwrap();
    assert_eq!(visitor.wire.read_head().unwrap().status(), 200);
    agent.process().signal("TERM");
    wait_for("new visitors to be turned away", || {
        try_get(&edge, &url, "/probe").is_none_or(|answer| answer.status() >= 400)
    });
    let (bytes, _) = drain(&mut visitor.wire, 16 * MIB).unwrap();
    assert_eq!(bytes, 16 * MIB);
    assert_eq!(agent.process().wait_exit(), Some(0));
}

#[test]
fn a_wrong_token_ends_it_with_the_edges_code() {
    let edge = Edge::start();
    let upstream = Upstream::hello();
    let args = ["http", &upstream.port().to_string(), "--authtoken", "2wrong_token_of_nobody"];
    let mut process = agent::agent(&edge.config, args).spawn();
    assert_eq!(process.wait_exit(), Some(1));
    assert!(process.stderr().contains("ERR_NGROK_1"), "{}", process.report());
}
