//! `rate-limit`: responds with 429 if a key has too many requests. The counters are in
//! [`crate::edge::policy::rate_limit`].

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase};
use crate::edge::policy::rate_limit::{RateLimiter, RateVerdict, RateWindow};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;

/// Longest name, in characters.
const MAX_NAME_CHARS: usize = 1023;

/// Expressions of a key.
const MAX_PARTS: usize = 10;

const MAX_CAPACITY: u64 = 2_000_000_000;

const MIN_RATE: Duration = Duration::from_secs(60);
const MAX_RATE: Duration = Duration::from_secs(24 * 60 * 60);
/// The rate is a multiple of it.
const RATE_STEP: Duration = Duration::from_secs(10);

/// Longest text of a key in the variables.
const MAX_SHOWN_CHARS: usize = 256;

#[derive(Debug)]
struct RateLimit {
    key: Vec<InterpolatedText>,
    limiter: RateLimiter,
    enforce: bool,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    const REQUIRED: [&str; 5] = ["name", "algorithm", "capacity", "rate", "bucket_key"];
    config.known_keys(&["name", "algorithm", "capacity", "rate", "bucket_key", "enforce"]);
    let missing = REQUIRED.iter().filter(|key| !config.require(key)).count();
    if missing > 0 {
        return None;
    }
    if config.required_text("name")?.chars().count() > MAX_NAME_CHARS {
        config.fault("name", 2221, format!("has more than {MAX_NAME_CHARS} characters."));
    }
    config.choice("algorithm", &["sliding_window"]);
    let capacity = config.integer("capacity", 1, 1..=MAX_CAPACITY);
    let rate = config.duration("rate", MIN_RATE, MIN_RATE..=MAX_RATE);
    if !rate.as_nanos().is_multiple_of(RATE_STEP.as_nanos()) {
        config.fault("rate", 2204, "must be a multiple of ten seconds.");
    }
    let key = config.expressions("bucket_key", MAX_PARTS);
    config.not_empty("bucket_key", "needs one to ten expressions.");
    if key.is_empty() {
        return None;
    }
    // Checked above.
    let window = RateWindow::new(u32::try_from(capacity).unwrap_or(u32::MAX), rate);
    let limiter = RateLimiter::new(&config.environment.services.rates(), window);
    Some(Arc::new(RateLimit { key, limiter, enforce: config.flag("enforce", true) }))
}

impl PolicyAction for RateLimit {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let scope = phase.scope();
        // Requests without the value, as without a header, have one key.
        let part = |text: &InterpolatedText| text.shared(&scope).unwrap_or_else(|_| "".into());
        let parts: Vec<Arc<str>> = self.key.iter().map(part).collect();
        let verdict = self.limiter.check(&parts, phase.input.now);
        phase.vars_mut().set_result_with("rate_limit", || {
            let shown: String = parts.join(",").chars().take(MAX_SHOWN_CHARS).collect();
            json!({ "bucket_key": shown, "limited": verdict != RateVerdict::Admitted })
        });
        let RateVerdict::Limited { retry_after } = verdict else { return Ok(PolicyFlow::Continue) };
        if !self.enforce {
            return Ok(PolicyFlow::Continue);
        }
        let text = format!(
            "Too many requests. The next one is accepted after {retry_after} seconds (rate limit)."
        );
        let mut reply = Reply::new(429, 0, text);
        reply.fields.push(("Retry-After".into(), retry_after.to_string()));
        Ok(PolicyFlow::Respond(reply))
    }
}
