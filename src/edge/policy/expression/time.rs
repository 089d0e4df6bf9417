//! Timestamps and durations: their texts, their parts and their sums. The current time is an
//! argument of whatever needs it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::error::EvalError;
use super::zone::Zone;
use crate::config::duration;

const NANOS: i64 = 1_000_000_000;

/// Seconds of 0001-01-01T00:00:00Z and of 9999-12-31T23:59:59Z.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;

/// A point in time of the years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Since 1970.
    seconds: i64,
    /// Below a second.
    nanos: u32,
}

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp { seconds: 0, nanos: 0 };

    /// Returns a time; `None` outside of the years 1 to 9999.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        let good = (FIRST_SECOND..=LAST_SECOND).contains(&seconds) && i64::from(nanos) < NANOS;
        good.then_some(Timestamp { seconds, nanos })
    }

    /// Returns the second of a time of the system. `None`: it is before 1970 or too late.
    pub fn of(time: SystemTime) -> Option<Self> {
        let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
        Timestamp::new(i64::try_from(seconds).ok()?, 0)
    }

    /// Returns the seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Returns the nanoseconds below a second.
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// Parses the form of RFC 3339, with fractions of up to nine digits.
    pub fn parse(text: &str) -> Option<Self> {
        let seconds = crate::time::parse_rfc3339(text)?;
        let mut nanos = 0;
        if let Some(fraction) = text.get(19..).and_then(|rest| rest.strip_prefix('.')) {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit);
            let mut worth = 100_000_000;
            for digit in digits.take(9) {
                nanos += u32::from(digit - b'0') * worth;
                worth /= 10;
            }
        }
        Self::new(seconds, nanos)
    }

    /// Adds nanoseconds.
    pub(super) fn plus(self, nanos: i64) -> Option<Self> {
        let below = i64::from(self.nanos) + nanos.rem_euclid(NANOS);
        let seconds = self.seconds.checked_add(nanos.div_euclid(NANOS))? + below / NANOS;
        Self::new(seconds, u32::try_from(below % NANOS).ok()?)
    }

    /// Returns the nanoseconds since another time.
    pub(super) fn since(self, other: Timestamp) -> Option<i64> {
        let seconds = self.seconds - other.seconds;
        let nanos = i64::from(self.nanos) - i64::from(other.nanos);
        seconds.checked_mul(NANOS)?.checked_add(nanos)
    }

    /// Returns the parts of the date and of the time, `offset` seconds east of UTC.
    pub(super) fn parts(self, offset: i64) -> DateParts {
        let seconds = self.seconds + offset;
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Eras of 400 years from 1 March of the year 0, so that a leap day is the last day of
        // a year.
        let (era, of_era) =
            ((days + 719_468).div_euclid(146_097), (days + 719_468).rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = era * 400 + year + next;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let before = usize::try_from(month - 1).ok().and_then(|at| BEFORE.get(at)).unwrap_or(&0);
        DateParts {
            year,
            month,
            day,
            day_of_year: before + day - 1 + i64::from(leap && month > 2),
            // 1970-01-01 was a Thursday.
            day_of_week: (days + 4).rem_euclid(7),
            hour: of_day / 3_600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
        }
    }
}

impl fmt::Display for Timestamp {
    /// Writes the form of RFC 3339 in UTC. The fraction has no zeros at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.parts(0);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            p.year, p.month, p.day, p.hour, p.minute, p.second
        )?;
        if self.nanos > 0 {
            write!(f, ".{}", format!("{:09}", self.nanos).trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// Date and time of a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct DateParts {
    pub(super) year: i64,
    /// From 1.
    pub(super) month: i64,
    /// From 1.
    pub(super) day: i64,
    /// From 0.
    pub(super) day_of_year: i64,
    /// From 0, Sunday.
    pub(super) day_of_week: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
}

/// Returns the seconds east of UTC of a zone at a time. `written` is the zone that the policy
/// names; without it `zone` is `UTC` or a difference as `+02:00`.
pub(super) fn zone_offset(
    zone: &str,
    written: Option<&Zone>,
    at: Timestamp,
) -> Result<i64, EvalError> {
    if let Some(written) = written {
        return Ok(written.offset(at.seconds));
    }
    fixed_offset(zone).ok_or_else(|| {
        EvalError::argument("the time zone is not UTC, a difference as +02:00, or a written name")
    })
}

/// Returns the seconds east of UTC of `UTC`, or of a difference as `+02:00`.
pub(super) fn fixed_offset(zone: &str) -> Option<i64> {
    if ["", "UTC", "utc", "Z"].contains(&zone) {
        return Some(0);
    }
    let (sign, rest) = match zone.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, zone.strip_prefix('+').unwrap_or(zone)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let part = |text: &str, below: i64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n: &i64| digits && *n < below)
    };
    Some(sign * (part(hours, 24)? * 3_600 + part(minutes, 60)? * 60))
}

/// Parses a duration as `1h30m`, `1.5s` or `-250ms` to nanoseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
    let (sign, amount) = match text.strip_prefix('-') {
        Some(amount) if amount.starts_with('+') => return None,
        Some(amount) => (-1, amount),
        None => (1, text),
    };
    let nanos = duration::parse(amount).ok()?.as_nanos();
    Some(sign * i64::try_from(nanos).ok()?)
}

/// Returns a duration in seconds, `1.5s`.
pub(super) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, below) =
        (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    match below {
        0 => format!("{sign}{seconds}s"),
        _ => {
            let digits = format!("{below:09}");
            format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
        }
    }
}
