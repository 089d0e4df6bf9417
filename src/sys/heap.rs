//! The heap of both programs: dlmalloc under a lock, on pages of the kernel. dlmalloc keeps the
//! free memory of a burst; [`release_free_pages`] returns it. What follows a denied allocation
//! does not belong here (see `alloc`).

use std::alloc::{GlobalAlloc, Layout};
use std::mem::size_of;
use std::ptr;

use dlmalloc::Dlmalloc;

use super::page_cache::page_size;
use super::sync::Mutex;

/// Freed bytes that are worth a search for free pages.
const WORTH_BYTES: usize = 256 * 1024;

/// Size of the largest free block that is searched for. Larger ones are found in parts.
const LARGEST_BYTES: usize = 1 << 26;

static HEAP: Mutex<HeapState> = Mutex::new(HeapState {
    blocks: Dlmalloc::new_with_allocator(Pages { closed: false }),
    freed: 0,
});

struct HeapState {
    blocks: Dlmalloc<Pages>,
    /// Bytes that were freed after the last search for free pages.
    freed: usize,
}

/// The heap as an allocator of Rust.
pub(super) struct Heap;

// SAFETY: each call goes unchanged to dlmalloc, which keeps the contract, under its lock.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above; `layout` is the caller's.
        unsafe { HEAP.lock().blocks.malloc(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let mut heap = HEAP.lock();
        heap.freed = heap.freed.wrapping_add(layout.size());
        // SAFETY: as above; both are the caller's.
        unsafe { heap.blocks.free(memory, layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above; `layout` is the caller's.
        unsafe { HEAP.lock().blocks.calloc(layout.size(), layout.align()) }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; all three are the caller's.
        unsafe { HEAP.lock().blocks.realloc(memory, layout.size(), layout.align(), size) }
    }
}

/// Pages of the kernel for dlmalloc.
struct Pages {
    /// Whether no page is added: only free blocks are allocated then.
    closed: bool,
}

// SAFETY: `alloc` returns new mappings, which only dlmalloc uses and unmaps.
unsafe impl dlmalloc::Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let new = if self.closed { ptr::null_mut() } else { map(size) };
        (new.cast(), size, 0)
    }

    /// Not called: the Rust port of dlmalloc gives no block a mapping of its own.
    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, start: *mut u8, old_size: usize, new_size: usize) -> bool {
        self.free(start.wrapping_add(new_size), old_size - new_size)
    }

    fn free(&self, start: *mut u8, size: usize) -> bool {
        // SAFETY: whole pages of a mapping of `alloc` that dlmalloc does not use any more.
        unsafe { libc::munmap(start.cast(), size) == 0 }
    }

    fn can_release_part(&self, _: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        page_size()
    }
}

/// Maps new pages. Returns null after a failure.
pub(super) fn map(size: usize) -> *mut libc::c_void {
    let (read_write, private) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new pages at a place that the kernel chooses.
    let new = unsafe { libc::mmap(ptr::null_mut(), size, read_write, private, -1, 0) };
    if new == libc::MAP_FAILED { ptr::null_mut() } else { new }
}

/// Start of a free block while [`release_free_pages`] holds it.
struct Taken {
    next: *mut Taken,
}

/// Returns the pages of free memory to the kernel, if much has been freed since the last call
/// that did. The next use of a page maps it again. Callers do it every few seconds, in a thread
/// that is awake anyway.
///
/// dlmalloc itself returns only what is free at the end of its memory: one used block keeps all
/// pages below it.
pub fn release_free_pages() {
    let mut heap = HEAP.lock();
    if heap.freed >= WORTH_BYTES {
        heap.freed = 0;
        release(&mut heap.blocks, page_size());
    }
}

