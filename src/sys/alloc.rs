//! Allocator of both programs: dlmalloc. It keeps the memory of a burst together and frees it,
//! while musl's allocator maps and unmaps every large block. With the feature `count-allocs` it
//! counts, so that `make bench` can report allocations for each byte.
//!
//! A program that fails to allocate in the middle of an operation can only end. So there is a
//! reserve: addresses without pages, which need no memory until they are used. A failed
//! allocation is repeated with the reserve freed. While it is missing, no new operation begins
//! (see [`is_short`]).

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::heap::{self, Heap};
use super::sync::Mutex;
use crate::features;

/// Size of the reserve: four of the blocks that dlmalloc requests from the kernel.
const RESERVE: usize = 256 * 1024;

static KEPT: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());

/// Held while the reserve is freed, so that a second thread with a failed allocation waits for
/// it. Nothing is allocated under it.
static TURN: Mutex<()> = Mutex::new(());

/// dlmalloc with a reserve.
pub struct Allocator(Heap);

/// The global allocator that the programs declare.
pub const ALLOCATOR: Allocator = Allocator(Heap);

static COUNT: AtomicUsize = AtomicUsize::new(0);

fn count() {
    if features::COUNT_ALLOCS {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

/// Largest allocation for which the reserve is freed. Larger buffers belong to one visitor or
/// one session, which can be refused.
const LARGEST: usize = 64 * 1024;

/// Returns the result of `ask`, repeated after the reserve was freed by any thread: it is large
/// enough for several.
fn insist(size: usize, ask: impl Fn() -> *mut u8) -> *mut u8 {
    let memory = ask();
    if !memory.is_null() || size > LARGEST {
        return memory;
    }
    give_up();
    ask()
}

// SAFETY: every call is passed on unchanged to an allocator that keeps the contract, a second
// time only after a failure; counter and reserve touch no memory of theirs.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above; `layout` is the caller's.
        insist(layout.size(), || unsafe { self.0.alloc(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; both are the caller's.
        unsafe { self.0.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above; `layout` is the caller's.
        insist(layout.size(), || unsafe { self.0.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above; all three are the caller's. A failure leaves `memory` alone.
        insist(size, || unsafe { self.0.realloc(memory, layout, size) })
    }
}

/// Frees the reserve, if there is one. Afterwards the kernel has it back, even if another
/// thread freed it.
#[cold]
fn give_up() {
    let _turn = TURN.lock();
    let kept = KEPT.swap(ptr::null_mut(), Ordering::Relaxed);
    if !kept.is_null() {
        // SAFETY: a mapping of this module, of that size; taken out of its place by one.
        unsafe { libc::munmap(kept, RESERVE) };
    }
}

/// Creates the reserve and limits glibc to one arena. Both programs call it first. After a
/// failure each visitor causes another attempt.
///
/// glibc allocates memory of its own for each thread, from an arena of 64 MiB of addresses for
/// that thread. Without addresses for a new arena it does not use another one, but aborts the
/// program (`failed to register TLS destructor`). The main arena has free memory from the start.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a setting of the C library, before the first thread starts.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
    is_short();
}

/// Returns whether memory is too short for new operations: the reserve is used up and cannot be
/// mapped again.
pub fn is_short() -> bool {
    KEPT.load(Ordering::Relaxed).is_null() && !keep()
}

#[cold]
fn keep() -> bool {
    let new = heap::map(RESERVE);
    if new.is_null() {
        return false;
    }
    let null = ptr::null_mut();
    if KEPT.compare_exchange(null, new, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // Another thread was faster.
        // SAFETY: no other code has this mapping.
        unsafe { libc::munmap(new, RESERVE) };
    }
    true
}

/// Reports the number of allocations on standard error, for the end of the program. Nothing is
/// printed in an ordinary build.
pub fn report() {
    if features::COUNT_ALLOCS {
        let count = COUNT.load(Ordering::Relaxed);
        // A closed standard error must not cause a panic.
        let _ = writeln!(std::io::stderr(), "heap allocations: {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn the_reserve_is_spent_once_and_had_again() {
        assert!(!is_short());
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            // The second attempt succeeds.
            if asked.get() % 2 == 0 { ptr::dangling_mut() } else { ptr::null_mut() }
        };
        assert!(insist(LARGEST + 1, ask).is_null(), "not for this");
        assert!(!KEPT.load(Ordering::Relaxed).is_null());
        asked.set(0);
        assert!(!insist(LARGEST, ask).is_null());
        assert_eq!(asked.get(), 2);
        assert!(KEPT.load(Ordering::Relaxed).is_null(), "it was spent");
        assert!(insist(1, ptr::null_mut).is_null());
        assert!(!is_short(), "there is memory again");

        // Two threads fail to allocate at the same time: the reserve is enough for both.
        let denied = Barrier::new(2);
        let tried = || {
            let first = Cell::new(true);
            let ask = || {
                if !first.replace(false) {
                    return ptr::dangling_mut();
                }
                denied.wait();
                ptr::null_mut()
            };
            !insist(LARGEST, ask).is_null()
        };
        thread::scope(|scope| {
            let other = scope.spawn(tried);
            assert!(tried() && other.join().unwrap());
        });
    }
}
