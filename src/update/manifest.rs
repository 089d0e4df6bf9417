//! Manifest of an update feed: parsing. Its signature, its files and the decision what to do
//! with it do not belong here. docs/reference/update.md has the format.

use super::version::Version;
use crate::config::update_key::UpdateKey;

/// Longest manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// First line of a manifest.
const FORMAT: &str = "culvert-update 1";

/// Most bytes of a program file.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Content of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Channel that it was published for.
    pub channel: String,
    /// Grows with each manifest of a channel.
    pub serial: u32,
    /// The newest version.
    pub version: Version,
    /// Oldest version that may update directly.
    pub min_from: Option<Version>,
    /// Time of publication, in seconds since 1970.
    pub date: u64,
    /// End of its validity, in seconds since 1970.
    pub expires: Option<u64>,
    /// Program files, one for each target.
    pub files: Vec<FeedFile>,
    /// Further keys that are accepted after this update.
    pub keys: Vec<UpdateKey>,
}

/// A program file of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedFile {
    /// Target triple.
    pub target: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// Name beside the manifest.
    pub name: String,
}

impl Manifest {
    /// Parses a manifest. The error has the line.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(format!("it is larger than {MAX_MANIFEST_BYTES} bytes"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text (UTF-8)".to_owned())?;
        let mut lines = text.split('\n').enumerate();
        match lines.next() {
            Some((_, FORMAT)) => {}
            Some((_, other)) if other.starts_with("culvert-update ") => {
                return Err(format!(
                    "{other:.40?} is not supported; install a newer version by hand"
                ));
            }
            _ => return Err(format!("its first line is not {FORMAT:?}")),
        }
        let mut draft = Draft::default();
        for (n, line) in lines {
            if !line.is_empty() && !line.starts_with('#') {
                let (key, value) = line.split_once(' ').unwrap_or((line, ""));
                draft.add(key, value).map_err(|why| format!("line {}: {key:.40}: {why}", n + 1))?;
            }
        }
        draft.finish()
    }

    /// Returns the file for a target.
    pub fn file(&self, target: &str) -> Option<&FeedFile> {
        self.files.iter().find(|file| file.target == target)
    }
}

/// A manifest before its end.
#[derive(Default)]
struct Draft {
    channel: Option<String>,
    serial: Option<u32>,
    version: Option<Version>,
    min_from: Option<Version>,
    date: Option<u64>,
    expires: Option<u64>,
    files: Vec<FeedFile>,
    keys: Vec<UpdateKey>,
}

impl Draft {
    fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "channel" => once(&mut self.channel, value.to_owned()),
            "serial" => once(&mut self.serial, number(value)?),
            "version" => once(&mut self.version, Version::parse(value)?),
            "min-from" => once(&mut self.min_from, Version::parse(value)?),
            "date" => once(&mut self.date, time(value)?),
            "expires" => once(&mut self.expires, time(value)?),
            "file" => {
                let file = file(value)?;
                if self.files.iter().any(|other| other.target == file.target) {
                    return Err(format!("{:.64} appears twice", file.target));
                }
                self.files.push(file);
                Ok(())
            }
            "key" => UpdateKey::parse(value).map(|key| self.keys.push(key)),
            // Of a later version. The signature covers it.
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Manifest, String> {
        let missing = |key: &str| format!("{key} is missing");
        Ok(Manifest {
            channel: self.channel.ok_or_else(|| missing("channel"))?,
            serial: self.serial.ok_or_else(|| missing("serial"))?,
            version: self.version.ok_or_else(|| missing("version"))?,
            min_from: self.min_from,
            date: self.date.ok_or_else(|| missing("date"))?,
            expires: self.expires,
            files: self.files,
            keys: self.keys,
        })
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("appears twice".to_owned()),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let parsed = if digits { text.parse().ok() } else { None };
    parsed.ok_or_else(|| format!("{text:.40?} is not a number in its range"))
}

/// Parses `TARGET SIZE SHA256 NAME`.
fn file(text: &str) -> Result<FeedFile, String> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [target, size, digest, name] = parts[..] else {
        return Err("write TARGET SIZE SHA256 NAME".to_owned());
    };
    let is_plain = |text: &str, more: &[u8]| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || more.contains(&b);
        (1..=128).contains(&text.len()) && text.bytes().all(plain)
    };
    if !is_plain(target, b"_-") {
        return Err(format!("{target:.40?} is not a target"));
    }
    // A name cannot lead out of its directory.
    if !is_plain(name, b"._+-") || name.starts_with('.') {
        return Err(format!("{name:.40?} is not a file name"));
    }
    let size = number(size)?;
    if !(1..=MAX_FILE_BYTES).contains(&size) {
        return Err(format!("{size} is not a size from 1 to {MAX_FILE_BYTES}"));
    }
    let sha256 = hex(digest).ok_or_else(|| "SHA256 must be 64 hexadecimal digits".to_owned())?;
    Ok(FeedFile { target: target.to_owned(), size, sha256, name: name.to_owned() })
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        for digit in pair {
            let four = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(four).ok()?;
        }
    }
    Some(bytes)
}

/// Parses `2026-11-01T00:00:00Z`. Returns seconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    parsed_time(text).ok_or_else(|| format!("{text:.40?} is not a time like 2026-11-01T00:00:00Z"))
}

