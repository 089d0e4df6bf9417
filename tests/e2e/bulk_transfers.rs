//! Large transfers arrive complete, in order, in both directions.

use std::io;
use std::thread;

use crate::support::agent;
use crate::support::edge::Edge;
use crate::support::upstream::Upstream;
use crate::support::wire::Wire;
use crate::support::{Noise, Sum};

pub const MIB: u64 = 1024 * 1024;
const BIG: u64 = 256 * MIB;

/// Sends noise. Returns its digest.
pub fn pour(wire: &mut Wire, seed: u64, bytes: u64) -> io::Result<(u64, Vec<u8>)> {
    let (mut noise, mut sum) = (Noise::new(seed), Sum::new());
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(buffer.len() as u64) as usize;
        noise.fill(&mut buffer[..n]);
        sum.add(&buffer[..n]);
        wire.write(&buffer[..n])?;
        left -= n as u64;
    }
    Ok(sum.finish())
}

/// Reads this number of bytes, or to the end. Returns their digest.
pub fn drain(wire: &mut Wire, bytes: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut sum = Sum::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(buffer.len() as u64) as usize;
        match wire.read_some(&mut buffer[..n])? {
            0 => break,
            n => {
                sum.add(&buffer[..n]);
                left -= n as u64;
            }
        }
    }
    Ok(sum.finish())
}

/// Sends as many bytes as the path requests, or responds with the digest of the body.
fn store() -> Upstream {
    Upstream::tcp(|mut wire| {
        let head = wire.read_head().unwrap();
        if head.method() == "GET" {
            wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n")).unwrap();
            pour(&mut wire, 7, BIG).unwrap();
        } else {
            let length = head.field("content-length").unwrap().parse().unwrap();
            let sum = drain(&mut wire, length).unwrap();
            wire.respond("200 OK", "", format!("{sum:?}").as_bytes()).unwrap();
        }
    })
}

fn expected() -> (u64, Vec<u8>) {
    let (mut noise, mut sum) = (Noise::new(7), Sum::new());
    let mut buffer = vec![0; 64 * 1024];
    for _ in 0..BIG / buffer.len() as u64 {
        noise.fill(&mut buffer);
        sum.add(&buffer);
    }
    sum.finish()
}

#[test]
fn http_download_of_256_mib() {
    let (edge, upstream) = (Edge::start(), store());
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    visitor.send("GET", "/", "", b"").unwrap();
    let head = visitor.wire.read_head().unwrap();
    assert_eq!(head.field("content-length"), Some(BIG.to_string().as_str()));
    assert!(drain(&mut visitor.wire, BIG).unwrap() == expected());
}

#[test]
fn http_upload_of_256_mib() {
    let (edge, upstream) = (Edge::start(), store());
    let agent = agent::http(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let host = visitor.host().to_owned();
    let head = format!("PUT / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {BIG}\r\n\r\n");
    visitor.wire.write(head).unwrap();
    let sent = pour(&mut visitor.wire, 8, BIG).unwrap();
    let answer = visitor.wire.read_response("PUT").unwrap();
    assert_eq!(answer.text(), format!("{sent:?}"));
}

#[test]
fn tcp_download_of_256_mib() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        pour(&mut wire, 7, BIG).unwrap();
        wire.half_close();
        let _ = wire.read_rest();
    });
    let agent = agent::tcp(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    // One byte more than the body has: the end must follow exactly BIG bytes.
    assert!(drain(&mut visitor.wire, BIG + 1).unwrap() == expected());
}

#[test]
fn tcp_upload_of_256_mib() {
    let edge = Edge::start();
    let upstream = Upstream::tcp(|mut wire| {
        let sum = drain(&mut wire, u64::MAX).unwrap();
        wire.write(format!("{sum:?}")).unwrap();
    });
    let agent = agent::tcp(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    let sent = pour(&mut visitor.wire, 9, BIG).unwrap();
    visitor.wire.half_close();
    let answer = visitor.wire.read_rest().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), format!("{sent:?}"));
}

#[test]
fn both_directions_at_once_on_several_connections() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let agent = agent::tcp(&edge, upstream.port());
    thread::scope(|scope| {
        for seed in 0..4 {
            let mut visitor = agent.visit(&edge);
            scope.spawn(move || {
                let mut reader = visitor.wire.clone_plain();
                let read = thread::spawn(move || drain(&mut reader, u64::MAX).unwrap());
                let sent = pour(&mut visitor.wire, seed, 16 * MIB).unwrap();
                visitor.wire.half_close();
                assert!(read.join().unwrap() == sent, "connection {seed}");
            });
        }
    });
}

#[test]
fn a_byte_at_a_time() {
    let (edge, upstream) = (Edge::start(), Upstream::echo());
    let agent = agent::tcp(&edge, upstream.port());
    let mut visitor = agent.visit(&edge);
    for n in 0..1000u32 {
        let byte = [n as u8];
        visitor.wire.write(byte).unwrap();
        assert_eq!(visitor.wire.read_exact(1).unwrap(), byte);
    }
}
