//! Budgets for frames that cost this side more than the peer. Each budget refills with time. A
//! peer that exhausts one loses the session (EnhanceYourCalm).
//!
//! The figures leave an honest peer a wide margin. A peer must not be blamed for its visitors:
//! thousands of them may connect and disconnect, or cancel downloads with a window of frames in
//! flight.

use std::fmt;

use crate::time::Instant;

/// Kind of frames with a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Frames that made this side reset a stream.
    Resets,
    /// Streams that were refused because of a limit.
    Refusals,
    /// Streams that the peer opened and cancelled.
    Churn,
    /// DATA without payload, SYN or FIN.
    Empty,
    /// DATA with very little payload.
    Tiny,
    /// Frames without effect: for unknown streams, of unknown type, beyond the window.
    Useless,
    /// Heartbeats to be echoed.
    Beats,
}

impl Flood {
    /// Returns the size of the budget and its refill per second.
    const fn limit(self) -> (u32, u32) {
        match self {
            Flood::Resets => (4_096, 512),
            Flood::Refusals => (65_536, 8_192),
            Flood::Churn => (65_536, 8_192),
            Flood::Empty => (16_384, 1_024),
            Flood::Tiny => (524_288, 262_144),
            Flood::Useless => (524_288, 262_144),
            Flood::Beats => (1_024, 64),
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flood::Resets => "frames that break a stream's rules",
            Flood::Refusals => "streams beyond the limit",
            Flood::Churn => "streams opened and given up",
            Flood::Empty => "empty frames",
            Flood::Tiny => "tiny frames",
            Flood::Useless => "frames without effect",
            Flood::Beats => "heartbeats",
        })
    }
}

/// Leaky bucket. The time is only needed when it seems empty.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Bucket {
    fn spend(&mut self, limit: (u32, u32), now: Instant) -> bool {
        if self.left == 0 {
            let (burst, per_second) = limit;
            let gained = now.since(self.since).as_micros() as u64;
            let gained = gained.saturating_mul(u64::from(per_second)) / 1_000_000;
            if gained == 0 {
                return false;
            }
            self.left = u32::try_from(gained).unwrap_or(u32::MAX).min(burst);
            self.since = now;
        }
        self.left -= 1;
        true
    }
}

/// All budgets of a session.
#[derive(Debug)]
pub(super) struct Budgets {
    buckets: [(Flood, Bucket); 7],
}

impl Budgets {
    pub(super) fn new(now: Instant) -> Self {
        let full = |flood: Flood| (flood, Bucket { left: flood.limit().0, since: now });
        Budgets {
            buckets: [
                full(Flood::Resets),
                full(Flood::Refusals),
                full(Flood::Churn),
                full(Flood::Empty),
                full(Flood::Tiny),
                full(Flood::Useless),
                full(Flood::Beats),
            ],
        }
    }

    /// Spends one unit of `flood`. Returns false if the budget is exhausted.
    #[must_use]
    pub(super) fn spend(&mut self, flood: Flood, now: Instant) -> bool {
        let bucket = self.buckets.iter_mut().find(|(which, _)| *which == flood);
        bucket.is_none_or(|(_, bucket)| bucket.spend(flood.limit(), now))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_budget_is_spent_and_refills() {
        let mut budgets = Budgets::new(Instant::ZERO);
        let (burst, rate) = Flood::Beats.limit();
        for _ in 0..burst {
            assert!(budgets.spend(Flood::Beats, Instant::ZERO));
        }
        assert!(!budgets.spend(Flood::Beats, Instant::ZERO));
        assert!(budgets.spend(Flood::Empty, Instant::ZERO), "the others are not touched");
        let later = Instant::ZERO + Duration::from_secs(2);
        for _ in 0..2 * rate {
            assert!(budgets.spend(Flood::Beats, later));
        }
        assert!(!budgets.spend(Flood::Beats, later));
        let calm = later + Duration::from_secs(60);
        for _ in 0..burst {
            assert!(budgets.spend(Flood::Beats, calm));
        }
        assert!(!budgets.spend(Flood::Beats, calm));
    }
}
