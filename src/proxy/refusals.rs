//! What keeps visitors from being served, as the log tells of it: in lines whose number
//! does not grow with that of the visitors.
//!
//! What concerns this machine is one line at once and then one a minute, with how many
//! it was. What concerns one visitor (an upstream that is down) has ten lines a minute to
//! itself before it becomes a number: whoever tries something out sees each of his tries,
//! and a crawler does not fill a router's flash. Lines of the level `info`, one for each
//! connection, are a log of visits; who wants none asks for `warn`.

use std::fmt::Display;

use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::StreamId;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// Lines a minute for what concerns one visitor.
const SINGLY: u32 = 10;

/// Why somebody is not served as he should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// All workers have something to do, and enough visitors wait.
    Busy,
    /// None was free in time.
    Late,
    /// There are fewer workers than there may be.
    Short,
    /// There is no worker, and none can be had.
    Nobody,
    /// No descriptor, or no memory for what it stands for.
    Exhausted,
    /// The kernel does not watch another socket.
    Unwatched,
    /// The upstream does not answer.
    Unreachable,
    /// The edge said nothing that makes sense of a stream.
    Header,
    /// The edge sent a visitor for an endpoint that is not here.
    Unknown,
}

const KINDS: usize = Why::Unknown as usize + 1;

impl Why {
    const ALL: [Why; KINDS] = [
        Why::Busy,
        Why::Late,
        Why::Short,
        Why::Nobody,
        Why::Exhausted,
        Why::Unwatched,
        Why::Unreachable,
        Why::Header,
        Why::Unknown,
    ];

    fn words(self) -> &'static str {
        match self {
            Why::Busy => "all workers are busy, visitor refused",
            Why::Late => "no worker in time, visitor refused",
            Why::Short => "cannot start a worker",
            Why::Nobody => "no worker can be started, visitor refused",
            Why::Exhausted => "this machine has nothing left for a connection, visitor refused",
            Why::Unwatched => "cannot park a connection",
            Why::Unreachable => "failed to reach the upstream",
            Why::Header => "bad proxy header from the edge",
            Why::Unknown => "a visitor for an unknown endpoint",
        }
    }

    /// What to do about it.
    fn advice(self) -> &'static str {
        match self {
            Why::Busy | Why::Late => "a higher max_connections or memory_limit allows more",
            Why::Short | Why::Nobody => "it needs more threads (ulimit -u, pids.max) or memory",
            Why::Exhausted => "it needs more descriptors (ulimit -n) or memory",
            Why::Unwatched | Why::Unreachable | Why::Header | Why::Unknown => "",
        }
    }
}

/// How often each of them was told of.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<[LineQuota; KINDS]>);

impl Refusals {
    pub(super) const fn new() -> Self {
        let mut quotas = [LineQuota::per_minute(1); KINDS];
        let mut kind = Why::Unreachable as usize;
        while kind < KINDS {
            quotas[kind] = LineQuota::per_minute(SINGLY);
            kind += 1;
        }
        Refusals(Mutex::new(quotas))
    }

    fn lock(&self) -> MutexGuard<'_, [LineQuota; KINDS]> {
        self.0.lock()
    }

    /// It happened `now` to a visitor on his way to `place`. `id`: of the stream.
    pub(super) fn tell(
        &self,
        why: Why,
        now: Instant,
        (id, place, visitor): (StreamId, &dyn Display, &str),
        error: &dyn Display,
    ) {
        // Reason for the index: an array of all kinds.
        let count = self.lock()[why as usize].record(now);
        if let Some(count) = count {
            let error = reason(&error.to_string(), why.advice());
            event!(
                warn,
                obj = "join",
                why.words(),
                id = id,
                l = place,
                r = visitor,
                count = count,
                err = error
            );
        }
    }

    /// Tells of those whose minute is over `now`.
    pub(super) fn tell_rest(&self, now: Instant) {
        for why in Why::ALL {
            // Reason for the index: an array of all kinds.
            let count = self.lock()[why as usize].take_summary(now);
            if let Some(count) = count {
                event!(warn, obj = "join", why.words(), count = count);
            }
        }
    }
}

/// What happened and what to do about it; either may be empty.
fn reason(error: &str, advice: &str) -> String {
    let between = if error.is_empty() || advice.is_empty() { "" } else { "; " };
    [error, between, advice].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_reason_has_what_is_known_and_no_more() {
        let advice = Why::Busy.advice();
        assert_eq!(reason("", advice), advice, "nothing failed: all are busy");
        assert_eq!(reason("refused", ""), "refused");
        assert_eq!(reason("no thread", "more"), "no thread; more");
    }

    #[test]
    fn every_kind_has_its_place_and_its_bound() {
        let refusals = Refusals::new();
        for (at, why) in Why::ALL.into_iter().enumerate() {
            assert_eq!(at, why as usize);
            let now = Instant::ZERO;
            let told = (0..100).filter_map(|_| refusals.lock()[at].record(now)).count();
            assert_eq!(told, if at < Why::Unreachable as usize { 1 } else { 10 }, "{why:?}");
            let rest = refusals.lock()[at].take_summary(now + Duration::from_secs(60));
            assert_eq!(rest, Some(100 - told as u32), "{why:?}");
        }
    }
}
