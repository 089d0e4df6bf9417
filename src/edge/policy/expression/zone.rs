//! Time zones by name, from files of the zone database (TZif, RFC 9636): the changes of the
//! offset, and the rule for the time after the last one. Files are read elsewhere.

/// Changes and rule of one zone. Offsets are seconds east of UTC, times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Zone {
    /// Offset before the first change.
    first: i64,
    /// Times with the offset from then on, in their order.
    changes: Vec<(i64, i64)>,
    /// Rule after the last change.
    rule: Option<ZoneRule>,
}

/// Offsets of a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ZoneRule {
    standard: i64,
    /// Offset in summer, with its start and its end.
    summer: Option<(i64, YearTime, YearTime)>,
}

/// A time of each year, by the clocks before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct YearTime {
    day: YearDay,
    /// Seconds from the start of the day, also negative.
    time: i64,
}

/// A day of each year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum YearDay {
    /// Day from 0, leap days included.
    Ordinal(i64),
    /// Day from 1, without leap days.
    Julian(i64),
    /// Month, week (5: the last one), and day of the week (0: Sunday).
    Weekday(i64, i64, i64),
}

const DAY: i64 = 86_400;

impl Zone {
    /// Reads a file. `None`: it is not valid.
    pub(super) fn read(bytes: &[u8]) -> Option<Zone> {
        let mut reader = ZoneReader(bytes);
        let counts = reader.header()?;
        if counts.version == 0 {
            return reader.zone(&counts, 4);
        }
        // The block of version 1 has times of 32 bits.
        reader.skip(counts.block(4))?;
        let counts = reader.header()?;
        let mut zone = reader.zone(&counts, 8)?;
        let footer = reader.0.strip_prefix(b"\n")?;
        let end = footer.iter().position(|byte| *byte == b'\n')?;
        let footer = std::str::from_utf8(&footer[..end]).ok()?;
        zone.rule = match footer.is_empty() {
            true => None,
            false => Some(ZoneRule::parse(footer)?),
        };
        Some(zone)
    }

    /// Returns a zone with a rule alone.
    #[cfg(test)]
    pub(super) fn of_rule(rule: &str) -> Zone {
        Zone { rule: ZoneRule::parse(rule), ..Zone::default() }
    }

    /// Returns the offset at a time.
    pub(super) fn offset(&self, at: i64) -> i64 {
        let after = self.changes.partition_point(|(time, _)| *time <= at);
        match (&self.rule, self.changes.get(after.wrapping_sub(1))) {
            (Some(rule), _) if after == self.changes.len() => rule.offset(at),
            (_, Some((_, offset))) => *offset,
            (_, None) => self.first,
        }
    }
}

/// Numbers of entries of a block.
struct ZoneCounts {
    version: u8,
    /// As in the header: UT indicators, standard indicators, leap seconds, times, types, bytes of
    /// names.
    counts: [usize; 6],
}

impl ZoneCounts {
    /// Returns the length of a block with times of `size` bytes.
    fn block(&self, size: usize) -> usize {
        let [ut, standard, leaps, times, types, names] = self.counts;
        times * (size + 1) + types * 6 + names + leaps * (size + 4) + standard + ut
    }
}

struct ZoneReader<'a>(&'a [u8]);

impl<'a> ZoneReader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, n: usize) -> Option<()> {
        self.take(n).map(drop)
    }

    fn header(&mut self) -> Option<ZoneCounts> {
        let header = self.take(44)?.strip_prefix(b"TZif")?;
        let mut counts = [0; 6];
        for (count, bytes) in counts.iter_mut().zip(header[16..].chunks_exact(4)) {
            // A block is not longer than the file, so no sum below overflows.
            *count = usize::try_from(number(bytes)).ok().filter(|count| *count < 1 << 20)?;
        }
        Some(ZoneCounts { version: header[0], counts })
    }

    fn zone(&mut self, counts: &ZoneCounts, size: usize) -> Option<Zone> {
        let [_, _, _, times, types, _] = counts.counts;
        let mut block = ZoneReader(self.take(counts.block(size))?);
        let (at, kinds) = (block.take(times * size)?, block.take(times)?);
        let types: Vec<i64> =
            block.take(types * 6)?.chunks_exact(6).map(|kind| number(&kind[..4])).collect();
        let offset = |kind: &u8| types.get(usize::from(*kind)).copied();
        let changes = at.chunks_exact(size).zip(kinds);
        let changes = changes.map(|(at, kind)| Some((number(at), offset(kind)?)));
        Some(Zone { first: *types.first()?, changes: changes.collect::<Option<_>>()?, rule: None })
    }
}

