//! Pages of the program's code and constants, which the kernel maps from the file on first use,
//! together with their neighbours.

use std::ffi::{c_int, c_void};
use std::fs;
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
    // Without /proc nothing is known about the segments: they stay.
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    // SAFETY: the callback has the required type and does not unwind. It only reads `maps`, which
    // exists until the call has returned.
    unsafe { libc::dl_iterate_phdr(Some(forget), ptr::from_ref(&maps).cast_mut().cast()) };
}

/// Returns the size of a page of this machine.
pub(super) fn page_size() -> usize {
    // SAFETY: sysconf has no conditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(1 << 16)
}

/// Returns whether each page from `from` to `to` is mapped from a file that is on a disk,
/// according to the text of `/proc/self/maps` (proc(5)). A packed program (UPX) has its code in
/// anonymous memory or in a memfd: such pages would be zero after `MADV_DONTNEED`.
fn is_file_backed(maps: &str, from: usize, to: usize) -> bool {
    let mut at = from;
    // The lines are in the order of their addresses.
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-'));
        let Some((start, end)) = range else {
            return false;
        };
        let address = |text| usize::from_str_radix(text, 16);
        let (Ok(start), Ok(end)) = (address(start), address(end)) else {
            return false;
        };
        if end <= at {
            continue;
        }
        // Permissions, offset, device, inode, path.
        let inode = fields.nth(3).unwrap_or("0");
        if start > at || inode == "0" || line.contains("/memfd:") {
            return false;
        }
        at = end;
        if at >= to {
            return true;
        }
    }
    false
}

/// Called with the program first. It ignores libraries.
///
/// # Safety
/// `info` is a valid argument of `dl_iterate_phdr`, and `data` points to a `String`, the text of
/// `/proc/self/maps`.
unsafe extern "C" fn forget(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the caller's `String`, which is not written in the meantime.
    let maps: &String = unsafe { &*data.cast() };
    let page = page_size();
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
        if from < to && is_file_backed(maps, from, to) {
            // SAFETY: pages of a mapping of the file that are only read or executed, so their
            // content is the same afterwards. A kernel without this call returns an error.
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
    fn only_pages_with_a_file_behind_them_are_released() {
        let maps = "\
08048000-08100000 r--p 00000000 b3:02 1204                               /usr/bin/culvert
08100000-08200000 r-xp 000b8000 b3:02 1204                               /usr/bin/culvert
08200000-08201000 rw-p 001b8000 b3:02 1204                               /usr/bin/culvert
08300000-08400000 r-xp 00000000 00:00 0 
08500000-08600000 r-xp 00000000 00:01 77                                 /memfd:upx (deleted)
7fff0000-7fff1000 r-xp 00000000 00:00 0                                  [vdso]
";
        for (from, to, expected) in [
            (0x0804_8000, 0x0810_0000, true),
            (0x0810_1000, 0x0820_0000, true),
            (0x0804_8000, 0x0820_0000, true),
            // Anonymous memory: a packed program.
            (0x0830_0000, 0x0840_0000, false),
            (0x0850_0000, 0x0860_0000, false),
            // Partly not mapped.
            (0x0804_7000, 0x0810_0000, false),
            (0x081f_f000, 0x0830_1000, false),
            (0x7fff_0000, 0x7fff_1000, false),
            (0x7fff_2000, 0x7fff_3000, false),
        ] {
            assert_eq!(is_file_backed(maps, from, to), expected, "{from:x}-{to:x}");
        }
        assert!(!is_file_backed("", 0x1000, 0x2000));
        assert!(!is_file_backed("invalid", 0x1000, 0x2000));
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
