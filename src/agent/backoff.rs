//! Waits between attempts to connect. Sans-IO: time and the random seed are arguments.

use std::time::Duration;

use crate::time::Instant;

/// The first wait between two failed attempts.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// A restarted edge is back within half a minute. Until then no wait is longer than this: even
/// with the random spread the edge is found within two seconds.
const RESTART_WAIT: Duration = Duration::from_millis(1_600);
/// Number of waits that are at most [`RESTART_WAIT`].
const RESTART_WAITS: u32 = 18;
/// The longest wait, unless the heartbeat detects a dead session sooner. With the random spread
/// it is below the time after which the default heartbeat does.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Lower bound for the longest wait.
const MIN_MAX_WAIT: Duration = Duration::from_secs(4);
/// The wait after a refusal that requires a long one.
const SLOW_WAIT: Duration = Duration::from_secs(30);
/// Length of a session after which the waits start over.
const LONG_SESSION: Duration = Duration::from_secs(60);
/// Number of consecutive shorter sessions after which the waits start over too: an edge may be
/// restarted a few times.
const MAX_SHORT_SESSIONS: u32 = 8;

/// Attempts that may follow each other without a wait.
const BURST_ATTEMPTS: u64 = 3;
/// Time between further attempts.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);

/// The waits after failures: none, then 0.5 s, 1 s, 1.6 s for half a minute, then doubled up to
/// 20 s. Each is 20 % longer or shorter at random, so that a thousand agents do not reconnect
/// at the same moment (protocol 7.3).
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    /// Number of consecutive sessions that were good but short.
    short: u32,
    random: u64,
    max_wait: Duration,
    /// Time until which the earlier attempts have used the allowance.
    used_until: Instant,
}

impl Backoff {
    /// Creates the state before the first attempt. `seed` starts the random numbers,
    /// `silence_limit` is the time that a session may be silent.
    pub fn new(seed: u64, silence_limit: Duration) -> Self {
        let max_wait = silence_limit.clamp(MIN_MAX_WAIT, MAX_WAIT);
        Backoff { failures: 0, short: 0, random: seed | 1, max_wait, used_until: Instant::ZERO }
    }

    /// Records the start of an attempt.
    pub fn attempt(&mut self, now: Instant) {
        self.used_until = self.used_until.max(now) + ATTEMPT_INTERVAL;
    }

    /// Returns the earliest time of an attempt that is wanted at `wanted`: at most one a second
    /// after the first three, also when events end the waits again and again.
    pub fn earliest(&self, wanted: Instant) -> Instant {
        let ahead = ATTEMPT_INTERVAL.as_micros() as u64 * (BURST_ATTEMPTS - 1);
        wanted.max(Instant::from_micros(self.used_until.as_micros().saturating_sub(ahead)))
    }

    /// Starts the waits over after an event that may make the next attempts succeed. The very
    /// next one may still fail: `/etc/resolv.conf` changes a moment after the route.
    pub fn start_over(&mut self) {
        self.failures = self.failures.min(1);
    }

    /// Returns the wait before the next attempt, after a failure or a loss.
    pub fn next_wait(&mut self) -> Duration {
        let wait = match self.failures {
            0 => Duration::ZERO,
            n @ 1..=RESTART_WAITS => (FIRST_WAIT * 2u32.pow((n - 1).min(8))).min(RESTART_WAIT),
            n => (RESTART_WAIT * 2u32.pow((n - RESTART_WAITS).min(8))).min(self.max_wait),
        };
        self.failures = self.failures.saturating_add(1);
        self.jittered(wait)
    }

