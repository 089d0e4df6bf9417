//! Requests to the local API as bytes. Sans-IO: no socket, no clock. A [`Receiver`] processes
//! bytes and reports when a request is complete. An [`ApiReply`] writes its own head.
//!
//! Not a library: heads and chunks are parsed by [`crate::http1`], which the agent has already;
//! server, bodies and responses are 15 KB more. The smallest maintained library, `tiny_http`,
//! was measured at 135 KB, and it needs a thread for each client.

use crate::http1::chunked::ChunkedDecoder;
use crate::http1::error::HttpError;
use crate::http1::framing::BodyFraming;
use crate::http1::head::{HeadReader, HttpRequest, MAX_AGENT_HEAD_BYTES};
use crate::http1::line::{HttpVersion, Strictness};
use crate::http1::status;

/// Maximum size of a body: enough for a traffic policy or a changed request.
pub const MAX_BODY: usize = 1024 * 1024;

/// State after some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadProgress {
    /// Further bytes are needed.
    More,
    /// Further bytes are needed, and the client waits for `100 Continue`.
    Continue,
    /// The request is complete.
    Whole,
    /// The request is refused with this status. Bytes after it cannot be parsed.
    Refused(u16),
}

/// Assembles one request, independent of how its bytes are split.
#[derive(Debug)]
pub struct Receiver {
    head: HeadReader,
    body: Vec<u8>,
    state: ReadState,
}

#[derive(Debug)]
enum ReadState {
    Head,
    /// In a body, with the number of missing bytes.
    Body(usize),
    Chunked(ChunkedDecoder),
    Whole,
}

impl Default for Receiver {
    fn default() -> Self {
        let head = HeadReader::new(MAX_AGENT_HEAD_BYTES);
        Receiver { head, body: Vec::new(), state: ReadState::Head }
    }
}

impl Receiver {
    /// Processes the next bytes. Returns how many of them belong to this request: all, unless
    /// it is complete or refused.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, ReadProgress) {
        let mut used = 0;
        let mut progress = ReadProgress::More;
        if matches!(self.state, ReadState::Head) {
            match self.head.feed(bytes) {
                Ok(None) => return (bytes.len(), ReadProgress::More),
                Ok(Some(n)) => used = n,
                Err(error) => return (0, ReadProgress::Refused(error.status())),
            }
            match self.begin_body() {
                Err(status) => return (used, ReadProgress::Refused(status)),
                Ok(true) if used == bytes.len() => progress = ReadProgress::Continue,
                Ok(_) => {}
            }
        }
        let rest = &bytes[used..];
        match &mut self.state {
            ReadState::Body(left) => {
                let n = rest.len().min(*left);
                *left -= n;
                self.body.extend_from_slice(&rest[..n]);
                used += n;
                if *left == 0 {
                    self.state = ReadState::Whole;
                }
            }
            ReadState::Chunked(decoder) => match take_chunks(decoder, rest, &mut self.body) {
                Ok(n) => {
                    used += n;
                    if decoder.is_done() {
                        self.state = ReadState::Whole;
                    }
                }
                Err(status) => return (used, ReadProgress::Refused(status)),
            },
            ReadState::Head | ReadState::Whole => {}
        }
        if matches!(self.state, ReadState::Whole) {
            progress = ReadProgress::Whole;
        }
        (used, progress)
    }

    /// Checks the head. Returns true if the client waits before it sends the body.
    fn begin_body(&mut self) -> Result<bool, u16> {
        let request = self.head.request().ok_or(400u16)?;
        self.state = match request.body().map_err(HttpError::status)? {
            BodyFraming::Length(n) => match usize::try_from(n) {
                Ok(n) if n <= MAX_BODY => ReadState::Body(n),
                _ => return Err(413),
            },
            BodyFraming::Chunked => ReadState::Chunked(ChunkedDecoder::new(Strictness::Strict)),
            // A request never ends with its connection (RFC 9112 6.3).
            BodyFraming::None | BodyFraming::UntilClose | BodyFraming::Tunnel => ReadState::Whole,
        };
        let has_body = !matches!(self.state, ReadState::Whole);
        Ok(has_body && self.head.request().is_some_and(|request| request.expects_continue()))
    }

    /// Returns whether a part of a request was received.
    pub fn started(&self) -> bool {
        self.head.started()
    }

    /// Returns whether the head is complete and the body is not.
    pub fn in_body(&self) -> bool {
        matches!(self.state, ReadState::Body(_) | ReadState::Chunked(_))
    }

    /// Returns the head of a complete request, else `None`.
    pub fn head(&self) -> Option<HttpRequest<'_>> {
        if matches!(self.state, ReadState::Whole) { self.head.request() } else { None }
    }

    /// Returns the body of a complete request.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns the number of bytes of the body so far.
    pub fn held(&self) -> usize {
        self.body.capacity()
    }
}

