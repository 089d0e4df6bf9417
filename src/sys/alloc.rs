//! The allocator of both programs: dlmalloc, which keeps a burst's memory
//! together and gives it back, where musl's maps and unmaps for every large
//! piece. With the feature `count-allocs` it counts, so that `make bench` can
//! tell what the way of a byte costs.
//!
//! A program that is denied memory in the middle of something can only end. So there is
//! a reserve: addresses that nobody has touched, which cost no memory until they are
//! needed. What is denied is taken from it, and while it is gone nothing new is begun
//! (see [`is_short`]).

use std::alloc::{GlobalAlloc, Layout};
use std::io::Write;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::sync::Mutex;
use crate::features;

/// Bytes of the reserve: four of the pieces that dlmalloc asks the kernel for.
const RESERVE: usize = 256 * 1024;

static KEPT: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());

/// Held while it is given up, so that a second thread that is denied memory then does not
/// ask before it is back. Under it nothing is asked for.
static TURN: Mutex<()> = Mutex::new(());

/// dlmalloc with a reserve behind it.
pub struct Allocator(dlmalloc::GlobalDlmalloc);

/// What `main.rs` declares as the global allocator.
pub const ALLOCATOR: Allocator = Allocator(dlmalloc::GlobalDlmalloc);

static COUNT: AtomicUsize = AtomicUsize::new(0);

fn count() {
    if features::COUNT_ALLOCS {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

/// The largest piece that the reserve is given up for. The buffers that are larger belong
/// to one visitor, or one session, who can be told no.
const LARGEST: usize = 64 * 1024;

/// What was asked for, or asked for again after the reserve was given up, by whichever
/// thread: it is large enough for several.
fn insist(size: usize, ask: impl Fn() -> *mut u8) -> *mut u8 {
    let memory = ask();
    if !memory.is_null() || size > LARGEST {
        return memory;
    }
    give_up();
    ask()
}

// SAFETY: every call is handed on unchanged to an allocator that keeps the contract, a
// second time only when it failed; counter and reserve touch no memory of theirs.
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

/// Lets go of the reserve, if there is one. Then the kernel has it back, whoever gave it up.
#[cold]
fn give_up() {
    let _turn = TURN.lock();
    let kept = KEPT.swap(ptr::null_mut(), Ordering::Relaxed);
    if !kept.is_null() {
        // SAFETY: a mapping of this module, of that size; taken out of its place by one.
        unsafe { libc::munmap(kept, RESERVE) };
    }
}

/// Whether memory is so short that nothing new should be begun: the reserve is used up
/// and cannot be had again. The first call makes it.
pub fn is_short() -> bool {
    KEPT.load(Ordering::Relaxed).is_null() && !keep()
}

#[cold]
fn keep() -> bool {
    let (read_write, private) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new pages at a place that the kernel chooses.
    let new = unsafe { libc::mmap(ptr::null_mut(), RESERVE, read_write, private, -1, 0) };
    if new == libc::MAP_FAILED {
        return false;
    }
    let null = ptr::null_mut();
    if KEPT.compare_exchange(null, new, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // Another thread was quicker.
        // SAFETY: nobody else knows this mapping.
        unsafe { libc::munmap(new, RESERVE) };
    }
    true
}

/// Tells, on standard error, how often memory was asked for. Says nothing in an
/// ordinary build. For the end of the program.
pub fn report() {
    if features::COUNT_ALLOCS {
        let count = COUNT.load(Ordering::Relaxed);
        // A closed standard error is no reason to end with a panic.
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
            // The second time there is something.
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

        // Two are denied memory at the same time: what one gives up is enough for both.
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
