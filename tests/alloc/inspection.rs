//! Capture allocates nothing once the ring is full: new exchanges replace old ones, so a
//! hundred thousand requests need no more memory than a thousand.

use std::sync::Arc;

use culvert::inspect::{Inspector, ListFilter};

use crate::counting::{allocations, held};

#[test]
fn no_allocation_once_the_ring_is_full_and_none_beyond_the_ceiling() {
    const CEILING: usize = 1 << 20;
    let body = vec![b'x'; 30_000];
    let before = held();
    let inspector = Inspector::with_ceiling(CEILING).expect("enough");
    let metrics = Arc::default();
    let taps: Vec<_> = (0..8)
        .map(|n| inspector.source("web", false, &metrics).tap(&format!("192.0.2.{n}:1")))
        .collect();
    let empty = held();
    assert!(empty - before < 4_096, "{} bytes before anything is captured", empty - before);
    let exchange = |n: usize| {
        let tap = &taps[n % taps.len()];
        tap.request(b"POST /path?query=1 HTTP/1.1\r\nHost: example\r\nContent-Length: 10\r\n\r\n");
        tap.request(b"0123456789");
        // One in four has a body of some size, in pieces.
        let size = if n.is_multiple_of(4) { n % 3 * 15_000 } else { 50 };
        let head = [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 00000\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 15000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 30000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
        ];
        tap.response(head[if n.is_multiple_of(4) { n % 3 } else { 3 }]);
        for piece in body[..size].chunks(7_000) {
            tap.response(piece);
        }
    };
    (0..5_000).for_each(exchange);
    let (used, ceiling) = inspector.bytes();
    assert!(ceiling == CEILING && used <= CEILING && used > CEILING / 10 * 9, "{used}");
    let (full_allocations, full_held) = (allocations(), held());
    assert!(full_held - empty <= CEILING as i64, "{} bytes held", full_held - empty);
    assert!(full_held - empty > CEILING as i64 / 10 * 9);
    (0..100_000).for_each(exchange);
    assert_eq!(allocations() - full_allocations, 0, "allocations with the ring full");
    assert_eq!(held(), full_held);
    // The requests were captured.
    let newest = &inspector.list(&ListFilter { limit: Some(1), tunnel_name: None })[0];
    assert_eq!((newest.status, &newest.uri[..], newest.request_len), (200, "/path?query=1", 76));
    inspector.clear();
    drop((taps, metrics));
    let left = held() - before;
    assert!(left < 2_048, "cleared, it still has {left} bytes");
}
