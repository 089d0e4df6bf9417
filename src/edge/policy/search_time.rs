//! Bound on the time of the searches for one regular expression in one body or URL.
//!
//! One search is linear in its text. But each byte can begin a match whose search reads the whole
//! rest, so that all matches of a text are quadratic: `a(.*b)?` in a text of many `a`. The time is
//! that of the processor, so that a busy machine changes nothing. No clock here: the phases have
//! it.

use std::cell::Cell;
use std::time::Duration;

/// Returns the processor time of the thread that calls it.
pub type ThreadClock = fn() -> Duration;

/// Time for a body of any length.
const BASE: Duration = Duration::from_secs(1);

/// Further time for each byte of the text that the searches have passed: ten times that of usual
/// expressions on a slow router.
const PER_BYTE: Duration = Duration::from_micros(4);

/// Longest text whose first search is not charged: it is linear.
const SHORT_BYTES: usize = 1024;

/// The searches took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSlow;

/// Time that the searches in one body have taken.
#[derive(Clone, Debug)]
pub struct SearchTime {
    clock: ThreadClock,
    spent: Cell<Duration>,
    allowed: Cell<Duration>,
}

/// Searches in one text, on one thread.
pub struct SearchRun<'a> {
    time: &'a SearchTime,
    /// End of the last search that was charged.
    last: Option<Duration>,
}

impl SearchTime {
    /// Begins a body.
    pub fn new(clock: ThreadClock) -> Self {
        SearchTime { clock, spent: Cell::default(), allowed: Cell::new(BASE) }
    }

    /// Begins the searches in a text of `len` bytes.
    pub fn run(&self, len: usize) -> SearchRun<'_> {
        SearchRun { time: self, last: (len > SHORT_BYTES).then(self.clock) }
    }
}

impl SearchRun<'_> {
    /// Charges a search that has found a match, and passed `bytes` of the text.
    pub fn found(&mut self, bytes: usize) -> Result<(), TooSlow> {
        let SearchTime { clock, spent, allowed } = self.time;
        let now = clock();
        let last = self.last.replace(now).unwrap_or(now);
        spent.set(spent.get() + now.saturating_sub(last));
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        allowed.set(allowed.get().saturating_add(PER_BYTE * bytes));
        match spent.get() <= allowed.get() {
            true => Ok(()),
            false => Err(TooSlow),
        }
    }

    /// Charges the last search, which has passed the rest of the text.
    pub fn end(mut self, bytes: usize) -> Result<(), TooSlow> {
        self.last.map_or(Ok(()), |_| self.found(bytes))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a time without a limit.
    pub fn unlimited() -> SearchTime {
        SearchTime::new(|| Duration::ZERO)
    }

    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }

    /// Returns a time in which each match takes 10 milliseconds.
    pub fn slow() -> SearchTime {
        SearchTime::new(|| Duration::from_millis(10) * CALLS.replace(CALLS.get() + 1))
    }

    #[test]
    fn a_body_has_a_second_and_more_for_its_bytes() {
        let run = |searches: usize, bytes: usize| {
            let time = slow();
            let mut run = time.run(10_000);
            (0..searches).try_for_each(|_| run.found(bytes))
        };
        assert_eq!(run(100, 0), Ok(()));
        assert_eq!(run(101, 0), Err(TooSlow));
        assert_eq!(run(1000, 3000), Ok(()));
    }

    #[test]
    fn a_short_text_without_a_match_needs_no_clock() {
        let time = SearchTime::new(|| unreachable!());
        assert_eq!(time.run(100).end(100), Ok(()));
    }
}
