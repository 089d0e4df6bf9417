//! What a verified manifest means for this program: nothing new, an update, or a refusal with
//! its reason. No I/O and no clock.

use super::manifest::{FeedFile, Manifest};
use super::record::UpdateRecord;
use super::version::Version;

/// The program that may be updated, and what is requested.
#[derive(Clone, Debug)]
pub struct UpdateRequest {
    /// Requested channel.
    pub channel: String,
    /// Target triple of the program.
    pub target: String,
    /// Version of the program.
    pub current: Version,
    /// Time at which the program was built, in seconds since 1970.
    pub built: u64,
    /// Time of the system's clock, in seconds since 1970.
    pub now: u64,
    /// Requested version; `None`: the newest.
    pub wanted: Option<Version>,
    /// Whether another major version is allowed.
    pub permit_major: bool,
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateDecision {
    /// Nothing to do, with the reason.
    Current(String),
    /// The program can be replaced by this file.
    Update(FeedFile),
}

/// Decides what to do. The error is the reason for a refusal.
pub fn decide(
    manifest: &Manifest,
    request: &UpdateRequest,
    record: &UpdateRecord,
) -> Result<UpdateDecision, String> {
    let UpdateRequest { channel, target, current, .. } = request;
    let version = &manifest.version;
    if manifest.channel != *channel {
        return Err(format!(
            "it is for the channel {:.40?}, not for {channel}: the server sent another file",
            manifest.channel
        ));
    }
    if manifest.serial < record.serial {
        return Err(format!(
            "its serial {} is older than {}, which was installed: the server sent an old file",
            manifest.serial, record.serial
        ));
    }
    // Machines without a battery start in 1970.
    let clock_is_set = request.now >= request.built;
    if manifest.expires.is_some_and(|end| clock_is_set && end < request.now) {
        return Err("it has expired; the publisher has to sign a new one".to_owned());
    }
    if let Some(wanted) = request.wanted.as_ref().filter(|wanted| *wanted != version) {
        return Err(format!("the feed has version {version}, not {wanted}"));
    }
    if record.bad == Some(manifest.serial) {
        return Ok(UpdateDecision::Current(format!(
            "version {version} was replaced by {current} here; waiting for a newer one"
        )));
    }
    if version <= current {
        return Ok(UpdateDecision::Current(format!(
            "{current} is up to date: the channel {channel} has {version}"
        )));
    }
    if !request.permit_major && version.major() != current.major() {
        return Err(format!("{version} is another major version than {current}"));
    }
    if let Some(oldest) = manifest.min_from.as_ref().filter(|oldest| current < oldest) {
        return Err(format!("{version} needs at least {oldest}, this is {current}"));
    }
    match manifest.file(target) {
        Some(file) => Ok(UpdateDecision::Update(file.clone())),
        None => Err(format!("{version} has no file for {target}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    fn manifest() -> Manifest {
        let file = FeedFile {
            target: "mips-unknown-linux-musl".to_owned(),
            size: 9,
            sha256: [7; 32],
            name: "culvert-mips".to_owned(),
        };
        Manifest {
            channel: "stable".to_owned(),
            serial: 42,
            version: version("0.3.1"),
            min_from: Some(version("0.1.0")),
            date: NOW - 10,
            expires: Some(NOW + 10),
            files: vec![file],
            keys: Vec::new(),
        }
    }

    fn request() -> UpdateRequest {
        UpdateRequest {
            channel: "stable".to_owned(),
            target: "mips-unknown-linux-musl".to_owned(),
            current: version("0.2.0"),
            built: NOW - 1000,
            now: NOW,
            wanted: None,
            permit_major: false,
        }
    }

    #[test]
    fn a_newer_version_is_an_update() {
        let record = UpdateRecord { serial: 42, ..UpdateRecord::default() };
        let update = UpdateDecision::Update(manifest().files[0].clone());
        assert_eq!(decide(&manifest(), &request(), &record), Ok(update));
    }

    #[test]
    fn every_other_manifest_is_refused_with_its_reason() {
        type Change = fn(&mut Manifest, &mut UpdateRequest, &mut UpdateRecord);
        let changes: [(Change, &str); 8] = [
            (|m, _, _| m.channel = "beta".into(), "for the channel \"beta\", not for stable"),
            (|_, _, r| r.serial = 43, "serial 42 is older than 43"),
            (|m, _, _| m.expires = Some(NOW - 1), "has expired"),
            (|_, q, _| q.wanted = Some(version("0.3.0")), "has version 0.3.1, not 0.3.0"),
            (|m, _, _| m.version = version("1.0.0"), "another major version"),
            (|m, _, _| m.min_from = Some(version("0.2.1")), "needs at least 0.2.1"),
            (|_, q, _| q.target = "mipsel-x".into(), "no file for mipsel-x"),
            (|m, _, _| m.files.clear(), "no file for mips-unknown"),
        ];
        for (change, expected) in changes {
            let (mut m, mut q, mut r) = (manifest(), request(), UpdateRecord::default());
            change(&mut m, &mut q, &mut r);
            let why = decide(&m, &q, &r).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn nothing_newer_is_not_an_error() {
        let current = |m: &Manifest, q: &UpdateRequest, r: &UpdateRecord| match decide(m, q, r) {
            Ok(UpdateDecision::Current(why)) => why,
            other => panic!("{other:?}"),
        };
        let empty = UpdateRecord::default();
        for newer in ["0.3.1", "0.3.2"] {
            let q = UpdateRequest { current: version(newer), ..request() };
            assert!(current(&manifest(), &q, &empty).contains("is up to date"));
        }
        let bad = UpdateRecord { bad: Some(42), serial: 42, ..empty };
        assert!(current(&manifest(), &request(), &bad).contains("was replaced by 0.2.0"));
        // The next manifest is tried.
        let next = Manifest { serial: 43, ..manifest() };
        assert!(matches!(decide(&next, &request(), &bad), Ok(UpdateDecision::Update(_))));
    }

    #[test]
    fn an_unset_clock_does_not_expire_a_manifest() {
        let q = UpdateRequest { now: NOW - 2000, ..request() };
        let expired = Manifest { expires: Some(NOW - 3000), ..manifest() };
        assert!(decide(&expired, &q, &UpdateRecord::default()).is_ok());
        let q = UpdateRequest { permit_major: true, ..request() };
        let major = Manifest { version: version("2.0.0"), ..manifest() };
        assert!(decide(&major, &q, &UpdateRecord::default()).is_ok());
    }
}
