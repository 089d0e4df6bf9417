//! Heads of messages: first line and header lines as ranges of the received bytes, without
//! copies. `httparse` parses the header lines, [`super::line`] the first line.
//!
//! Requests are parsed strictly: a request that two readers could interpret differently is an
//! error. Responses may contain common harmless mistakes of servers, see `repair`.

use super::error::HttpError;
use super::framing::{BodyFraming, FramingFields, MessageKind, RequestMethod};
use super::line::{
    self, HttpVersion, RequestLine, STATUS_LINE_START, StatusLine, Strictness, is_control,
    split_line,
};
use super::repair;

/// Most bytes of a head, its blank line included.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Maximum size of a request's head for the agent's own responses: files, pages and the local
/// API.
pub const MAX_AGENT_HEAD_BYTES: usize = 8 * 1024;

/// Most header lines of a head.
pub const MAX_FIELDS: usize = 256;

/// Header lines of most messages: this number fits on a small stack.
const FEW_FIELDS: usize = 32;

/// First byte of a TLS record with a handshake message (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Finds the end of a head: the index after its blank line. The first `seen` bytes were
/// searched before, so that no byte is searched twice when they arrive slowly.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    // The blank line may begin in the part that was searched before.
    let mut from = seen.saturating_sub(3);
    while let Some(at) = bytes.get(from..)?.iter().position(|b| *b == b'\n') {
        from += at + 1;
        match bytes.get(from..)? {
            [b'\n', ..] => return Some(from + 1),
            [b'\r', b'\n', ..] => return Some(from + 2),
            _ => {}
        }
    }
    None
}

/// Detects another protocol by the first bytes of a client, before a head is complete.
pub fn check_start(bytes: &[u8]) -> Result<(), HttpError> {
    match bytes.first() {
        Some(&TLS_HANDSHAKE) => Err(HttpError::TlsHandshake),
        _ => Ok(()),
    }
}

/// Positions of one header line in the bytes of its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    name: u32,
    name_len: u32,
    value: u32,
    value_len: u32,
}

/// A parsed head without its bytes. Keeps its memory for the next one.
#[derive(Debug, Default)]
pub struct HeadRanges {
    positions: Vec<Position>,
    framing: FramingFields,
    /// Bytes of a response after repair.
    repaired: Vec<u8>,
}

