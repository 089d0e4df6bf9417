//! Times in signatures: seconds or milliseconds since 1970, or RFC 3339. No clock here.

use crate::http1::text::decimal;

/// Greatest difference between the time in a signature and the clock.
const MAX_AGE_SECONDS: u64 = 300;

/// Numbers above it are milliseconds: as seconds it would be the year 5138.
const MAX_SECONDS: u64 = 100_000_000_000;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Returns whether a time is near `now`, in seconds since 1970.
pub fn is_recent(time: &[u8], now: u64) -> bool {
    seconds(time.trim_ascii()).is_some_and(|t| t.abs_diff(now) <= MAX_AGE_SECONDS)
}

fn seconds(time: &[u8]) -> Option<u64> {
    match decimal(time) {
        Some(number) if number > MAX_SECONDS => Some(number / 1000),
        Some(number) => Some(number),
        None => rfc3339(time),
    }
}

/// Reads `2026-01-02T15:04:05`, perhaps with a fraction, and with `Z`, an offset, or nothing
/// for UTC.
fn rfc3339(text: &[u8]) -> Option<u64> {
    let (date_time, zone) = text.split_at_checked(19)?;
    let number = |from: usize, to: usize| decimal(date_time.get(from..to)?);
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, byte)| date_time[*at] != *byte) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let valid = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !valid || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let local = days_since_1970(year, month, day) * DAY + hour * HOUR + minute * MINUTE + second;
    let fraction = match zone.strip_prefix(b".") {
        Some(rest) => rest.iter().take_while(|b| b.is_ascii_digit()).count() + 1,
        None => 0,
    };
    match &zone[fraction..] {
        [] | b"Z" => Some(local),
        [sign @ (b'+' | b'-'), offset @ ..] if offset.len() == 5 && offset[2] == b':' => {
            let offset = decimal(&offset[..2])? * HOUR + decimal(&offset[3..])? * MINUTE;
            if *sign == b'+' { local.checked_sub(offset) } else { local.checked_add(offset) }
        }
        _ => None,
    }
}

/// Counts years from 1 March of the year 0, so that a leap day is the last day of a year.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_forms() {
        for (text, expected) in [
            ("1700000000", 1_700_000_000),
            ("1700000000123", 1_700_000_000),
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14T22:13:20", 1_700_000_000),
            ("2023-11-14T22:13:20.123456Z", 1_700_000_000),
            ("2023-11-14T14:13:20-08:00", 1_700_000_000),
            ("2023-11-15T03:43:20.5+05:30", 1_700_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2024-03-01T00:00:00Z", 1_709_251_200),
        ] {
            assert_eq!(seconds(text.as_bytes()), Some(expected), "{text}");
        }
        for bad in [
            "",
            "yesterday",
            "-5",
            "2023-11-14",
            "2023-11-14 22:13:20Z",
            "2023-13-14T22:13:20Z",
            "2023-11-14T24:13:20Z",
            "2023-11-14T22:13:20+0800",
            "2023-11-14T22:13:20Zx",
            "1969-12-31T23:59:59Z",
            "99999999999999999999",
        ] {
            assert_eq!(seconds(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn five_minutes_are_recent_in_both_directions() {
        for (time, recent) in [("700", true), ("699", false), ("1300", true), ("1301", false)] {
            assert_eq!(is_recent(time.as_bytes(), 1000), recent, "{time}");
        }
    }
}