fn parsed_time(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let form = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = |(b, f): (&u8, &u8)| if *f == b'd' { b.is_ascii_digit() } else { b == f };
    if bytes.len() != form.len() || !bytes.iter().zip(form).all(fits) {
        return None;
    }
    let part = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let leap = |y: u64| (y.is_multiple_of(4) && !y.is_multiple_of(100)) || y.is_multiple_of(400);
    let days_of = |month: u64| match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let fine = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_of(month)).contains(&day)
        && (hour, minute, second) <= (23, 59, 59)
        && minute < 60
        && second < 60;
    if !fine {
        return None;
    }
    let before = year - 1;
    let leaps = before / 4 - before / 100 + before / 400;
    // 477 leap days until the end of 1969.
    let days = (year - 1970) * 365 + leaps - 477 + (1..month).map(days_of).sum::<u64>() + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

    fn whole() -> String {
        format!(
            "culvert-update 1\n# a comment\nchannel stable\nserial 42\nversion 0.3.1\nmin-from \
             0.1.0\ndate 2026-11-01T00:00:00Z\nexpires 2027-05-01T12:30:59Z\n\nfile \
             mipsel-unknown-linux-musl 1483200 {DIGEST} culvert-0.3.1-mipsel\nfile x86_64-x 1 \
             {DIGEST} b\nkey RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\nlater x y\n"
        )
    }

    #[test]
    fn every_key_is_read() {
        let manifest = Manifest::parse(whole().as_bytes()).unwrap();
        assert_eq!((manifest.channel.as_str(), manifest.serial), ("stable", 42));
        assert_eq!(manifest.version.to_string(), "0.3.1");
        assert_eq!(manifest.min_from.as_ref().unwrap().to_string(), "0.1.0");
        assert_eq!((manifest.date, manifest.expires), (1_793_491_200, Some(1_809_174_659)));
        assert_eq!((manifest.files.len(), manifest.keys.len()), (2, 1));
        let file = manifest.file("mipsel-unknown-linux-musl").unwrap();
        assert_eq!((file.size, file.sha256[1], file.sha256[31]), (1_483_200, 0x11, 0xff));
        assert_eq!(file.name, "culvert-0.3.1-mipsel");
        assert!(manifest.file("mips").is_none());
    }

    #[test]
    fn the_error_has_the_line() {
        let file = |text: &str| format!("file mipsel-unknown-linux-musl {text}");
        let line = file(&format!("1483200 {DIGEST} culvert-0.3.1-mipsel"));
        for (old, new, expected) in [
            ("culvert-update 1", "culvert-update 2", "newer version by hand"),
            ("culvert-update 1", "<!DOCTYPE html>", "its first line"),
            ("serial 42", "serial -1", "line 4: serial: \"-1\" is not a number"),
            ("serial 42", "serial 4294967296", "not a number in its range"),
            ("serial 42", "serial", "line 4: serial"),
            ("serial 42", "# serial", "serial is missing"),
            ("version 0.3.1", "version 1", "line 5: version: \"1\" is not a version"),
            ("channel stable\n", "", "channel is missing"),
            ("serial 42", "serial 42\nserial 43", "line 5: serial: appears twice"),
            ("2026-11-01T", "2026-11-31T", "line 7: date"),
            ("T12:30:59Z", "T12:60:59Z", "line 8: expires"),
            ("T12:30:59Z", "T12:30:59+00:00", "line 8: expires"),
            (&line, &file("1"), "write TARGET SIZE SHA256 NAME"),
            (&line, &file(&format!("0 {DIGEST} a")), "not a size from 1"),
            (&line, &file(&format!("268435457 {DIGEST} a")), "not a size from 1"),
            (&line, &file(&format!("1 {} a", &DIGEST[1..])), "64 hexadecimal digits"),
            (&line, &file(&format!("1 {}g a", &DIGEST[1..])), "64 hexadecimal digits"),
            (&line, &file(&format!("1 {DIGEST} ../a")), "not a file name"),
            (&line, &file(&format!("1 {DIGEST} .a")), "not a file name"),
            (&line, &file(&format!("1 {DIGEST} ")), "not a file name"),
            ("file x86_64-x", "file mipsel-unknown-linux-musl", "appears twice"),
            ("key RWQ", "key RWR", ""),
            ("key RWQ", "key ", "line 12: key: is not a public key"),
        ] {
            assert!(whole().contains(old), "{old}");
            let text = whole().replacen(old, new, 1);
            match Manifest::parse(text.as_bytes()) {
                Ok(_) => assert_eq!(expected, "", "{new}"),
                Err(why) => assert!(!expected.is_empty() && why.contains(expected), "{why}"),
            }
        }
        assert!(Manifest::parse(b"\xff").unwrap_err().contains("UTF-8"));
        let long = whole() + &"#\n".repeat(MAX_MANIFEST_BYTES / 2);
        assert!(Manifest::parse(long.as_bytes()).unwrap_err().contains("larger than 65536"));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("2100-02-29T00:00:00Z", None),
            ("1969-12-31T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01 00:00:00Z", None),
        ] {
            assert_eq!(parsed_time(text), expected, "{text}");
        }
    }
}
