//! Single lines of a head: first line and header lines, without their line ends. Whole heads
//! are parsed in [`super::head`], which uses `httparse` for header lines. Here are the first
//! lines, and the readers for heads that arrive line by line or need repair.

use super::error::HttpError;
use super::text::is_token;

/// Strictness of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Accepts only what every reader interprets in the same way. For bytes that are passed on
    /// unchanged to another reader.
    Strict,
    /// Also accepts harmless mistakes of servers and their scripts.
    Lenient,
}

/// Version of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpVersion {
    /// HTTP/1.0: a connection closes unless both sides keep it.
    Http10,
    /// HTTP/1.1: a connection stays open unless one side closes it.
    #[default]
    Http11,
}

/// First line of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// The method as sent: methods are case-sensitive.
    pub method: &'a str,
    /// The request target as sent.
    pub target: &'a [u8],
    /// The version.
    pub version: HttpVersion,
}

impl<'a> RequestLine<'a> {
    /// Parses a request line. Lenient: the target may contain blanks.
    pub fn parse(line: &'a [u8], strictness: Strictness) -> Result<Self, HttpError> {
        if line == b"PRI * HTTP/2.0" {
            return Err(HttpError::Http2Preface);
        }
        let blank = |b: &u8| *b == b' ';
        let first = line.iter().position(blank).ok_or(HttpError::RequestLine)?;
        let (method, rest) = (&line[..first], &line[first + 1..]);
        let last = rest.iter().rposition(blank).ok_or(HttpError::RequestLine)?;
        let (target, version) = (&rest[..last], &rest[last + 1..]);
        if strictness == Strictness::Strict && target.contains(&b' ') {
            return Err(HttpError::RequestLine);
        }
        let version = match version {
            b"HTTP/1.1" => HttpVersion::Http11,
            b"HTTP/1.0" => HttpVersion::Http10,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(HttpError::Version);
            }
            _ => return Err(HttpError::RequestLine),
        };
        let method = std::str::from_utf8(method).ok().filter(|m| is_token(m.as_bytes()));
        let method = method.ok_or(HttpError::Method)?;
        let control = |b: &u8| *b < b' ' || *b == 0x7f;
        if target.is_empty() || (strictness == Strictness::Strict && target.iter().any(control)) {
            return Err(HttpError::Target);
        }
        Ok(RequestLine { method, target, version })
    }
}

/// First line of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusLine<'a> {
    /// The version. A higher minor version counts as HTTP/1.1 (RFC 9110 2.5).
    pub version: HttpVersion,
    /// The code, 100 to 999.
    pub status: u16,
    /// The part after the code and its blank, as sent.
    pub reason: &'a [u8],
}

impl<'a> StatusLine<'a> {
    /// Parses a status line.
    pub fn parse(line: &'a [u8]) -> Result<Self, HttpError> {
        let Some(rest) = line.strip_prefix(STATUS_LINE_START) else {
            return Err(HttpError::NotHttp);
        };
        let [minor @ b'0'..=b'9', b' ', a @ b'1'..=b'9', b, c, rest @ ..] = rest else {
            return Err(HttpError::StatusLine);
        };
        let digit = |d: &u8| d.is_ascii_digit().then(|| u16::from(d - b'0'));
        let (Some(a), Some(b), Some(c)) = (digit(a), digit(b), digit(c)) else {
            return Err(HttpError::StatusLine);
        };
        let reason = match rest {
            [] => rest,
            [b' ', reason @ ..] => reason,
            _ => return Err(HttpError::StatusLine),
        };
        let version = if *minor == b'0' { HttpVersion::Http10 } else { HttpVersion::Http11 };
        Ok(StatusLine { version, status: a * 100 + b * 10 + c, reason })
    }
}

/// First bytes of a response.
pub const STATUS_LINE_START: &[u8] = b"HTTP/1.";

/// Parses a header line into name and value without the blanks around it. Strict.
pub fn field(line: &[u8]) -> Result<(&[u8], &[u8]), HttpError> {
    if matches!(line, [b' ' | b'\t', ..]) {
        return Err(HttpError::FoldedField);
    }
    let colon = line.iter().position(|b| *b == b':').ok_or(HttpError::MissingColon)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_token(name) {
        return Err(match name {
            [.., b' ' | b'\t'] if is_token(trim(name)) => HttpError::BlankBeforeColon,
            _ => HttpError::FieldName,
        });
    }
    if value.iter().any(|b| is_control(*b)) {
        return Err(HttpError::ControlCharacter);
    }
    Ok((name, trim(value)))
}

/// A header line for a lenient reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LenientLine<'a> {
    /// A field. Its value may contain control characters.
    Field(&'a [u8], &'a [u8]),
    /// A continuation of the value of the field before.
    Continuation(&'a [u8]),
    /// An ignored line.
    Ignored,
}

