//! Time without a clock: instants and deadlines as plain numbers.
//!
//! The protocol modules have `now` as an argument and never read a clock, so a test can put an
//! hour between two bytes. The real clock is [`crate::sys::clock`]. It includes the time of a
//! suspend. Code in this file must not read a clock.

use std::ops::Add;
use std::time::Duration;

/// A point in time: the time since an arbitrary start that is the same for the
/// whole process. Microseconds, so that 32-bit machines compare one `u64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The start of time, for fake clocks.
    pub const ZERO: Instant = Instant(0);

    /// The end of time: everything is due.
    pub const END: Instant = Instant(u64::MAX);

    /// Returns the instant `us` microseconds after the start of time.
    pub const fn from_micros(us: u64) -> Self {
        Instant(us)
    }

    /// Returns the microseconds since the start of time.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds since the start of time. They fit an atomic of machines with
    /// 32 bits.
    pub fn as_seconds(self) -> u32 {
        u32::try_from(self.0 / 1_000_000).unwrap_or(u32::MAX)
    }

    /// Returns the time from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Returns the instant `duration` before this one, or the start of time.
    pub fn before(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Adds a duration. A sum past the end of time is the end of time.
    fn add(self, d: Duration) -> Instant {
        let us = u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(us))
    }
}

/// Time at which something is due. Ordered: the earliest first, `Never` last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// Due at, or overdue since, this instant.
    At(Instant),
    /// Never due.
    Never,
}

impl Deadline {
    /// Returns the time left at `now`: zero if overdue, `None` if never due.
    pub fn left(self, now: Instant) -> Option<Duration> {
        match self {
            Deadline::At(at) => Some(at.since(now)),
            Deadline::Never => None,
        }
    }

    /// Returns whether it is due at `now`.
    pub fn due(self, now: Instant) -> bool {
        matches!(self, Deadline::At(at) if at <= now)
    }
}

/// Returns a time since 1970 in the form of RFC 3339, `2026-01-02T15:04:05.123456Z`.
pub fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years from 1 March of the year 0, so that a leap day is the last day of a
    // year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!(
        "{:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        era * 400 + year + next,
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60,
        since_1970.subsec_micros()
    )
}

/// Returns the seconds since 1970 of a time in the form of RFC 3339. `None`: it is malformed.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, len: usize| -> Option<i64> {
        let digits = bytes.get(from..from + len)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let marked = marks.iter().all(|(at, mark)| bytes.get(*at) == Some(mark));
    if !marked || !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    if !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut at = 19;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        at += digits;
    }
    let offset = match bytes.get(at) {
        Some(b'Z' | b'z') if bytes.len() == at + 1 => 0,
        Some(sign @ (b'+' | b'-')) if bytes.len() == at + 6 && bytes[at + 3] == b':' => {
            let seconds = number(at + 1, 2)? * 3_600 + number(at + 4, 2)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // The inverse of `rfc3339`: years begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_after_every_instant() {
        let late = Deadline::At(Instant::from_micros(u64::MAX));
        assert!(late < Deadline::Never);
        assert_eq!(late.min(Deadline::Never), late);
        assert!(!Deadline::Never.due(Instant::from_micros(u64::MAX)));
    }

    #[test]
    fn arithmetic_saturates() {
        let t = Instant::from_micros(5) + Duration::from_secs(u64::MAX);
        assert_eq!(t, Instant::from_micros(u64::MAX));
        assert_eq!(Instant::ZERO.since(t), Duration::ZERO);
    }

    #[test]
    fn days_of_all_kinds() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(rfc3339(Duration::new(seconds, 7_000)), format!("{text}.000007Z"));
            for end in ["Z", ".25Z", "+00:00", "z"] {
                let read = parse_rfc3339(&format!("{text}{end}"));
                assert_eq!(read, i64::try_from(seconds).ok(), "{text}{end}");
            }
        }
        assert_eq!(parse_rfc3339("1970-01-01T01:00:00+01:30"), Some(-1_800));
        for bad in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "ä970-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