/// Allocates each free block that may contain a whole page, from the largest to the smallest and
/// without new pages. Then frees all of them, without their pages.
fn release(blocks: &mut Dlmalloc<Pages>, page: usize) {
    // SAFETY: the caller has the only reference.
    unsafe { blocks.trim(0) };
    blocks.allocator_mut().closed = true;
    let mut taken: *mut Taken = ptr::null_mut();
    let mut size = LARGEST_BYTES;
    while size > page {
        // SAFETY: any size is valid.
        let block: *mut Taken = unsafe { blocks.c_malloc(size) }.cast();
        if block.is_null() {
            size -= (size / 64).max(256);
            continue;
        }
        let start = (block as usize + size_of::<Taken>()).next_multiple_of(page);
        let end = (block as usize + size) & !(page - 1);
        // SAFETY: the block is new, and larger than a `Taken` and as aligned. The pages from
        // `start` to `end` are inside of it and behind the `Taken`.
        unsafe {
            block.write(Taken { next: taken });
            if start < end {
                libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
            }
        }
        taken = block;
    }
    while !taken.is_null() {
        let block = taken;
        // SAFETY: allocated and written above, and freed once.
        unsafe {
            taken = (*block).next;
            blocks.c_free(block.cast());
        }
    }
    blocks.allocator_mut().closed = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: usize = 24 * 1024;

    /// Returns how many of the pages that lie in one block have memory. The blocks need not be
    /// in one mapping, and the end of a mapping may be gone.
    fn resident(blocks: &[*mut u8]) -> usize {
        let page = page_size();
        let pages = blocks.iter().flat_map(|block| {
            let start = (*block as usize).next_multiple_of(page);
            (start..*block as usize + BLOCK_BYTES - page + 1).step_by(page)
        });
        pages
            .filter(|start| {
                let mut state = 0_u8;
                // SAFETY: `state` has the byte of this page. The kernel refuses an address that
                // is not mapped.
                let done =
                    unsafe { libc::mincore(*start as *mut _, page, (&raw mut state).cast()) };
                done == 0 && state & 1 != 0
            })
            .count()
    }

    /// Every eighth block stays in use, so that no part of the heap can be unmapped.
    #[test]
    fn free_blocks_between_used_ones_lose_their_pages() {
        let page = page_size();
        let mut blocks = Dlmalloc::new_with_allocator(Pages { closed: false });
        let align = size_of::<usize>();
        let fill = |n: usize| vec![n as u8; BLOCK_BYTES];
        let all: Vec<*mut u8> = (0..256)
            .map(|n| {
                // SAFETY: the size is valid, and the new block is as large as its content.
                unsafe {
                    let block = blocks.malloc(BLOCK_BYTES, align);
                    assert!(!block.is_null());
                    block.copy_from_nonoverlapping(fill(n).as_ptr(), BLOCK_BYTES);
                    block
                }
            })
            .collect();
        let full = resident(&all);
        for (n, block) in all.iter().enumerate() {
            if n % 8 != 0 {
                // SAFETY: allocated above with this size.
                unsafe { blocks.free(*block, BLOCK_BYTES, align) };
            }
        }
        assert!(resident(&all) > full / 2, "the heap keeps them");
        release(&mut blocks, page);
        let left = resident(&all);
        assert!(left < full / 3, "{left} of {full} pages are left");
        for (n, block) in all.iter().enumerate().filter(|(n, _)| n % 8 == 0) {
            // SAFETY: allocated above with this size, and not freed.
            let content = unsafe { std::slice::from_raw_parts(*block, BLOCK_BYTES) };
            assert!(content == fill(n), "block {n} has changed");
        }
        // The heap is open again, and its free blocks are usable.
        for n in 0..256 {
            // SAFETY: as above.
            unsafe {
                let block = blocks.calloc(BLOCK_BYTES, align);
                assert!(!block.is_null());
                let content = std::slice::from_raw_parts_mut(block, BLOCK_BYTES);
                assert!(content.iter().all(|byte| *byte == 0), "block {n} is not zero");
                content.fill(0xff);
            }
        }
        // SAFETY: nothing of it is used below.
        unsafe { blocks.destroy() };
    }
}
