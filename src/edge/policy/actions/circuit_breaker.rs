//! `circuit-breaker`: refuses requests for a while after too many errors of the upstream. The
//! counters are those of the option of the same name.

use std::sync::Arc;
use std::time::Duration;

use crate::edge::actions::action::ActionError;
use crate::edge::actions::circuit_breaker::{BreakerLimits, CircuitBreaker};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::RequestPhase;
use crate::edge::policy::reader::ConfigReader;

const MAX_VOLUME: u64 = 2_000_000_000;

/// Bounds of both durations.
const MIN_DURATION: Duration = Duration::from_secs(1);
const MAX_DURATION: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct PolicyBreaker {
    /// `None`: it never trips.
    breaker: Option<Arc<CircuitBreaker>>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&[
        "error_threshold",
        "volume_threshold",
        "window_duration",
        "tripped_duration",
        "num_buckets",
        "enforce",
    ]);
    let usual = BreakerLimits::default();
    let duration =
        |key: &str, usual: Duration| config.duration(key, usual, MIN_DURATION..=MAX_DURATION);
    // The number of buckets is fixed.
    config.integer("num_buckets", 10, 10..=10);
    let volume = config.integer("volume_threshold", u64::from(usual.volume), 1..=MAX_VOLUME);
    let limits = BreakerLimits {
        threshold: config.number("error_threshold", usual.threshold, 0.0..=1.0),
        volume: u32::try_from(volume).ok()?,
        window: duration("window_duration", usual.window),
        tripped: duration("tripped_duration", usual.tripped),
    };
    let breaker = config.flag("enforce", true).then(|| CircuitBreaker::new(limits));
    Some(Arc::new(PolicyBreaker { breaker }))
}

impl PolicyAction for PolicyBreaker {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let Some(breaker) = &self.breaker else { return Ok(PolicyFlow::Continue) };
        if let Some(reply) = breaker.refusal(phase.input.now) {
            return Ok(PolicyFlow::Respond(reply));
        }
        phase.on_response.push(Arc::new(Arc::clone(breaker)));
        Ok(PolicyFlow::Continue)
    }
}
