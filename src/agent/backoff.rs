//! How long to wait between attempts. Sans-IO: time and chance come in.

use std::time::Duration;

use crate::time::Instant;

/// The first wait between two failed attempts.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// An edge that is restarted is back within half a minute. Until then no wait is longer
/// than this, so that even with the spread of chance it is found within two seconds.
const RESTART_WAIT: Duration = Duration::from_millis(1_600);
/// Number of waits that are not longer than that.
const RESTART_WAITS: u32 = 18;
/// The longest wait, unless the heartbeat gives up a session sooner than that. With the
/// random spread it is below the time after which the default heartbeat gives up.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// The longest wait is at least this.
const MIN_MAX_WAIT: Duration = Duration::from_secs(4);
/// The wait after a refusal that requires a long one.
const SLOW_WAIT: Duration = Duration::from_secs(30);
/// A session of this length starts the waits over.
const LONG_SESSION: Duration = Duration::from_secs(60);
/// So many shorter sessions in a row start the waits over, too: an edge may be restarted
/// a few times.
const MAX_SHORT_SESSIONS: u32 = 8;

/// Attempts that may follow each other at once, whatever the reason for them.
const BURST_ATTEMPTS: u64 = 3;
/// The time between further ones.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);

/// The waits after failures: none, then 0.5 s, 1 s, 1.6 s for half a minute, then
/// doubled up to 20 s, each 20 % more or less by chance, so that a thousand agents do
/// not come back in one moment (protocol 7.3).
#[derive(Clone, Debug)]
pub struct Backoff {
    failures: u32,
    /// Sessions in a row that were good but short.
    short: u32,
    random: u64,
    max_wait: Duration,
    /// Until when the attempts so far have used up their allowance.
    used_until: Instant,
}

impl Backoff {
    /// Starts over; `seed` is where chance begins, `alive` is how long a session may
    /// give no sign of life.
    pub fn new(seed: u64, silence_limit: Duration) -> Self {
        let max_wait = silence_limit.clamp(MIN_MAX_WAIT, MAX_WAIT);
        Backoff { failures: 0, short: 0, random: seed | 1, max_wait, used_until: Instant::ZERO }
    }

    /// An attempt begins.
    pub fn attempt(&mut self, now: Instant) {
        self.used_until = self.used_until.max(now) + ATTEMPT_INTERVAL;
    }

    /// The earliest time for one from `wanted` on: at most one a second after the
    /// first three, also where good news cuts a wait short again and again.
    pub fn earliest(&self, wanted: Instant) -> Instant {
        let ahead = ATTEMPT_INTERVAL.as_micros() as u64 * (BURST_ATTEMPTS - 1);
        wanted.max(Instant::from_micros(self.used_until.as_micros().saturating_sub(ahead)))
    }

    /// Something has changed that may make the next attempts succeed, if not the very
    /// next one: `/etc/resolv.conf` comes a moment after the route. The waits start over.
    pub fn start_over(&mut self) {
        self.failures = self.failures.min(1);
    }

    /// How long to wait before the next attempt, after a failure or a loss.
    pub fn next_wait(&mut self) -> Duration {
        let wait = match self.failures {
            0 => Duration::ZERO,
            n @ 1..=RESTART_WAITS => (FIRST_WAIT * 2u32.pow((n - 1).min(8))).min(RESTART_WAIT),
            n => (RESTART_WAIT * 2u32.pow((n - RESTART_WAITS).min(8))).min(self.max_wait),
        };
        self.failures = self.failures.saturating_add(1);
        self.jittered(wait)
    }

    /// The wait after a refusal that asks for a long one.
    pub fn slow_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.jittered(SLOW_WAIT)
    }

    /// A session ended that had been fully set up at `start`: the waits start over,
    /// but not for an edge that drops every session soon, again and again.
    pub fn session_ended(&mut self, start: Instant, now: Instant) {
        self.short =
            if now.since(start) >= LONG_SESSION { 0 } else { self.short.saturating_add(1) };
        if self.short <= MAX_SHORT_SESSIONS {
            self.failures = 0;
        }
    }

    fn jittered(&mut self, wait: Duration) -> Duration {
        // xorshift: chance enough for spreading.
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
