//! Requests to the local API, as bytes come and go. Sans-IO: no socket, no
//! clock; a [`Receiver`] takes bytes and says when a request is whole, a
//! [`ApiReply`] writes its own head.
//!
//! Not a library: the head is read by the parser that the file server has already,
//! and server, bodies and answers are 15 KB more. The smallest library that is kept
//! up, `tiny_http`, was measured at 135 KB, and it wants a thread a client.

use crate::http1::head::{BodyLength, Head, HeadError, HttpVersion, MAX_HEAD, Parser};

/// Most bytes of a body: a traffic policy or a changed request, with room.
pub const MAX_BODY: usize = 1024 * 1024;

/// Longest line of a chunk's size, and most bytes of trailers.
const MAX_LINE: usize = 1024;

/// What became of the bytes that were fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadProgress {
    /// More must come.
    More,
    /// More must come, and the client waits to be told so: `100 Continue`.
    Continue,
    /// The request is whole.
    Whole,
    /// It is refused with this status; nothing after it can be understood.
    Refused(u16),
}

/// Puts one request together, however its bytes are cut.
#[derive(Debug)]
pub struct Receiver {
    head: Parser,
    body: Vec<u8>,
    state: ReadState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadState {
    Head,
    Body { left: usize },
    Chunks { at: InChunk, left: usize, line: usize },
    Whole,
}

/// Where in a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InChunk {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of trailers.
    Trailer,
    InTrailer,
    TrailerEnd,
    LastLf,
}

impl Default for Receiver {
    fn default() -> Self {
        Receiver { head: Parser::new(MAX_HEAD), body: Vec::new(), state: ReadState::Head }
    }
}

impl Receiver {
    /// Takes the next bytes. Returns how many of them belong to this request: all,
    /// unless it became whole or was refused.
    pub fn feed(&mut self, bytes: &[u8]) -> (usize, ReadProgress) {
        let mut used = 0;
        let mut progress = ReadProgress::More;
        if self.state == ReadState::Head {
            match self.head.feed(bytes) {
                Ok(None) => return (bytes.len(), ReadProgress::More),
                Ok(Some(n)) => used = n,
                Err(_) => return (0, ReadProgress::Refused(431)),
            }
            match self.begin_body() {
                Err(status) => return (used, ReadProgress::Refused(status)),
                Ok(true) if used == bytes.len() => progress = ReadProgress::Continue,
                Ok(_) => {}
            }
        }
        while used < bytes.len() || self.state == (ReadState::Body { left: 0 }) {
            let rest = &bytes[used..];
            match &mut self.state {
                ReadState::Body { left: 0 } => self.state = ReadState::Whole,
                ReadState::Body { left } => {
                    let n = rest.len().min(*left);
                    *left -= n;
                    self.body.extend_from_slice(&rest[..n]);
                    used += n;
                }
                ReadState::Chunks { .. } => match self.chunks(rest) {
                    Ok(n) => used += n,
                    Err(status) => return (used, ReadProgress::Refused(status)),
                },
                ReadState::Head | ReadState::Whole => break,
            }
        }
        if self.state == ReadState::Whole {
            progress = ReadProgress::Whole;
        }
        (used, progress)
    }

    /// Judges the head. `true`: the client waits before it sends the body.
    fn begin_body(&mut self) -> Result<bool, u16> {
        let head = self.head.head().map_err(|e| match e {
            HeadError::Version => 505u16,
            HeadError::TooLong => 431,
            HeadError::RequestLine | HeadError::Field | HeadError::Framing => 400,
        })?;
        self.state = match head.body().map_err(|_| 400u16)? {
            BodyLength::None => ReadState::Whole,
            BodyLength::Length(n) => match usize::try_from(n) {
                Ok(n) if n <= MAX_BODY => ReadState::Body { left: n },
                _ => return Err(413),
            },
            BodyLength::Chunked => ReadState::Chunks { at: InChunk::Size, left: 0, line: 0 },
        };
        Ok(self.state != ReadState::Whole && head.expects_continue())
    }

    /// Follows a chunked body. Strict: what could be read in two ways is refused.
    fn chunks(&mut self, bytes: &[u8]) -> Result<usize, u16> {
        let ReadState::Chunks { mut at, mut left, mut line } = self.state else { return Ok(0) };
        let mut used = 0;
        while let Some(&byte) = bytes.get(used) {
            if at == InChunk::Data {
                let n = left.min(bytes.len() - used);
                if self.body.len() + n > MAX_BODY {
                    return Err(413);
                }
                self.body.extend_from_slice(&bytes[used..used + n]);
                (used, left) = (used + n, left - n);
                if left == 0 {
                    at = InChunk::DataCr;
                }
                continue;
            }
            used += 1;
            line += 1;
            if line > MAX_LINE {
                return Err(400);
            }
            let control = byte < b' ' && byte != b'\t' || byte == 0x7f;
            at = match (at, byte) {
                (InChunk::Size, _) if byte.is_ascii_hexdigit() => {
                    let digit = char::from(byte).to_digit(16).unwrap_or(0) as usize;
                    left = left.saturating_mul(16).saturating_add(digit);
                    if left > MAX_BODY {
                        return Err(413);
                    }
                    InChunk::Size
                }
                // A size has a digit before it ends.
                (InChunk::Size, b'\r') if line > 1 => InChunk::SizeEnd,
                (InChunk::Size, b';') if line > 1 => InChunk::Extension,
                (InChunk::Extension, b'\r') => InChunk::SizeEnd,
                (InChunk::Extension, _) if !control => InChunk::Extension,
                (InChunk::SizeEnd, b'\n') if left == 0 => {
                    line = 0;
                    InChunk::Trailer
                }
                (InChunk::SizeEnd, b'\n') => InChunk::Data,
                (InChunk::DataCr, b'\r') => InChunk::DataLf,
                (InChunk::DataLf, b'\n') => {
                    line = 0;
                    InChunk::Size
                }
                (InChunk::Trailer, b'\r') => InChunk::LastLf,
                (InChunk::InTrailer, b'\r') => InChunk::TrailerEnd,
                (InChunk::Trailer | InChunk::InTrailer, _) if !control => InChunk::InTrailer,
                (InChunk::TrailerEnd, b'\n') => InChunk::Trailer,
                (InChunk::LastLf, b'\n') => {
                    self.state = ReadState::Whole;
                    return Ok(used);
                }
                _ => return Err(400),
            };
        }
        self.state = ReadState::Chunks { at, left, line };
        Ok(used)
    }

