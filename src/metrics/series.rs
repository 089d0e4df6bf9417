//! One kind of event over time: how many, how often, how long.

use std::time::Duration;

use crate::time::Instant;

/// Durations that percentiles are made from: those of the last so many events.
const SAMPLE: usize = 256;

/// Between two steps of the averages.
const STEP: Duration = Duration::from_secs(5);

/// How much of a new step enters each average: `1 - exp(-5 s / T)` for 1, 5 and 15
/// minutes, as in load averages.
const SHARES: [f64; 3] =
    [0.079_955_585_370_676_7, 0.016_528_546_178_382_5, 0.005_540_151_995_103_27];

/// Events, as they come.
#[derive(Debug, Default)]
pub(super) struct Series {
    count: u64,
    open: u32,
    /// Events since the last step.
    fresh: u32,
    /// When the last step was; none before the first event.
    stepped: Option<Instant>,
    rates: [f64; 3],
    /// The last durations in nanoseconds, oldest overwritten first. A float has
    /// seven digits at any size, in half the room of an integer that would do.
    sample: Vec<f32>,
    next: usize,
}

/// What there is to say about a series (agent 10.4).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Events since the start.
    pub count: u64,
    /// Events under way.
    pub gauge: u32,
    /// Events a second, averaged over 1, 5 and 15 minutes.
    pub rates: [f64; 3],
    /// Nanoseconds that 50, 90, 95 and 99 % of the last events took at most.
    pub percentiles: [u64; 4],
}

impl Series {
    /// An event begins.
    pub(super) fn began(&mut self, now: Instant) {
        self.happened(now);
        self.open += 1;
    }

    /// One that began is over.
    pub(super) fn ended(&mut self, took: Duration) {
        self.open = self.open.saturating_sub(1);
        self.took(took);
    }

    /// An event happened.
    pub(super) fn happened(&mut self, now: Instant) {
        self.step(now);
        self.count += 1;
        self.fresh = self.fresh.saturating_add(1);
    }

    /// An event took so long.
    pub(super) fn took(&mut self, took: Duration) {
        // Rounding is what a float is for.
        let nanos = took.as_secs_f32() * 1e9;
        match self.sample.get_mut(self.next) {
            Some(oldest) => *oldest = nanos,
            None => {
                if self.sample.is_empty() {
                    self.sample.reserve_exact(SAMPLE);
                }
                self.sample.push(nanos);
            }
        }
        self.next = (self.next + 1) % SAMPLE;
    }

    /// Takes the steps that are due, all at once.
    fn step(&mut self, now: Instant) {
        let Some(stepped) = self.stepped else {
            self.stepped = Some(now);
            return;
        };
        let steps = now.since(stepped).as_secs() / STEP.as_secs();
        if steps == 0 {
            return;
        }
        let rate = f64::from(self.fresh) / STEP.as_secs_f64();
        self.fresh = 0;
        // After the first of them nothing happened.
        let quiet = i32::try_from(steps - 1).unwrap_or(i32::MAX);
        for (average, share) in self.rates.iter_mut().zip(SHARES) {
            *average += share * (rate - *average);
            *average *= (1.0 - share).powi(quiet);
        }
        self.stepped = Some(stepped + Duration::from_secs(steps * STEP.as_secs()));
    }

    pub(super) fn summary(&mut self, now: Instant) -> Summary {
        self.step(now);
        Summary {
            count: self.count,
            gauge: self.open,
            rates: self.rates,
            percentiles: percentiles(&mut self.sample.clone()),
        }
    }

    /// The durations of the last events, in nanoseconds.
    pub(super) fn durations(&self) -> &[f32] {
        &self.sample
    }
}

/// Nanoseconds that 50, 90, 95 and 99 % of these durations are at most. Sorts them.
pub fn percentiles(durations: &mut [f32]) -> [u64; 4] {
    durations.sort_unstable_by(f32::total_cmp);
    [0.5, 0.9, 0.95, 0.99].map(|p| percentile(durations, p))
}

/// The value below which the share `p` of the sorted values lies, interpolated.
fn percentile(sorted: &[f32], p: f32) -> u64 {
    let Some(last) = sorted.last() else { return 0 };
    let place = p * (sorted.len() + 1) as f32;
    let below = place as usize;
    let value = match (below.checked_sub(1).and_then(|n| sorted.get(n)), sorted.get(below)) {
        (None, _) => sorted[0],
        (Some(low), Some(high)) => low + place.fract() * (high - low),
        (Some(_), None) => *last,
    };
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn counts_what_begins_and_what_is_open() {
        let mut series = Series::default();
        (0..5).for_each(|_| series.began(at(1)));
        (0..3).for_each(|_| series.ended(Duration::from_millis(2)));
        let summary = series.summary(at(2));
        assert_eq!((summary.count, summary.gauge), (5, 2));
        assert_eq!(summary.percentiles.map(|ns| ns / 1_000), [2_000; 4]);
        assert_eq!(Series::default().summary(at(9)), Summary::default());
    }

    #[test]
    fn a_steady_rate_is_approached_and_then_forgotten() {
        let mut series = Series::default();
        for second in 0..3_600 {
            (0..4).for_each(|_| series.happened(at(second)));
        }
        let rates = series.summary(at(3_600)).rates;
        assert!((rates[0] - 4.0).abs() < 0.01, "{rates:?}");
        assert!((rates[1] - 4.0).abs() < 0.01, "{rates:?}");
        assert!((rates[2] - 4.0).abs() < 0.2, "{rates:?}");
        let later = series.summary(at(3_660)).rates;
        // One minute later the one-minute average is 1/e of what it was.
        assert!((later[0] / rates[0] - (-1f64).exp()).abs() < 0.02, "{later:?}");
        assert!(later[0] < later[1] && later[1] < later[2]);
        assert!(series.summary(at(1_000_000)).rates[2] < 1e-9);
    }

    #[test]
    fn one_event_shows_as_a_load_average_would_show_it() {
        let mut series = Series::default();
        series.happened(at(10));
        let rates = series.summary(at(15)).rates;
        assert!((rates[0] - 0.2 * SHARES[0]).abs() < 1e-9, "{rates:?}");
    }

    #[test]
    fn percentiles_are_of_the_last_events() {
        let mut series = Series::default();
        (0..10_000).for_each(|_| series.took(Duration::from_secs(3600)));
        (1..=256).for_each(|n| series.took(Duration::from_millis(n)));
        let [p50, p90, p95, p99] = series.summary(at(0)).percentiles.map(|ns| ns / 1_000_000);
        assert_eq!((p50, p90, p95, p99), (128, 231, 244, 254));
        assert_eq!(series.sample.len(), SAMPLE);
        assert!(series.sample.capacity() <= SAMPLE);
    }

    #[test]
    fn few_events_have_percentiles_too() {
        let mut series = Series::default();
        series.took(Duration::from_micros(7));
        assert_eq!(series.summary(at(0)).percentiles.map(|ns| ns / 10), [700; 4]);
        series.took(Duration::from_micros(9));
        assert_eq!(series.summary(at(0)).percentiles.map(|ns| ns / 10), [800, 900, 900, 900]);
    }
}
