//! Responses of HTTP/1 servers, read as they arrive, for [`super::http_client`] and
//! [`super::http_connect`], and the URLs of the former.
//!
//! Sans-IO: bytes come in pieces of any size. No sockets, no clock. Everything is
//! bounded: the head by [`MAX_HEAD`], the body by the caller.

use crate::http1::chunked::ChunkedDecoder;
use crate::http1::error::HttpError;
use crate::http1::framing::{BodyFraming, RequestMethod};
use crate::http1::head::ResponseHeadReader;
use crate::http1::line::Strictness;
use crate::http1::status;
use crate::http1::text::printable;

/// Most bytes of an answer's head.
pub const MAX_HEAD: usize = 16 * 1024;

/// Position in a response.
#[derive(Debug)]
enum Stage {
    Head,
    /// So many bytes are missing from the body.
    Length(usize),
    Chunked(ChunkedDecoder),
    /// The body ends with the connection.
    UntilClose,
    Done,
}

/// A response on its way in.
#[derive(Debug)]
pub struct ResponseReader {
    stage: Stage,
    limit: usize,
    head: ResponseHeadReader,
    /// The status, once the head is there.
    pub status: u16,
    /// The value of `Location`.
    pub location: Option<String>,
    /// The body so far.
    pub body: Vec<u8>,
}

impl ResponseReader {
    /// A response whose body may have `limit` bytes.
    pub fn new(limit: usize) -> Self {
        ResponseReader {
            stage: Stage::Head,
            limit,
            head: ResponseHeadReader::new(MAX_HEAD),
            status: 0,
            location: None,
            body: Vec::new(),
        }
    }

    /// Takes what came. `true`: the response is whole.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, String> {
        while !bytes.is_empty() {
            let used = match &mut self.stage {
                Stage::Head => self.take_head(bytes)?,
                Stage::Length(left) => {
                    let n = bytes.len().min(*left);
                    *left -= n;
                    let done = *left == 0;
                    self.take(&bytes[..n])?;
                    if done {
                        self.stage = Stage::Done;
                    }
                    n
                }
                Stage::Chunked(decoder) => {
                    let (body, limit) = (&mut self.body, self.limit);
                    let mut too_large = false;
                    let used = decoder.feed(bytes, &mut |data| {
                        too_large |= data.len() > limit - body.len();
                        if !too_large {
                            body.extend_from_slice(data);
                        }
                    });
                    // What a chunk announces counts before it comes.
                    let missing = usize::try_from(decoder.missing()).unwrap_or(usize::MAX);
                    if too_large || missing > limit - body.len() {
                        return Err(self.too_large());
                    }
                    if decoder.is_done() {
                        self.stage = Stage::Done;
                    }
                    used.map_err(|error| error.to_string())?
                }
                Stage::UntilClose => {
                    self.take(bytes)?;
                    bytes.len()
                }
                Stage::Done => return Ok(true),
            };
            bytes = &bytes[used..];
        }
        Ok(matches!(self.stage, Stage::Done))
    }

    /// The connection ended. An error if the response was not whole.
    pub fn end(&mut self) -> Result<(), String> {
        match self.stage {
            Stage::Done | Stage::UntilClose => Ok(()),
            Stage::Head if self.head.bytes().is_empty() => Err("no answer".to_owned()),
            _ => Err("the answer was cut off".to_owned()),
        }
    }

    /// Takes bytes of a head. Returns how many belong to it.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let fed = self.head.feed(bytes);
        let Some(used) = fed.map_err(|error| describe(error, self.head.bytes()))? else {
            return Ok(bytes.len());
        };
        let read = self.head.response().and_then(|response| {
            let location = response.fields.first("location");
            let location = location.map(|value| String::from_utf8_lossy(value).into_owned());
            Ok((response.line.status, location, response.body(RequestMethod::Other)?))
        });
        let (status, location, body) = read.map_err(|error| describe(error, self.head.bytes()))?;
        if status::is_interim(status) {
            // Another head follows.
            self.head.clear();
            return Ok(used);
        }
        (self.status, self.location) = (status, location);
        self.stage = match body {
            BodyFraming::None | BodyFraming::Tunnel => Stage::Done,
            BodyFraming::Length(n) => match usize::try_from(n) {
                Ok(n) if n <= self.limit => Stage::Length(n),
                _ => return Err(self.too_large()),
            },
            BodyFraming::Chunked => Stage::Chunked(ChunkedDecoder::new(Strictness::Lenient)),
            BodyFraming::UntilClose => Stage::UntilClose,
        };
        Ok(used)
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
}

/// What is wrong with a response that begins with `bytes`.
pub(super) fn describe(error: HttpError, bytes: &[u8]) -> String {
    match error {
        HttpError::NotHttp | HttpError::StatusLine => format!("not HTTP: '{}'", printable(bytes)),
        _ => format!("invalid HTTP: {error}"),
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
            ("HTTP/1.1 twohundred\r\n\r\n", "not HTTP: 'HTTP/1.1 twohundred'"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", "cut off"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc",
                "Content-Length header is not a valid number",
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", "larger than 100"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n", "cut off"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcde\r\n",
                "end of a chunk is not CR LF",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+4\r\nabcd",
                "size of a chunk is malformed",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", ""),
            (&long, "too large"),
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
