//! The head of an HTTP/1 request, as far as the agent needs it to answer a request
//! itself.
//!
//! Sans-IO: bytes come in as they arrive, and a [`Head`] borrows them when it is
//! complete. The agent forwards its visitors' requests unchanged; this parser is for its
//! own responses (files, pages, local API). It refuses what two parsers could read in two
//! ways. No sockets, no clock, no allocation beyond the bounded buffer, and nothing that
//! writes.

use std::fmt;

use super::text::{decimal, is_token};

/// Most bytes of a head, request line and blank line included.
pub const MAX_HEAD: usize = 8 * 1024;

/// Collects the bytes of one head, however they are cut.
#[derive(Debug)]
pub struct Parser {
    bytes: Vec<u8>,
    limit: usize,
    /// Length of the line under way, so that no byte is looked at twice.
    line: usize,
    /// Bytes of empty lines before the request line.
    skipped: usize,
    /// Whether a line that is not empty has begun.
    started: bool,
}

impl Parser {
    /// A parser that refuses heads of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Parser { bytes: Vec::new(), limit, line: 0, skipped: 0, started: false }
    }

    /// Takes the next piece of the stream. `Some(n)`: the head is complete and
    /// its last byte was the `n`th of this piece; what follows belongs to the
    /// body or the next request. Empty lines before the request line are
    /// skipped, as RFC 9112 2.2 advises.
    pub fn feed(&mut self, piece: &[u8]) -> Result<Option<usize>, HeadError> {
        for (at, &byte) in piece.iter().enumerate() {
            if self.skipped + self.bytes.len() == self.limit {
                return Err(HeadError::TooLong);
            }
            if !self.started {
                if byte == b'\r' || byte == b'\n' {
                    self.skipped += 1;
                    continue;
                }
                self.started = true;
            }
            self.bytes.push(byte);
            match byte {
                b'\n' if self.line == 0 => return Ok(Some(at + 1)),
                b'\n' => self.line = 0,
                b'\r' => {}
                _ => self.line += 1,
            }
        }
        Ok(None)
    }

    /// The head, once [`Parser::feed`] has said that it is complete.
    pub fn head(&self) -> Result<Head<'_>, HeadError> {
        Head::parse(&self.bytes)
    }

    /// Whether any byte of a head has come.
    pub fn started(&self) -> bool {
        self.started
    }

    /// Ready for the next head; keeps the buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.line = 0;
        self.skipped = 0;
        self.started = false;
    }
}

/// Version of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpVersion {
    /// HTTP/1.0: closes unless asked to stay.
    Http10,
    /// HTTP/1.1: stays unless asked to close.
    Http11,
}

/// How the end of a request's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// None follows.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks up to one of length 0.
    Chunked,
}

/// Why a head was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// More bytes than the limit.
    TooLong,
    /// The first line is not `METHOD TARGET HTTP/1.x`.
    RequestLine,
    /// Another version of HTTP.
    Version,
    /// A field line without colon, with a bad name, folded, or with a control
    /// character.
    Field,
    /// Lengths that differ or that are no numbers, or a length beside chunks.
    Framing,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeadError::TooLong => "request head too long",
            HeadError::RequestLine => "malformed request line",
            HeadError::Version => "unsupported HTTP version",
            HeadError::Field => "malformed header field",
            HeadError::Framing => "conflicting or malformed body length",
        })
    }
}

impl std::error::Error for HeadError {}

/// A complete and well-formed head. Borrows the parser's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    method: &'a str,
    target: &'a str,
    version: HttpVersion,
    fields: &'a [u8],
}

