//! Updates of the program from a feed that its owner publishes: static files with a signed
//! manifest. Without `update_url` and `update_key` nothing is sent.
//!
//! Sans-IO: [`manifest`], [`signature`], [`version`], [`record`], [`decision`]. `program` changes
//! files, `owner` looks for package managers. Here is the order of the steps. When to check and
//! when to restart is decided by the agent and by the command.

mod child;
pub mod decision;
pub mod manifest;
mod owner;
mod program;
pub mod record;
pub mod signature;
mod trial;
pub mod version;

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{Context, SHA256};

use crate::config::update_key::UpdateKey;
use crate::config::{self, Cas};
use crate::net::Dialer;
use crate::net::dial;
use crate::net::http_client::{Client, Method, Request};
use crate::net::timed_stream::TimedStream;
use crate::net::url::Url;
use crate::sys;
use crate::time::Deadline;
use decision::{UpdateDecision, UpdateRequest};
use manifest::{FeedFile, MAX_MANIFEST_BYTES, Manifest};
use program::{Program, ProgramLock};
use record::UpdateRecord;
use signature::MAX_SIGNATURE_BYTES;
use version::Version;

pub use trial::{ReplacedProgram, StartedProgram, Trial};

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Feed of the publisher of this build.
const BUILT_IN_URL: Option<&str> = option_env!("CULVERT_UPDATE_URL");

/// Its keys, separated by blanks: the present one and a spare one.
const BUILT_IN_KEYS: Option<&str> = option_env!("CULVERT_UPDATE_KEY");

/// Time of the build in seconds since 1970, for reproducible builds.
const BUILD_TIME: Option<&str> = option_env!("SOURCE_DATE_EPOCH");

/// A time before every build: 2026-11-01.
const EARLIEST_BUILD: u64 = 1_793_491_200;

/// Time to fetch the manifest and its signature.
const MANIFEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Time to fetch a program: 2 MB on a line of 9,600 bit/s.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Error without a feed.
pub const NO_FEED: &str = "no update feed is configured: set update_url and update_key to those of \
                           a feed of your own, or update the program by hand; see \
                           docs/guide/updates.md";

/// A feed of the user or of the publisher of this build.
#[derive(Clone, Debug)]
pub struct Feed {
    /// URL without a slash at its end.
    url: String,
    keys: Vec<UpdateKey>,
    channel: String,
    /// Certificates that are trusted for it.
    cas: Cas,
}

impl Feed {
    /// Returns the feed of a configuration or of this build; `None` without one.
    pub fn of(config: &config::Agent) -> Result<Option<Feed>, String> {
        let options = &config.update;
        let (url, keys) = match options.url.as_str() {
            "" => (BUILT_IN_URL.unwrap_or_default(), built_in_keys()?),
            url => (url, options.keys.clone()),
        };
        if url.is_empty() {
            return Ok(None);
        }
        if keys.is_empty() {
            return Err("update_key is missing: write the public key of the feed".to_owned());
        }
        let host = Url::parse(url).map_err(|e| format!("update_url: {e}"))?.host;
        let is_edge = dial::split_address(&config.connect_url).is_ok_and(|(edge, _)| edge == host);
        // An edge with certificates of its own may also serve the feed.
        let cas = match &config.connect_cas {
            Cas::File(path) if is_edge => Cas::File(path.clone()),
            _ => Cas::Host,
        };
        let url = url.trim_end_matches('/').to_owned();
        Ok(Some(Feed { url, keys, channel: options.channel.to_owned(), cas }))
    }

    /// Returns the URL of a file of the channel.
    fn file(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.url, self.channel)
    }
}

fn built_in_keys() -> Result<Vec<UpdateKey>, String> {
    let texts = BUILT_IN_KEYS.unwrap_or_default().split_ascii_whitespace();
    texts
        .map(|text| UpdateKey::parse(text).map_err(|e| format!("CULVERT_UPDATE_KEY {e}")))
        .collect()
}

/// Result of a check.
#[derive(Clone, Debug)]
pub enum Offer {
    /// Nothing newer, with the reason.
    Current(String),
    /// A new program.
    Release(Box<Release>),
}

/// A new program that can be installed.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its version.
    pub version: Version,
    file: FeedFile,
    /// Serial number of its manifest.
    serial: u64,
    /// Further keys that are accepted after it.
    keys: Vec<UpdateKey>,
}

impl Release {
    /// Returns the size of the new program in bytes.
    pub fn size(&self) -> u64 {
        self.file.size
    }
}

/// A machine that was checked, and the lock on the directory of its program.
pub struct Prepared(ProgramLock);

/// Requested version of a check.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// This version only; `None`: the newest.
    pub version: Option<Version>,
    /// Whether another major version is allowed.
    pub permit_major: bool,
}

/// Checks a feed and installs its releases.
pub struct Updater<'a> {
    feed: &'a Feed,
    dialer: &'a Dialer,
    program: Program,
}

impl<'a> Updater<'a> {
    /// Returns an updater of the running program.
    pub fn new(feed: &'a Feed, dialer: &'a Dialer) -> Result<Self, String> {
        let program = Program::find().map_err(|e| format!("cannot find the program: {e}"))?;
        Ok(Updater { feed, dialer, program })
    }