impl HeadRanges {
    /// Parses a request strictly. `bytes` end with the blank line ([`end`]); further bytes are
    /// ignored.
    pub fn read_request<'a>(&mut self, bytes: &'a [u8]) -> Result<RequestLine<'a>, HttpError> {
        check_start(bytes)?;
        let (first, rest) = split_line(bytes);
        let request = RequestLine::parse(first, Strictness::Strict)?;
        if bytes.get(first.len()) != Some(&b'\r') {
            return Err(HttpError::BareLf);
        }
        self.read_fields(bytes, bytes.len() - rest.len(), Strictness::Strict)?;
        Ok(request)
    }

    /// Parses a request with its fields, for callers that keep no ranges. The target must be
    /// UTF-8.
    pub fn request<'a>(&'a mut self, bytes: &'a [u8]) -> Result<HttpRequest<'a>, HttpError> {
        let line = self.read_request(bytes)?;
        HttpRequest::new(line, self.fields(bytes), self.framing)
    }

    /// Parses a response. `bytes` end with the blank line ([`end`]). Lenient: accepts mistakes
    /// that `repair` can correct.
    pub fn response<'a>(
        &'a mut self,
        bytes: &'a [u8],
        strictness: Strictness,
    ) -> Result<HttpResponse<'a>, HttpError> {
        let (first, rest) = split_line(bytes);
        StatusLine::parse(first)?;
        let lenient = strictness == Strictness::Lenient;
        let read = if first.iter().any(|b| is_control(*b)) {
            Err(HttpError::ControlCharacter)
        } else if !lenient && bytes.get(first.len()) != Some(&b'\r') {
            Err(HttpError::BareLf)
        } else {
            self.read_fields(bytes, bytes.len() - rest.len(), strictness)
        };
        let bytes = match read {
            Ok(()) => bytes,
            Err(error) if lenient && repair::can_mend(error) => {
                let mut repaired = std::mem::take(&mut self.repaired);
                repaired.clear();
                let mended = repair::response(bytes, &mut repaired);
                self.repaired = repaired;
                mended?;
                let repaired = std::mem::take(&mut self.repaired);
                let (_, rest) = split_line(&repaired);
                let from = repaired.len() - rest.len();
                let read = self.read_fields(&repaired, from, Strictness::Strict);
                self.repaired = repaired;
                read?;
                &self.repaired
            }
            Err(error) => return Err(error),
        };
        let (first, _) = split_line(bytes);
        let line = StatusLine::parse(first)?;
        Ok(HttpResponse { line, fields: self.fields(bytes), framing: self.framing })
    }

    /// Returns the fields of the request that was parsed from `bytes`.
    pub fn fields<'a>(&'a self, bytes: &'a [u8]) -> HeaderFields<'a> {
        HeaderFields { bytes, positions: &self.positions }
    }

    /// Returns the fields that frame the body.
    pub fn framing(&self) -> FramingFields {
        self.framing
    }

    fn read_fields(
        &mut self,
        bytes: &[u8],
        from: usize,
        strictness: Strictness,
    ) -> Result<(), HttpError> {
        self.positions.clear();
        self.framing = FramingFields::default();
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(HttpError::HeadTooLarge);
        }
        let lines = bytes.get(from..).unwrap_or_default();
        let mut few = [httparse::EMPTY_HEADER; FEW_FIELDS];
        match httparse::parse_headers(lines, &mut few) {
            Err(httparse::Error::TooManyHeaders) => self.read_many(bytes, lines, strictness),
            result => self.keep(bytes, lines, result, strictness),
        }
    }

    /// Parses with room for all fields. Not inlined, so that the usual case uses little of the
    /// stack.
    #[inline(never)]
    fn read_many(
        &mut self,
        bytes: &[u8],
        lines: &[u8],
        strictness: Strictness,
    ) -> Result<(), HttpError> {
        let mut many = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let result = httparse::parse_headers(lines, &mut many);
        self.keep(bytes, lines, result, strictness)
    }

    /// Converts slices to ranges.
    fn keep(
        &mut self,
        bytes: &[u8],
        lines: &[u8],
        result: httparse::Result<(usize, &[httparse::Header<'_>])>,
        strictness: Strictness,
    ) -> Result<(), HttpError> {
        let (len, headers) = match result {
            Ok(httparse::Status::Complete(read)) => read,
            Ok(httparse::Status::Partial) => return Err(HttpError::Incomplete),
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooManyFields),
            Err(_) => return Err(first_error(lines)),
        };
        let strict = strictness == Strictness::Strict;
        if strict && !lines[..len].ends_with(b"\r\n") {
            return Err(HttpError::BareLf);
        }
        let start = bytes.as_ptr() as usize;
        self.positions.reserve(headers.len());
        for header in headers {
            let (name, value) = (header.name.as_bytes(), header.value);
            let value_at = value.as_ptr() as usize - start;
            if strict && !ends_with_cr(&bytes[value_at + value.len()..]) {
                return Err(HttpError::BareLf);
            }
            self.framing.field(name, value)?;
            let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            self.positions.push(Position {
                name: narrow(name.as_ptr() as usize - start),
                name_len: narrow(name.len()),
                value: narrow(value_at),
                value_len: narrow(value.len()),
            });
        }
        Ok(())
    }
}

/// Returns whether a line ends with CR LF. `rest` begins after its last byte that is not a
/// blank.
fn ends_with_cr(rest: &[u8]) -> bool {
    rest.iter().find(|b| !matches!(b, b' ' | b'\t')) == Some(&b'\r')
}

/// Returns the error in header lines that `httparse` refused.
#[cold]
fn first_error(lines: &[u8]) -> HttpError {
    let mut rest = lines;
    while !rest.is_empty() {
        let (text, after) = split_line(rest);
        if text.is_empty() {
            break;
        }
        if let Err(error) = line::field(text) {
            return error;
        }
        rest = after;
    }
    HttpError::ControlCharacter
}

/// The fields of a head, in their order.
#[derive(Clone, Copy, Debug)]
pub struct HeaderFields<'a> {
    bytes: &'a [u8],
    positions: &'a [Position],
}

/// A copy of the fields of a head.
#[derive(Clone, Debug)]
pub struct OwnedFields {
    bytes: Box<[u8]>,
    positions: Box<[Position]>,
}

