//! Responses of HTTP/1 servers, read as they arrive, for [`super::http_client`] and
//! [`super::http_connect`], and the URLs of the former.
//!
//! Sans-IO: bytes come in pieces of any size. No sockets, no clock. Everything is
//! bounded: the head by [`MAX_HEAD`], the body by the caller.

use crate::http1::text::printable;

/// Most bytes of an answer's head.
pub const MAX_HEAD: usize = 16 * 1024;

/// Most bytes of a chunk's length with its extension, and of all trailers.
const MAX_LINE: usize = 4 * 1024;

/// A head up to its blank line.
#[derive(Debug)]
pub struct ResponseHead {
    /// Its three digits.
    pub status: u16,
    /// What the server says about it, printable characters only.
    pub reason: String,
    /// Bytes of the head, blank line included.
    pub len: usize,
    lines: String,
}

impl ResponseHead {
    /// Reads a head. `None` while its end has not come. The error says what came
    /// instead of one.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let start = b"HTTP/1.";
        let whole_start = bytes.len() >= start.len() || bytes.contains(&b'\n');
        if whole_start && !bytes.starts_with(start) {
            return Err(format!("not HTTP: '{}'", printable(bytes)));
        }
        let end = |mark: &[u8]| bytes.windows(mark.len()).position(|w| w == mark);
        let len = match (end(b"\r\n\r\n"), end(b"\n\n")) {
            (Some(a), Some(b)) => (a + 4).min(b + 2),
            (Some(a), None) => a + 4,
            (None, Some(b)) => b + 2,
            (None, None) if bytes.len() > MAX_HEAD => {
                return Err("a head of an answer that does not end".to_owned());
            }
            (None, None) => return Ok(None),
        };
        let wrong = || format!("no HTTP status line: '{}'", printable(bytes));
        // Older servers write what they say in other alphabets than UTF-8.
        let text = String::from_utf8_lossy(&bytes[..len]);
        let (first, lines) = text.split_once('\n').ok_or_else(wrong)?;
        let mut words = first.trim_end().splitn(3, ' ');
        let _version = words.next();
        let digits = words.next().filter(|d| d.len() == 3).ok_or_else(wrong)?;
        let status = digits.parse().map_err(|_| wrong())?;
        let reason = printable(words.next().unwrap_or_default().as_bytes());
        Ok(Some(ResponseHead { status, reason, len, lines: lines.to_owned() }))
    }

    /// The values of a header, in order.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.lines.lines().filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Where an answer's body is.
#[derive(Debug)]
enum Stage {
    Head,
    /// So many bytes to come.
    Fixed(usize),
    /// Up to the end of the connection.
    ToEnd,
    /// Inside of the line with a chunk's length.
    ChunkLine,
    /// So many bytes of a chunk to come.
    Chunk(usize),
    /// The line end behind a chunk.
    ChunkEnd,
    /// The lines behind the last chunk.
    Trailers,
    Done,
}

/// An answer on its way in.
#[derive(Debug)]
pub struct ResponseReader {
    stage: Stage,
    limit: usize,
    /// The head, or the line that is under way.
    pending: Vec<u8>,
    trailers: usize,
    /// The status, once the head is there.
    pub status: u16,
    /// The value of `Location`.
    pub location: Option<String>,
    /// The body so far.
    pub body: Vec<u8>,
}

impl ResponseReader {
    /// An answer whose body may have `limit` bytes.
    pub fn new(limit: usize) -> Self {
        ResponseReader {
            stage: Stage::Head,
            limit,
            pending: Vec::new(),
            trailers: 0,
            status: 0,
            location: None,
            body: Vec::new(),
        }
    }

