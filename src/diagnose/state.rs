//! State of a diagnosis: what was configured, the time that is left, and the checks so far.
//! The checks themselves are in the modules of the layers.

use std::net::SocketAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use super::record::{CheckRecord, CheckResult, Section};
use super::text;
use crate::config::Agent;
use crate::net::Dialer;
use crate::net::http_client::SingleResponse;
use crate::sys;
use crate::sys::NetworkInterface;
use crate::time::{Deadline, Instant};

/// Maximum time of one probe.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum share of a probe while time is left.
const MIN_PROBE_TIME: Duration = Duration::from_secs(1);

/// Writes a part of the output. The error ends the diagnosis.
pub type Print<'a> = &'a mut dyn FnMut(&str) -> Result<(), String>;

/// State of a diagnosis.
pub struct Diagnosis<'a> {
    /// The configuration.
    pub config: &'a Agent,
    /// Means of the agent to reach its edge.
    pub dialer: Dialer,
    /// Whether IPv6 is tested too.
    pub ipv6: bool,
    /// Interfaces of this machine.
    pub interfaces: Vec<NetworkInterface>,
    /// The checks so far.
    pub checks: Vec<CheckRecord>,
    /// Received certificates, each with host and address.
    pub certificates: Vec<(String, String, CertificateDer<'static>)>,
    /// Resolvers that did not answer.
    pub silent: Vec<SocketAddr>,
    /// Response of the URL of the revocation list; `None`: no list is used.
    pub crl: Option<Result<SingleResponse, String>>,
    /// Region and latency of the fastest edge.
    pub fastest: Option<(String, Duration)>,
    /// Sentence of the first error.
    pub failure: String,
    /// Start of the diagnosis.
    pub start: Instant,
    /// End of the last probe.
    pub end: Instant,
    print: Print<'a>,
}

impl<'a> Diagnosis<'a> {
    /// Returns the state of a diagnosis that begins now and takes `total` at most.
    pub fn new(
        config: &'a Agent,
        dialer: Dialer,
        ipv6: bool,
        total: Duration,
        print: Print<'a>,
    ) -> Self {
        let start = sys::clock();
        Diagnosis {
            config,
            dialer,
            ipv6,
            interfaces: sys::interfaces().unwrap_or_default(),
            checks: Vec::new(),
            certificates: Vec::new(),
            silent: Vec::new(),
            crl: None,
            fastest: None,
            failure: String::new(),
            start,
            end: start + total,
            print,
        }
    }

    /// Returns the deadline of a probe that takes `limit` at most and is followed by `further`
    /// ones of its kind.
    pub fn deadline(&self, limit: Duration, further: usize) -> Deadline {
        let now = sys::clock();
        let parts = u32::try_from(further + 1).unwrap_or(u32::MAX);
        let share = (self.end.since(now) / parts).max(MIN_PROBE_TIME);
        Deadline::At(self.end.min(now + limit.min(share)))
    }

    /// Returns whether no time is left.
    pub fn is_over(&self) -> bool {
        sys::clock() >= self.end
    }

    /// Returns a check that begins now. It is boxed because it is moved between functions.
    pub fn begin(&self, section: Section, check: &'static str, target: &str) -> Box<CheckRecord> {
        Box::new(CheckRecord::begin(section, check, target, sys::clock()))
    }

    /// Records the end of a check.
    #[expect(clippy::boxed_local, reason = "callers have it in a box")]
    pub fn done(&mut self, mut check: Box<CheckRecord>) -> CheckResult {
        check.took = sys::clock().since(check.start);
        let result = check.result;
        if result == CheckResult::Error && self.failure.is_empty() {
            self.failure.clone_from(&check.err);
        }
        self.checks.push(*check);
        result
    }

    /// Prints the title of a section.
    pub fn section(&mut self, title: &str) -> Result<(), String> {
        (self.print)(&format!("{title}\n"))
    }

    /// Prints a row. Returns whether the next row of its section follows.
    pub fn row(&mut self, label: &str, result: CheckResult) -> Result<bool, String> {
        (self.print)(&text::row(label, result))?;
        Ok(result != CheckResult::Error)
    }
}