impl OwnedFields {
    /// Returns the fields.
    pub fn fields(&self) -> HeaderFields<'_> {
        HeaderFields { bytes: &self.bytes, positions: &self.positions }
    }
}

impl<'a> HeaderFields<'a> {
    /// Returns a copy, with the whole head.
    pub fn to_owned(self) -> OwnedFields {
        OwnedFields { bytes: self.bytes.into(), positions: self.positions.into() }
    }

    /// Returns names and values, the values without surrounding blanks.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        let slice = move |at: u32, len: u32| {
            let at = at as usize;
            bytes.get(at..at + len as usize).unwrap_or_default()
        };
        let positions = self.positions.iter();
        positions.map(move |p| (slice(p.name, p.name_len), slice(p.value, p.value_len)))
    }

    /// Returns the values of the fields with a name. Case does not matter.
    pub fn values<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let wanted = name.as_bytes();
        self.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    }

    /// Returns the first value of a field.
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// Returns whether a comma-separated list in the fields with a name has `token`.
    pub fn lists(self, name: &str, token: &str) -> bool {
        let wanted = token.as_bytes();
        self.values(name).flat_map(members).any(|member| member.eq_ignore_ascii_case(wanted))
    }
}

/// Returns the members of a comma-separated list, without blanks and empty members.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(line::trim).filter(|member| !member.is_empty())
}

/// A request with its fields.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    method: &'a str,
    target: &'a str,
    version: HttpVersion,
    fields: HeaderFields<'a>,
    framing: FramingFields,
}

impl<'a> HttpRequest<'a> {
    fn new(
        line: RequestLine<'a>,
        fields: HeaderFields<'a>,
        framing: FramingFields,
    ) -> Result<Self, HttpError> {
        let target = std::str::from_utf8(line.target).map_err(|_| HttpError::Target)?;
        Ok(HttpRequest { method: line.method, target, version: line.version, fields, framing })
    }

    /// Returns the method as sent: methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// Returns the request target as sent: `/path?query`, a URL, or `*`.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// Returns host and port of a target that is a URL, as in requests to proxies. They replace
    /// `Host` (RFC 9112 3.2.2).
    pub fn authority(&self) -> Option<&'a str> {
        split_url(self.target).map(|(authority, _)| authority)
    }

    /// Returns path and query, also of a target that is a URL.
    pub fn path(&self) -> &'a str {
        split_url(self.target).map_or(self.target, |(_, path)| path)
    }

    /// Returns the version.
    pub fn version(&self) -> HttpVersion {
        self.version
    }

    /// Returns the fields.
    pub fn fields(&self) -> HeaderFields<'a> {
        self.fields
    }

    /// Returns the first value of a field.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.first(name)
    }

    /// Returns the first value of a field, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.field(name)?).ok()
    }

    /// Returns how the body is delimited.
    pub fn body(&self) -> Result<BodyFraming, HttpError> {
        self.framing.body(MessageKind::Request(self.version))
    }

    /// Returns whether the client may send another request on this connection.
    pub fn keep_alive(&self) -> bool {
        match self.version {
            HttpVersion::Http11 => !self.fields.lists("connection", "close"),
            HttpVersion::Http10 => self.fields.lists("connection", "keep-alive"),
        }
    }

    /// Returns whether the client waits for `100 Continue` before the body.
    pub fn expects_continue(&self) -> bool {
        self.version == HttpVersion::Http11 && self.fields.lists("expect", "100-continue")
    }

    /// Returns whether the client accepts HTML, as browsers do.
    pub fn accepts_html(&self) -> bool {
        accepts_html(self.fields)
    }
}

/// Returns whether `Accept` contains HTML.
pub fn accepts_html(fields: HeaderFields<'_>) -> bool {
    fields
        .values("accept")
        .flat_map(members)
        .filter_map(|member| member.split(|b| *b == b';').next())
        .any(|kind| line::trim(kind).eq_ignore_ascii_case(b"text/html"))
}

/// Returns authority and path of a target that is an `http` or `https` URL.
pub fn split_url(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let end = rest.bytes().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A missing path is the root. A query without a path is ignored.
    Some((authority, if path.starts_with('/') { path } else { "/" }))
}