/// Returns a signed number, the highest byte first.
fn number(bytes: &[u8]) -> i64 {
    let first = bytes.first().map_or(0, |byte| if *byte >= 0x80 { -1 } else { 0 });
    bytes.iter().fold(first, |number, byte| number << 8 | i64::from(*byte))
}

impl ZoneRule {
    /// Parses the form of POSIX: `EST5EDT,M3.2.0,M11.1.0`.
    fn parse(text: &str) -> Option<ZoneRule> {
        let (standard, rest) = offset(name(text)?)?;
        let standard = -standard;
        if rest.is_empty() {
            return Some(ZoneRule { standard, summer: None });
        }
        let rest = name(rest)?;
        let (summer, rest) = match rest.starts_with(',') {
            true => (standard + 3_600, rest),
            false => offset(rest).map(|(summer, rest)| (-summer, rest))?,
        };
        let (start, end) = rest.strip_prefix(',')?.split_once(',')?;
        let summer = Some((summer, YearTime::parse(start)?, YearTime::parse(end)?));
        Some(ZoneRule { standard, summer })
    }

    fn offset(&self, at: i64) -> i64 {
        let Some((summer, start, end)) = self.summer else { return self.standard };
        let year = year_of((at + self.standard).div_euclid(DAY));
        let (start, end) = (start.in_year(year) - self.standard, end.in_year(year) - summer);
        let is_summer = match start < end {
            true => (start..end).contains(&at),
            // South of the equator.
            false => !(end..start).contains(&at),
        };
        if is_summer { summer } else { self.standard }
    }
}

/// Returns what follows the name of a clock.
fn name(text: &str) -> Option<&str> {
    let rest = match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>')?.1,
        None => text.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
    };
    (rest.len() < text.len()).then_some(rest)
}

/// Parses hours, minutes and seconds to seconds. Returns what follows, too.
fn offset(text: &str) -> Option<(i64, &str)> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let mut seconds = 0;
    for unit in [3_600, 60, 1] {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let part: i64 = rest[..digits].parse().ok().filter(|part| *part < 168)?;
        seconds += part * unit;
        rest = &rest[digits..];
        match rest.strip_prefix(':') {
            Some(next) => rest = next,
            None => break,
        }
    }
    Some((sign * seconds, rest))
}

impl YearTime {
    fn parse(text: &str) -> Option<YearTime> {
        let (day, time) = text.split_once('/').unwrap_or((text, "2"));
        let (time, rest) = offset(time)?;
        let number = |text: &str| text.parse::<i64>().ok().filter(|n| (0..=365).contains(n));
        let day = if let Some(parts) = day.strip_prefix('M') {
            let (month, rest) = parts.split_once('.')?;
            let (week, day) = rest.split_once('.')?;
            let (month, week, day) = (number(month)?, number(week)?, number(day)?);
            let fits = (1..=12).contains(&month) && (1..=5).contains(&week) && day < 7;
            fits.then_some(YearDay::Weekday(month, week, day))?
        } else if let Some(day) = day.strip_prefix('J') {
            YearDay::Julian(number(day)?)
        } else {
            YearDay::Ordinal(number(day)?)
        };
        rest.is_empty().then_some(YearTime { day, time })
    }

    /// Returns the seconds since 1970 by the clocks of the place.
    fn in_year(self, year: i64) -> i64 {
        let day = match self.day {
            YearDay::Ordinal(day) => days(year, 1) + day,
            YearDay::Julian(day) => {
                let leap = days(year, 3) - days(year, 1) > 59;
                days(year, 1) + day - 1 + i64::from(leap && day > 59)
            }
            YearDay::Weekday(month, week, weekday) => {
                let first = days(year, month);
                let next = match month {
                    12 => days(year + 1, 1),
                    month => days(year, month + 1),
                };
                // 1970-01-01 was a Thursday.
                let day = first + (weekday - first - 4).rem_euclid(7) + 7 * (week - 1);
                if day < next { day } else { day - 7 }
            }
        };
        day * DAY + self.time
    }
}

/// Returns the day since 1970 of the first of a month.
fn days(year: i64, month: i64) -> i64 {
    // Years begin in March, so that a leap day is the last day of one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 - 719_468
}

/// Returns the year of a day since 1970.
fn year_of(day: i64) -> i64 {
    // Without leap days, of which there are at most 2,000 in the years that are possible.
    let guess = 1970 + day.div_euclid(365);
    (-2..=8).map(|back| guess - back).find(|year| days(*year, 1) <= day).unwrap_or(guess)
}

