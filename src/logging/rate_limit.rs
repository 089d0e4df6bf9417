//! Limits how often a repeated event is logged: the log of a small machine is in its memory, or
//! on flash that wears out. Sans-IO: time is an argument, the result is a decision.

use std::time::Duration;

use crate::time::Instant;

/// Period of a quota and of a summary, and the first phase of an outage.
const PERIOD: Duration = Duration::from_secs(60);

/// Quota of lines for an event that can occur with every visitor: the first few of each minute
/// are written at once, the others are counted in the next line or in a summary.
#[derive(Clone, Copy, Debug)]
pub struct LineQuota {
    lines_per_minute: u32,
    /// Start of the current minute.
    since: Option<Instant>,
    /// Lines written in the current minute.
    written: u32,
    /// Number of events that no line has reported.
    unreported: u32,
}

impl LineQuota {
    /// Returns a quota of this number of lines a minute, and one summary.
    pub const fn per_minute(lines: u32) -> Self {
        LineQuota { lines_per_minute: lines, since: None, written: 0, unreported: 0 }
    }

    /// Counts an event. Returns the number of events that the line reports; `None`: write no
    /// line now.
    #[must_use]
    pub fn record(&mut self, now: Instant) -> Option<u32> {
        self.unreported = self.unreported.saturating_add(1);
        if self.since.is_none_or(|since| now.since(since) >= PERIOD) {
            self.since = Some(now);
            self.written = 0;
        }
        if self.written >= self.lines_per_minute {
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.unreported))
    }

    /// Returns the number of unreported events after the minute. A caller that polls this also
    /// reports the last events, when no further one follows.
    #[must_use]
    pub fn take_summary(&mut self, now: Instant) -> Option<u32> {
        if self.unreported == 0 || now.since(self.since?) < PERIOD {
            return None;
        }
        self.since = Some(now);
        self.written = 1;
        Some(std::mem::take(&mut self.unreported))
    }
}

/// Throttle for one outage: every line in its first minute, then one a minute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OutageThrottle {
    since: Option<Instant>,
    last_line: Option<Instant>,
}

impl OutageThrottle {
    /// Returns whether an event of the outage is written.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let is_young = now.since(*self.since.get_or_insert(now)) < PERIOD;
        let allowed = is_young || self.last_line.is_none_or(|last| now.since(last) >= PERIOD);
        if allowed {
            self.last_line = Some(now);
        }
        allowed
    }

    /// Returns whether the outage has had an event.
    pub(crate) fn has_started(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn an_hour_of_events_is_a_line_a_minute_and_none_is_lost() {
        let mut quota = LineQuota::per_minute(1);
        assert_eq!(quota.record(at(0)), Some(1), "the first one at once");
        let reported: Vec<u32> = (1..3600).filter_map(|s| quota.record(at(s))).collect();
        assert_eq!(reported.len(), 59);
        assert!(reported.iter().all(|n| *n == 60), "{reported:?}");
        assert_eq!(quota.take_summary(at(3600)), Some(59), "and the last ones without another");
        assert_eq!(quota.take_summary(at(3700)), None);
    }

    #[test]
    fn a_few_are_written_singly_and_a_flood_as_a_number() {
        let mut quota = LineQuota::per_minute(10);
        let reported = (0..1000).filter_map(|_| quota.record(at(5))).collect::<Vec<_>>();
        assert_eq!(reported, [1; 10]);
        assert_eq!(quota.take_summary(at(64)), None, "its minute is not over");
        assert_eq!(quota.record(at(65)), Some(991));
        assert_eq!(quota.record(at(66)), Some(1));
        assert_eq!(quota.take_summary(at(500)), None, "all are reported");
        assert_eq!(quota.record(at(500)), Some(1));
    }

    #[test]
    fn a_summary_counts_as_the_line_of_its_minute() {
        let mut quota = LineQuota::per_minute(1);
        assert_eq!([quota.record(at(0)), quota.record(at(1))], [Some(1), None]);
        assert_eq!(quota.take_summary(at(60)), Some(1));
        assert_eq!(quota.record(at(61)), None);
        assert_eq!(quota.record(at(120)), Some(2));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_allows_no_more_lines() {
        let mut quota = LineQuota::per_minute(2);
        let reported = (0..100).filter_map(|n| quota.record(at(1000 - n))).count();
        assert_eq!(reported, 2);
        assert_eq!(quota.take_summary(at(0)), None);
    }

    #[test]
    fn an_hour_of_outage_is_a_line_a_minute() {
        let mut outage = OutageThrottle::default();
        let lines: Vec<u64> = (0..3_600).filter(|s| outage.allows(at(*s))).collect();
        assert_eq!(lines.iter().filter(|s| **s < 60).count(), 60);
        let late: Vec<_> = lines.iter().filter(|s| **s >= 60).collect();
        assert!(late.len() <= 60 && late.len() >= 58, "{late:?}");
        assert!(late.windows(2).all(|w| w[1] - w[0] >= 60));
    }
}
