//! Time that a connection may stay silent after one of its directions has ended. The other
//! direction then depends on a peer that may have vanished, and no byte is on its way that
//! could fail. Without a lock, a clock or a thread: its users wait and reset.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::time::Instant;

/// Watches one connection. Any thread may record bytes.
#[derive(Debug, Default)]
pub struct HalfCloseTimer {
    half_closed: AtomicBool,
    /// Second of the last byte. Machines with 32 bits have no larger atomic.
    last_byte: AtomicU32,
}

impl HalfCloseTimer {
    /// Records that bytes moved in either direction.
    pub fn record_bytes(&self, now: Instant) {
        self.last_byte.store(now.as_seconds(), Ordering::Relaxed);
    }

    /// Returns whether a direction has ended. Before that no byte needs to be recorded.
    pub fn is_half_closed(&self) -> bool {
        self.half_closed.load(Ordering::Relaxed)
    }

    /// Records that one direction has ended in an orderly way.
    pub fn record_end(&self, now: Instant) {
        self.record_bytes(now);
        self.half_closed.store(true, Ordering::Relaxed);
    }

    /// Returns the time that the connection may still stay silent, zero if `limit` is over.
    /// `None`: without a limit, because both directions are open or `limit` is `None`.
    pub fn left(&self, now: Instant, limit: Option<Duration>) -> Option<Duration> {
        let limit = limit.filter(|_| self.half_closed.load(Ordering::Relaxed))?;
        let last =
            Instant::ZERO + Duration::from_secs(self.last_byte.load(Ordering::Relaxed).into());
        // The second of the last byte was cut: never earlier than `limit`.
        let end = last + limit + Duration::from_secs(1);
        Some(end.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn silence_counts_only_after_an_end_and_from_the_last_byte() {
        let (timer, limit) = (HalfCloseTimer::default(), Some(Duration::from_secs(10)));
        timer.record_bytes(at(1_000));
        assert_eq!(timer.left(at(3_600_000), limit), None, "both directions are open");
        assert!(!timer.is_half_closed());
        timer.record_end(at(5_900));
        assert_eq!(timer.left(at(5_900), None), None, "no limit");
        assert!(timer.left(at(15_899), limit).is_some_and(|left| !left.is_zero()));
        timer.record_bytes(at(15_900));
        assert!(timer.left(at(25_899), limit).is_some_and(|left| !left.is_zero()));
        assert_eq!(timer.left(at(26_900), limit), Some(Duration::ZERO));
    }
}
