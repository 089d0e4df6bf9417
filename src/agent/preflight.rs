//! What an endpoint needs from elsewhere, brought before it starts: its policy, if that is
//! behind a URL, and a look whether its directory is there. All ways to start an endpoint
//! come by here, for one without its policy would let everybody in.

use std::fs;
use std::io;
use std::time::Duration;

use crate::config::{Endpoint, UpstreamScheme, policy};
use crate::net::http_client::Client;
use crate::proto::codes::Refusal;
use crate::sys;
use crate::time::Deadline;

/// How long a traffic policy may take to be fetched.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Brings what is not here, with so much patience for a policy.
pub fn preflight(endpoint: &mut Endpoint, timeout: Duration) -> Result<(), Refusal> {
    directory(endpoint).map_err(Refusal::text)?;
    if !endpoint.traffic_policy_url.is_empty() {
        let policy = fetched(&endpoint.traffic_policy_url, timeout).map_err(Refusal::text)?;
        endpoint.traffic_policy = policy;
    }
    Ok(())
}

/// The text of a traffic policy that is somewhere else.
fn fetched(url: &str, timeout: Duration) -> Result<String, String> {
    let deadline = Deadline::At(sys::clock() + timeout);
    let fetched =
        Client::by_environment().get(url, policy::MAX_POLICY, deadline).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text (UTF-8)"))
        });
    let text =
        fetched.map_err(|error| format!("the traffic policy {url} cannot be fetched: {error}"))?;
    match policy::check(&text) {
        Ok(()) => Ok(text),
        Err(why) => Err(format!("the traffic policy {url} {why}")),
    }
}

/// A directory must be there: to find out at the first visitor is too late.
fn directory(endpoint: &Endpoint) -> Result<(), String> {
    let upstream = &endpoint.upstream;
    if upstream.scheme != UpstreamScheme::File {
        return Ok(());
    }
    let dir = upstream.dir.display();
    match fs::metadata(&upstream.dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("{dir} is not a directory: name one in {upstream}")),
        Err(error) => Err(format!("the directory {dir} cannot be served: {error}")),
    }
}
