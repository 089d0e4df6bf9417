//! The program's own pages: code and constants, which the kernel maps from the file
//! as they are touched, with their neighbours.

use std::ffi::{c_int, c_void};
use std::ptr;

/// Lets go of the pages of code and constants that were used so far. With each page
/// that is touched the kernel maps those beside it, so that soon the whole program
/// counts as this process's memory, though a few functions are all that an idle one
/// needs. Those come back from the page cache at the next touch: two dozen faults that
/// read nothing. The others are free for the kernel to take first. Best effort.
/// Not in a debug build: a debugger's breakpoints would go, too.
pub fn forget_code() {
    if !cfg!(debug_assertions) {
        forget_pages();
    }
}

fn forget_pages() {
    // SAFETY: the callback has the type that is asked for and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(forget), ptr::null_mut()) };
}

/// Called with the program first, and ends there: of libraries it knows nothing.
///
/// # Safety
/// `info` is what `dl_iterate_phdr` gives.
unsafe extern "C" fn forget(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: sysconf has no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Some(page) = usize::try_from(page).ok().filter(|page| page.is_power_of_two()) else {
        return 1;
    };
    // SAFETY: valid for the length of this call.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    let count = usize::from(info.dlpi_phnum);
    // SAFETY: that many headers are there, of the running program: nobody writes them.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    for header in headers {
        // Addresses of this machine, which a usize holds.
        #[allow(clippy::unnecessary_cast)]
        let (at, size) = (
            (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize),
            header.p_memsz as usize,
        );
        // What can be written may differ from the file.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        // Whole pages only: the first and the last may belong to a neighbour, too.
        let from = at.next_multiple_of(page);
        let to = at.wrapping_add(size) & !(page - 1);
        if from < to {
            // SAFETY: pages of a private mapping of the file that are only ever read
            // or run, so that what comes back is what was there. Where the kernel
            // does not know the call nothing happens.
            unsafe { libc::madvise(from as *mut c_void, to - from, libc::MADV_DONTNEED) };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KiB of the program and its libraries that are mapped.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().strip_suffix("kB").unwrap().trim().parse().unwrap()
    }

    #[test]
    fn code_goes_and_comes_back() {
        // Other tests of the process may bring in theirs meanwhile.
        let gone = (0..100).any(|_| {
            let before = resident();
            forget_pages();
            resident() < before
        });
        assert!(gone, "{} KiB are there to stay", resident());
        // It still runs, and constants are what they were.
        assert_eq!(crate::sys::go_arch().len().to_string().len(), 1);
    }
}
