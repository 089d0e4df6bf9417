//! Allocator of these tests: the system's, with a count of each thread's allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// Returns how often the calling thread has allocated, a growth in place included.
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// Returns the bytes that the calling thread has allocated and not freed.
pub fn held() -> i64 {
    HELD.get()
}

/// Returns how much `run` held at most beyond what the calling thread held before.
#[cfg(feature = "edge")]
pub fn peak_of(run: impl FnOnce()) -> i64 {
    let before = held();
    PEAK.set(before);
    run();
    PEAK.get() - before
}

fn add(bytes: i64) {
    HELD.set(HELD.get() + bytes);
    PEAK.set(PEAK.get().max(HELD.get()));
}

struct Counting;

// SAFETY: every call is passed to the system's allocator unchanged; the counters are
// thread-local cells without destructors and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        add(layout.size() as i64);
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
        add(size as i64 - layout.size() as i64);
        // SAFETY: `at` came from System with this layout.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_counter_counts() {
    let (before, bytes) = (allocations(), held());
    let one = std::hint::black_box(Vec::<u8>::with_capacity(100));
    assert_eq!((allocations() - before, held() - bytes), (1, 100));
    drop(one);
    assert_eq!(held(), bytes);
}
