//! Target `update_manifest`: a manifest of an update feed. It is read in bounded time, and what
//! is accepted cannot lead to another directory, an unbounded download or an older version.

use culvert::update::decision::{UpdateDecision, UpdateRequest, decide};
use culvert::update::manifest::{MAX_MANIFEST_BYTES, Manifest};
use culvert::update::record::UpdateRecord;
use culvert::update::signature;
use culvert::update::version::Version;

use crate::input::Dice;

const DIGEST: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const KEY: &str = "RWQ2veAqwxPafE3i1tjPkFskT5Cn2SObm6YzMPRw84gIVSFKFU0dgEwE";
const NOW: u64 = 1_800_000_000;

pub fn check(data: &[u8]) {
    // Without a key nothing is accepted.
    assert!(signature::verify(&[], data, data).is_err());
    let record = UpdateRecord::parse(&String::from_utf8_lossy(data));
    assert_eq!(UpdateRecord::parse(&record.text()).text(), record.text());
    let Ok(manifest) = Manifest::parse(data) else { return };
    assert!(data.len() <= MAX_MANIFEST_BYTES && std::str::from_utf8(data).is_ok());
    for file in &manifest.files {
        assert!(!file.name.contains('/') && !file.name.starts_with('.') && !file.name.is_empty());
        assert!((1..=256 << 20).contains(&file.size));
        assert!(manifest.file(&file.target) == Some(file), "a target twice");
    }
    assert_eq!(Version::parse(&manifest.version.to_string()).as_ref(), Ok(&manifest.version));
    let request = UpdateRequest {
        channel: "stable".to_owned(),
        target: "mips".to_owned(),
        current: Version::parse("1.2.3").expect("a version"),
        built: NOW - 1,
        now: NOW,
        wanted: None,
        permit_major: false,
    };
    let record = UpdateRecord { serial: 5, ..UpdateRecord::default() };
    if let Ok(UpdateDecision::Update(file)) = decide(&manifest, &request, &record) {
        assert!(manifest.version > request.current && manifest.serial >= record.serial);
        assert!(manifest.version.major() == 1 && manifest.channel == "stable");
        assert!(manifest.expires.is_none_or(|end| end >= NOW));
        assert_eq!(file.target, "mips");
    }
}

/// Returns a manifest with values at the limits of what is accepted.
pub fn generate(dice: &mut Dice) -> Vec<u8> {
    let version =
        |dice: &mut Dice| dice.pick(&["1.2.3", "1.2.4", "1.3.0-rc.1", "2.0.0", "1.2", "0.9.9"]);
    let time = |dice: &mut Dice| {
        dice.pick(&[
            "2026-11-01T00:00:00Z",
            "2028-02-29T23:59:59Z",
            "1970-01-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
        ])
    };
    let mut lines = vec!["culvert-update 1".to_owned()];
    let mut add = |dice: &mut Dice, line: String| {
        if dice.below(12) != 0 {
            lines.push(line);
        }
    };
    let channel = dice.pick(&["stable", "beta"]);
    add(dice, format!("channel {channel}"));
    let serial = dice.pick(&["0", "4", "5", "6", "4294967295", "4294967296", "-1"]);
    add(dice, format!("serial {serial}"));
    let line = format!("version {}", version(dice));
    add(dice, line);
    let line = format!("min-from {}", version(dice));
    add(dice, line);
    let line = format!("date {}", time(dice));
    add(dice, line);
    let line = format!("expires {}", time(dice));
    add(dice, line);
    for _ in 0..dice.below(4) {
        let target = dice.pick(&["mips", "mipsel", "x86_64-unknown-linux-musl"]);
        let size =
            dice.pick(&["1", "1483200", "268435456", "268435457", "0", "18446744073709551616"]);
        let name = dice.pick(&["culvert", "../culvert", ".culvert", "a/b", ""]);
        let digest = &DIGEST[dice.below(2)..];
        add(dice, format!("file {target} {size} {digest} {name}"));
    }
    add(dice, format!("key {KEY}"));
    let mut bytes = lines.join("\n").into_bytes();
    if dice.below(3) == 0 {
        let at = dice.below(bytes.len());
        bytes[at] ^= dice.roll() as u8;
    }
    if dice.below(6) == 0 {
        bytes.truncate(dice.below(bytes.len() + 1));
    }
    bytes
}
