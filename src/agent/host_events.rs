//! Events of the host that affect sessions: addresses or routes change, the clock is set, the
//! host was suspended. Decides when a change is handled, and when sessions are probed because
//! of it. The supervisor acts on these decisions.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::sys::netlink::{self, Changes, ClockSet};
use crate::time::{Deadline, Instant};

/// Changes come in groups: an address follows a link, a route follows an address.
const SETTLE_TIME: Duration = Duration::from_millis(250);
/// Time between two changes that are handled.
const MIN_CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two probes of the sessions because of a change.
const MIN_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// A shorter suspend does not end a connection.
const MIN_SUSPEND: Duration = Duration::from_secs(2);

/// Sources of host events, and what they reported.
pub(super) struct HostEvents {
    changes: Option<Changes>,
    clock: Option<ClockSet>,
    /// Time at which the change of the network is handled.
    check_at: Deadline,
    /// Further changes wait until then.
    ignore_until: Instant,
    last_probe: Option<Instant>,
    /// Time that the host was suspended since it started.
    suspended: Duration,
    clock_set: bool,
}

/// Events of the host since the last call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HostChanges {
    pub(super) resumed: bool,
    pub(super) clock_set: bool,
    pub(super) network: bool,
}

impl HostEvents {
    pub(super) fn open(now: Instant) -> Self {
        // Without a source the heartbeat detects the change later.
        let sources = (Changes::open().ok(), ClockSet::open().ok());
        HostEvents::new(sources, netlink::asleep(), now)
    }

    fn new(
        sources: (Option<Changes>, Option<ClockSet>),
        suspended: Duration,
        now: Instant,
    ) -> Self {
        let (changes, clock) = sources;
        HostEvents {
            changes,
            clock,
            check_at: Deadline::Never,
            ignore_until: now,
            last_probe: None,
            suspended,
            clock_set: false,
        }
    }

    /// Returns the time at which [`Self::take`] has something to report.
    pub(super) fn deadline(&self, now: Instant) -> Deadline {
        // A change that arrives in the meantime is read then.
        let unignored = match self.ignore_until > now {
            true => Deadline::At(self.ignore_until),
            false => Deadline::Never,
        };
        self.check_at.min(unignored)
    }

    /// Returns the descriptors to wait for; -1 for a source that is not needed now.
    pub(super) fn fds(&self, now: Instant) -> [RawFd; 2] {
        let ignored = now < self.ignore_until || self.check_at != Deadline::Never;
        let changes = self.changes.as_ref().filter(|_| !ignored);
        let clock = self.clock.as_ref();
        [changes.map_or(-1, AsRawFd::as_raw_fd), clock.map_or(-1, AsRawFd::as_raw_fd)]
    }

    /// Reads the descriptors of [`Self::fds`] that are ready.
    pub(super) fn ready(&mut self, [changes, clock]: [bool; 2], now: Instant) {
        if changes && let Some(socket) = &self.changes {
            if socket.drain() {
                self.network_changed(now);
            } else {
                // Readable without a message: the source is broken.
                self.changes = None;
            }
        }
        if clock && let Some(timer) = &self.clock {
            self.clock_set = true;
            if timer.take().is_err() {
                self.clock = None;
            }
        }
    }

    fn network_changed(&mut self, now: Instant) {
        self.check_at = Deadline::At(now + SETTLE_TIME);
    }

    /// Returns the changes to handle now. `suspended`: time that the host was suspended since
    /// it started.
    pub(super) fn take(&mut self, suspended: Duration, now: Instant) -> HostChanges {
        let resumed = suspended.saturating_sub(self.suspended) >= MIN_SUSPEND;
        self.suspended = suspended;
        let network = self.check_at.due(now);
        if network {
            self.check_at = Deadline::Never;
            self.ignore_until = now + MIN_CHANGE_INTERVAL;
            if let Some(changes) = &self.changes {
                changes.drain();
            }
        }
        HostChanges { resumed, clock_set: std::mem::take(&mut self.clock_set), network }
    }

    /// Returns whether a change may cause a probe again.
    pub(super) fn may_probe(&self, now: Instant) -> bool {
        self.last_probe.is_none_or(|at| now.since(at) >= MIN_PROBE_INTERVAL)
    }

    pub(super) fn probed(&mut self, now: Instant) {
        self.last_probe = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn without_sources() -> HostEvents {
        HostEvents::new((None, None), Duration::ZERO, Instant::ZERO)
    }

    #[test]
    fn a_suspension_is_reported_once_and_a_short_one_is_not() {
        let mut host = without_sources();
        let mut resumed = |seconds| host.take(Duration::from_secs(seconds), at(0)).resumed;
        assert!(!resumed(0), "the wall clock alone moved");
        assert!(!resumed(1));
        assert!(resumed(3_600));
        assert!(!resumed(3_600));
    }

    #[test]
    fn changes_that_follow_each_other_are_acted_on_once() {
        let mut host = without_sources();
        assert_eq!(host.deadline(at(0)), Deadline::Never);
        host.network_changed(at(0));
        host.network_changed(at(100));
        assert_eq!(host.deadline(at(100)), Deadline::At(at(350)));
        assert_eq!(host.take(Duration::ZERO, at(349)), HostChanges::default());
        assert!(host.take(Duration::ZERO, at(350)).network);
        assert!(!host.take(Duration::ZERO, at(351)).network);
        // The next change is read after the interval.
        assert_eq!(host.deadline(at(351)), Deadline::At(at(1_350)));
        assert_eq!(host.deadline(at(1_350)), Deadline::Never);
    }

    #[test]
    fn changes_cause_one_probe_in_five_seconds() {
        let mut host = without_sources();
        assert!(host.may_probe(at(0)));
        host.probed(at(0));
        assert!(!host.may_probe(at(4_999)));
        assert!(host.may_probe(at(5_000)));
    }
}