#[cfg(test)]
mod tests {
    use super::super::time::Timestamp;
    use super::*;

    fn at(text: &str) -> i64 {
        Timestamp::parse(text).expect("a time").seconds()
    }

    /// Returns a file of version 2 with these changes and types, and a rule.
    fn file(changes: &[(i64, u8)], types: &[i32], rule: &str) -> Vec<u8> {
        let header = |times: usize, types: usize| {
            let counts = [0, 0, 0, times, types, 4].map(|n| u32::try_from(n).unwrap());
            let mut header = [&b"TZif2"[..], &[0; 15]].concat();
            header.extend(counts.iter().flat_map(|n| n.to_be_bytes()));
            header
        };
        // The first block is not read.
        let mut bytes = [header(1, 1), vec![0xff; 4 + 1 + 6 + 4]].concat();
        bytes.extend(header(changes.len(), types.len()));
        bytes.extend(changes.iter().flat_map(|(at, _)| at.to_be_bytes()));
        bytes.extend(changes.iter().map(|(_, kind)| kind));
        bytes.extend(types.iter().flat_map(|offset| [&offset.to_be_bytes()[..], &[0, 0]].concat()));
        bytes.extend_from_slice(b"LMT\0");
        bytes.extend_from_slice(format!("\n{rule}\n").as_bytes());
        bytes
    }

    #[test]
    fn offsets_before_between_and_after_the_changes() {
        let changes = [(at("1990-01-01T00:00:00Z"), 1), (at("2000-01-01T00:00:00Z"), 0)];
        let bytes = file(&changes, &[-600, 3_600], "CET-1CEST,M3.5.0,M10.5.0/3");
        let zone = Zone::read(&bytes).unwrap();
        for (time, offset) in [
            ("1989-12-31T23:59:59Z", -600),
            ("1990-01-01T00:00:00Z", 3_600),
            ("1999-12-31T23:59:59Z", 3_600),
            ("2000-01-01T00:00:00Z", 3_600),
            ("2026-03-29T00:59:59Z", 3_600),
            ("2026-03-29T01:00:00Z", 7_200),
            ("2026-10-25T00:59:59Z", 7_200),
            ("2026-10-25T01:00:00Z", 3_600),
        ] {
            assert_eq!(zone.offset(at(time)), offset, "{time}");
        }
        let fixed = Zone::read(&file(&changes, &[-600, 3_600], "")).unwrap();
        assert_eq!(fixed.offset(at("2026-07-01T00:00:00Z")), -600, "the last change stays");
        for length in 0..bytes.len() {
            assert_eq!(Zone::read(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Zone::read(&file(&[(0, 9)], &[0], "")), None, "a type that is missing");
    }

    #[test]
    fn rules_of_both_hemispheres_and_of_all_forms() {
        for (rule, time, offset) in [
            ("EST5EDT,M3.2.0,M11.1.0", "2026-03-08T06:59:59Z", -18_000),
            ("EST5EDT,M3.2.0,M11.1.0", "2026-03-08T07:00:00Z", -14_400),
            ("EST5EDT,M3.2.0,M11.1.0", "2026-11-01T06:00:00Z", -18_000),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", "2026-01-01T00:00:00Z", 39_600),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", "2026-04-04T16:00:00Z", 36_000),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", "2026-12-31T23:00:00Z", 39_600),
            ("<+0545>-5:45", "2026-06-01T00:00:00Z", 20_700),
            ("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-06-01T00:00:00Z", 3_600),
            ("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-12-01T00:00:00Z", 0),
            ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2026-03-29T00:59:59Z", -7_200),
            ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2026-03-29T01:00:00Z", -3_600),
            ("A0B,J60/0,J300", "2024-02-29T12:00:00Z", 0),
            ("A0B,J60/0,J300", "2024-03-01T00:00:00Z", 3_600),
            ("A0B,59/0,300", "2024-02-29T00:00:00Z", 3_600),
            ("A0B,59/0,300", "2023-02-28T23:59:59Z", 0),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "0001-07-01T00:00:00Z", 7_200),
            ("CET-1CEST,M3.5.0,M10.5.0/3", "9999-12-31T23:59:59Z", 3_600),
        ] {
            let rule = ZoneRule::parse(rule).expect(rule);
            assert_eq!(rule.offset(at(time)), offset, "{rule:?} {time}");
        }
        for bad in ["", "5", "EST", "EST5EDT,", "EST5EDT,M3.2.0", "A0B,M13.1.0,M1.1.0", "A0B,J,J1"]
        {
            assert_eq!(ZoneRule::parse(bad), None, "{bad}");
        }
    }
}
