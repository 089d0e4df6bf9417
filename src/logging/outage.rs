//! How often a trouble that goes on is told of. Sans-IO: time comes in.

use std::time::Duration;

use crate::time::Instant;

/// For how long every line is worth reading, and how far the later ones are apart.
const MINUTE: Duration = Duration::from_secs(60);

/// One trouble: every line in its first minute, then one a minute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outage {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Outage {
    /// Whether what happens `now` is said.
    pub(crate) fn say(&mut self, now: Instant) -> bool {
        let young = now.since(*self.since.get_or_insert(now)) < MINUTE;
        let say = young || self.said.is_none_or(|said| now.since(said) >= MINUTE);
        if say {
            self.said = Some(now);
        }
        say
    }

    /// Whether it has begun.
    pub(crate) fn is_on(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_trouble_is_a_line_a_minute() {
        let mut outage = Outage::default();
        let lines: Vec<u64> =
            (0..3_600).filter(|s| outage.say(Instant::ZERO + Duration::from_secs(*s))).collect();
        assert_eq!(lines.iter().filter(|s| **s < 60).count(), 60);
        let late: Vec<_> = lines.iter().filter(|s| **s >= 60).collect();
        assert!(late.len() <= 60 && late.len() >= 58, "{late:?}");
        assert!(late.windows(2).all(|w| w[1] - w[0] >= 60));
    }
}