    /// Returns the wait after a refusal that requires a long one.
    pub fn slow_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.jittered(SLOW_WAIT)
    }

    /// Records the end of a session that was set up at `start`. The waits start over, but not
    /// for an edge that ends every session soon, again and again.
    pub fn session_ended(&mut self, start: Instant, now: Instant) {
        self.short =
            if now.since(start) >= LONG_SESSION { 0 } else { self.short.saturating_add(1) };
        if self.short <= MAX_SHORT_SESSIONS {
            self.failures = 0;
        }
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        // xorshift is random enough for the spread.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // 80 to 120 per cent. Reason: the remainder is below 41.
        let percent = 80 + u32::try_from(self.random % 41).unwrap_or(20);
        wait * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIVE: Duration = Duration::from_secs(25);

    #[test]
    fn who_wants_to_know_soon_comes_back_soon() {
        let mut backoff = Backoff::new(7, Duration::from_secs(2));
        let waits: Vec<_> = (0..20).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|w| *w <= MIN_MAX_WAIT * 12 / 10), "{waits:?}");
        assert!(waits[19] >= Duration::from_millis(3_200) * 8 / 10);
    }

    #[test]
    fn quick_at_first_then_slower_to_a_ceiling() {
        let mut backoff = Backoff::new(7, ALIVE);
        assert_eq!(backoff.next_wait(), Duration::ZERO);
        let near = [1_600; 16];
        let later = [3_200, 6_400, 12_800, 20_000, 20_000, 20_000];
        for base in [500, 1_000].into_iter().chain(near).chain(later) {
            let ms = backoff.next_wait().as_millis();
            assert!((base * 80 / 100..=base * 120 / 100).contains(&ms), "{ms} for {base}");
        }
    }

    #[test]
    fn after_good_news_the_waits_are_short_again() {
        let mut backoff = Backoff::new(7, ALIVE);
        let long = (0..40).map(|_| backoff.next_wait()).max();
        assert!(long > Some(MAX_WAIT / 2), "{long:?}");
        backoff.start_over();
        assert!(backoff.next_wait() <= FIRST_WAIT * 12 / 10);
        let mut new = Backoff::new(7, ALIVE);
        new.start_over();
        assert_eq!(new.next_wait(), Duration::ZERO);
    }

    #[test]
    fn an_edge_that_is_away_for_twenty_seconds_is_found_within_two() {
        for seed in 1..200 {
            let mut backoff = Backoff::new(seed, Duration::from_secs(2));
            let mut at = Duration::ZERO;
            while at < Duration::from_secs(20) {
                let wait = backoff.next_wait();
                assert!(wait < Duration::from_secs(2), "{wait:?} after {at:?}");
                at += wait;
            }
        }
    }

    #[test]
    fn a_lost_session_starts_over_but_not_for_ever() {
        let mut backoff = Backoff::new(7, ALIVE);
        let start = Instant::ZERO;
        for _ in 0..MAX_SHORT_SESSIONS {
            assert_eq!(backoff.next_wait(), Duration::ZERO);
            backoff.session_ended(start, start + Duration::from_secs(1));
        }
        backoff.next_wait();
        backoff.session_ended(start, start + Duration::from_secs(59));
        assert_ne!(backoff.next_wait(), Duration::ZERO);
        backoff.session_ended(start, start + Duration::from_secs(60));
        assert_eq!(backoff.next_wait(), Duration::ZERO);
    }

    #[test]
    fn three_attempts_at_once_then_one_a_second() {
        let mut backoff = Backoff::new(7, ALIVE);
        let second = Duration::from_secs(1);
        let mut now = Instant::ZERO + second;
        for _ in 0..3 {
            assert_eq!(backoff.earliest(now), now);
            backoff.attempt(now);
        }
        for _ in 0..5 {
            let next = backoff.earliest(now);
            assert_eq!(next, now + second);
            now = next;
            backoff.attempt(now);
        }
        let later = now + 60 * second;
        assert_eq!(backoff.earliest(later), later);
    }

    #[test]
    fn chance_differs_between_agents() {
        let waits = |seed| {
            let mut b = Backoff::new(seed, ALIVE);
            (0..5).map(|_| b.next_wait()).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(1), waits(1));
    }
}
