//! System calls for a line of output: local time and an unbuffered write.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::errno::retry;

/// Local time of day, for display.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalTime {
    /// Year, `2026`.
    pub year: i32,
    /// Month, 1 to 12.
    pub month: i32,
    /// Day of the month, 1 to 31.
    pub day: i32,
    /// Hour, 0 to 23.
    pub hour: i32,
    /// Minute, 0 to 59.
    pub minute: i32,
    /// Second, 0 to 60.
    pub second: i32,
    /// Minutes east of UTC.
    pub offset: i32,
}

/// Returns the current time in the system's time zone; the start of 1970 without a clock.
pub fn local_time() -> LocalTime {
    // SAFETY: with a null pointer only the result is returned.
    local_time_of(unsafe { libc::time(std::ptr::null_mut()) })
}

/// Returns the time `seconds` after the start of 1970, in the system's time zone.
#[allow(deprecated)]
pub fn local_time_at(seconds: u64) -> LocalTime {
    local_time_of(libc::time_t::try_from(seconds).unwrap_or(0))
}

// As above.
#[allow(deprecated)]
fn local_time_of(time: libc::time_t) -> LocalTime {
    let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right types; an all-zero
    // `tm` is valid, so it may be read also when the call failed.
    let tm = unsafe {
        libc::localtime_r(&time, tm.as_mut_ptr());
        tm.assume_init()
    };
    LocalTime {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        // Within a day by definition.
        offset: i32::try_from(tm.tm_gmtoff / 60).unwrap_or(0),
    }
}

/// Writes as many bytes as are accepted, without a buffer or a further descriptor.
/// `Interrupted` is retried.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: the pointer and length describe `bytes`, which outlives the call.
        unsafe { libc::write(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_is_a_date() {
        let t = local_time();
        assert!(t.year >= 1970 && (1..=12).contains(&t.month) && (1..=31).contains(&t.day));
    }
}
