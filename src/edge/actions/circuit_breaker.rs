//! `CircuitBreaker`: refuses requests for a while after too many responses with a status of
//! 500 and above. The edge's pages about a failed upstream count too. A response counts at the
//! time of its request, and the refusals begin at the time of the last request, so that no
//! clock is needed.

use std::sync::Arc;
use std::time::Duration;

use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use super::response::{ResponseAction, ResponseHead, ResponsePlan};
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// Parts of the window whose responses are counted together.
const BUCKETS: usize = 10;

/// When a breaker trips, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerLimits {
    /// Share of errors, 0 to 1, above which it trips.
    pub threshold: f64,
    /// Responses below this number decide nothing.
    pub volume: u32,
    /// Time whose responses are counted.
    pub window: Duration,
    /// Time for which requests are refused.
    pub tripped: Duration,
}

impl Default for BreakerLimits {
    fn default() -> Self {
        let time = Duration::from_secs(10);
        BreakerLimits { threshold: 0.5, volume: 10, window: time, tripped: time }
    }
}

/// Counts responses and refuses requests. Both phases share one.
#[derive(Debug)]
pub struct CircuitBreaker {
    limits: BreakerLimits,
    state: Mutex<BreakerState>,
}

#[derive(Debug)]
struct BreakerState {
    phase: BreakerPhase,
    /// A response may come long after its own request.
    last_request: Instant,
}

#[derive(Debug)]
enum BreakerPhase {
    /// Counts responses of the last seconds.
    Closed([CountBucket; BUCKETS]),
    /// Refuses all requests until then.
    Open(Instant),
}

#[derive(Clone, Copy, Debug, Default)]
struct CountBucket {
    /// Which part of the time it counts, from the start of time.
    number: u64,
    responses: u32,
    errors: u32,
}

impl BreakerPhase {
    fn closed() -> Self {
        BreakerPhase::Closed([CountBucket::default(); BUCKETS])
    }
}

impl CircuitBreaker {
    /// Returns a breaker that has counted nothing.
    pub fn new(limits: BreakerLimits) -> Arc<Self> {
        let phase = BreakerPhase::closed();
        let state = Mutex::new(BreakerState { phase, last_request: Instant::ZERO });
        Arc::new(CircuitBreaker { limits, state })
    }

    /// Returns the response to a request that is refused; `None` if it goes on.
    pub fn refusal(&self, now: Instant) -> Option<Reply> {
        let text = || {
            format!(
                "The service behind this address failed too often. Requests are refused for {} \
                 seconds (circuit breaker).",
                self.limits.tripped.as_secs()
            )
        };
        (!self.admits(now)).then(|| Reply::new(503, 3202, text()))
    }

    fn admits(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        state.last_request = state.last_request.max(now);
        match state.phase {
            BreakerPhase::Open(until) if now < until => false,
            BreakerPhase::Open(_) => {
                state.phase = BreakerPhase::closed();
                true
            }
            BreakerPhase::Closed(_) => true,
        }
    }

    fn record(&self, status: u16, at: Instant) {
        let mut state = self.state.lock();
        let now = at.max(state.last_request);
        let BreakerPhase::Closed(buckets) = &mut state.phase else { return };
        let width = (self.limits.window / BUCKETS as u32).max(Duration::from_millis(1));
        let number = at.as_micros() / u64::try_from(width.as_micros()).unwrap_or(u64::MAX);
        // The remainder is below the number of buckets.
        let bucket = &mut buckets[usize::try_from(number % BUCKETS as u64).unwrap_or(0)];
        if bucket.number != number {
            *bucket = CountBucket { number, ..CountBucket::default() };
        }
        bucket.responses += 1;
        bucket.errors += u32::from(status >= 500);
        let recent = |b: &&CountBucket| number.saturating_sub(b.number) < BUCKETS as u64;
        let (responses, errors) = buckets
            .iter()
            .filter(recent)
            .fold((0, 0), |(all, bad), b| (all + b.responses, bad + b.errors));
        let BreakerLimits { threshold, volume, tripped, .. } = self.limits;
        if responses >= volume && f64::from(errors) > threshold * f64::from(responses) {
            state.phase = BreakerPhase::Open(now + tripped);
        }
    }
}

impl RequestAction for Arc<CircuitBreaker> {
    fn run(&self, request: &RequestInfo<'_>, _: &mut HeaderEdits) -> Result<Flow, ActionError> {
        Ok(self.refusal(request.now).map_or(Flow::Continue, Flow::Respond))
    }
}

impl ResponseAction for Arc<CircuitBreaker> {
    fn run(&self, head: &mut ResponseHead<'_>, plan: &ResponsePlan) -> Result<(), ActionError> {
        self.record(head.status, plan.started);
        Ok(())
    }

    fn upstream_failed(&self, status: u16, plan: &ResponsePlan) {
        self.record(status, plan.started);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn it_trips_above_the_share_and_closes_again() {
        let breaker = CircuitBreaker::new(BreakerLimits::default());
        for n in 0..9 {
            breaker.record(500, at(100 + n / 2));
            assert!(breaker.admits(at(100 + n / 2)), "too few responses to decide");
        }
        breaker.record(500, at(105));
        assert!(!breaker.admits(at(105)) && !breaker.admits(at(114)));
        assert!(breaker.admits(at(115)));
        assert!(breaker.admits(at(116)), "counts start again");
    }

    #[test]
    fn slow_errors_trip_it_as_well() {
        let breaker = CircuitBreaker::new(BreakerLimits::default());
        // Each of ten requests gets a 504 after a minute.
        for _ in 0..10 {
            assert!(breaker.admits(at(100)));
        }
        assert!(breaker.admits(at(160)));
        for _ in 0..10 {
            breaker.record(504, at(100));
        }
        assert!(!breaker.admits(at(161)) && !breaker.admits(at(169)));
        assert!(breaker.admits(at(170)));
    }

    #[test]
    fn half_is_not_above_half_and_old_errors_are_forgotten() {
        let breaker = CircuitBreaker::new(BreakerLimits::default());
        for n in 0..20 {
            breaker.record(if n % 2 == 0 { 200 } else { 502 }, at(50));
        }
        assert!(breaker.admits(at(50)));
        for _ in 0..9 {
            breaker.record(500, at(70));
        }
        assert!(breaker.admits(at(70)), "twenty seconds later nine are too few");
        breaker.record(404, at(70));
        assert!(!breaker.admits(at(70)), "nine of ten");
    }

    #[test]
    fn the_limits_of_a_policy_apply() {
        let seconds = Duration::from_secs;
        let limits =
            BreakerLimits { threshold: 0.2, volume: 2, window: seconds(60), tripped: seconds(5) };
        let breaker = CircuitBreaker::new(limits);
        breaker.record(500, at(100));
        assert!(breaker.admits(at(140)));
        breaker.record(200, at(140));
        assert!(breaker.refusal(at(144)).unwrap().text.contains("for 5 seconds"));
        assert!(breaker.admits(at(145)));
    }
}
