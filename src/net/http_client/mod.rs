//! HTTP client for requests of this program to web servers, such as for a certificate
//! revocation list or a policy. ureq reads and writes HTTP. Connections, TLS, redirects, limits
//! and the common deadline are implemented here.
//!
//! A connection carries one request, so a response cannot affect the next one.

mod request;
mod transport;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use ureq::config::AutoHeaderValue;
use ureq::http::{self, header};
use ureq::{Agent, Body};

use super::proxy_env::ProxySettings;
use super::resolver::Resolver;
use super::timed_stream::TimedStream;
use super::url::Url;
use super::{dial, proxy_tunnel};
use crate::config::Cas;
use crate::proto::secret::Secret;
use crate::time::Deadline;
use crate::tls::client;
pub use request::{Method, Request, SingleResponse, WebResponse};
use transport::{HttpTransport, MAX_HEAD, NoResolver, OpenConnection, Received};

/// Maximum number of redirects.
const MAX_REDIRECTS: usize = 3;

/// Value of `User-Agent`.
const USER_AGENT: &str = concat!("culvert/", env!("CARGO_PKG_VERSION"));

/// Opens a connection to a host and port by a deadline.
pub type Connector<'a> = &'a dyn Fn(&str, u16, Deadline) -> io::Result<TimedStream>;

/// Sends requests.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    connect: Connector<'a>,
    cas: &'a Cas,
}

impl Client<'static> {
    /// Returns a client that uses the proxy of the environment, if there is one, and verifies
    /// certificates with the system's roots.
    pub fn by_environment() -> Self {
        Client { connect: &connect_by_environment, cas: &Cas::Host }
    }
}

impl<'a> Client<'a> {
    /// Returns a client over connections that `connect` opens. Certificates are verified with
    /// `cas`.
    pub fn new(connect: Connector<'a>, cas: &'a Cas) -> Self {
        Client { connect, cas }
    }

    /// Returns the body at a `http://` or `https://` URL, at most `limit` bytes, by `deadline`.
    /// Any status but 200 is an error. Errors name the host.
    pub fn get(&self, url: &str, limit: usize, deadline: Deadline) -> io::Result<Vec<u8>> {
        let request =
            Request { method: Method::Get, url, headers: &[], body: None, limit, deadline };
        let mut body = Vec::new();
        match self.follow(&request, &mut body)? {
            (200, _) => Ok(body),
            (status, host) => Err(invalid(format!("{host} returned {status}, not 200"))),
        }
    }

    /// Returns the response of a `http://` or `https://` URL itself, with a body of at most
    /// `limit` bytes, by `deadline`.
    pub fn get_once(
        &self,
        url: &str,
        limit: usize,
        deadline: Deadline,
    ) -> io::Result<SingleResponse> {
        let request =
            Request { method: Method::Get, url, headers: &[], body: None, limit, deadline };
        let (mut response, received) =
            self.respond(&request, &Url::parse(url).map_err(invalid)?, &[])?;
        let text = |name: header::HeaderName| {
            let value = response.headers().get(name);
            value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
        };
        let mut single = SingleResponse {
            status: response.status().as_u16(),
            location: text(header::LOCATION),
            via: text(header::VIA),
            date: text(header::DATE),
            body: Vec::new(),
        };
        if single.status == 200 {
            received.begin_body(is_chunked(&response)?);
            copy_body(response.body_mut(), &received, limit, &mut single.body)?;
        }
        Ok(single)
    }

