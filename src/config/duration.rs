//! Durations in Go's notation: `300ms`, `1.5h`, `1m30s`, `0`.

use std::time::Duration;

const UNITS: &[(&str, u64)] = &[
    // Longer names first where one begins another.
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Parses a duration. Negative ones are refused.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong =
        |why: &str| format!("{text:?} is not a duration: {why}; write for example 10s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.starts_with('-') {
        return Err(wrong("it is negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return Err(wrong("it is empty"));
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if !number.contains(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
            return Err(wrong("a number is missing"));
        }
        // The longest unit that fits: `ms` and not `m`.
        let fits = UNITS.iter().filter(|(name, _)| tail.starts_with(name));
        let Some((name, unit)) = fits.max_by_key(|(name, _)| name.len()) else {
            return Err(wrong("a unit (ns us ms s m h) is missing"));
        };
        let part = scaled(number, *unit).ok_or_else(|| wrong("it is too long"))?;
        nanoseconds = nanoseconds.checked_add(part).ok_or_else(|| wrong("it is too long"))?;
        rest = &tail[name.len()..];
    }
    if i64::try_from(nanoseconds).is_err() {
        return Err(wrong("it is too long"));
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Returns `number` units, rounded down to nanoseconds.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(unit)?;
    let mut place = unit;
    // After 15 digits a fraction of an hour is below a nanosecond.
    for digit in fraction.bytes().take(15) {
        let exact = u128::from(place) * u128::from(digit - b'0');
        total = total.checked_add(u64::try_from(exact / 10).ok()?)?;
        place /= 10;
    }
    Some(total)
}

/// Formats a duration so that [`parse`] returns the same: `1h2m3.5s`, `300ms`.
pub fn show(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    let small = [("ms", 1_000_000), ("us", 1_000), ("ns", 1)];
    if nanoseconds < 1_000_000_000
        && let Some((name, unit)) =
            small.into_iter().find(|(_, unit)| nanoseconds.is_multiple_of(*unit))
    {
        return format!("{}{name}", nanoseconds / unit);
    }
    let seconds = time.as_secs();
    let mut text = String::new();
    for (name, count) in [("h", seconds / 3600), ("m", seconds / 60 % 60)] {
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    let fraction = format!("{:09}", time.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    match (seconds % 60, fraction) {
        (0, "") => {}
        (count, "") => text.push_str(&format!("{count}s")),
        (count, fraction) => text.push_str(&format!("{count}.{fraction}s")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_reads_them() {
        let rows = [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("300ms", 300_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("+2s", 2_000_000_000),
            ("7us", 7_000),
            ("7\u{b5}s", 7_000),
            ("7ns", 7),
            ("0.000000001s", 1),
        ];
        for (text, nanoseconds) in rows {
            let time = Duration::from_nanos(nanoseconds);
            assert_eq!(parse(text), Ok(time), "{text}");
            assert_eq!(parse(&show(time)), Ok(time), "{}", show(time));
        }
        assert_eq!(show(Duration::from_secs(10)), "10s");
        assert_eq!(show(Duration::from_secs(3600)), "1h");
    }

    #[test]
    fn what_is_no_duration() {
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "1x",
            "1.2.3s",
            ".s",
            "1s2",
            "10 s",
            "99999999h",
            "999999999999999999999s",
            "+",
            "\u{663}s",
            "1e3s",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("write for example"), "{error}");
        }
    }
}
