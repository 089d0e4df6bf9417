//! Results of system calls as `io::Result`.

use std::io;

/// Repeats a call until no signal interrupts it. A negative result means `errno`, others are
/// counts.
#[inline]
pub(super) fn retry(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()).map_err(|_| io::Error::last_os_error()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}