    /// Returns the response to a request itself, with any status, its header and its body.
    pub fn request_once(&self, request: &Request<'_>) -> io::Result<WebResponse> {
        let url = Url::parse(request.url).map_err(invalid)?;
        let (mut response, received) = self.respond(request, &url, request.headers)?;
        let text =
            |value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| (name.as_str().to_owned(), text(value)));
        let mut whole = WebResponse {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: Vec::new(),
        };
        received.begin_body(is_chunked(&response)?);
        copy_body(response.body_mut(), &received, request.limit, &mut whole.body)?;
        Ok(whole)
    }

    /// Sends a request and writes the body of the response to `sink` as it arrives. Returns
    /// the status.
    pub fn send(&self, request: &Request<'_>, sink: &mut dyn Write) -> io::Result<u16> {
        self.follow(request, sink).map(|(status, _)| status)
    }

    /// Follows redirects, never from `https` to `http`. Returns the status and the
    /// authority that answered.
    fn follow(&self, request: &Request<'_>, sink: &mut dyn Write) -> io::Result<(u16, String)> {
        let first = Url::parse(request.url).map_err(invalid)?;
        let mut url = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let headers = if url.has_origin_of(&first) { request.headers } else { &[] };
            let next = self
                .exchange(request, &url, headers, sink)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", url.authority())))?;
            let location = match next {
                Next::Done(status) => return Ok((status, url.authority())),
                Next::Redirect(location) => location,
            };
            let next = url.join(&location).map_err(invalid)?;
            if url.secure && !next.secure {
                return Err(invalid(format!(
                    "{} redirects from https to http: not followed",
                    url.authority()
                )));
            }
            url = next;
        }
        Err(invalid(format!("{} redirects too often", url.authority())))
    }

    /// Sends the request to one URL, and its body to `sink` unless it is a redirect.
    fn exchange(
        &self,
        request: &Request<'_>,
        url: &Url,
        headers: &[(&str, &str)],
        sink: &mut dyn Write,
    ) -> io::Result<Next> {
        let (mut response, received) = self.respond(request, url, headers)?;
        let status = response.status().as_u16();
        if let Some(location) = response.headers().get(header::LOCATION)
            && matches!(status, 301 | 302 | 303 | 307 | 308)
            && request.method == Method::Get
        {
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            return Ok(Next::Redirect(location));
        }
        received.begin_body(is_chunked(&response)?);
        // Widening.
        let limit = request.limit as u64;
        if response.body().content_length().is_some_and(|length| length > limit) {
            return Err(too_large(request.limit));
        }
        copy_body(response.body_mut(), &received, request.limit, sink)?;
        Ok(Next::Done(status))
    }

    /// Sends the request to one URL over a connection of its own. Returns the response before
    /// its body.
    fn respond(
        &self,
        request: &Request<'_>,
        url: &Url,
        headers: &[(&str, &str)],
    ) -> io::Result<(http::Response<Body>, Arc<Received>)> {
        let head = request_head(request.method, url, headers)?;
        let mut stream = (self.connect)(&url.host, url.port, request.deadline)?;
        if url.secure {
            stream = stream.secure(&url.host, client::web_config(self.cas)?)?;
        }
        let received = Arc::new(Received::default());
        let transport = HttpTransport::new(stream, url.secure, Arc::clone(&received));
        let agent = Agent::with_parts(config(), OpenConnection::new(transport), NoResolver);
        let answer = match request.body {
            None => agent.run(head),
            Some(body) => agent.run(head.map(|()| body)),
        };
        let response = answer.map_err(|error| describe(error, &received))?;
        Ok((response, received))
    }
}

/// Opens a connection through the proxy of the environment, if there is one.
fn connect_by_environment(host: &str, port: u16, deadline: Deadline) -> io::Result<TimedStream> {
    connect(&Secret::default(), host, port, deadline)
}

/// Opens a connection through this proxy. If it is empty, the environment decides.
pub fn connect(
    proxy_url: &Secret,
    host: &str,
    port: u16,
    deadline: Deadline,
) -> io::Result<TimedStream> {
    let environment = |name: &str| std::env::var(name).ok();
    let proxies = ProxySettings::new(proxy_url, &environment).map_err(invalid)?;
    let tcp = match proxies.proxy_for(host, port) {
        None => connect_directly(host, port, deadline)?,
        Some(proxy) => proxy_tunnel::open(proxy, &connect_directly, host, port, deadline)?,
    };
    Ok(TimedStream::new(tcp, deadline))
}

