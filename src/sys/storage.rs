//! Free space and kind of the file system of a directory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Type of overlayfs in `statfs(2)`.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// Returns the bytes that this process may still write to the file system of a file.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    // SAFETY: all-zero is a valid statvfs.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a pointer to a live, writable struct.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), &mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // 32 bits wide on some machines and 64 bits on others.
    #[allow(clippy::unnecessary_cast)]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}

/// Returns whether a file is on an overlay, where the first link to a file of the lower layer
/// copies it.
pub fn is_overlay(file: &File) -> bool {
    // SAFETY: all-zero is a valid statfs.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a pointer to a live, writable struct.
    let done = unsafe { libc::fstatfs(file.as_raw_fd(), &mut found) } == 0;
    // Signed, unsigned, 32 or 64 bits wide. The lowest 32 bits are the type.
    #[allow(clippy::unnecessary_cast)]
    let kind = found.f_type as u64 & 0xffff_ffff;
    done && kind == OVERLAY_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_free_space_or_a_reason() {
        let dir = File::open(std::env::temp_dir()).unwrap();
        assert!(free_bytes(&dir).unwrap() > 0);
        let proc = File::open("/proc/self").unwrap();
        assert_eq!(free_bytes(&proc).unwrap(), 0);
        assert!(!is_overlay(&proc));
    }
}
