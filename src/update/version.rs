//! Versions of releases (semver 2.0): parsing and order. Build metadata is not part of a
//! release's name, so it is refused.

use std::cmp::Ordering;
use std::fmt;

/// Version of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    numbers: [u32; 3],
    /// Text after the hyphen; empty for a release.
    pre: String,
}

impl Version {
    /// Parses `MAJOR.MINOR.PATCH` or `MAJOR.MINOR.PATCH-PRERELEASE`.
    pub fn parse(text: &str) -> Result<Version, String> {
        Self::parsed(text)
            .ok_or_else(|| format!("{text:.40?} is not a version; write MAJOR.MINOR.PATCH"))
    }

    fn parsed(text: &str) -> Option<Version> {
        let (numbers, pre) = match text.split_once('-') {
            Some((_, "")) => return None,
            Some((numbers, pre)) => (numbers, pre),
            None => (text, ""),
        };
        let mut parts = numbers.split('.');
        let mut next = || number(parts.next()?);
        let numbers = [next()?, next()?, next()?];
        let is_word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let fine = pre.is_empty() || (pre.len() <= 64 && pre.split('.').all(is_word));
        (fine && parts.next().is_none()).then(|| Version { numbers, pre: pre.to_owned() })
    }

    /// Returns the first number.
    pub fn major(&self) -> u32 {
        self.numbers[0]
    }
}

/// Returns a number without a sign and without leading zeros.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let zero = text.len() > 1 && text.starts_with('0');
    if digits && !zero { text.parse().ok() } else { None }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if self.pre.is_empty() { Ok(()) } else { write!(f, "-{}", self.pre) }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let pre = |version: &Version| !version.pre.is_empty();
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| match (pre(self), pre(other)) {
            (true, true) => compare_pre(&self.pre, &other.pre),
            // A release is newer than its previews.
            (one, two) => two.cmp(&one),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Compares the parts of two previews: numbers before words, fewer parts before more.
fn compare_pre(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one.split('.'), two.split('.'));
    loop {
        let (a, b) = match (one.next(), two.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) if a.is_none() || b.is_none() => return a.is_some().cmp(&b.is_some()),
            (a, b) => (a.unwrap_or_default(), b.unwrap_or_default()),
        };
        let order = match (number(a), number(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (a, b) if a.is_some() || b.is_some() => b.is_some().cmp(&a.is_some()),
            _ => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_specification() {
        let order = [
            "0.9.10",
            "1.0.0-1",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.1.0",
            "2.0.0",
        ];
        let versions: Vec<Version> =
            order.iter().map(|text| Version::parse(text).unwrap()).collect();
        for (n, version) in versions.iter().enumerate() {
            assert_eq!(version.to_string(), order[n]);
            for (m, other) in versions.iter().enumerate() {
                assert_eq!(version.cmp(other), n.cmp(&m), "{version} and {other}");
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "01.2.3",
            "1.2.-3",
            "+1.2.3",
            "1.2.3-",
            "1.2.3-a..b",
            "1.2.3-ä",
            "1.2.3+build",
            "1.2.4294967296",
            " 1.2.3",
            "1.2.3 ",
        ] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }
}