fn connect_directly(host: &str, port: u16, deadline: Deadline) -> io::Result<TcpStream> {
    let resolver = Resolver::new(Vec::new(), Vec::new(), "");
    let found = resolver.resolve(host, false, &[], deadline).map_err(invalid)?;
    let addresses: Vec<_> = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    dial::race(&addresses, "", deadline)
}

/// Next step after a response.
enum Next {
    /// None: the sink has the body. With the status.
    Done(u16),
    /// A request to the value of `Location`. The body was not read.
    Redirect(String),
}

/// Returns a configuration of ureq without the parts that this program implements: redirects,
/// proxies, reuse of connections.
fn config() -> ureq::config::Config {
    Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(0)
        .max_response_header_size(MAX_HEAD)
        .user_agent(USER_AGENT)
        .accept_encoding(AutoHeaderValue::None)
        .build()
}

fn request_head(
    method: Method,
    url: &Url,
    headers: &[(&str, &str)],
) -> io::Result<http::Request<()>> {
    let method = match method {
        Method::Get => http::Method::GET,
        Method::Post => http::Method::POST,
        Method::Put => http::Method::PUT,
        Method::Patch => http::Method::PATCH,
        Method::Delete => http::Method::DELETE,
        Method::Options => http::Method::OPTIONS,
    };
    let mut head = http::Request::builder()
        .method(method)
        .uri(url.to_string())
        .header(header::CONNECTION, "close");
    for (name, value) in headers {
        head = head.header(*name, *value);
    }
    // The error does not repeat a value, which may be a secret.
    head.body(()).map_err(|error| invalid(format!("the request is invalid: {error}")))
}

/// Returns whether a body is chunked. Other codings are an error, because their bytes are not
/// the requested ones.
fn is_chunked(response: &http::Response<Body>) -> io::Result<bool> {
    let mut codings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None)
            if coding.as_bytes().eq_ignore_ascii_case(b"chunked")
                && response.version() == http::Version::HTTP_11 =>
        {
            Ok(true)
        }
        _ => Err(invalid("invalid HTTP: a transfer coding other than chunked")),
    }
}

fn copy_body(
    body: &mut Body,
    received: &Received,
    limit: usize,
    sink: &mut dyn Write,
) -> io::Result<()> {
    let mut reader = body.as_reader();
    let mut left = limit;
    let mut piece = [0; 2_048];
    loop {
        let read = reader.read(&mut piece);
        if let Some(fault) = received.fault() {
            return Err(invalid(format!("invalid HTTP: {fault}")));
        }
        let n = read.map_err(|error| describe(error.into(), received))?;
        if n == 0 && received.lacks_last_chunk() {
            return Err(cut_off());
        }
        if n == 0 {
            return Ok(());
        }
        left = left.checked_sub(n).ok_or_else(|| too_large(limit))?;
        // Reason for the index: a reader returns at most the length it was given.
        sink.write_all(&piece[..n])?;
    }
}

/// Returns ureq's error as an error about the response.
fn describe(error: ureq::Error, received: &Received) -> io::Error {
    match error {
        // ureq's own error: those of the connection have other kinds.
        ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            match (received.is_empty(), received.other_protocol()) {
                (true, _) => io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"),
                (_, Some(start)) => not_http(&start),
                _ => cut_off(),
            }
        }
        ureq::Error::Io(e) => e,
        error => match received.other_protocol() {
            Some(start) => not_http(&start),
            None => {
                let text = error.to_string();
                let text = text.strip_prefix("protocol: ").unwrap_or(&text);
                let text = text.strip_prefix("http parse fail: ").unwrap_or(text);
                invalid(format!("invalid HTTP: {text}"))
            }
        },
    }
}

fn not_http(start: &str) -> io::Error {
    invalid(format!("not HTTP: '{start}'"))
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the response was cut off")
}

fn too_large(limit: usize) -> io::Error {
    invalid(format!("the response is larger than {limit} bytes"))
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

#[cfg(test)]
mod tests;
