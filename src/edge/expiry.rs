//! Reminders of configured certificates that expire: at the start, after a reload, and once a
//! day. Certificates that the edge issues are renewed in [`super::certificates`].

use std::time::{Duration, SystemTime};

use super::context::Edge;
use crate::event;
use crate::time::Instant;

/// Time before the end of a validity from which on there are reminders. Renewals run a month
/// before it.
const REMINDER_AHEAD: Duration = DAY.saturating_mul(14);

/// Time between two reminders.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Limits the reminders to one a day for each certificate.
#[derive(Debug, Default)]
pub struct ExpiryReminder {
    last: Option<Instant>,
}

impl ExpiryReminder {
    /// Logs the certificates that have expired or expire soon, if a reminder is due.
    pub fn remind(&mut self, edge: &Edge, now: Instant) {
        if !self.is_due(now) {
            return;
        }
        let certificates = edge.certificates();
        for (path, end) in certificates.expiries() {
            match days_left(end, SystemTime::now()) {
                Some(0) => {
                    event!(error, obj = "edge", "certificate has expired", path = path);
                }
                Some(days) => {
                    event!(
                        warn,
                        obj = "edge",
                        "certificate expires soon",
                        path = path,
                        days = days
                    );
                }
                None => {}
            }
        }
    }

    /// Makes the next call of [`ExpiryReminder::remind`] log: there may be other certificates.
    pub fn reset(&mut self) {
        self.last = None;
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now.since(last) >= DAY);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Returns the days until `end`, begun ones included, and 0 after it. `None`: it is far away.
fn days_left(end: SystemTime, now: SystemTime) -> Option<u64> {
    let left = end.duration_since(now).unwrap_or_default();
    (left <= REMINDER_AHEAD).then(|| left.as_secs().div_ceil(DAY.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    #[test]
    fn one_reminder_a_day_from_two_weeks_before_the_end() {
        let end = UNIX_EPOCH + DAY * 20_000;
        let at = |hours: u32| UNIX_EPOCH + DAY / 24 * hours;
        assert_eq!(days_left(end, UNIX_EPOCH), None, "booted in 1970");
        assert_eq!(days_left(end, at(19_985 * 24 + 23)), None);
        assert_eq!(days_left(end, at(19_986 * 24)), Some(14));
        assert_eq!(days_left(end, at(19_999 * 24 + 23)), Some(1));
        assert_eq!(days_left(end, at(20_000 * 24)), Some(0));
        assert_eq!(days_left(end, at(30_000 * 24)), Some(0));
        let mut reminder = ExpiryReminder::default();
        let lines = (0..72).filter(|h| reminder.is_due(Instant::ZERO + DAY / 24 * *h)).count();
        assert_eq!(lines, 3);
        reminder.reset();
        assert!(reminder.is_due(Instant::ZERO));
    }
}