impl<'a> Head<'a> {
    /// Reads a whole head, blank line included or not. Line ends are CR LF or
    /// LF alone.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, HeadError> {
        let (first, fields) = cut_line(bytes);
        let first = std::str::from_utf8(first).map_err(|_| HeadError::RequestLine)?;
        let mut words = first.split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(HeadError::RequestLine);
        };
        if !is_token(method.as_bytes())
            || target.is_empty()
            || target.bytes().any(|b| b <= b' ' || b == 0x7f)
        {
            return Err(HeadError::RequestLine);
        }
        let version = match version {
            "HTTP/1.1" => HttpVersion::Http11,
            "HTTP/1.0" => HttpVersion::Http10,
            v if v.starts_with("HTTP/") => return Err(HeadError::Version),
            _ => return Err(HeadError::RequestLine),
        };
        let mut rest = fields;
        while !rest.is_empty() {
            let (line, after) = cut_line(rest);
            if line.is_empty() {
                break;
            }
            let (name, value) = cut_field(line).ok_or(HeadError::Field)?;
            let control = |b: &u8| (*b < b' ' && *b != b'\t') || *b == 0x7f;
            if !is_token(name) || value.iter().any(control) {
                return Err(HeadError::Field);
            }
            rest = after;
        }
        Ok(Head { method, target, version, fields })
    }

    /// The method as it was sent: methods are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The request target as it was sent: `/path?query`, a URL, or `*`.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// Host and port of a target that is a URL, as requests to proxies have it. They count
    /// in the place of `Host` (RFC 9112 3.2.2).
    pub fn authority(&self) -> Option<&'a str> {
        absolute(self.target).map(|(authority, _)| authority)
    }

    /// Path and query, of a URL too.
    pub fn path(&self) -> &'a str {
        absolute(self.target).map_or(self.target, |(_, path)| path)
    }

    /// The version of the request.
    pub fn version(&self) -> HttpVersion {
        self.version
    }

    /// All fields in their order, values without surrounding blanks.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            let (line, after) = cut_line(rest);
            rest = after;
            let (name, value) = cut_field(line)?;
            Some((std::str::from_utf8(name).ok()?, value))
        })
    }

    /// The first value of a field, name without regard to case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v)
    }

    /// The first value of a field, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.field(name)?).ok()
    }

    /// Whether one of the comma-separated values of a field is `word`, without
    /// regard to case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.fields()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .flat_map(|(_, v)| v.split(|b| *b == b','))
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// How the body ends. A length beside chunks, lengths that differ, or
    /// encodings other than `chunked` alone are refused.
    pub fn body(&self) -> Result<BodyLength, HeadError> {
        let mut length = None;
        let mut chunked = false;
        for (name, value) in self.fields() {
            if name.eq_ignore_ascii_case("content-length") {
                let one = decimal(value).ok_or(HeadError::Framing)?;
                if length.is_some_and(|before| before != one) {
                    return Err(HeadError::Framing);
                }
                length = Some(one);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Framing);
                }
                chunked = true;
            }
        }
        match (chunked, length) {
            (true, Some(_)) => Err(HeadError::Framing),
            (true, None) if self.version == HttpVersion::Http10 => Err(HeadError::Framing),
            (true, None) => Ok(BodyLength::Chunked),
            (false, None | Some(0)) => Ok(BodyLength::None),
            (false, Some(n)) => Ok(BodyLength::Length(n)),
        }
    }

    /// Whether the visitor means to send another request on this connection.
    pub fn keep_alive(&self) -> bool {
        match self.version {
            HttpVersion::Http11 => !self.lists("connection", "close"),
            HttpVersion::Http10 => self.lists("connection", "keep-alive"),
        }
    }

    /// Whether the visitor waits for `100 Continue` before the body.
    pub fn expects_continue(&self) -> bool {
        self.version == HttpVersion::Http11 && self.lists("expect", "100-continue")
    }

    /// Whether the visitor is a browser or another reader of HTML.
    pub fn accepts_html(&self) -> bool {
        self.fields()
            .filter(|(n, _)| n.eq_ignore_ascii_case("accept"))
            .flat_map(|(_, v)| v.split(|b| *b == b','))
            .filter_map(|item| item.split(|b| *b == b';').next())
            .any(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/html"))
    }
}

