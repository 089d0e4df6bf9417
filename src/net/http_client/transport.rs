//! One connection of this program as ureq's transport. The connection's own deadline is used
//! instead of ureq's timeouts. Errors that ureq accepts and this program does not are detected
//! here.

use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use crate::http1::chunked::ChunkedDecoder;
use crate::http1::error::HttpError;
use crate::http1::line::Strictness;
use crate::http1::text::printable;
use crate::net::timed_stream::TimedStream;
use crate::sys::sync::Mutex;

/// Most bytes of the head of a response.
pub const MAX_HEAD: usize = 16 * 1024;

/// Most bytes before a response's body: its head and those of interim responses. Bytes of the
/// body in the same read are counted too.
const MAX_BEFORE_BODY: usize = 4 * MAX_HEAD;

/// Size of the output buffer: holds the longest line of a request.
const OUTPUT_BYTES: usize = 8 * 1024;

/// Bytes of a response that an error message may contain.
const SHOWN_BYTES: usize = 64;

/// Record of what a connection received, shared with the transport that ureq owns.
#[derive(Default)]
pub struct Received {
    state: Mutex<ReceivedState>,
}

#[derive(Default)]
struct ReceivedState {
    start: Vec<u8>,
    total: usize,
    body: BodyState,
}

#[derive(Default)]
enum BodyState {
    /// The head is not complete.
    #[default]
    Before,
    /// Any bytes are valid.
    Plain,
    Chunked(ChunkedDecoder),
    Invalid(HttpError),
}

impl Received {
    /// Records that the head is complete: the bytes that ureq consumes next belong to the body.
    pub fn begin_body(&self, is_chunked: bool) {
        self.state.lock().body = match is_chunked {
            true => BodyState::Chunked(ChunkedDecoder::new(Strictness::Lenient)),
            false => BodyState::Plain,
        };
    }

    /// Returns the error in the chunks so far. ureq accepts signs in their sizes and endless
    /// trailers.
    pub fn fault(&self) -> Option<HttpError> {
        match self.state.lock().body {
            BodyState::Invalid(error) => Some(error),
            _ => None,
        }
    }

    /// Returns whether the last chunk and its blank line are missing. ureq does not need them.
    pub fn lacks_last_chunk(&self) -> bool {
        matches!(&self.state.lock().body, BodyState::Chunked(decoder) if !decoder.is_done())
    }

    /// Returns the first bytes, made printable, if they are not the start of a response.
    pub fn other_protocol(&self) -> Option<String> {
        let state = self.state.lock();
        let start = b"HTTP/1.";
        let is_http = state.start.iter().zip(start).all(|(a, b)| a == b);
        (!is_http).then(|| printable(&state.start))
    }

    /// Returns whether no byte was received.
    pub fn is_empty(&self) -> bool {
        self.state.lock().total == 0
    }

    /// Returns the error for a head, or a line of a chunk, that fills the buffer.
    fn too_long(&self) -> io::Error {
        let text = match self.state.lock().body {
            BodyState::Before => {
                format!("the head of the response is larger than {MAX_HEAD} bytes")
            }
            _ => "invalid HTTP: a chunk's line is too long".to_owned(),
        };
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    fn append(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut state = self.state.lock();
        let shown = SHOWN_BYTES.saturating_sub(state.start.len()).min(bytes.len());
        // Reason for the index: at most the length.
        state.start.extend_from_slice(&bytes[..shown]);
        state.total = state.total.saturating_add(bytes.len());
        if matches!(state.body, BodyState::Before) && state.total > MAX_BEFORE_BODY {
            let text = "too many interim responses before the response";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text).into());
        }
        Ok(())
    }

    fn consume(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        if let BodyState::Chunked(decoder) = &mut state.body
            && let Err(error) = decoder.follow(bytes)
        {
            state.body = BodyState::Invalid(error);
        }
    }
}

/// Transport of ureq over one connection.
pub struct HttpTransport {
    stream: TimedStream,
    buffers: ObservedBuffers,
    is_tls: bool,
}

impl HttpTransport {
    /// Returns a transport over a connection with or without TLS on which nothing was sent.
    pub fn new(stream: TimedStream, is_tls: bool, received: Arc<Received>) -> Self {
        let inner = LazyBuffers::new(MAX_HEAD, OUTPUT_BYTES);
        HttpTransport { stream, buffers: ObservedBuffers { inner, received }, is_tls }
    }
}

impl Transport for HttpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        // Reason for the index: ureq wrote these bytes into the buffer.
        let output = &self.buffers.inner.output()[..amount];
        self.stream.write_all(output).and_then(|()| self.stream.flush()).map_err(lasting)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        // ureq reads trailers without checking them.
        if let Some(fault) = self.buffers.received.fault() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault.to_string()).into());
        }
        let free = self.buffers.inner.input_append_buf();
        if free.is_empty() {
            return Err(self.buffers.received.too_long().into());
        }
        let n = self.stream.read(free).map_err(lasting)?;
        // Reason for the index: a reader returns at most the length it was given.
        self.buffers.received.append(&free[..n])?;
        self.buffers.inner.input_appended(n);
        Ok(n > 0)
    }

    fn is_open(&mut self) -> bool {
        // Not used for a second request.
        false
    }

    fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport").field("is_tls", &self.is_tls).finish_non_exhaustive()
    }
}

/// Changes kinds of errors that ureq treats as the end of a body. A truncated body would look
/// complete.
fn lasting(error: io::Error) -> Error {
    Error::Io(match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted => io::Error::other(error),
        _ => error,
    })
}

/// Buffers of ureq, which record the consumed bytes.
struct ObservedBuffers {
    inner: LazyBuffers,
    received: Arc<Received>,
}

impl Buffers for ObservedBuffers {
    fn output(&mut self) -> &mut [u8] {
        self.inner.output()
    }

    fn input(&self) -> &[u8] {
        self.inner.input()
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.inner.input_append_buf()
    }

    fn input_appended(&mut self, amount: usize) {
        self.inner.input_appended(amount);
    }

    fn input_consume(&mut self, amount: usize) {
        // Reason for the index: ureq consumes bytes that it was given.
        self.received.consume(&self.inner.input()[..amount]);
        self.inner.input_consume(amount);
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.inner.tmp_and_output()
    }

    fn can_use_input(&self) -> bool {
        self.inner.can_use_input()
    }
}

/// Connector of ureq that returns an open connection once.
pub struct OpenConnection(Mutex<Option<HttpTransport>>);

impl OpenConnection {
    /// Returns the connector for one request.
    pub fn new(transport: HttpTransport) -> Self {
        OpenConnection(Mutex::new(Some(transport)))
    }
}

impl Connector for OpenConnection {
    type Out = HttpTransport;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<HttpTransport>, Error> {
        Ok(self.0.lock().take())
    }
}

impl fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenConnection")
    }
}

/// Resolver of ureq that resolves no name, because the connection is open.
#[derive(Debug)]
pub struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
