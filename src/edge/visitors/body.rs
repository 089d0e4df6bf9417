//! Body of a visitor's request: its end, and the read of a whole body for actions that need it.
//! Nothing is forwarded here.

use std::io;
use std::sync::Arc;

use super::conn::VisitorConn;
use super::exchange_state::RequestDirection;
use super::pages::ErrorPage;
use crate::edge::Edge;
use crate::edge::actions::Reply;
use crate::edge::policy::phases::{BodySource, body_too_long};
use crate::http1::chunked::ChunkedDecoder;
use crate::http1::error::HttpError;
use crate::http1::framing::BodyFraming;
use crate::http1::line::Strictness;
use crate::session::HeldBytes;

/// Bytes read at once for bodies.
pub const BODY_READ_BYTES: usize = 64 * 1024;

/// Initial content of a read buffer.
static ZEROS: [u8; 8 * 1024] = [0; 8 * 1024];

/// Finds the end of a request's body.
pub enum BodyTracker {
    /// Bytes that follow.
    Length(u64),
    /// Chunks.
    Chunked(ChunkedDecoder),
}

impl BodyTracker {
    /// Returns a tracker at the start of a body.
    pub fn new(body: BodyFraming) -> Self {
        match body {
            BodyFraming::Length(n) => BodyTracker::Length(n),
            BodyFraming::Chunked => BodyTracker::Chunked(ChunkedDecoder::new(Strictness::Strict)),
            // A request never ends with its connection (RFC 9112 6.3).
            BodyFraming::None | BodyFraming::UntilClose | BodyFraming::Tunnel => {
                BodyTracker::Length(0)
            }
        }
    }

    /// Returns how many of `bytes` belong to the body.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, HttpError> {
        match self {
            BodyTracker::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                // Widening; n is at most `left`.
                *left -= n as u64;
                Ok(n)
            }
            BodyTracker::Chunked(chunked) => chunked.follow(bytes),
        }
    }

    /// Does the same, and passes the data without its framing to `data`.
    pub fn read(&mut self, bytes: &[u8], data: &mut dyn FnMut(&[u8])) -> Result<usize, HttpError> {
        match self {
            BodyTracker::Chunked(chunked) => chunked.feed(bytes, data),
            BodyTracker::Length(_) => {
                let n = self.take(bytes)?;
                data(&bytes[..n]);
                Ok(n)
            }
        }
    }

    /// Returns the number of bytes that are known to follow.
    pub fn rest(&self) -> u64 {
        match self {
            BodyTracker::Length(left) => *left,
            BodyTracker::Chunked(chunked) => chunked.missing(),
        }
    }

    /// Returns the direction of the request after the bytes so far.
    pub fn direction(&self) -> RequestDirection {
        match self {
            _ if self.is_done() => RequestDirection::Done,
            BodyTracker::Length(rest) => RequestDirection::Sending { rest: *rest },
            BodyTracker::Chunked(_) => RequestDirection::Sending { rest: u64::MAX },
        }
    }

    /// Returns whether the body is complete.
    pub fn is_done(&self) -> bool {
        match self {
            BodyTracker::Length(left) => *left == 0,
            BodyTracker::Chunked(chunked) => chunked.is_done(),
        }
    }
}

/// A body that is read before its request goes on. The bytes stay in the input.
pub struct RequestBody<'a> {
    /// The edge, which bounds the memory of all such bodies.
    pub edge: &'a Edge,
    /// Connection of the visitor.
    pub conn: &'a Arc<VisitorConn>,
    /// Received bytes; the head begins at `start`.
    pub input: &'a mut Vec<u8>,
    /// Start of the head.
    pub start: &'a mut usize,
    /// Memory of the body.
    pub held: &'a mut Option<HeldBytes>,
    /// Bytes of the body in the input, when all of it was read.
    pub received: &'a mut Option<usize>,
    /// Length of the head.
    pub head: usize,
    /// How the body ends.
    pub framing: BodyFraming,
    /// Whether the visitor waits for an interim response.
    pub invites: bool,
}

impl RequestBody<'_> {
    /// Reads the body, at most `limit` bytes. Returns its data. `too_long` returns the page for
    /// a longer one.
    pub fn read_whole(
        &mut self,
        limit: usize,
        too_long: fn(usize) -> ErrorPage,
    ) -> Result<Vec<u8>, ErrorPage> {
        let len = self.head;
        let mut body = BodyTracker::new(self.framing);
        let mut data = Vec::new();
        let mut offset = len;
        let mut reserved = 0;
        self.conn.set_read_timeout(self.edge.config().limits.idle);
        loop {
            let received = &self.input[*self.start + offset..];
            let taken = body.read(received, &mut |piece| data.extend_from_slice(piece));
            offset += taken.map_err(ErrorPage::bad_request)?;
            // Widening: a length of memory.
            if data.len() > limit || offset - len > 2 * limit || body.rest() > limit as u64 {
                return Err(too_long(limit));
            }
            if body.is_done() {
                *self.received = Some(offset - len);
                return Ok(data);
            }
            if offset + BODY_READ_BYTES > reserved {
                reserved = offset + BODY_READ_BYTES;
                // The former bytes are given back first: they are part of the new ones.
                *self.held = None;
                *self.held = self.edge.bodies.hold(reserved);
                if self.held.is_none() {
                    self.edge.warn_full("bodies of requests");
                    return Err(ErrorPage::edge_full());
                }
            }
            if std::mem::take(&mut self.invites) {
                let _ = self.conn.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            match read_more(self.conn, self.input, self.start, BODY_READ_BYTES) {
                Ok(n) if n > 0 => {}
                Err(e) if is_timeout(&e) => return Err(body_too_slow()),
                _ => return Err(ErrorPage::new(400, 0, "The body of the request broke off.")),
            }
        }
    }
}

impl BodySource for RequestBody<'_> {
    fn read(&mut self, limit: usize) -> Result<Vec<u8>, Reply> {
        self.read_whole(limit, |limit| body_too_long(limit).into()).map_err(Reply::from)
    }
}

/// Reads at most `most` bytes and appends them to the bytes from `start` on.
pub fn read_more(
    conn: &VisitorConn,
    input: &mut Vec<u8>,
    start: &mut usize,
    most: usize,
) -> io::Result<usize> {
    if *start > 0 {
        input.drain(..*start);
        *start = 0;
    }
    let used = input.len();
    input.reserve(most);
    // Copied, because `resize` writes byte by byte in release builds (opt-level "z").
    for start in (0..most).step_by(ZEROS.len()) {
        input.extend_from_slice(&ZEROS[..ZEROS.len().min(most - start)]);
    }
    let got = match conn.read(&mut input[used..]) {
        // Heads and bodies have ends of their own, and most clients end TLS like this.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        got => got,
    };
    input.truncate(used + *got.as_ref().unwrap_or(&0));
    got
}

/// Returns whether a read timed out.
pub fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Returns the page for a body whose bytes do not arrive.
pub fn body_too_slow() -> ErrorPage {
    ErrorPage::new(408, 0, "The body of the request took too long.")
}
