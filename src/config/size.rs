//! Sizes in the notation of users: `8MiB`, `512k`, `1048576`.

/// Units as powers of two, which are usual for memory.
const UNITS: &[(&str, u32)] = &[
    ("", 0),
    ("b", 0),
    ("k", 10),
    ("kb", 10),
    ("kib", 10),
    ("m", 20),
    ("mb", 20),
    ("mib", 20),
    ("g", 30),
    ("gb", 30),
    ("gib", 30),
];

/// Parses a size in bytes. The error has what to write.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = text[digits..].trim().to_ascii_lowercase();
    let shift = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift);
    match (text[..digits].parse::<u64>(), shift) {
        (Ok(n), Some(shift)) if n > 0 && n <= u64::MAX >> shift => Ok(n << shift),
        _ => Err("must be a number of bytes, as in 1048576, 512KiB or 8MiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_and_without_units() {
        for (text, bytes) in [
            ("1", 1),
            ("52428800", 52_428_800),
            ("512k", 524_288),
            ("8MiB", 8 << 20),
            ("8 mb", 8 << 20),
            ("1G", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in
            ["", "0", "-1", "k", "8 XB", "8.5M", "99999999999999999999", "18446744073709551615G"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