    /// Takes what came. `true`: the answer is whole.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
        while !bytes.is_empty() {
            let mut used = bytes.len();
            match self.stage {
                Stage::Head => {
                    let before = self.pending.len();
                    self.pending.extend_from_slice(bytes);
                    // Only a line's end can be the head's end.
                    if !bytes.contains(&b'\n') && (8..=MAX_HEAD).contains(&self.pending.len()) {
                        return Ok(false);
                    }
                    let pending = std::mem::take(&mut self.pending);
                    match ResponseHead::parse(&pending)? {
                        // Other heads follow one of these.
                        Some(head) if head.status / 100 == 1 && head.status != 101 => {
                            used = head.len - before;
                        }
                        Some(head) => {
                            used = head.len - before;
                            self.begin(&head)?;
                        }
                        None => self.pending = pending,
                    }
                }
                Stage::Fixed(left) | Stage::Chunk(left) => {
                    used = used.min(left);
                    self.take(&bytes[..used])?;
                    let left = left - used;
                    self.stage = match self.stage {
                        Stage::Fixed(_) if left == 0 => Stage::Done,
                        Stage::Fixed(_) => Stage::Fixed(left),
                        _ if left == 0 => Stage::ChunkEnd,
                        _ => Stage::Chunk(left),
                    };
                }
                Stage::ToEnd => self.take(bytes)?,
                Stage::ChunkLine | Stage::ChunkEnd | Stage::Trailers => {
                    let end = bytes.iter().position(|b| *b == b'\n');
                    used = end.map_or(used, |at| at + 1);
                    self.pending.extend_from_slice(&bytes[..used]);
                    if self.pending.len() > MAX_LINE {
                        return Err("a chunk's length that does not end".to_owned());
                    }
                    if end.is_some() {
                        self.line()?;
                    }
                }
                Stage::Done => return Ok(true),
            }
            bytes = &bytes[used..];
        }
        Ok(matches!(self.stage, Stage::Done))
    }

    /// The connection ended. An error if the answer was not whole.
    pub fn end(&mut self) -> Result<(), String> {
        match self.stage {
            Stage::Done | Stage::ToEnd => Ok(()),
            Stage::Head if self.pending.is_empty() => Err("no answer".to_owned()),
            _ => Err("the answer was cut off".to_owned()),
        }
    }

    fn begin(&mut self, head: &ResponseHead) -> Result<(), String> {
        self.status = head.status;
        self.location = head.values("location").next().map(str::to_owned);
        let chunked = head.values("transfer-encoding").last().map(|v| {
            let last = v.rsplit(',').next().unwrap_or_default();
            last.trim().eq_ignore_ascii_case("chunked")
        });
        let length = head.values("content-length").next();
        self.stage = match (chunked, length) {
            _ if matches!(head.status, 204 | 304) => Stage::Done,
            (Some(true), _) => Stage::ChunkLine,
            (Some(false), _) | (None, None) => Stage::ToEnd,
            (None, Some(text)) => match text.parse() {
                Ok(0) => Stage::Done,
                Ok(n) if n > self.limit => return Err(self.too_large()),
                Ok(n) => Stage::Fixed(n),
                Err(_) => return Err(format!("a wrong Content-Length: '{text:.40}'")),
            },
        };
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() > self.limit - self.body.len() {
            return Err(self.too_large());
        }
        self.body.extend_from_slice(bytes);
        Ok(())
    }

    fn too_large(&self) -> String {
        format!("the answer is larger than {} bytes", self.limit)
    }

    /// A whole line is pending.
    fn line(&mut self) -> Result<(), String> {
        let line = std::mem::take(&mut self.pending);
        let line = line.trim_ascii();
        self.stage = match self.stage {
            Stage::ChunkLine => {
                let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
                let size = std::str::from_utf8(digits)
                    .ok()
                    .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))
                    .and_then(|d| usize::from_str_radix(d, 16).ok());
                match size {
                    Some(0) => Stage::Trailers,
                    Some(n) => Stage::Chunk(n),
                    None => return Err("a wrong length of a chunk".to_owned()),
                }
            }
            Stage::ChunkEnd if line.is_empty() => Stage::ChunkLine,
            Stage::ChunkEnd => return Err("a chunk longer than announced".to_owned()),
            _ if line.is_empty() => Stage::Done,
            _ => {
                self.trailers += line.len();
                if self.trailers > MAX_LINE {
                    return Err("too many trailers".to_owned());
                }
                Stage::Trailers
            }
        };
        Ok(())
    }
}

