//! Capturing allocates nothing once the ring is full: what is new takes the place
//! of what is old, so a hundred thousand requests are as good as a thousand.
#![cfg(feature = "inspect")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use culvert::inspect::{Inspector, ListFilter};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that are allocated now.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// Counts what the calling thread allocates.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counters are
// thread-local cells without destructors and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get() + layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`, which is System's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.set(HELD.get() - layout.size() as i64);
        // SAFETY: `at` came from System with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        HELD.set(HELD.get() + size as i64 - layout.size() as i64);
        // SAFETY: `at` came from System with this layout.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn no_allocation_once_the_ring_is_full_and_none_beyond_the_ceiling() {
    const CEILING: usize = 1 << 20;
    let body = vec![b'x'; 30_000];
    let before = HELD.get();
    let inspector = Inspector::with_ceiling(CEILING).expect("enough");
    let metrics = Arc::default();
    let taps: Vec<_> = (0..8)
        .map(|n| inspector.source("web", false, &metrics).tap(&format!("192.0.2.{n}:1")))
        .collect();
    let empty = HELD.get();
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
    let (allocations, held) = (ALLOCATIONS.get(), HELD.get());
    assert!(held - empty <= CEILING as i64, "{} bytes held", held - empty);
    assert!(held - empty > CEILING as i64 / 10 * 9);
    (0..100_000).for_each(exchange);
    assert_eq!(ALLOCATIONS.get() - allocations, 0, "allocations with the ring full");
    assert_eq!(HELD.get(), held);
    // And it was not idle.
    let newest = &inspector.list(&ListFilter { limit: Some(1), tunnel_name: None })[0];
    assert_eq!((newest.status, &newest.uri[..], newest.request_len), (200, "/path?query=1", 76));
    inspector.clear();
    drop((taps, metrics));
    let left = HELD.get() - before;
    assert!(left < 2_048, "cleared, it still has {left} bytes");
}