/// Authority and path of a target that is a URL.
pub fn absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let end = rest.bytes().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // A path that is left out is the root's; a query of that means nothing here.
    Some((authority, if path.starts_with('/') { path } else { "/" }))
}

/// The first line without its end, and the rest.
fn cut_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &bytes[bytes.len()..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// Name and trimmed value of a field line.
fn cut_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: text/html;q=1, */*\r\n\r\n";

    #[test]
    fn same_head_however_it_is_cut() {
        for cut in 0..GET.len() {
            let mut parser = Parser::new(MAX_HEAD);
            assert_eq!(parser.feed(&GET[..cut]), Ok(None));
            let mut rest = GET[cut..].to_vec();
            rest.extend_from_slice(b"next");
            assert_eq!(parser.feed(&rest), Ok(Some(GET.len() - cut)));
            let head = parser.head().unwrap();
            assert_eq!((head.method(), head.target()), ("GET", "/a?b"));
            assert_eq!(head.text("HOST"), Some("x"));
            assert!(head.accepts_html() && head.keep_alive());
            assert_eq!(head.fields().count(), 2);
        }
    }

    #[test]
    fn skips_blank_lines_before_a_request_and_takes_bare_newlines() {
        let mut parser = Parser::new(MAX_HEAD);
        assert_eq!(parser.feed(b"\r\n\nGET / HTTP/1.0\nA: b\n\nrest"), Ok(Some(24)));
        let head = parser.head().unwrap();
        assert_eq!(head.version(), HttpVersion::Http10);
        assert!(!head.keep_alive());
        assert_eq!(head.text("a"), Some("b"));
        parser.clear();
        assert!(!parser.started());
        assert_eq!(parser.feed(GET), Ok(Some(GET.len())));
    }

    #[test]
    fn a_head_without_end_is_refused_at_the_limit() {
        let mut parser = Parser::new(100);
        let mut fed = 0;
        let error = loop {
            match parser.feed(b"GET / HTTP/1.1\r\nX: y\r\n") {
                Ok(_) => fed += 1,
                Err(e) => break e,
            }
            assert!(fed < 100);
        };
        assert_eq!(error, HeadError::TooLong);
        assert!(parser.bytes.len() <= 100);
        assert_eq!(Parser::new(100).feed(&[b'\n'; 101]), Err(HeadError::TooLong));
    }

    #[test]
    fn refuses_what_could_be_read_in_two_ways() {
        for (bytes, error) in [
            (&b"GET /\r\n\r\n"[..], HeadError::RequestLine),
            (b"GET  / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            (b"G(T / HTTP/1.1\r\n\r\n", HeadError::RequestLine),
            (b"GET / HTTP/2.0\r\n\r\n", HeadError::Version),
            (b"GET / FTP\r\n\r\n", HeadError::RequestLine),
            (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", HeadError::Field),
            (b"GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", HeadError::Field),
        ] {
            let seen = Head::parse(bytes).map(|_| ()).unwrap_err();
            assert_eq!(seen, error, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn body_lengths() {
        let body = |fields: &str| {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
            Head::parse(text.as_bytes()).unwrap().body()
        };
        assert_eq!(body(""), Ok(BodyLength::None));
        assert_eq!(body("Content-Length: 0\r\n"), Ok(BodyLength::None));
        assert_eq!(
            body("content-length: 12\r\nContent-Length: 12\r\n"),
            Ok(BodyLength::Length(12))
        );
        assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(BodyLength::Chunked));
        for bad in [
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length:\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(body(bad), Err(HeadError::Framing), "{bad}");
        }
    }

    #[test]
    fn connection_and_expectation() {
        let head = b"GET / HTTP/1.1\r\nConnection: Upgrade, CLOSE\r\nExpect: 100-Continue\r\n\r\n";
        let head = Head::parse(head).unwrap();
        assert!(!head.keep_alive() && head.expects_continue() && !head.accepts_html());
        let head = Head::parse(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert!(head.keep_alive() && !head.expects_continue());
    }
}
