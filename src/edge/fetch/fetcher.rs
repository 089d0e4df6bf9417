//! [`Fetch`] over the HTTP client of this program. Each connection, also of a redirect, goes to
//! an address that the guard has permitted: the name is resolved once for it. A proxy of the
//! environment is not used, because it would resolve the name itself.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::guard::FetchGuard;
use super::message::{Fetch, FetchError, FetchErrorKind, FetchRequest, FetchResponse};
use super::places::FetchPlaces;
use crate::config::Cas;
use crate::net::dial;
use crate::net::http_client::{Client, Method, Request, WebResponse};
use crate::net::resolver::Resolver;
use crate::net::timed_stream::TimedStream;
use crate::net::url::Url;
use crate::sys;
use crate::sys::sync::RwLock;
use crate::time::Deadline;

/// Longest URL, also of a redirect.
const MAX_URL_BYTES: usize = 8 * 1024;

/// What the edge may fetch: `fetch` of edge.yml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchConfig {
    /// Permitted servers.
    pub guard: FetchGuard,
    /// Certificates that servers are verified with.
    pub cas: Cas,
}

impl Default for FetchConfig {
    fn default() -> Self {
        FetchConfig { guard: FetchGuard::default(), cas: Cas::Host }
    }
}

/// Sends requests of the edge.
#[derive(Debug, Default)]
pub struct EdgeFetcher {
    config: RwLock<Arc<FetchConfig>>,
    places: FetchPlaces,
}

impl EdgeFetcher {
    /// Returns a fetcher with this configuration.
    pub fn new(config: FetchConfig) -> Self {
        EdgeFetcher { config: RwLock::new(Arc::new(config)), places: FetchPlaces::default() }
    }

    /// Replaces the configuration for further requests.
    pub fn configure(&self, config: FetchConfig) {
        *self.config.write() = Arc::new(config);
    }
}

impl Fetch for EdgeFetcher {
    fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchResponse, FetchError> {
        let config = Arc::clone(&*self.config.read());
        let deadline = Deadline::At(sys::clock() + request.timeout);
        let mut url = parse(request.url)?;
        let origin = url.clone();
        let (mut method, mut body) = (request.method, request.body);
        let mut left = request.max_redirects;
        loop {
            let busy = || {
                let text = format!("too many requests to {} are under way", url.authority());
                FetchError::new(FetchErrorKind::Busy, text)
            };
            let place = self.places.enter(&url.host, deadline).ok_or_else(busy)?;
            let same = url.has_origin_of(&origin);
            let text = url.to_string();
            let hop = Request {
                method,
                url: &text,
                headers: if same { request.headers } else { &[] },
                body,
                limit: request.limit,
                deadline,
            };
            let response = send(&config, &hop, &url, request.trusted)?;
            drop(place);
            let Some(location) = redirect(&response).filter(|_| request.max_redirects > 0) else {
                return Ok(response);
            };
            if left == 0 {
                return Err(failed(&url, "redirects too often"));
            }
            left -= 1;
            let next = url.join(location).map_err(|e| failed(&url, &e))?;
            if url.secure && !next.secure {
                return Err(failed(&url, "redirects from https to http"));
            }
            // RFC 9110 15.4: 303 always becomes a GET, and 301 and 302 of a POST do in practice.
            if response.status == 303
                || matches!(response.status, 301 | 302) && method == Method::Post
            {
                (method, body) = (Method::Get, None);
            }
            if body.is_some() && !next.has_origin_of(&origin) {
                return Err(failed(&url, "redirects a request with a body to another server"));
            }
            url = parse(&next.to_string())?;
        }
    }
}

fn parse(text: &str) -> Result<Url, FetchError> {
    let refused = |e: String| FetchError::new(FetchErrorKind::Refused, e);
    if text.len() > MAX_URL_BYTES {
        return Err(refused(format!("a URL has more than {MAX_URL_BYTES} bytes")));
    }
    Url::parse(text).map_err(refused)
}

fn failed(url: &Url, what: &str) -> FetchError {
    FetchError::new(FetchErrorKind::Failed, format!("{} {what}", url.authority()))
}

/// Returns where a response redirects to.
fn redirect(response: &FetchResponse) -> Option<&str> {
    let location = response.headers.iter().find(|(name, _)| name == "location");
    let (_, location) = location.filter(|_| matches!(response.status, 301..=303 | 307 | 308))?;
    Some(location)
}

/// Sends one request.
fn send(
    config: &FetchConfig,
    request: &Request<'_>,
    url: &Url,
    trusted: bool,
) -> Result<FetchResponse, FetchError> {
    let refusal = RefCell::new(None);
    let address = Cell::new(None);
    let connect = |host: &str, port: u16, deadline: Deadline| -> io::Result<TimedStream> {
        let addresses = resolve(host, deadline)?;
        if let Err(refused) = config.guard.check(url, &addresses, trusted) {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, refused.to_string());
            *refusal.borrow_mut() = Some(refused);
            return Err(error);
        }
        // The checked addresses themselves: the name is not resolved again.
        let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        let tcp = dial::race(&addresses, "", deadline)?;
        address.set(tcp.peer_addr().ok().map(|peer| peer.ip()));
        Ok(TimedStream::new(tcp, deadline))
    };
    let response = Client::new(&connect, &config.cas).request_once(request);
    let response = response.map_err(|error| {
        if let Some(refused) = refusal.borrow_mut().take() {
            return refused;
        }
        let kind = match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => FetchErrorKind::Timeout,
            _ => FetchErrorKind::Failed,
        };
        FetchError::new(kind, format!("{}: {error}", url.authority()))
    })?;
    let WebResponse { status, headers, body } = response;
    Ok(FetchResponse { status, headers, body, address: address.get() })
}

fn resolve(host: &str, deadline: Deadline) -> io::Result<Vec<IpAddr>> {
    let resolver = Resolver::new(Vec::new(), Vec::new(), "");
    resolver
        .resolve(host, false, &[], deadline)
        .map_err(|text| io::Error::new(io::ErrorKind::NotFound, text))
}

#[cfg(test)]
mod tests;
