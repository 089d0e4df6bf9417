//! The clocks of the kernel, as [`Instant`]. Local time for people is in `console`.

use std::time::Duration;

use crate::time::Instant;

/// Returns the current time. It includes the time of a suspend (`CLOCK_BOOTTIME`), so that a
/// link that died during it is detected afterwards. Falls back to `CLOCK_MONOTONIC` on kernels
/// without it.
pub fn clock() -> Instant {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the duration of the call.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut ts) } != 0;
    if failed {
        // SAFETY: as above. CLOCK_MONOTONIC exists on every Linux.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    }
    // The casts widen: both fields are non-negative for these clocks.
    #[allow(clippy::unnecessary_cast)]
    Instant::from_micros(ts.tv_sec as u64 * 1_000_000 + ts.tv_nsec as u64 / 1_000)
}

/// Returns the current time without the time of suspends, on the scale of [`clock`].
pub fn awake() -> Instant {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    // The casts widen: both fields are non-negative for this clock.
    #[allow(clippy::unnecessary_cast)]
    Instant::from_micros(ts.tv_sec as u64 * 1_000_000 + ts.tv_nsec as u64 / 1_000)
}

/// Returns the processor time of the calling thread.
pub fn thread_time() -> Duration {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid, writable timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
    // The casts widen: both fields are non-negative for this clock.
    #[allow(clippy::unnecessary_cast)]
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}