/// A response with its fields.
#[derive(Clone, Copy, Debug)]
pub struct HttpResponse<'a> {
    /// The status line.
    pub line: StatusLine<'a>,
    /// The fields, after repair.
    pub fields: HeaderFields<'a>,
    /// The fields that frame the body.
    pub framing: FramingFields,
}

impl HttpResponse<'_> {
    /// Returns how the body is delimited, for a request with `method`.
    pub fn body(&self, method: RequestMethod) -> Result<BodyFraming, HttpError> {
        self.framing.body(MessageKind::Response { status: self.line.status, method })
    }
}

/// Collects the bytes of one request head, in pieces of any size.
#[derive(Debug)]
pub struct HeadReader {
    bytes: Vec<u8>,
    limit: usize,
    /// Number of bytes of the empty lines in front of the request line.
    skipped: usize,
    head: HeadRanges,
    complete: bool,
}

impl HeadReader {
    /// Returns a reader for a head of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        HeadReader {
            bytes: Vec::new(),
            limit: limit.min(MAX_HEAD_BYTES),
            skipped: 0,
            head: HeadRanges::default(),
            complete: false,
        }
    }

    /// Processes the next piece. `Some(n)`: the head is complete and valid, and the first `n`
    /// bytes of the piece belong to it. Empty lines in front of the request line are skipped
    /// (RFC 9112 2.2).
    pub fn feed(&mut self, piece: &[u8]) -> Result<Option<usize>, HttpError> {
        let blank = |b: &&u8| matches!(**b, b'\r' | b'\n');
        let skip = match self.bytes.is_empty() {
            true => piece.iter().take_while(blank).count(),
            false => 0,
        };
        self.skipped += skip;
        let seen = self.bytes.len();
        let room = self.limit.saturating_sub(self.skipped + seen);
        let new = &piece[skip..];
        self.bytes.extend_from_slice(&new[..new.len().min(room)]);
        check_start(&self.bytes)?;
        let Some(len) = end(&self.bytes, seen) else {
            if self.skipped > self.limit || new.len() > room {
                return Err(HttpError::HeadTooLarge);
            }
            return Ok(None);
        };
        self.bytes.truncate(len);
        let line = self.head.read_request(&self.bytes)?;
        HttpRequest::new(line, self.head.fields(&self.bytes), self.head.framing)?;
        self.complete = true;
        Ok(Some(skip + len - seen))
    }

    /// Returns the request, if its head is complete.
    pub fn request(&self) -> Option<HttpRequest<'_>> {
        if !self.complete {
            return None;
        }
        let (first, _) = split_line(&self.bytes);
        let line = RequestLine::parse(first, Strictness::Strict).ok()?;
        HttpRequest::new(line, self.head.fields(&self.bytes), self.head.framing).ok()
    }

    /// Returns whether a byte of a head was received.
    pub fn started(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Prepares for the next head; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.skipped = 0;
        self.complete = false;
    }
}

/// Collects the bytes of one response head, in pieces of any size. Lenient.
#[derive(Debug)]
pub struct ResponseHeadReader {
    bytes: Vec<u8>,
    limit: usize,
    head: HeadRanges,
}

impl ResponseHeadReader {
    /// Returns a reader for a head of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(MAX_HEAD_BYTES);
        ResponseHeadReader { bytes: Vec::new(), limit, head: HeadRanges::default() }
    }

    /// Processes the next piece. `Some(n)`: the head is complete, and the first `n` bytes of
    /// the piece belong to it.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Option<usize>, HttpError> {
        let seen = self.bytes.len();
        let room = self.limit.saturating_sub(seen);
        self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        // Checked when there are enough bytes for an error message.
        let shown = self.bytes.len() >= STATUS_LINE_START.len() || self.bytes.contains(&b'\n');
        if shown && !self.bytes.starts_with(STATUS_LINE_START) {
            return Err(HttpError::NotHttp);
        }
        match end(&self.bytes, seen) {
            Some(len) => {
                self.bytes.truncate(len);
                Ok(Some(len - seen))
            }
            None if piece.len() > room => Err(HttpError::HeadTooLarge),
            None => Ok(None),
        }
    }

    /// Returns the response, if its head is complete.
    pub fn response(&mut self) -> Result<HttpResponse<'_>, HttpError> {
        self.head.response(&self.bytes, Strictness::Lenient)
    }

    /// Returns the bytes so far, for an error message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Prepares for the next head; keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests;
