//! Time without a clock: instants and deadlines as plain numbers.
//!
//! The protocol modules have `now` as an argument and never read a clock, so a test can put an
//! hour between two bytes. The real clock is [`crate::sys::clock`]. It includes the time of a
//! suspend. Code in this file must not read a clock.

use std::ops::Add;
use std::time::Duration;

/// A point in time: the time since an arbitrary start that is the same for the
/// whole process. Microseconds, so that 32-bit machines compare one `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The start of time, for fake clocks.
    pub const ZERO: Instant = Instant(0);

    /// The end of time: everything is due.
    pub const END: Instant = Instant(u64::MAX);

    /// Returns the instant `us` microseconds after the start of time.
    pub const fn from_micros(us: u64) -> Self {
        Instant(us)
    }

    /// Returns the microseconds since the start of time.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since the start of time. They fit an atomic of machines with
    /// 32 bits.
    pub fn as_seconds(self) -> u32 {
        u32::try_from(self.0 / 1_000_000).unwrap_or(u32::MAX)
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Returns the instant `duration` before this one, or the start of time.
    pub fn before(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Adds a duration. A sum past the end of time is the end of time.
    fn add(self, d: Duration) -> Instant {
        let us = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(us))
    }
}

/// Time at which something is due. Ordered: the earliest first, `Never` last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// Due at, or overdue since, this instant.
    At(Instant),
    /// Never due.
    Never,
}

impl Deadline {
    /// Returns the time left at `now`: zero if overdue, `None` if never due.
    pub fn left(self, now: Instant) -> Option<Duration> {
        match self {
            Deadline::At(at) => Some(at.since(now)),
            Deadline::Never => None,
        }
    }

    /// Returns whether it is due at `now`.
    pub fn due(self, now: Instant) -> bool {
        matches!(self, Deadline::At(at) if at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_after_every_instant() {
        let late = Deadline::At(Instant::from_micros(u64::MAX));
        assert!(late < Deadline::Never);
        assert_eq!(late.min(Deadline::Never), late);
        assert!(!Deadline::Never.due(Instant::from_micros(u64::MAX)));
    }

    #[test]
    fn arithmetic_saturates() {
        let t = Instant::from_micros(5) + Duration::from_secs(u64::MAX);
        assert_eq!(t, Instant::from_micros(u64::MAX));
        assert_eq!(Instant::ZERO.since(t), Duration::ZERO);
    }
}
