//! Requesting side of the heartbeat: when to send one, which echo is expected, and when the
//! peer is dead (protocol 4). The echoing side needs only the four bytes that are collected.

use std::time::Duration;

use super::StreamId;
use super::fault_injection::{self, Bug};
use super::typed::PartialU32;
use crate::time::{Deadline, Instant};

/// Shortest interval and shortest tolerance. With less, the link would carry only heartbeats,
/// or no echo could arrive in time.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// Action that is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Nothing,
    /// Send a heartbeat and call [`Heartbeat::sent`].
    Beat,
    /// The peer is dead.
    Dead,
}

/// Meaning of an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    Incomplete,
    Good(Duration),
    Wrong,
}

/// Our own heartbeat stream. At most one heartbeat is under way.
#[derive(Debug)]
pub(super) struct Heartbeat {
    stream: StreamId,
    interval: Duration,
    tolerance: Duration,
    under_way: Option<(u32, Instant)>,
    next: Instant,
    dead: Instant,
    /// Time for the next echo, if the network path is in doubt.
    patience: Option<Duration>,
    echo: PartialU32,
}

impl Heartbeat {
    /// Creates the state. The first heartbeat is due at once.
    pub(super) fn new(
        stream: StreamId,
        interval: Duration,
        tolerance: Duration,
        now: Instant,
    ) -> Self {
        let (interval, tolerance) = (interval.max(MIN_INTERVAL), tolerance.max(MIN_INTERVAL));
        let dead = now + interval + tolerance;
        let echo = PartialU32::default();
        let (under_way, patience) = (None, None);
        Heartbeat { stream, interval, tolerance, under_way, next: now, dead, patience, echo }
    }

    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    /// Sets other times, beginning with the next heartbeat.
    pub(super) fn set(&mut self, interval: Duration, tolerance: Duration, now: Instant) {
        self.interval = interval.max(MIN_INTERVAL);
        self.tolerance = tolerance.max(MIN_INTERVAL);
        self.next = self.next.min(now + self.interval);
        self.dead = now + self.interval + self.tolerance;
    }

    /// Requests an echo within `patience`: with a heartbeat now, or for the one under way if
    /// its deadline is later.
    pub(super) fn probe(&mut self, patience: Duration, now: Instant) {
        if self.under_way.is_some() {
            self.dead = self.dead.min(now + patience);
        } else {
            self.next = now;
            self.patience = Some(patience);
        }
    }

    /// Returns whether an echo is awaited, or a requested heartbeat was not sent yet.
    pub(super) fn awaits_echo(&self) -> bool {
        self.under_way.is_some() || self.patience.is_some()
    }

    pub(super) fn deadline(&self) -> Deadline {
        match self.under_way {
            Some(_) => Deadline::At(self.dead),
            None => Deadline::At(self.next),
        }
    }

    pub(super) fn due(&self, now: Instant) -> Action {
        match self.under_way {
            Some(_) if self.dead <= now => Action::Dead,
            None if self.next <= now => Action::Beat,
            _ => Action::Nothing,
        }
    }

    /// Records that a heartbeat was queued. The peer always has the whole tolerance to answer,
    /// even if this machine slept past the due time: a suspend on this side must not end the
    /// session.
    pub(super) fn sent(&mut self, number: u32, now: Instant) {
        self.under_way = Some((number, now));
        self.next = now + self.interval;
        if !fault_injection::is(Bug::BeatNotRearmed) {
            self.dead = self.dead.max(now + self.tolerance);
        }
        if let Some(patience) = self.patience.take() {
            self.dead = self.dead.min(now + patience);
        }
    }

    /// Records that no heartbeat could be queued, because the peer returns no window. It has
    /// time until the deadline.
    pub(super) fn stuck(&mut self, now: Instant) {
        self.sent(0, now);
    }