/// A URL of the kind that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// `https`, not `http`.
    pub secure: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Its port, the scheme's if none was said.
    pub port: u16,
    /// Path and query, from the first slash.
    pub target: String,
}

impl Url {
    /// Reads `http://host[:port][/path]` or the same with `https`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{}' is not a http:// or https:// URL", printable(text.as_bytes()));
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        if target.bytes().any(|b| b <= b' ' || b == 127) {
            return Err(wrong());
        }
        let (host, port) = super::dial::split_host(authority).ok_or_else(wrong)?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        Ok(Url { secure, host: host.to_owned(), port, target })
    }

    /// Where a `Location` leads from here.
    pub fn join(&self, location: &str) -> Result<Self, String> {
        if location.contains("://") {
            return Url::parse(location);
        }
        let scheme = if self.secure { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let path = match location.strip_prefix('/') {
            Some(_) => location.to_owned(),
            None => {
                let path = self.target.split('?').next().unwrap_or("/");
                let dir = path.rfind('/').map_or("", |at| &path[..at]);
                format!("{dir}/{location}")
            }
        };
        Url::parse(&format!("{scheme}://{}{path}", self.authority()))
    }

    /// `host:port`, the port left out where the scheme implies it.
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        match (self.secure, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

/// A host as it stands in front of a port.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome of an answer that comes in pieces of `size` and then ends.
    fn read(text: &str, limit: usize, size: usize) -> Result<(u16, String), String> {
        let mut answer = ResponseReader::new(limit);
        for piece in text.as_bytes().chunks(size) {
            if answer.feed(piece)? {
                return Ok((answer.status, String::from_utf8(answer.body).unwrap()));
            }
        }
        answer.end()?;
        Ok((answer.status, String::from_utf8(answer.body).unwrap()))
    }

    #[test]
    fn bodies_of_all_kinds_however_they_are_cut() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       4;x=y\r\nwiki\r\n6\r\npedia.\r\n0\r\nT: 1\r\n\r\n";
        for size in [1, 2, 3, 7, 1000] {
            for (text, body) in [
                ("HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\n\r\nabcREST", "abc"),
                ("HTTP/1.0 200\n\nup to the end", "up to the end"),
                ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
                ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", "x"),
                (chunked, "wikipedia."),
            ] {
                assert_eq!(read(text, 100, size), Ok((200, body.to_owned())), "{text} by {size}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(MAX_HEAD));
        for (text, what) in [
            ("SSH-2.0-dropbear\r\n", "not HTTP: 'SSH-2.0"),
            ("", "no answer"),
            ("HTTP/1.1 200 OK\r\n", "cut off"),
            ("HTTP/1.1 twohundred\r\n\r\n", "no HTTP status line"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "cut off"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc", "wrong Content-Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", "larger than 100"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", "cut off"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcde\r\n", "longer"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+4\r\nabcd", "wrong length"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", ""),
            (&long, "does not end"),
        ] {
            for size in [1, 5, 10_000] {
                let got = read(text, 100, size).unwrap_err();
                assert!(got.contains(what), "{text:.60}: {got}");
            }
        }
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
        assert!(read(&endless, 100, 9).unwrap_err().contains("larger"));
    }

    #[test]
    fn urls() {
        let url = Url::parse("HTTP://[::1]:81/a?b#c").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("::1", 81, "/a?b"));
        assert_eq!(url.authority(), "[::1]:81");
        assert_eq!(Url::parse("https://a.example").unwrap().port, 443);
        assert_eq!(Url::parse("http://a?q").unwrap().target, "/?q");
        for bad in ["", "a", "ftp://a", "http://", "http://a:0", "http://a/b c", "http://u@a/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        let base = Url::parse("http://a:81/x/y?z").unwrap();
        for (location, joined) in [
            ("/q", "http://a:81/q"),
            ("q", "http://a:81/x/q"),
            ("//b/q", "http://b/q"),
            ("https://b/q", "https://b/q"),
        ] {
            assert_eq!(base.join(location), Url::parse(joined), "{location}");
        }
    }
}
