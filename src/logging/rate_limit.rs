//! How often a trouble is told of that comes with every visitor while it lasts: the log
//! of a small machine lies in its memory, or on a flash that wears out. Sans-IO: time
//! comes in, a number to tell comes out.

use std::time::Duration;

use crate::time::Instant;

/// How far apart the numbers are that stand for what was not told singly.
const MINUTE: Duration = Duration::from_secs(60);

/// One kind of trouble: in each minute the first few are told of at once, and what
/// comes then as one number when the minute is over.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// So many lines a minute.
    most: u32,
    /// When the minute under way began.
    since: Option<Instant>,
    /// Lines in it.
    told: u32,
    /// What no line has told of.
    untold: u32,
}

impl Tally {
    /// At most `most` lines a minute, and one with a number.
    pub const fn of(most: u32) -> Self {
        Tally { most, since: None, told: 0, untold: 0 }
    }

    /// It happened again, `now`. Of how many times a line is to tell; `None`: of none yet.
    #[must_use]
    pub fn add(&mut self, now: Instant) -> Option<u32> {
        self.untold = self.untold.saturating_add(1);
        if self.since.is_none_or(|since| now.since(since) >= MINUTE) {
            self.since = Some(now);
            self.told = 0;
        }
        if self.told >= self.most {
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }

    /// How many times are left to tell of, `now` that the minute is over. Whoever looks
    /// now and then has the last number too, when it does not happen again.
    #[must_use]
    pub fn rest(&mut self, now: Instant) -> Option<u32> {
        if self.untold == 0 || now.since(self.since?) < MINUTE {
            return None;
        }
        self.since = Some(now);
        self.told = 1;
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn an_hour_of_trouble_is_a_line_a_minute_and_none_is_lost() {
        let mut tally = Tally::of(1);
        assert_eq!(tally.add(at(0)), Some(1), "the first one at once");
        let told: Vec<u32> = (1..3600).filter_map(|s| tally.add(at(s))).collect();
        assert_eq!(told.len(), 59);
        assert!(told.iter().all(|n| *n == 60), "{told:?}");
        assert_eq!(tally.rest(at(3600)), Some(59), "and the last ones without another");
        assert_eq!(tally.rest(at(3700)), None);
    }

    #[test]
    fn a_few_are_told_singly_and_a_flood_as_a_number() {
        let mut tally = Tally::of(10);
        let told = (0..1000).filter_map(|_| tally.add(at(5))).collect::<Vec<_>>();
        assert_eq!(told, [1; 10]);
        assert_eq!(tally.rest(at(64)), None, "its minute is not over");
        assert_eq!(tally.add(at(65)), Some(991));
        assert_eq!(tally.add(at(66)), Some(1));
        assert_eq!(tally.rest(at(500)), None, "all is told");
        assert_eq!(tally.add(at(500)), Some(1));
    }

    #[test]
    fn what_rests_counts_as_the_line_of_its_minute() {
        let mut tally = Tally::of(1);
        assert_eq!([tally.add(at(0)), tally.add(at(1))], [Some(1), None]);
        assert_eq!(tally.rest(at(60)), Some(1));
        assert_eq!(tally.add(at(61)), None);
        assert_eq!(tally.add(at(120)), Some(2));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_tells_no_more() {
        let mut tally = Tally::of(2);
        let told = (0..100).filter_map(|n| tally.add(at(1000 - n))).count();
        assert_eq!(told, 2);
        assert_eq!(tally.rest(at(0)), None);
    }
}
