//! The allocator of both programs: dlmalloc, which keeps a burst's memory
//! together and gives it back, where musl's maps and unmaps for every large
//! piece. With the feature `count-allocs` it counts, so that `make bench` can
//! tell what the way of a byte costs.

#[cfg(feature = "count-allocs")]
use std::alloc::{GlobalAlloc, Layout};
#[cfg(feature = "count-allocs")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// What `main.rs` declares as the global allocator.
#[cfg(not(feature = "count-allocs"))]
pub type Allocator = dlmalloc::GlobalDlmalloc;

/// The allocator itself.
#[cfg(not(feature = "count-allocs"))]
pub const ALLOCATOR: Allocator = dlmalloc::GlobalDlmalloc;

/// dlmalloc behind a counter.
#[cfg(feature = "count-allocs")]
pub struct Allocator(dlmalloc::GlobalDlmalloc);

/// The allocator itself.
#[cfg(feature = "count-allocs")]
pub const ALLOCATOR: Allocator = Allocator(dlmalloc::GlobalDlmalloc);

#[cfg(feature = "count-allocs")]
static COUNT: AtomicUsize = AtomicUsize::new(0);

#[cfg(feature = "count-allocs")]
// SAFETY: every call is handed on unchanged to an allocator that keeps the
// contract; the counter touches no memory of theirs.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; `layout` is the caller's.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; both are the caller's.
        unsafe { self.0.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; `layout` is the caller's.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; all three are the caller's.
        unsafe { self.0.realloc(memory, layout, size) }
    }
}

/// Tells, on standard error, how often memory was asked for. Says nothing in an
/// ordinary build. For the end of the program.
pub fn report() {
    #[cfg(feature = "count-allocs")]
    {
        use std::io::Write;
        let count = COUNT.load(Ordering::Relaxed);
        // A closed standard error is no reason to end with a panic.
        let _ = writeln!(std::io::stderr(), "heap allocations: {count}");
    }
}
