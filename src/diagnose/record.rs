//! Checks and their results. No I/O: making a check belongs to the modules of the layers, the
//! form of the output to `text` and `report`.

use std::time::Duration;

use crate::time::Instant;

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckResult {
    /// It passed.
    Ok,
    /// It was not made.
    Skipped,
    /// A fault that does not prevent a session.
    Warn,
    /// A fault that prevents a session.
    Error,
}

/// Part of the network that a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// This machine and its link.
    Local,
    /// The proxy of the configuration or of the environment.
    Proxy,
    /// A host that is not the edge.
    Internet,
    /// This machine's own name.
    Localhost,
    /// An edge.
    Edge,
}

impl Section {
    /// Returns its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Section::Local => "local",
            Section::Proxy => "proxy",
            Section::Internet => "internet",
            Section::Localhost => "localhost",
            Section::Edge => "ngrok",
        }
    }
}

/// Row of name resolution, also the name of these checks.
pub const NAME_RESOLUTION: &str = "Name Resolution";
/// Row of TCP.
pub const TCP: &str = "TCP";
/// Row of TLS.
pub const TLS: &str = "TLS";
/// Row of the tunnel protocol.
pub const TUNNEL_PROTOCOL: &str = "Tunnel Protocol";

/// A check that was made, or skipped.
#[derive(Clone, Debug)]
pub struct CheckRecord {
    /// Part of the network.
    pub section: Section,
    /// Region of the edge; empty in other sections.
    pub region: String,
    /// Row that it belongs to.
    pub check: &'static str,
    /// Host, interface or URL.
    pub target: String,
    /// Address with port; empty for a check of several addresses.
    pub address: String,
    /// Resolver; empty for other checks.
    pub resolver: String,
    /// Time of its start.
    pub start: Instant,
    /// Its duration.
    pub took: Duration,
    /// Its result.
    pub result: CheckResult,
    /// Code of the vendor's error; 0: none.
    pub code: u32,
    /// Fault, or a note; may be empty.
    pub err: String,
    /// What to do; may be empty.
    pub advice: String,
}

impl CheckRecord {
    /// Returns a check that begins now and passes unless [`Self::fault`] is called.
    pub fn begin(section: Section, check: &'static str, target: &str, now: Instant) -> Self {
        CheckRecord {
            section,
            region: String::new(),
            check,
            target: target.to_owned(),
            address: String::new(),
            resolver: String::new(),
            start: now,
            took: Duration::ZERO,
            result: CheckResult::Ok,
            code: 0,
            err: String::new(),
            advice: String::new(),
        }
    }

    /// Records a fault.
    pub fn fault(
        &mut self,
        result: CheckResult,
        code: u32,
        err: impl Into<String>,
        advice: impl Into<String>,
    ) {
        (self.result, self.code) = (result, code);
        (self.err, self.advice) = (err.into(), advice.into());
    }
}