    /// Whether any byte of a request is here.
    pub fn started(&self) -> bool {
        self.head.started()
    }

    /// Whether the head is here and the body is not yet.
    pub fn in_body(&self) -> bool {
        matches!(self.state, ReadState::Body { .. } | ReadState::Chunks { .. })
    }

    /// The head of a request that is whole; of another one there is none.
    pub fn head(&self) -> Option<Head<'_>> {
        if self.state != ReadState::Whole {
            return None;
        }
        self.head.head().ok()
    }

    /// The body of a request that is whole.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Bytes of body that are here so far.
    pub fn held(&self) -> usize {
        self.body.capacity()
    }
}

/// An answer, without its connection's concerns.
pub struct ApiReply {
    /// Status code.
    pub status: u16,
    /// `Content-Type`.
    pub kind: &'static str,
    /// More fields, each ended by CR LF.
    pub fields: String,
    /// What follows the head.
    pub body: ReplyBody,
}

/// The body of an answer.
pub enum ReplyBody {
    /// None, and no length either: 204.
    Empty,
    /// These bytes.
    Whole(Vec<u8>),
    /// Bytes of the program itself.
    Fixed(&'static [u8]),
    /// Piece by piece, so that a long answer is never in memory as a whole.
    Pieces(Box<dyn Iterator<Item = Vec<u8>> + Send>),
    /// The stream of events: it has no end.
    Events,
}

/// `Content-Type` of everything below `/api`.
pub const JSON: &str = "application/json";

impl ApiReply {
    /// An answer with status 200.
    pub fn new(kind: &'static str, body: ReplyBody) -> Self {
        ApiReply { status: 200, kind, fields: String::new(), body }
    }

    /// An answer of JSON.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        ApiReply { status, ..ApiReply::new(JSON, ReplyBody::Whole(body)) }
    }

    /// A line for people and simple programs.
    pub fn text(status: u16, text: String) -> Self {
        let body = ReplyBody::Whole(text.into_bytes());
        ApiReply { status, ..ApiReply::new("text/plain; charset=utf-8", body) }
    }

    /// 204.
    pub fn empty() -> Self {
        ApiReply { status: 204, ..ApiReply::new("", ReplyBody::Empty) }
    }

    /// One more field.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields += &[name, ": ", value, "\r\n"].concat();
        self
    }

    /// The head's bytes. `keep`: the connection stays open, unless the body's end
    /// is the connection's, too.
    pub fn head(&self, version: HttpVersion, keep: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
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
        // What is behind a captured request or a name is no page of ours, whatever
        // a browser thinks that it looks like; and it is nobody else's to embed.
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

    /// Whether its end can be seen without the end of the connection.
    pub fn has_end(&self, version: HttpVersion) -> bool {
        match self.body {
            ReplyBody::Pieces(_) => version == HttpVersion::Http11,
            ReplyBody::Events => false,
            _ => true,
        }
    }
}

/// A piece of a chunked body; an empty one would be its end.
pub fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{:x}\r\n", piece.len()).into_bytes();
    bytes.extend_from_slice(piece);
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The end of a chunked body.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The words of a status.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        302 => "Found",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// The text that a path or a query stands for, `%20` and the like undone; `None`
/// if it is not UTF-8 then.
pub fn percent_decoded(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'%' => {
                let [high, low, after @ ..] = after else { return None };
                let digit = |b: &u8| char::from(*b).to_digit(16);
                let byte = digit(high)? * 16 + digit(low)?;
                bytes.push(u8::try_from(byte).ok()?);
                rest = after;
            }
            b'+' if plus_is_blank => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// A name as it stands in a path: what has a meaning there is written `%20`.
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

    /// Feeds `bytes` in pieces of `size`; what was used, and the last progress.
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
        let long_head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD));
        let large = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
        let chunked =
            |rest: &str| format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{rest}");
        let endless = chunked(&format!("1;{}", "x".repeat(MAX_LINE)));
        let trailers = chunked(&format!("0\r\nA: {}", "x".repeat(MAX_LINE)));
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