/// Parses header lines one by one and accepts mistakes that cannot change the framing (RFC 9112
/// 5.1 and 5.2): folded lines, a blank in front of the colon, lines that are not fields. A line
/// that another reader could interpret as Content-Length or Transfer-Encoding is an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct LenientFields {
    last: Last,
}

/// The line before, to which a continuation belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Last {
    /// None, or a line that was ignored.
    #[default]
    Ignored,
    Field,
    FramingFields,
}

impl LenientFields {
    /// Parses the next line, which is not empty.
    pub fn line<'a>(&mut self, line: &'a [u8]) -> Result<LenientLine<'a>, HttpError> {
        if matches!(line, [b' ' | b'\t', ..]) {
            let text = trim(line);
            return match self.last {
                Last::FramingFields => Err(HttpError::HiddenFraming),
                // A reader that does not support folding would find another field.
                Last::Ignored if looks_like_framing(text) => Err(HttpError::HiddenFraming),
                Last::Ignored => Ok(LenientLine::Ignored),
                Last::Field => Ok(LenientLine::Continuation(text)),
            };
        }
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let bare = trim(name);
        if colon.is_none() || !is_token(bare) {
            if looks_like_framing(line) {
                return Err(HttpError::HiddenFraming);
            }
            self.last = Last::Ignored;
            return Ok(LenientLine::Ignored);
        }
        let value = trim(value.get(1..).unwrap_or_default());
        self.last = Last::Field;
        if is_framing(bare) {
            if bare.len() != name.len() || value.iter().any(|b| is_control(*b)) {
                return Err(HttpError::HiddenFraming);
            }
            self.last = Last::FramingFields;
        }
        Ok(LenientLine::Field(bare, value))
    }
}

/// Returns whether a field frames the body.
pub fn is_framing(name: &[u8]) -> bool {
    // The length is checked first, because it differs for most names.
    match name.len() {
        14 => name.eq_ignore_ascii_case(b"content-length"),
        17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
        _ => false,
    }
}

/// Returns whether the letters before the first colon, or of a whole malformed line, begin like
/// the name of a field that frames the body.
fn looks_like_framing(line: &[u8]) -> bool {
    let name = line.split(|b| *b == b':').next().unwrap_or_default();
    let letters = || name.iter().filter(|b| b.is_ascii_alphanumeric());
    [&b"contentlength"[..], b"transferencoding"].iter().any(|wanted| {
        letters().count() >= wanted.len()
            && letters().zip(*wanted).all(|(a, b)| a.eq_ignore_ascii_case(b))
    })
}

/// Returns whether `b` is a control character other than a tab.
pub(super) fn is_control(b: u8) -> bool {
    (b < b' ' && b != b'\t') || b == 0x7f
}

