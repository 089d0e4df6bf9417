//! A request of the edge, its response and its errors: values only.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::net::http_client::Method;

/// Sends requests of the edge. Blocks the calling thread until the response is complete.
pub trait Fetch: fmt::Debug + Send + Sync {
    /// Sends a request and follows its redirects.
    fn fetch(&self, request: &FetchRequest<'_>) -> Result<FetchResponse, FetchError>;
}

/// A request.
#[derive(Clone, Copy)]
pub struct FetchRequest<'a> {
    /// Method.
    pub method: Method,
    /// `https://` or `http://` URL.
    pub url: &'a str,
    /// Names and values. Not sent to another origin after a redirect, nor after one from there.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body; `None` for none.
    pub body: Option<&'a [u8]>,
    /// Most bytes of the response's body.
    pub limit: usize,
    /// Redirects that are followed. Another one is an error, unless this is 0: then the
    /// response is the redirect.
    pub max_redirects: usize,
    /// Time for everything: a free place, names, connections, redirects.
    pub timeout: Duration,
    /// Whether the response decides about access. It then comes over TLS, or from an address
    /// that the configuration allows.
    pub trusted: bool,
}

impl<'a> FetchRequest<'a> {
    /// Returns a GET request for a document that decides about access.
    pub fn document(url: &'a str, limit: usize, timeout: Duration) -> Self {
        FetchRequest {
            method: Method::Get,
            url,
            headers: &[("Accept", "application/json")],
            body: None,
            limit,
            max_redirects: 3,
            timeout,
            trusted: true,
        }
    }
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case, and values, in their order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Address of the server.
    pub address: Option<IpAddr>,
}

/// Kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchErrorKind {
    /// The URL, or an address of its host, is not permitted.
    Refused,
    /// Too many requests are under way.
    Busy,
    /// The time is over.
    Timeout,
    /// The server was not reached, or its response is not valid.
    Failed,
}

/// A request without a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchError {
    /// Kind.
    pub kind: FetchErrorKind,
    /// Number of the error code; 0 for none.
    pub code: u32,
    text: String,
}

impl FetchError {
    /// Returns an error. `text` has no secret.
    pub fn new(kind: FetchErrorKind, text: impl Into<String>) -> Self {
        FetchError { kind, code: 0, text: text.into() }
    }

    /// Returns the error with the number of an error code.
    pub fn with_code(self, code: u32) -> Self {
        FetchError { code, ..self }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
