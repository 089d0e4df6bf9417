//! Manifest of an update feed: parsing. Its signature, its files and the decision what to do
//! with it do not belong here. docs/reference/update.md has the format.

use std::time::UNIX_EPOCH;

use super::version::Version;
use crate::config::update_key::UpdateKey;
use crate::http1::text::decimal;
use crate::proto::hex::unhex;
use crate::time::rfc3339;
use crate::tls::x509;

/// Longest manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;

/// First line of a manifest.
const FORMAT: &str = "culvert-update 1";

/// Keys without which a manifest is refused.
const REQUIRED_KEYS: [&str; 4] = ["channel", "serial", "version", "date"];

/// Keys that appear at most once.
const SINGLE_KEYS: [&str; 6] = ["channel", "serial", "version", "date", "min-from", "expires"];

/// Most bytes of a program file.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Content of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Channel that it was published for.
    pub channel: String,
    /// Grows with each manifest of a channel.
    pub serial: u64,
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
        let mut manifest = Manifest::default();
        let mut seen = Vec::new();
        for (n, line) in lines {
            if !line.is_empty() && !line.starts_with('#') {
                let (key, value) = line.split_once(' ').unwrap_or((line, ""));
                let added = match SINGLE_KEYS.contains(&key) && seen.contains(&key) {
                    true => Err("appears twice".to_owned()),
                    false => manifest.add(key, value),
                };
                added.map_err(|why| format!("line {}: {key:.40}: {why}", n + 1))?;
                seen.push(key);
            }
        }
        match REQUIRED_KEYS.iter().find(|key| !seen.contains(key)) {
            None => Ok(manifest),
            Some(key) => Err(format!("{key} is missing")),
        }
    }

    fn add(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "channel" => value.clone_into(&mut self.channel),
            "serial" => self.serial = number(value, u32::MAX.into())?,
            "version" => self.version = Version::parse(value)?,
            "min-from" => self.min_from = Some(Version::parse(value)?),
            "date" => self.date = time(value)?,
            "expires" => self.expires = Some(time(value)?),
            "file" => {
                let file = file(value)?;
                if self.file(&file.target).is_some() {
                    return Err(format!("{:.64} appears twice", file.target));
                }
                self.files.push(file);
            }
            "key" => self.keys.push(UpdateKey::parse(value)?),
            // Of a later version. The signature covers it.
            _ => {}
        }
        Ok(())
    }

    /// Returns the file for a target.
    pub fn file(&self, target: &str) -> Option<&FeedFile> {
        self.files.iter().find(|file| file.target == target)
    }
}

fn number(text: &str, most: u64) -> Result<u64, String> {
    let parsed = decimal(text.as_bytes()).filter(|number| *number <= most);
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
    let size = number(size, u64::MAX)?;
    if !(1..=MAX_FILE_BYTES).contains(&size) {
        return Err(format!("{size} is not a size from 1 to {MAX_FILE_BYTES}"));
    }
    let sha256 = sha256(digest).ok_or_else(|| "SHA256 must be 64 hexadecimal digits".to_owned())?;
    Ok(FeedFile { target: target.to_owned(), size, sha256, name: name.to_owned() })
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    unhex(text)?.try_into().ok()
}

/// Parses `2026-11-01T00:00:00Z`. Returns seconds since 1970.
fn time(text: &str) -> Result<u64, String> {
    parsed_time(text).ok_or_else(|| format!("{text:.40?} is not a time like 2026-11-01T00:00:00Z"))
}

fn parsed_time(text: &str) -> Option<u64> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
    let time = x509::time(x509::GENERALIZED_TIME, &digits)?;
    let since_1970 = time.duration_since(UNIX_EPOCH).ok()?;
    // A date that does not exist, and any other form, gives another text.
    let form = rfc3339(since_1970).replace(".000000Z", "Z");
    (form == text).then_some(since_1970.as_secs())
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