/// Appends the data of chunks to `body`. Returns how many bytes belong to the chunked body.
fn take_chunks(
    decoder: &mut ChunkedDecoder,
    bytes: &[u8],
    body: &mut Vec<u8>,
) -> Result<usize, u16> {
    let mut too_large = false;
    let used = decoder.feed(bytes, &mut |data| {
        too_large |= body.len() + data.len() > MAX_BODY;
        if !too_large {
            body.extend_from_slice(data);
        }
    });
    // The announced length of a chunk counts before its bytes arrive.
    let announced = usize::try_from(decoder.missing()).unwrap_or(usize::MAX);
    if too_large || announced > MAX_BODY - body.len() {
        return Err(413);
    }
    used.map_err(HttpError::status)
}

/// Response without the fields for its connection.
pub struct ApiReply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// Further fields, each with CR LF.
    pub fields: String,
    /// Body of the response.
    pub body: ReplyBody,
}

/// Body of a response.
pub enum ReplyBody {
    /// No body and no length: 204.
    Empty,
    /// These bytes.
    Whole(Vec<u8>),
    /// Static bytes of the program.
    Fixed(&'static [u8]),
    /// Piece by piece, so that a long response is never in memory as a whole.
    Pieces(Box<dyn Iterator<Item = Vec<u8>> + Send>),
    /// The stream of events, without end.
    Events,
}

/// `Content-Type` of all routes below `/api`.
pub const JSON: &str = "application/json";

impl ApiReply {
    /// Returns a response with status 200.
    pub fn new(kind: &'static str, body: ReplyBody) -> Self {
        ApiReply { status: 200, kind, fields: String::new(), body }
    }

    /// Returns a response with JSON.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        ApiReply { status, ..ApiReply::new(JSON, ReplyBody::Whole(body)) }
    }

    /// Returns a response with a line of text, for people and simple programs.
    pub fn text(status: u16, text: String) -> Self {
        let body = ReplyBody::Whole(text.into_bytes());
        ApiReply { status, ..ApiReply::new("text/plain; charset=utf-8", body) }
    }

    /// Returns a response with status 204.
    pub fn empty() -> Self {
        ApiReply { status: 204, ..ApiReply::new("", ReplyBody::Empty) }
    }

    /// Adds a field.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields += &[name, ": ", value, "\r\n"].concat();
        self
    }

    /// Returns the bytes of the head. `keep`: the connection stays open, unless its end is the
    /// end of the body.
    pub fn head(&self, version: HttpVersion, keep: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, status::reason(self.status));
        let length = match &self.body {
            ReplyBody::Empty | ReplyBody::Events => None,
            ReplyBody::Whole(bytes) => Some(bytes.len()),
            ReplyBody::Fixed(bytes) => Some(bytes.len()),
            ReplyBody::Pieces(_) => {
                if version == HttpVersion::Http11 {
                    head += "Transfer-Encoding: chunked\r\n";
                }
                None
            }
        };
        if let Some(length) = length {
            head += &format!("Content-Length: {length}\r\n");
        }
        if !self.kind.is_empty() {
            head += &["Content-Type: ", self.kind, "\r\n"].concat();
        }
        head += &self.fields;
        // Captured bytes must not be displayed as a page, even if a browser detects one, and
        // other sites must not embed them.
        head += "X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\n";
        if !self.fields.contains("Cache-Control") {
            head += "Cache-Control: no-store\r\n";
        }
        if !keep {
            head += "Connection: close\r\n";
        } else if version == HttpVersion::Http10 {
            head += "Connection: keep-alive\r\n";
        }
        head += "\r\n";
        head.into_bytes()
    }

    /// Returns whether the end of the body is visible without the end of the connection.
    pub fn has_end(&self, version: HttpVersion) -> bool {
        match self.body {
            ReplyBody::Pieces(_) => version == HttpVersion::Http11,
            ReplyBody::Events => false,
            _ => true,
        }
    }
}

/// Returns a piece of a chunked body. An empty one would be its end.
pub fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
    bytes.extend_from_slice(piece);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Percent-encodes a name for a path.
