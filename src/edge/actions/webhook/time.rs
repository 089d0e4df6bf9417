//! Times in signatures: seconds or milliseconds since 1970, or RFC 3339. No clock here.

use crate::http1::text::decimal;
use crate::time::parse_rfc3339;

/// Greatest difference between the time in a signature and the clock.
const MAX_AGE_SECONDS: u64 = 300;

/// Numbers above it are milliseconds: as seconds it would be the year 5138.
const MAX_SECONDS: u64 = 100_000_000_000;

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

/// Reads a time of RFC 3339. Without a zone it is UTC.
fn rfc3339(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let seconds = parse_rfc3339(text).or_else(|| parse_rfc3339(&format!("{text}Z")))?;
    u64::try_from(seconds).ok()
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
