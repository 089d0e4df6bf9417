//! Pages of the program's code and constants, which the kernel maps from the file on first use,
//! together with their neighbours.

use std::ffi::{c_int, c_void};
use std::ptr;

/// Releases the pages of code and constants that were used so far. With each page that is used
/// the kernel maps the neighbours, so that soon the whole program counts as memory of this
/// process, although an idle one needs a few functions only. Those are mapped from the page
/// cache again at the next use: two dozen faults without I/O. The kernel can reclaim the
/// others. Best effort.
/// Not in a debug build: it would remove a debugger's breakpoints.
pub fn forget_code() {
    if !cfg!(debug_assertions) {
        forget_pages();
    }
}

fn forget_pages() {
    // SAFETY: the callback has the required type and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(forget), ptr::null_mut()) };
}

/// Called with the program first. It ignores libraries.
///
/// # Safety
/// `info` is a valid argument of `dl_iterate_phdr`.
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
    // SAFETY: the running program has this number of headers, and they are never written.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    for header in headers {
        // Addresses of this machine fit a usize.
        #[allow(clippy::unnecessary_cast)]
        let (at, size) = (
            (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize),
            header.p_memsz as usize,
        );
        // Writable pages may differ from the file.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        // Whole pages only: the first and the last may also belong to a neighbour.
        let from = at.next_multiple_of(page);
        let to = at.wrapping_add(size) & !(page - 1);
        if from < to {
            // SAFETY: pages of a private mapping of the file that are only read or executed, so
            // their content is the same afterwards. A kernel without this call returns an
            // error.
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
        // Other tests of the process may use their pages in the meantime.
        let gone = (0..100).any(|_| {
            let before = resident();
            forget_pages();
            resident() < before
        });
        assert!(gone, "{} KiB are there to stay", resident());
        // It still runs, with the same constants.
        assert_eq!(crate::sys::go_arch().len().to_string().len(), 1);
    }
}