    /// Reads bytes of the echo from the front of `bytes`.
    pub(super) fn echo(&mut self, bytes: &[u8], now: Instant) -> (usize, Echo) {
        let Some((number, at)) = self.under_way else { return (bytes.len(), Echo::Wrong) };
        match self.echo.take(bytes) {
            (taken, None) => (taken, Echo::Incomplete),
            (taken, Some(echo)) if echo == number => {
                self.under_way = None;
                // The deadline counts from the last good echo. The next heartbeat is due within
                // the interval, so the tolerance is left for its echo.
                if !fault_injection::is(Bug::BeatNotRearmed) {
                    self.dead = now + self.interval + self.tolerance;
                }
                (taken, Echo::Good(now.since(at)))
            }
            (taken, Some(_)) => (taken, Echo::Wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const TOLERANCE: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn heartbeat() -> Heartbeat {
        Heartbeat::new(StreamId(3), INTERVAL, TOLERANCE, at(0))
    }

    #[test]
    fn beats_at_once_then_every_interval() {
        let mut r = heartbeat();
        assert_eq!(r.due(at(0)), Action::Beat);
        r.sent(7, at(0));
        assert_eq!(r.due(at(9)), Action::Nothing);
        assert_eq!(r.echo(&[0, 0], at(1)), (2, Echo::Incomplete));
        assert_eq!(r.echo(&[0, 7, 9], at(2)), (2, Echo::Good(Duration::from_secs(2))));
        assert_eq!(r.deadline(), Deadline::At(at(10)));
        assert_eq!(r.due(at(10)), Action::Beat);
    }

    #[test]
    fn dead_after_interval_and_tolerance_without_an_echo() {
        let mut r = heartbeat();
        r.sent(7, at(0));
        assert_eq!(r.deadline(), Deadline::At(at(25)));
        assert_eq!(r.due(at(24)), Action::Nothing);
        assert_eq!(r.due(at(25)), Action::Dead);
    }

    #[test]
    fn a_good_echo_gives_the_time_anew() {
        let mut r = heartbeat();
        for beat in 0..5 {
            let now = at(beat * 10);
            assert_eq!(r.due(now), Action::Beat);
            r.sent(beat as u32, now);
            assert!(matches!(r.echo(&(beat as u32).to_be_bytes(), now), (4, Echo::Good(_))));
        }
        r.sent(9, at(50));
        assert_eq!(r.deadline(), Deadline::At(at(65)));
    }

    #[test]
    fn wrong_and_early_echoes_are_told_apart_from_good_ones() {
        let mut r = heartbeat();
        assert_eq!(r.echo(&[0], at(0)).1, Echo::Wrong, "nothing was asked");
        r.sent(7, at(0));
        assert_eq!(r.echo(&[0, 0, 0, 8], at(0)), (4, Echo::Wrong));
    }

    #[test]
    fn a_doubted_way_is_tried_at_once_and_for_a_shorter_time() {
        let (second, patience) = (Duration::from_secs(1), Duration::from_secs(3));
        let mut r = heartbeat();
        r.sent(7, at(0));
        r.echo(&[0, 0, 0, 7], at(0));
        r.probe(patience, at(2));
        assert_eq!(r.due(at(2)), Action::Beat);
        r.sent(8, at(2));
        assert_eq!(r.deadline(), Deadline::At(at(2) + patience));
        assert_eq!(r.echo(&[0, 0, 0, 8], at(3)), (4, Echo::Good(second)));
        // Then the normal interval applies again.
        r.sent(9, at(12));
        assert_eq!(r.deadline(), Deadline::At(at(28)));
        r.probe(patience, at(13));
        assert_eq!(r.due(at(16)), Action::Dead);
    }

    #[test]
    fn an_hour_asleep_kills_nobody_who_was_not_asked() {
        let mut r = heartbeat();
        r.sent(7, at(0));
        r.echo(&[0, 0, 0, 7], at(0));
        assert_eq!(r.due(at(3_600)), Action::Beat);
        r.sent(8, at(3_600));
        assert_eq!(r.deadline(), Deadline::At(at(3_615)));
    }
}
