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
use super::redirect;
use crate::config::Cas;
use crate::net::dial;
use crate::net::http_client::{Client, Request, WebResponse};
use crate::net::resolver::Resolver;
use crate::net::timed_stream::TimedStream;
use crate::net::url::Url;
use crate::sys;
use crate::sys::sync::RwLock;
use crate::time::Deadline;

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
        redirect::follow(request, deadline, &mut |url, hop| {
            let busy = || {
                let text = format!("too many requests to {} are under way", url.authority());
                FetchError::new(FetchErrorKind::Busy, text)
            };
            let _place = self.places.enter(&url.host, deadline).ok_or_else(busy)?;
            send(&config, hop, url, request.trusted)
        })
    }
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