    /// Fetches the manifest and compares it with the running program. Changes nothing.
    pub fn check(&self, wanted: &Wanted) -> Result<Offer, String> {
        let url = self.feed.file("manifest");
        let deadline = Deadline::At(sys::clock() + MANIFEST_TIMEOUT);
        let fetch = |url: &str, limit: usize| {
            let body = self.fetch(url, limit, deadline);
            body.map_err(|e| format!("cannot fetch {url}: {e}"))
        };
        let text = fetch(&url, MAX_MANIFEST_BYTES)?;
        let signature = fetch(&format!("{url}.sig"), MAX_SIGNATURE_BYTES)?;
        let record = self.program.record();
        let refused = |why: String| format!("refused {url}: {why}");
        let mut keys = self.feed.keys.clone();
        keys.extend(record.keys.iter().cloned());
        signature::verify(&keys, &text, &signature).map_err(refused)?;
        let manifest = Manifest::parse(&text).map_err(refused)?;
        let request = UpdateRequest {
            channel: self.feed.channel.clone(),
            target: sys::target(),
            current: own_version()?,
            built: BUILD_TIME.and_then(|text| text.parse().ok()).unwrap_or(EARLIEST_BUILD),
            now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
            wanted: wanted.version.clone(),
            permit_major: wanted.permit_major,
        };
        Ok(match decision::decide(&manifest, &request, &record).map_err(refused)? {
            UpdateDecision::Current(why) => Offer::Current(why),
            UpdateDecision::Update(file) => {
                let Manifest { version, serial, keys, .. } = manifest;
                Offer::Release(Box::new(Release { version, file, serial, keys }))
            }
        })
    }

    /// Checks everything about this machine that can be checked before the download. Until the
    /// result is dropped no other update begins.
    pub fn prepare(&self, release: &Release) -> Result<Prepared, String> {
        owner::check(self.program.path())?;
        let lock = self.program.lock()?;
        if self.program.is_replaced() {
            return Err("a new program is installed and waits for a restart".to_owned());
        }
        self.program.check_writable(&lock)?;
        self.program.check_space(&lock, release.file.size)?;
        Ok(Prepared(lock))
    }

    /// Downloads and installs a release. After an error the old program is in place. Returns
    /// the path of the program.
    pub fn install(&self, release: &Release, prepared: Prepared) -> Result<String, String> {
        let Prepared(lock) = prepared;
        let (staged, mut file) = self.program.stage(&lock)?;
        self.download(&release.file, &mut file)?;
        staged.finish(file, &self.program)?;
        staged.check_version(&release.version)?;
        let mut keys = release.keys.clone();
        keys.dedup();
        let record = UpdateRecord {
            from: VERSION.to_owned(),
            to: release.version.to_string(),
            serial: release.serial,
            starts: Some(0),
            bad: None,
            keys,
        };
        self.program.replace(&lock, staged, &record)?;
        Ok(self.program.path().display().to_string())
    }

    /// Downloads a file and checks its length and its digest.
    fn download(&self, file: &FeedFile, out: &mut dyn Write) -> Result<(), String> {
        let url = self.feed.file(&file.name);
        let failed = |e: &dyn std::fmt::Display| format!("cannot install {url}: {e}");
        let limit = usize::try_from(file.size).map_err(|e| failed(&e))?;
        let deadline = Deadline::At(sys::clock() + PROGRAM_TIMEOUT);
        let mut sink = DigestSink { out, digest: Context::new(&SHA256), length: 0 };
        let status = self.send(&url, limit, deadline, &mut sink).map_err(|e| failed(&e))?;
        if status != 200 {
            return Err(failed(&format_args!("the server returned {status}, not 200")));
        }
        if sink.length != file.size {
            return Err(failed(&format_args!(
                "it has {} bytes, the manifest has {}",
                sink.length, file.size
            )));
        }
        match sink.digest.finish().as_ref() == file.sha256 {
            true => Ok(()),
            false => Err(failed(&"its SHA-256 is not that of the manifest")),
        }
    }

    fn fetch(&self, url: &str, limit: usize, deadline: Deadline) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match self.send(url, limit, deadline, &mut body)? {
            200 => Ok(body),
            status => Err(io::Error::other(format!("the server returned {status}, not 200"))),
        }
    }

    fn send(
        &self,
        url: &str,
        limit: usize,
        deadline: Deadline,
        sink: &mut dyn Write,
    ) -> io::Result<u16> {
        let connect = |host: &str, port: u16, deadline: Deadline| {
            let socket = self.dialer.open(host, port, deadline)?;
            Ok(TimedStream::new(socket, deadline))
        };
        let request =
            Request { method: Method::Get, url, headers: &[], body: None, limit, deadline };
        Client::new(&connect, &self.feed.cas).send(&request, sink)
    }
}

/// Puts the program back that the last update replaced. Returns its version and the path. A
/// manifest that is `bad` is not installed again.
pub fn roll_back(is_bad: bool) -> Result<(String, String), String> {
    let program = Program::find().map_err(|e| format!("cannot find the program: {e}"))?;
    let lock = program.lock()?;
    let record = program.roll_back(&lock, is_bad)?;
    let version = if record.to.is_empty() { "an older version" } else { &record.to };
    Ok((version.to_owned(), program.path().display().to_string()))
}

/// Returns the version that the record has for the program.
pub fn recorded_version() -> String {
    Program::find().map(|program| program.record().to).unwrap_or_default()
}

/// Ends the trial of the new program, for an agent that may not write the record.
pub fn confirm() -> Result<(), String> {
    let program = Program::find().map_err(|e| format!("cannot find the program: {e}"))?;
    let record = program.record();
    if record.starts.is_none() {
        return Ok(());
    }
    program.write_record(&program.lock()?, &UpdateRecord { starts: None, ..record })
}

fn own_version() -> Result<Version, String> {
    Version::parse(VERSION).map_err(|e| format!("this program: {e}"))
}

/// Sink that computes the digest of what it writes.
struct DigestSink<'a> {
    out: &'a mut dyn Write,
    digest: Context,
    length: u64,
}

impl Write for DigestSink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        let written = bytes.get(..n).unwrap_or_default();
        self.digest.update(written);
        self.length += written.len() as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
