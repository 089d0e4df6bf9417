//! Logs why visitors are not served. The number of lines does not grow with the number of
//! visitors.
//!
//! A cause on this machine is logged at once and then once a minute, with a count. A cause that
//! affects one visitor (an upstream that is down) has ten lines a minute before it becomes a
//! count. A user sees each attempt, and a crawler does not fill a router's flash.

use std::fmt::Display;

use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::StreamId;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// Lines a minute for a cause that affects one visitor.
const VISITOR_LINES_PER_MINUTE: u32 = 10;

/// Reason why a visitor is not served, or not as fast as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalReason {
    /// All workers are busy, and the queue is full.
    Busy,
    /// No worker was free in time.
    QueueTimeout,
    /// Fewer workers exist than the limit allows.
    FewWorkers,
    /// No worker exists, and none can be started.
    NoWorker,
    /// Descriptors or memory are exhausted.
    Exhausted,
    /// The kernel does not watch another socket.
    ParkFailed,
    /// The upstream does not answer.
    Unreachable,
    /// The header of the edge is invalid.
    BadHeader,
    /// The edge sent a visitor for an endpoint that this agent does not have.
    UnknownEndpoint,
}

const REASONS: usize = RefusalReason::UnknownEndpoint as usize + 1;

impl RefusalReason {
    const ALL: [RefusalReason; REASONS] = [
        RefusalReason::Busy,
        RefusalReason::QueueTimeout,
        RefusalReason::FewWorkers,
        RefusalReason::NoWorker,
        RefusalReason::Exhausted,
        RefusalReason::ParkFailed,
        RefusalReason::Unreachable,
        RefusalReason::BadHeader,
        RefusalReason::UnknownEndpoint,
    ];

    fn message(self) -> &'static str {
        match self {
            RefusalReason::Busy => "connection refused: workers are busy",
            RefusalReason::QueueTimeout => "connection refused: no worker in time",
            RefusalReason::FewWorkers => "cannot start a worker",
            RefusalReason::NoWorker => "connection refused: no worker",
            RefusalReason::Exhausted => "connection refused: no descriptors or memory",
            RefusalReason::ParkFailed => "cannot park a connection",
            RefusalReason::Unreachable => "failed to reach the upstream",
            RefusalReason::BadHeader => "invalid proxy header",
            RefusalReason::UnknownEndpoint => "connection for unknown endpoint",
        }
    }

    /// Returns what to do about it.
    fn hint(self) -> &'static str {
        match self {
            RefusalReason::Busy | RefusalReason::QueueTimeout => {
                "raise max_connections or memory_limit"
            }
            RefusalReason::FewWorkers | RefusalReason::NoWorker => {
                "raise ulimit -u or pids.max, or add memory"
            }
            RefusalReason::Exhausted => "raise ulimit -n, or add memory",
            RefusalReason::ParkFailed
            | RefusalReason::Unreachable
            | RefusalReason::BadHeader
            | RefusalReason::UnknownEndpoint => "",
        }
    }
}

/// Quota of lines for each reason.
#[derive(Debug)]
pub(super) struct RefusalLog(Mutex<[LineQuota; REASONS]>);

impl RefusalLog {
    pub(super) const fn new() -> Self {
        let mut quotas = [LineQuota::per_minute(1); REASONS];
        let mut kind = RefusalReason::Unreachable as usize;
        while kind < REASONS {
            quotas[kind] = LineQuota::per_minute(VISITOR_LINES_PER_MINUTE);
            kind += 1;
        }
        RefusalLog(Mutex::new(quotas))
    }

    fn lock(&self) -> MutexGuard<'_, [LineQuota; REASONS]> {
        self.0.lock()
    }

    /// Counts and logs a refusal of a visitor of `upstream` at the time `now`. `id`: of the
    /// stream.
    pub(super) fn report(
        &self,
        reason: RefusalReason,
        now: Instant,
        (id, upstream, visitor): (StreamId, &dyn Display, &str),
        error: &dyn Display,
    ) {
        // Reason for the index: the array has an entry for each kind.
        let count = self.lock()[reason as usize].record(now);
        if let Some(count) = count {
            let error = join(&error.to_string(), reason.hint());
            event!(
                warn,
                obj = "join",
                reason.message(),
                id = id,
                l = upstream,
                r = visitor,
                count = count,
                err = error
            );
        }
    }

    /// Logs the refusals whose minute has passed `now`.
    pub(super) fn report_suppressed(&self, now: Instant) {
        for reason in RefusalReason::ALL {
            // Reason for the index: the array has an entry for each kind.
            let count = self.lock()[reason as usize].take_summary(now);
            if let Some(count) = count {
                event!(warn, obj = "join", reason.message(), count = count);
            }
        }
    }
}

/// Joins error and hint; either may be empty.
fn join(error: &str, hint: &str) -> String {
    let between = if error.is_empty() || hint.is_empty() { "" } else { "; " };
    [error, between, hint].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_reason_has_what_is_known_and_no_more() {
        let hint = RefusalReason::Busy.hint();
        assert_eq!(join("", hint), hint, "nothing failed: all are busy");
        assert_eq!(join("refused", ""), "refused");
        assert_eq!(join("no thread", "more"), "no thread; more");
    }

    #[test]
    fn every_kind_has_its_place_and_its_bound() {
        let refusals = RefusalLog::new();
        for (at, reason) in RefusalReason::ALL.into_iter().enumerate() {
            assert_eq!(at, reason as usize);
            let now = Instant::ZERO;
            let reported = (0..100).filter_map(|_| refusals.lock()[at].record(now)).count();
            assert_eq!(
                reported,
                if at < RefusalReason::Unreachable as usize { 1 } else { 10 },
                "{reason:?}"
            );
            let rest = refusals.lock()[at].take_summary(now + Duration::from_secs(60));
            assert_eq!(rest, Some(100 - reported as u32), "{reason:?}");
        }
    }
}
