//! Parses a captured message: first line, fields, body without its chunks.
//!
//! Sans-IO and lenient: the bytes are shown as they passed. Framing is checked in
//! [`super::observer`]. Nothing here changes a message.

use std::borrow::Cow;

use crate::http1::chunked::ChunkedDecoder;
use crate::http1::line::Strictness;

/// Name and value.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// A captured message. Borrows its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The first line, without its end.
    pub first: &'a [u8],
    fields: &'a [u8],
    /// Bytes after the head, as they passed.
    pub body: &'a [u8],
    /// Whether the head is complete.
    pub whole_head: bool,
}

impl<'a> Message<'a> {
    /// Splits a message into its parts.
    pub fn parse(raw: &'a [u8]) -> Self {
        let (first, rest) = cut_line(raw);
        let mut body = rest;
        let mut whole_head = false;
        while !body.is_empty() && !whole_head {
            let (line, after) = cut_line(body);
            whole_head = line.is_empty();
            body = after;
        }
        let (fields, _) = rest.split_at(rest.len() - body.len());
        Message { first, fields, body, whole_head }
    }

    /// Returns the three words of the first line: method, target and version, or version,
    /// status and reason. Missing words are empty.
    pub fn words(&self) -> [Cow<'a, str>; 3] {
        let mut words = self.first.splitn(2, |b| *b == b' ');
        let (first, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // A target may contain blanks, and a reason does. The version decides.
        let cut = match first.starts_with(b"HTTP/") {
            true => rest.iter().position(|b| *b == b' '),
            false => rest.iter().rposition(|b| *b == b' '),
        };
        let (second, third) = rest.split_at(cut.unwrap_or(rest.len()));
        let third = third.strip_prefix(b" ").unwrap_or(third);
        [first, second, third].map(String::from_utf8_lossy)
    }

    /// Returns all fields in order, with values without surrounding blanks.
    pub fn fields(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        fields(self.fields)
    }

    /// Returns the first value of a field. Case does not matter in the name.
    #[cfg(test)]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// Returns whether the body is chunked.
    pub fn is_chunked(&self) -> bool {
        self.fields().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"transfer-encoding")
                && value
                    .rsplit(|b| *b == b',')
                    .next()
                    .is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"))
        })
    }

    /// Returns the captured part of the body, decoded from chunks, and the trailers.
    pub fn content(&self) -> (Cow<'a, [u8]>, Vec<Field<'a>>) {
        if !self.is_chunked() {
            return (Cow::Borrowed(self.body), Vec::new());
        }
        let mut decoder = ChunkedDecoder::new(Strictness::Lenient);
        let mut content = Vec::new();
        let mut rest = self.body;
        // Line by line, to find the first line of the trailers.
        while !rest.is_empty() {
            let line = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
            let (piece, after) = rest.split_at(line);
            let (_, error) = decoder.advance(piece, &mut |data| content.extend_from_slice(data));
            rest = after;
            if decoder.is_behind_data() {
                return (Cow::Owned(content), fields(rest).collect());
            }
            if error.is_some() {
                break;
            }
        }
        (Cow::Owned(content), Vec::new())
    }
}

/// Returns method and target from the first bytes of a request.
pub(super) fn request_words(raw: &[u8]) -> Option<(String, String)> {
    let [method, target, version] = Message::parse(raw).words();
    let target = match version.starts_with("HTTP/") {
        true => target.into_owned(),
        // The line is incomplete.
        false => format!("{target} {version}").trim_end().to_owned(),
    };
    (!method.is_empty()).then(|| (method.into_owned(), target))
}

/// Returns the field lines up to the first empty line.
fn fields<'a>(lines: &'a [u8]) -> impl Iterator<Item = Field<'a>> + use<'a> {
    let mut rest = lines;
    std::iter::from_fn(move || {
        loop {
            let (line, after) = cut_line(rest);
            if line.is_empty() {
                return None;
            }
            rest = after;
            // An invalid line is visible in the raw bytes.
            if let Some(colon) = line.iter().position(|b| *b == b':') {
                let (name, value) = line.split_at(colon);
                return Some((name, value.get(1..).unwrap_or_default().trim_ascii()));
            }
        }
    })
}

/// Returns the first line without its end, and the rest.
fn cut_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1);
    let (line, rest) = bytes.split_at(end);
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_parts() {
        let raw = b"POST /a b?c HTTP/1.1\r\nHost: x\r\nbad line\r\nA:  1 \n\r\nbody";
        let message = Message::parse(raw);
        assert_eq!(message.words(), ["POST", "/a b?c", "HTTP/1.1"]);
        let fields: Vec<_> = message.fields().collect();
        assert_eq!(fields, [(&b"Host"[..], &b"x"[..]), (b"A", b"1")]);
        assert_eq!(message.field("HOST"), Some(&b"x"[..]));
        assert_eq!((message.body, message.whole_head), (&b"body"[..], true));
        assert_eq!(message.content().0, &b"body"[..]);
    }

    #[test]
    fn a_response_without_a_reason_and_one_with_a_long_one() {
        let words = |raw| Message::parse(raw).words().map(Cow::into_owned);
        assert_eq!(words(b"HTTP/1.1 200\r\n\r\n"), ["HTTP/1.1", "200", ""]);
        assert_eq!(words(b"HTTP/1.1 404 Not Found\r\n\r\n"), ["HTTP/1.1", "404", "Not Found"]);
        assert_eq!(words(b""), ["", "", ""]);
    }

    #[test]
    fn chunks_are_taken_off_as_far_as_they_are_there() {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n";
        let body = b"3;x=\"y\"\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nSum: 7\r\n\r\n";
        let raw = [&head[..], body].concat();
        let message = Message::parse(&raw);
        let (content, trailers) = message.content();
        assert_eq!(content, &b"abc0123456789abcdef"[..]);
        assert_eq!(trailers, [(&b"Sum"[..], &b"7"[..])]);
        for end in 0..raw.len() {
            let (content, _) = Message::parse(&raw[..end]).content();
            assert!(b"abc0123456789abcdef".starts_with(&content) || end < head.len());
        }
    }

    #[test]
    fn the_beginning_of_a_request() {
        let words = |raw: &[u8]| request_words(raw).unwrap_or_default();
        let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(words(b"GET /x HTTP/1.1\r\n"), own("GET", "/x"));
        assert_eq!(words(b"GET /a b"), own("GET", "/a b"));
        assert_eq!(words(b"GET /long"), own("GET", "/long"));
        assert_eq!(words(b""), own("", ""));
    }
}
