//! The certificate revocation list: fetched once for all edges, over HTTP. Its answer also
//! shows login pages, proxies in between and the time of day. The list is not stored: the files
//! of a running agent are not touched.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;

use super::advice;
use super::record::{CheckResult, Section};
use super::state::Diagnosis;
use crate::config::Cas;
use crate::net::http_client::{Client, SingleResponse};
use crate::net::timed_stream::TimedStream;
use crate::net::url::Url;
use crate::time::Deadline;
use crate::tls::crl::{self, FETCH_TIMEOUT, MAX_CRL_BYTES, RevocationStatus};

/// Difference between the clocks of both machines from which on it is reported.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(600);

/// Result for one chain of certificates.
pub enum ListStatus {
    /// Not on the list, or no list is used.
    Fine,
    /// The list cannot be used.
    Doubtful {
        /// The fault.
        why: String,
        /// What to do.
        advice: String,
    },
    /// On the list.
    Revoked(String),
}

/// Fetches the list, if one is used.
pub fn fetch(diagnosis: &mut Diagnosis<'_>) {
    let url = diagnosis.dialer.crl_url().to_owned();
    if url.is_empty() {
        return;
    }
    let mut check = diagnosis.begin(Section::Edge, "Revocation List", &url);
    let deadline = diagnosis.deadline(FETCH_TIMEOUT, 0);
    let dialer = &diagnosis.dialer;
    let connect = |host: &str, port: u16, deadline: Deadline| {
        Ok(TimedStream::new(dialer.open(host, port, deadline)?, deadline))
    };
    let client = Client::new(&connect, &Cas::Host);
    let got = client.get_once(&url, MAX_CRL_BYTES, deadline).map_err(|e| e.to_string());
    match &got {
        Ok(response) => check.err = format!("status {}", response.status),
        Err(why) => check.err.clone_from(why),
    }
    // Its consequence depends on the certificate: see `status`.
    if got.is_err() {
        check.result = CheckResult::Skipped;
    }
    diagnosis.done(check);
    diagnosis.crl = Some(got);
}

/// Returns the difference between this machine's clock and that of the list's server, with its
/// time, if it is large.
pub fn clock_difference(diagnosis: &Diagnosis<'_>) -> Option<(Duration, SystemTime)> {
    let Some(Ok(response)) = &diagnosis.crl else { return None };
    let theirs = httpdate::parse_http_date(&response.date).ok()?;
    let now = SystemTime::now();
    let difference = now.duration_since(theirs).unwrap_or_else(|e| e.duration());
    (difference > MAX_CLOCK_DIFFERENCE).then_some((difference, theirs))
}

/// Returns the status of an edge's certificates.
pub fn status(diagnosis: &Diagnosis<'_>, chain: &[CertificateDer<'_>]) -> ListStatus {
    let url = diagnosis.dialer.crl_url();
    let doubt = |why: String, advice: String| ListStatus::Doubtful {
        why: format!("the list of revoked certificates {why} ({url})"),
        advice,
    };
    let response = match &diagnosis.crl {
        None => return ListStatus::Fine,
        Some(Err(why)) => {
            return doubt(format!("cannot be fetched: {why}"), advice::CRL.to_owned());
        }
        Some(Ok(response)) => response,
    };
    if let Some((why, advice)) = intercepted(url, response) {
        return doubt(why, advice);
    }
    if response.status != 200 {
        let why = format!("cannot be fetched: status {}", response.status);
        return doubt(why, advice::CRL.to_owned());
    }
    let Ok(roots) = diagnosis.dialer.roots() else { return ListStatus::Fine };
    match crl::status(response.body.clone(), &roots, chain) {
        RevocationStatus::Good => ListStatus::Fine,
        RevocationStatus::Revoked => {
            ListStatus::Revoked(format!("the certificate was revoked by its CA (list: {url})"))
        }
        RevocationStatus::Unknown(why) if response.via.is_empty() => {
            doubt(why, advice::CRL.to_owned())
        }
        RevocationStatus::Unknown(why) => {
            let advice = format!("the proxy '{}' intercepts HTTP: exempt crl_url", response.via);
            doubt(why, advice)
        }
    }
}

/// Returns fault and advice, if another server than that of the list has answered.
fn intercepted(url: &str, response: &SingleResponse) -> Option<(String, String)> {
    let list = Url::parse(url).ok()?;
    let location = list.join(&response.location).ok().filter(|_| !response.location.is_empty());
    if let Some(location) = location
        && location.host != list.host
    {
        let why = format!("is redirected to {}", location.host);
        return Some((why, advice::portal(&location.to_string())));
    }
    let is_page = response.body.trim_ascii_start().starts_with(b"<");
    let why = "is a web page";
    (response.status == 511 || is_page).then(|| (why.to_owned(), advice::portal("")))
}
