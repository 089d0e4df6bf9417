//! Work before an endpoint starts: fetching its policy from a URL, and checking that its
//! directory exists. Every start of an endpoint comes through here, because an endpoint without
//! its policy would admit every visitor.

use std::fs;
use std::io;
use std::time::Duration;

use crate::config::{Endpoint, UpstreamScheme, policy};
use crate::net::http_client::Client;
use crate::net::url::Url;
use crate::proto::codes::Refusal;
use crate::sys;
use crate::time::Deadline;

/// Time to fetch a traffic policy.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Fetches and checks what the endpoint needs. `timeout` is for the policy.
pub fn preflight(endpoint: &mut Endpoint, timeout: Duration) -> Result<(), Refusal> {
    directory(endpoint).map_err(Refusal::text)?;
    if !endpoint.traffic_policy_url.is_empty() {
        let policy = fetched(&endpoint.traffic_policy_url, timeout).map_err(Refusal::text)?;
        endpoint.traffic_policy = policy;
    }
    Ok(())
}

/// Returns the text of a traffic policy at a URL.
fn fetched(url: &str, timeout: Duration) -> Result<String, String> {
    let deadline = Deadline::At(sys::clock() + timeout);
    let fetched =
        Client::by_environment().get(url, policy::MAX_POLICY, deadline).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| io::Error::other("it is not text (UTF-8)"))
        });
    // A valid URL has no user; its path may contain an `@`.
    let url = if Url::parse(url).is_ok() { url } else { Url::without_user(url) };
    let text =
        fetched.map_err(|error| format!("the traffic policy {url} cannot be fetched: {error}"))?;
    match policy::check(&text) {
        Ok(()) => Ok(text),
        Err(why) => Err(format!("the traffic policy {url} {why}")),
    }
}

/// Checks that the directory exists: an error at the first visitor would be too late.
fn directory(endpoint: &Endpoint) -> Result<(), String> {
    let upstream = &endpoint.upstream;
    if upstream.scheme != UpstreamScheme::File {
        return Ok(());
    }
    let dir = upstream.dir.display();
    match fs::metadata(&upstream.dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(format!("{dir} is not a directory; name one in {upstream}")),
        Err(error) => Err(format!("the directory {dir} cannot be served: {error}")),
    }
}