/// Returns `bytes` without surrounding blanks and tabs.
pub(super) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Returns the line before the first LF, without its CR, and the bytes after the LF.
pub(super) fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (line, rest) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &bytes[bytes.len()..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
        let strict = |text: &'static str| RequestLine::parse(text.as_bytes(), Strictness::Strict);
        let line = strict("GET /a?b HTTP/1.1").unwrap();
        assert_eq!(
            (line.method, line.target, line.version),
            ("GET", &b"/a?b"[..], HttpVersion::Http11)
        );
        assert_eq!(strict("X-Y * HTTP/1.0").unwrap().version, HttpVersion::Http10);
        for (text, error) in [
            ("", HttpError::RequestLine),
            ("GET /", HttpError::RequestLine),
            ("GET / FTP", HttpError::RequestLine),
            ("GET / http/1.1", HttpError::RequestLine),
            ("GET / HTTP/1.1 ", HttpError::RequestLine),
            ("GET / a HTTP/1.1", HttpError::RequestLine),
            ("GET  / HTTP/1.1", HttpError::RequestLine),
            ("GET  HTTP/1.1", HttpError::Target),
            (" GET / HTTP/1.1", HttpError::RequestLine),
            ("G(T / HTTP/1.1", HttpError::Method),
            ("GET /\t HTTP/1.1", HttpError::Target),
            ("GET /\r HTTP/1.1", HttpError::Target),
            ("GET / HTTP/1.2", HttpError::Version),
            ("GET / HTTP/2.0", HttpError::Version),
            ("PRI * HTTP/2.0", HttpError::Http2Preface),
        ] {
            assert_eq!(strict(text), Err(error), "{text:?}");
        }
        let lenient = RequestLine::parse(b"GET /a b HTTP/1.1", Strictness::Lenient).unwrap();
        assert_eq!(lenient.target, b"/a b");
    }

    #[test]
    fn status_lines() {
        for (text, minor, status, reason) in [
            ("HTTP/1.1 200 OK", HttpVersion::Http11, 200, "OK"),
            ("HTTP/1.0 200", HttpVersion::Http10, 200, ""),
            ("HTTP/1.1 404 ", HttpVersion::Http11, 404, ""),
            ("HTTP/1.2 999 a b ", HttpVersion::Http11, 999, "a b "),
        ] {
            let line = StatusLine::parse(text.as_bytes()).unwrap();
            assert_eq!((line.version, line.status), (minor, status), "{text}");
            assert_eq!(line.reason, reason.as_bytes());
        }
        for (text, error) in [
            ("", HttpError::NotHttp),
            ("ICY 200 OK", HttpError::NotHttp),
            ("http/1.1 200 OK", HttpError::NotHttp),
            ("HTTP/2 200", HttpError::NotHttp),
            ("HTTP/1.1 20", HttpError::StatusLine),
            ("HTTP/1.1 2000 OK", HttpError::StatusLine),
            ("HTTP/1.1 099 Odd", HttpError::StatusLine),
            ("HTTP/1.1  200 OK", HttpError::StatusLine),
            ("HTTP/1.1 +20 OK", HttpError::StatusLine),
            ("HTTP/1.1 200OK", HttpError::StatusLine),
            ("HTTP/1.11 200 OK", HttpError::StatusLine),
        ] {
            assert_eq!(StatusLine::parse(text.as_bytes()), Err(error), "{text:?}");
        }
    }

    #[test]
    fn fields() {
        assert_eq!(field(b"Host:  a.example \t"), Ok((&b"Host"[..], &b"a.example"[..])));
        assert_eq!(field(b"A:"), Ok((&b"A"[..], &b""[..])));
        assert_eq!(field(b"A: \xff:"), Ok((&b"A"[..], &b"\xff:"[..])));
        for (text, error) in [
            (&b" folded: a"[..], HttpError::FoldedField),
            (b"no colon", HttpError::MissingColon),
            (b"A : b", HttpError::BlankBeforeColon),
            (b"A\t: b", HttpError::BlankBeforeColon),
            (b": b", HttpError::FieldName),
            (b" : b", HttpError::FoldedField),
            (b"A b: c", HttpError::FieldName),
            (b"A\0: c", HttpError::FieldName),
            (b"A\xe9: c", HttpError::FieldName),
            (b"A: b\rc", HttpError::ControlCharacter),
            (b"A: b\0", HttpError::ControlCharacter),
        ] {
            assert_eq!(field(text), Err(error), "{:?}", String::from_utf8_lossy(text));
        }
    }

    /// Returns the lines as a lenient reader parses them; `-` is an ignored line.
    fn lenient(lines: &[&str]) -> Result<String, HttpError> {
        let mut reader = LenientFields::default();
        let mut out = Vec::new();
        for line in lines {
            let utf8 = |bytes| String::from_utf8_lossy(bytes).into_owned();
            out.push(match reader.line(line.as_bytes())? {
                LenientLine::Field(name, value) => format!("{}={}", utf8(name), utf8(value)),
                LenientLine::Continuation(text) => format!("+{}", utf8(text)),
                LenientLine::Ignored => "-".to_owned(),
            });
        }
        Ok(out.join("|"))
    }

    #[test]
    fn lenient_reading_accepts_harmless_mistakes() {
        for (lines, read) in [
            (&["A: b", "  c", "\td"][..], "A=b|+c|+d"),
            (&["no colon", " more of it", "A:b"], "-|-|A=b"),
            (&[" first", "A:b"], "-|A=b"),
            (&["Server : x"], "Server=x"),
            (&["A b: c", " d", "E: f"], "-|-|E=f"),
            (&[": c"], "-"),
            (&["A: b\0c"], "A=b\0c"),
            (&["Content-Length: 5"], "Content-Length=5"),
            (&["Content: 5", "Length: 5"], "Content=5|Length=5"),
        ] {
            assert_eq!(lenient(lines).as_deref(), Ok(read), "{lines:?}");
        }
    }

    #[test]
    fn lenient_reading_refuses_hidden_framing() {
        for lines in [
            &["Content-Length : 5"][..],
            &["Content-Length\t: 5"],
            &["Content-Length: 5\0"],
            &["Content-Length: 1\r0"],
            &["Content-Length:", " 5"],
            &["Content-Length: 5", " 6"],
            &["Transfer-Encoding: chunked", "\t, identity"],
            &["Transfer-Encoding\0: chunked"],
            &["Transfer Encoding: chunked"],
            &["transfer-encoding"],
            &["Content-Length 5"],
            &["\u{b}Content-Length: 5"],
            &["Content-Length\r: 5"],
            &["bad line", " Transfer-Encoding: chunked"],
            &[" Content-Length: 5"],
            &["Content-Length\u{a0}: 5"],
        ] {
            assert_eq!(lenient(lines), Err(HttpError::HiddenFraming), "{lines:?}");
        }
    }
}