pub fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::chunked::{MAX_EXTENSION, MAX_TRAILERS};
    use crate::http1::text::percent_decoded;

    /// Feeds `bytes` in pieces of `size`. Returns the number of used bytes and the last
    /// progress.
    fn run(bytes: &[u8], size: usize) -> (Receiver, usize, ReadProgress) {
        let mut receiver = Receiver::default();
        let mut used = 0;
        let mut last = ReadProgress::More;
        while used < bytes.len() && matches!(last, ReadProgress::More | ReadProgress::Continue) {
            let end = bytes.len().min(used + size);
            let (n, progress) = receiver.feed(&bytes[used..end]);
            (used, last) = (used + n, progress);
        }
        (receiver, used, last)
    }

    #[test]
    fn bodies_are_the_same_however_they_are_cut() {
        let length: &[u8] = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\nhello world";
        let chunked: &[u8] = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nTrailer: a\r\n\r\n";
        for bytes in [length, chunked] {
            for size in 1..bytes.len() + 9 {
                let more = [bytes, b"GET / HTT"].concat();
                let (receiver, used, progress) = run(&more, size);
                assert_eq!(
                    (used, progress),
                    (bytes.len(), ReadProgress::Whole),
                    "pieces of {size}"
                );
                assert_eq!(receiver.body(), b"hello world");
                assert_eq!(receiver.head().map(|head| head.target()), Some("/a"));
            }
        }
    }

    #[test]
    fn what_is_too_much_or_no_request_is_refused() {
        let long_head =
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(MAX_AGENT_HEAD_BYTES));
        let large = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
        let chunked =
            |rest: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
        let endless = chunked(&format!("1;{}", "x".repeat(MAX_EXTENSION + 1)));
        let trailers = chunked(&format!("0\r\nA: {}", "x".repeat(MAX_TRAILERS)));
        for (text, status) in [
            (long_head.as_str(), 431),
            (&large, 413),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\n\r\n", 505),
            ("\x16\x03\x01\x02\n\n", 400),
            (&chunked("100001\r\n"), 413),
            (&chunked("-1\r\n"), 400),
            (&chunked("\r\n"), 400),
            (&chunked("5\nhello"), 400),
            (&chunked("5\r\nhelloX"), 400),
            (&endless, 400),
            (&trailers, 400),
        ] {
            for size in [1, 7, text.len()] {
                let (_, _, progress) = run(text.as_bytes(), size);
                assert_eq!(progress, ReadProgress::Refused(status), "{text:.60}");
            }
        }
    }

    #[test]
    fn chunks_may_not_add_up_to_more_than_a_body_may_be() {
        let mut receiver = Receiver::default();
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(receiver.feed(head), (head.len(), ReadProgress::More));
        let piece = chunk(&[b'x'; 60_000]);
        let refused = (0..1000).find_map(|_| match receiver.feed(&piece) {
            (_, ReadProgress::Refused(status)) => Some(status),
            _ => None,
        });
        assert_eq!(refused, Some(413));
        assert!(receiver.body().len() <= MAX_BODY);
    }

    #[test]
    fn a_client_that_waits_to_be_told_is_told() {
        let head = b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        let mut receiver = Receiver::default();
        assert_eq!(receiver.feed(head), (head.len(), ReadProgress::Continue));
        assert_eq!(receiver.feed(b"{}"), (2, ReadProgress::Whole));
    }

    #[test]
    fn names_in_paths() {
        assert_eq!(percent_decoded("command_line%20(http)", false).unwrap(), "command_line (http)");
        assert_eq!(percent_decoded("a+b%2Bc", false).unwrap(), "a+b+c");
        assert_eq!(percent_decoded("a+b%2Bc", true).unwrap(), "a b+c");
        for bad in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(percent_decoded(bad, false), None, "{bad}");
        }
        for name in ["a b/ü?%\"<", "command_line (http)", ""] {
            assert_eq!(percent_decoded(&percent_encoded(name), false).unwrap(), name);
        }
        assert_eq!(percent_encoded("command_line (http)"), "command_line%20(http)");
    }

    #[test]
    fn heads_of_answers() {
        let text =
            |reply: &ApiReply, version, keep| String::from_utf8(reply.head(version, keep)).unwrap();
        let json = ApiReply::json(201, b"{}".to_vec()).with("A", "b");
        let head = text(&json, HttpVersion::Http11, true);
        assert!(head.starts_with("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n"), "{head}");
        assert!(
            head.contains("Content-Type: application/json\r\nA: b\r\n")
                && !head.contains("Connection")
        );
        assert!(head.ends_with("\r\n\r\n"));
        let none = text(&ApiReply::empty(), HttpVersion::Http11, false);
        assert!(!none.contains("Content-") || !none.contains("Length"), "{none}");
        assert!(none.contains("Connection: close"));
        let pieces =
            ApiReply { body: ReplyBody::Pieces(Box::new(std::iter::empty())), ..ApiReply::empty() };
        assert!(text(&pieces, HttpVersion::Http11, true).contains("chunked"));
        assert!(!text(&pieces, HttpVersion::Http10, false).contains("chunked"));
        assert!(!pieces.has_end(HttpVersion::Http10) && pieces.has_end(HttpVersion::Http11));
    }
}
