//! Events of one kind over time: number, rates, durations.

use std::time::Duration;

use crate::time::Instant;

/// Number of the last events whose durations are used for percentiles.
const SAMPLE: usize = 256;

/// Time between two steps of the averages.
const STEP: Duration = Duration::from_secs(5);

/// Weight of a new step in each average: `1 - exp(-5 s / T)` for 1, 5 and 15 minutes, as in
/// load averages.
const SHARES: [f64; 3] =
    [0.079_955_585_370_676_7, 0.016_528_546_178_382_5, 0.005_540_151_995_103_27];

/// Series of events.
#[derive(Debug, Default)]
pub(super) struct Series {
    count: u64,
    open: u32,
    /// Number of events since the last step.
    fresh: u32,
    /// Time of the last step; `None` before the first event.
    stepped: Option<Instant>,
    rates: [f64; 3],
    /// The last durations in nanoseconds, the oldest overwritten first. A float has seven
    /// digits at any size, in half the memory of a sufficient integer.
    sample: Vec<f32>,
    next: usize,
}

/// Summary of a series (agent 10.4).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Number of events since the start.
    pub count: u64,
    /// Number of current events.
    pub gauge: u32,
    /// Events a second, averaged over 1, 5 and 15 minutes.
    pub rates: [f64; 3],
    /// The 50th, 90th, 95th and 99th percentile of the last durations in nanoseconds.
    pub percentiles: [u64; 4],
}

impl Series {
    /// Counts the begin of an event.
    pub(super) fn began(&mut self, now: Instant) {
        self.happened(now);
        self.open += 1;
    }

    /// Counts the end of an event.
    pub(super) fn ended(&mut self, took: Duration) {
        self.open = self.open.saturating_sub(1);
        self.took(took);
    }

    /// Counts an event without a duration.
    pub(super) fn happened(&mut self, now: Instant) {
        self.step(now);
        self.count += 1;
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Stores the duration of an event.
    pub(super) fn took(&mut self, took: Duration) {
        // The rounding of a float is intended.
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

    /// Makes all steps that are due.
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
        // After the first of them no events occurred.
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

    /// Returns the durations of the last events, in nanoseconds.
    pub(super) fn durations(&self) -> &[f32] {
        &self.sample
    }
}

/// Returns the 50th, 90th, 95th and 99th percentile in nanoseconds. Sorts the durations.
pub fn percentiles(durations: &mut [f32]) -> [u64; 4] {
    durations.sort_unstable_by(f32::total_cmp);
    [0.5, 0.9, 0.95, 0.99].map(|p| percentile(durations, p))
}

/// Returns the value below which the share `p` of the sorted values lies, interpolated.
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
        // One minute later the one-minute average is 1/e of its value.
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
