//! Stub of the HTTP client in a build without the feature `fetch`.

mod request;

use std::io::{self, Write};

use crate::config::Cas;
use crate::features;
use crate::net::timed_stream::TimedStream;
use crate::proto::secret::Secret;
use crate::time::Deadline;
pub use request::{Method, Request, SingleResponse, WebResponse};

/// Opens a connection to a host and port by a deadline.
pub type Connector<'a> = &'a dyn Fn(&str, u16, Deadline) -> io::Result<TimedStream>;

/// Client that sends no request.
pub struct Client;

impl Client {
    /// Returns the stub, like the constructor of the real client.
    pub fn by_environment() -> Self {
        Client
    }

    /// Returns the stub, like the constructor of the real client.
    pub fn new(_connect: Connector<'_>, _cas: &Cas) -> Self {
        Client
    }

    /// Returns an error that names the missing feature.
    pub fn get(&self, _url: &str, _limit: usize, _deadline: Deadline) -> io::Result<Vec<u8>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, features::NO_FETCH))
    }

    /// Returns an error that names the missing feature.
    pub fn send(&self, _request: &Request<'_>, _sink: &mut dyn Write) -> io::Result<u16> {
        Err(io::Error::new(io::ErrorKind::Unsupported, features::NO_FETCH))
    }

    /// Returns an error that names the missing feature.
    pub fn request_once(&self, _request: &Request<'_>) -> io::Result<WebResponse> {
        Err(io::Error::new(io::ErrorKind::Unsupported, features::NO_FETCH))
    }

    /// Returns an error that names the missing feature.
    pub fn get_once(
        &self,
        _url: &str,
        _limit: usize,
        _deadline: Deadline,
    ) -> io::Result<SingleResponse> {
        Err(io::Error::new(io::ErrorKind::Unsupported, features::NO_FETCH))
    }
}

/// Returns an error that names the missing feature.
pub fn connect(
    _proxy_url: &Secret,
    _host: &str,
    _port: u16,
    _deadline: Deadline,
) -> io::Result<TimedStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, features::NO_FETCH))
}
