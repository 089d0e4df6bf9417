//! The head of an HTTP/1 message as ranges over its bytes: start line and
//! fields, nothing copied. What the fields mean is decided in
//! [`super::request`] and [`super::response`].

use std::ops::Range;

/// Most bytes of a head, the blank line included.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most fields of a head.
pub const MAX_FIELDS: usize = 256;

/// Finds the end of a head: the index behind its blank line. `seen` bytes were
/// looked at before in vain.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    // The blank line may have begun in the part that was seen.
    let mut from = seen.saturating_sub(3);
    while let Some(at) = bytes[from..].iter().position(|&b| b == b'\n') {
        let next = from + at + 1;
        match bytes.get(next) {
            Some(b'\n') => return Some(next + 1),
            Some(b'\r') if bytes.get(next + 1) == Some(&b'\n') => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

/// How much is forgiven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Nothing: what two readers could understand in two ways is refused.
    /// For visitors.
    Strict,
    /// A line may end with a bare LF. For upstreams, some of which are scripts.
    Lenient,
}

/// One field: where its name and its value (without surrounding blanks) lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRanges {
    /// The name.
    pub name: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

/// A head that was taken apart. Keeps its memory for the next one.
#[derive(Debug, Default)]
pub struct HeadRanges {
    /// The first line without its end.
    pub start: Range<usize>,
    /// The fields, in order.
    pub fields: Vec<FieldRanges>,
}

impl HeadRanges {
    /// Takes `bytes` apart, which end with the blank line ([`end`]). On error
    /// says what is wrong, for a page or a log.
    pub fn parse(&mut self, bytes: &[u8], strictness: Strictness) -> Result<(), &'static str> {
        self.fields.clear();
        self.start = 0..0;
        let mut at = 0;
        let mut first = true;
        while at < bytes.len() {
            let Some(len) = bytes[at..].iter().position(|&b| b == b'\n') else {
                return Err("a line without an end");
            };
            let mut stop = at + len;
            if stop > at && bytes[stop - 1] == b'\r' {
                stop -= 1;
            } else if strictness == Strictness::Strict {
                return Err("a line that ends with a bare LF");
            }
            let line = at..stop;
            at += len + 1;
            if first {
                if line.is_empty() {
                    return Err("an empty first line");
                }
                if bytes[line.clone()].iter().any(|&b| is_control(b)) {
                    return Err("a control character in the first line");
                }
                self.start = line;
                first = false;
            } else if line.is_empty() {
                return Ok(());
            } else {
                let field = field(bytes, line)?;
                if self.fields.len() == MAX_FIELDS {
                    return Err("too many header fields");
                }
                self.fields.push(field);
            }
        }
        Err("no blank line")
    }

    /// The values of the fields called `name`, in order.
    pub fn values<'a>(&'a self, bytes: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |f| bytes[f.name.clone()].eq_ignore_ascii_case(name.as_bytes()))
            .map(|f| &bytes[f.value.clone()])
    }

    /// Whether a comma-separated list in the fields called `name` has `token`.
    pub fn lists(&self, bytes: &[u8], name: &str, token: &str) -> bool {
        self.values(bytes, name)
            .any(|v| tokens(v).any(|t| t.eq_ignore_ascii_case(token.as_bytes())))
    }
}

/// The members of a comma-separated list, without blanks and empty ones.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(|t| t.trim_ascii()).filter(|t| !t.is_empty())
}

/// Whether `b` may stand in a token (a method, a field name).
pub fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn is_control(b: u8) -> bool {
    (b < 0x20 && b != b'\t') || b == 0x7f
}

fn field(bytes: &[u8], line: Range<usize>) -> Result<FieldRanges, &'static str> {
    let text = &bytes[line.clone()];
    if text[0] == b' ' || text[0] == b'\t' {
        return Err("a folded header line");
    }
    let Some(colon) = text.iter().position(|&b| b == b':') else {
        return Err("a header line without a colon");
    };
    if colon == 0 || !text[..colon].iter().all(|&b| is_token(b)) {
        return Err("a header name with a character that may not stand in one");
    }
    let mut from = colon + 1;
    let mut to = text.len();
    while from < to && matches!(text[from], b' ' | b'\t') {
        from += 1;
    }
    while to > from && matches!(text[to - 1], b' ' | b'\t') {
        to -= 1;
    }
    if text[from..to].iter().any(|&b| is_control(b)) {
        return Err("a control character in a header value");
    }
    let base = line.start;
    Ok(FieldRanges { name: base..base + colon, value: base + from..base + to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HeadRanges, &'static str> {
        let mut head = HeadRanges::default();
        head.parse(text.as_bytes(), Strictness::Strict).map(|()| head)
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let text = b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody";
        for cut in 0..text.len() {
            let first = end(&text[..cut], 0);
            let got = first.or_else(|| end(text, cut));
            assert_eq!(got, Some(24), "cut at {cut}");
        }
        assert_eq!(end(b"A\n\nrest", 0), Some(3));
        assert_eq!(end(b"A\r\n\r", 0), None);
    }

    #[test]
    fn fields_are_ranges() {
        let text = "GET / HTTP/1.1\r\nHost:  a.example \r\nAccept: x, y\r\naccept: Z\r\n\r\n";
        let head = parse(text).unwrap();
        let bytes = text.as_bytes();
        assert_eq!(&text[head.start.clone()], "GET / HTTP/1.1");
        assert_eq!(head.values(bytes, "host").next(), Some(&b"a.example"[..]));
        assert!(head.lists(bytes, "ACCEPT", "z") && head.lists(bytes, "accept", "y"));
        assert!(!head.lists(bytes, "accept", "x, y"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
            "GET / HTTP/1.1\r\nA\u{e9}: b\r\n\r\n",
            "GET /\r\r\nA: b\r\n\r\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn upstreams_may_end_lines_with_lf() {
        let mut head = HeadRanges::default();
        let text = b"HTTP/1.0 200 OK\nA: b\n\n";
        assert!(head.parse(text, Strictness::Lenient).is_ok());
        assert_eq!(head.fields.len(), 1);
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let text = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert!(parse(&text).is_err());
    }
}
