//! One byte range of a file (RFC 9110 section 14). Sans-IO.

/// Part of a file to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// The whole file: without a range, or with another unit, several ranges or an invalid
    /// value. A server may always send the whole file.
    Whole,
    /// From the first to the last byte, both included and inside the file.
    Part { first: u64, last: u64 },
    /// The range begins after the end: status 416.
    Outside,
}

/// Reads the value of a `Range` field for a file of `length` bytes.
pub(super) fn parse(value: &str, length: u64) -> Range {
    let Some((unit, spec)) = value.split_once('=') else { return Range::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Range::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Range::Whole };
    match (number(first), number(last)) {
        // The last `count` bytes.
        (None, Some(count)) if first.is_empty() => match count.min(length) {
            0 => Range::Outside,
            count => Range::Part { first: length - count, last: length - 1 },
        },
        (Some(first), None) if last.is_empty() => part(first, u64::MAX, length),
        (Some(first), Some(last)) if first <= last => part(first, last, length),
        _ => Range::Whole,
    }
}

fn part(first: u64, last: u64, length: u64) -> Range {
    if first >= length {
        return Range::Outside;
    }
    Range::Part { first, last: last.min(length - 1) }
}

/// Parses digits. A number that is too large is beyond the end of every file.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ten_bytes() {
        for (value, expected) in [
            ("bytes=0-0", Range::Part { first: 0, last: 0 }),
            ("bytes=2-5", Range::Part { first: 2, last: 5 }),
            ("Bytes= 2-5 ", Range::Part { first: 2, last: 5 }),
            ("bytes=7-", Range::Part { first: 7, last: 9 }),
            ("bytes=7-99999999999999999999999", Range::Part { first: 7, last: 9 }),
            ("bytes=-3", Range::Part { first: 7, last: 9 }),
            ("bytes=-30", Range::Part { first: 0, last: 9 }),
            ("bytes=10-", Range::Outside),
            ("bytes=99999999999999999999999-", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=5-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("lines=1-2", Range::Whole),
            ("nonsense", Range::Whole),
        ] {
            assert_eq!(parse(value, 10), expected, "{value}");
        }
        assert_eq!(parse("bytes=0-", 0), Range::Outside);
        assert_eq!(parse("bytes=-1", 0), Range::Outside);
    }
}
