//! What a visitor's request means, and the head that the upstream gets.
//!
//! Strict: whatever two HTTP readers could understand in two ways is refused,
//! for the upstream behind us may be the other reader. Otherwise the bytes go
//! on as they came: order, spelling and values of the fields stay.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::ops::Range;

use super::head::{self, HeadRanges, Strictness};

/// Framing of a request's body (RFC 9112, 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none.
    #[default]
    None,
    /// After so many bytes, at least one.
    Length(u64),
    /// Where its chunks say.
    Chunked,
}

/// Reason why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestError {
    /// HTTP status.
    pub status: u16,
    /// What was wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.status)
    }
}

/// Visitor's address and scheme, for the forwarded headers.
#[derive(Clone, Copy, Debug)]
pub struct VisitorInfo {
    /// Where the visitor is.
    pub ip: IpAddr,
    /// Whether the visitor came over TLS.
    pub tls: bool,
}

/// Parsed head of a request. Its memory is reused for the next one.
#[derive(Debug, Default)]
pub struct RequestHead {
    head: HeadRanges,
    method: Range<usize>,
    target: Range<usize>,
    add_slash: bool,
    authority: Range<usize>,
    host: String,
    body: BodyFraming,
    minor: u8,
    close: bool,
    upgrade: bool,
}

impl RequestHead {
    /// Understands a head that ends with its blank line.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        self.host.clear();
        self.upgrade = false;
        self.add_slash = false;
        self.head.parse(bytes, Strictness::Strict).map_err(bad_request)?;
        self.start_line(bytes)?;
        self.authority(bytes)?;
        self.body = self.framing(bytes)?;
        self.close = self.minor == 0 || self.head.lists(bytes, "connection", "close");
        self.upgrade = self.minor == 1
            && self.body == BodyFraming::None
            && self.head.lists(bytes, "connection", "upgrade")
            && self.head.values(bytes, "upgrade").next().is_some()
            // Cleartext HTTP/2 would hide what follows from us.
            && !self.head.lists(bytes, "upgrade", "h2c");
        Ok(())
    }

    /// The host that is asked for: lower case, without port and final dot.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// How the body ends.
    pub fn body(&self) -> BodyFraming {
        self.body
    }

    /// Whether the connection cannot carry another request.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Whether it is HTTP/1.0.
    pub fn is_http10(&self) -> bool {
        self.minor == 0
    }

    /// Whether this asks for another protocol, such as WebSocket.
    pub fn upgrades(&self) -> bool {
        self.upgrade
    }

    /// Whether only the head of the answer is wanted.
    pub fn is_head(&self, bytes: &[u8]) -> bool {
        &bytes[self.method.clone()] == b"HEAD"
    }

    /// Whether doing it twice is as good as once (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self, bytes: &[u8]) -> bool {
        let method = &bytes[self.method.clone()];
        matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    /// Whether a page should be HTML.
    pub fn accepts_html(&self, bytes: &[u8]) -> bool {
        self.head.values(bytes, "accept").any(|v| {
            head::tokens(v).any(|t| t.len() >= 9 && t[..9].eq_ignore_ascii_case(b"text/html"))
        })
    }

    /// Method and path, for a log: no query, which may hold secrets.
    pub fn line<'a>(&self, bytes: &'a [u8]) -> (&'a str, &'a str) {
        let text = |r: &Range<usize>| std::str::from_utf8(&bytes[r.clone()]).unwrap_or("?");
        let path = text(&self.target);
        (text(&self.method), path.split('?').next().unwrap_or(path))
    }

    fn start_line(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        let line = self.head.start.clone();
        let text = &bytes[line.clone()];
        let mut spaces = text.iter().enumerate().filter(|(_, b)| **b == b' ').map(|(i, _)| i);
        let (Some(a), Some(b), None) = (spaces.next(), spaces.next(), spaces.next()) else {
            return Err(bad_request("a first line that is not METHOD TARGET VERSION"));
        };
        self.method = line.start..line.start + a;
        self.target = line.start + a + 1..line.start + b;
        if a == 0 || !text[..a].iter().all(|&b| head::is_token(b)) {
            return Err(bad_request("a method with a character that may not stand in one"));
        }
        self.minor = match &text[b + 1..] {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            v if v.starts_with(b"HTTP/") && v.len() == 8 => {
                return Err(RequestError { status: 505, reason: "only HTTP/1.1 is spoken here" });
            }
            _ => return Err(bad_request("a version that is not HTTP/1.1")),
        };
        if self.target.is_empty() || text[a + 1..b].iter().any(|&b| b <= b' ' || b == 0x7f) {
            return Err(bad_request("a target with a character that may not stand in one"));
        }
        Ok(())
    }

    /// Who is asked: from an absolute target, else from Host.
    fn authority(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        let mut hosts = self.head.fields.iter().filter(|f| has_name(bytes, f, "host"));
        let field = hosts.next().map(|f| f.value.clone());
        if hosts.next().is_some() {
            return Err(bad_request("two Host headers"));
        }
        let target = &bytes[self.target.clone()];
        self.authority = match (target[0], scheme_len(target)) {
            _ if &bytes[self.method.clone()] == b"CONNECT" => {
                return Err(RequestError { status: 501, reason: "CONNECT is not served here" });
            }
            (b'/', _) => field.ok_or(bad_request("no Host header"))?,
            (b'*', _) if target == b"*" && &bytes[self.method.clone()] == b"OPTIONS" => {
                field.ok_or(bad_request("no Host header"))?
            }
            (_, Some(skip)) => {
                if field.is_none() && self.minor == 1 {
                    return Err(bad_request("no Host header"));
                }
                let rest = &target[skip..];
                let len = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
                let start = self.target.start + skip;
                self.target.start = start + len;
                self.add_slash = rest.get(len) != Some(&b'/');
                start..start + len
            }
            _ => return Err(bad_request("a target that is neither a path nor a URL")),
        };
        let host = host_of(&bytes[self.authority.clone()])
            .ok_or(bad_request("a malformed Host header"))?;
        self.host.extend(host.chars().map(|c| c.to_ascii_lowercase()));
        Ok(())
    }

    /// How the body ends; one way only (RFC 9112, 6.3).
    fn framing(&self, bytes: &[u8]) -> Result<BodyFraming, RequestError> {
        let mut codings = self.head.values(bytes, "transfer-encoding");
        let mut lengths = self.head.values(bytes, "content-length");
        let (coding, length) = (codings.next(), lengths.next());
        if lengths.next().is_some() {
            return Err(bad_request("two Content-Length headers"));
        }
        if codings.next().is_some() {
            return Err(bad_request("two Transfer-Encoding headers"));
        }
        match (coding, length) {
            (Some(_), Some(_)) => Err(bad_request("both Content-Length and Transfer-Encoding")),
            (Some(_), None) if self.minor == 0 => Err(bad_request("Transfer-Encoding in HTTP/1.0")),
            (Some(c), None) if c.eq_ignore_ascii_case(b"chunked") => Ok(BodyFraming::Chunked),
            (Some(c), None) => {
                // RFC 9112, 6.3: without chunked at the end nobody knows where it ends.
                let last = head::tokens(c).last();
                let chunked_last = last.is_some_and(|t| t.eq_ignore_ascii_case(b"chunked"));
                let status = if chunked_last { 501 } else { 400 };
                Err(RequestError { status, reason: "a Transfer-Encoding other than chunked" })
            }
            (None, Some(l)) => match parse_length(l) {
                Some(0) => Ok(BodyFraming::None),
                Some(n) => Ok(BodyFraming::Length(n)),
                None => Err(bad_request("a Content-Length that is not a number")),
            },
            (None, None) => Ok(BodyFraming::None),
        }
    }

    /// Writes the head for the upstream behind `out`: the visitor's fields
    /// without those that concern one hop only, then who the visitor is.
    pub fn rewrite(&self, bytes: &[u8], visitor: VisitorInfo, out: &mut Vec<u8>) {
        let text = |r: &Range<usize>| &bytes[r.clone()];
        out.extend_from_slice(text(&self.method));
        out.push(b' ');
        if self.add_slash {
            out.push(b'/');
        }
        out.extend_from_slice(text(&self.target));
        out.extend_from_slice(if self.minor == 1 { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" });

        let mut has_host = false;
        let mut has_forwarded_host = false;
        for f in &self.head.fields {
            if self.is_hop(bytes, f) || has_name(bytes, f, "x-forwarded-for") {
                continue;
            }
            if has_name(bytes, f, "x-forwarded-proto") {
                continue;
            }
            has_forwarded_host |= has_name(bytes, f, "x-forwarded-host");
            let value = if has_name(bytes, f, "host") {
                has_host = true;
                text(&self.authority)
            } else {
                text(&f.value)
            };
            line(out, text(&f.name), value);
        }
        if !has_host {
            line(out, b"Host", text(&self.authority));
        }
        match self.body {
            BodyFraming::Chunked => line(out, b"Transfer-Encoding", b"chunked"),
            BodyFraming::None | BodyFraming::Length(_) => {}
        }
        if self.upgrade {
            line(out, b"Connection", b"Upgrade");
            for v in self.head.values(bytes, "upgrade") {
                line(out, b"Upgrade", v);
            }
        }
        self.list(bytes, "X-Forwarded-For", out);
        // A visitor on an IPv6 socket with an IPv4 address is shown as what it is.
        let _ = write!(Ascii(out), "{}\r\n", visitor.ip.to_canonical());
        self.list(bytes, "X-Forwarded-Proto", out);
        out.extend_from_slice(if visitor.tls { b"https\r\n" } else { b"http\r\n" });
        if !has_forwarded_host {
            line(out, b"X-Forwarded-Host", text(&self.authority));
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Begins a list field with the values that are there already.
    fn list(&self, bytes: &[u8], name: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        for v in self.head.values(bytes, name) {
            out.extend_from_slice(v);
            out.extend_from_slice(b", ");
        }
    }

    /// Whether a field concerns this hop only (RFC 9110, 7.6.1).
    fn is_hop(&self, bytes: &[u8], f: &head::FieldRanges) -> bool {
        let name = &bytes[f.name.clone()];
        let eq = |n: &str| name.eq_ignore_ascii_case(n.as_bytes());
        let is_proxy = name.len() >= 6 && name[..6].eq_ignore_ascii_case(b"proxy-");
        if is_proxy || ["connection", "keep-alive", "te", "upgrade"].iter().any(|n| eq(n)) {
            return true;
        }
        if eq("transfer-encoding") || eq("http2-settings") {
            return true;
        }
        // What frames or routes the message is nobody's to remove.
        let fixed = ["host", "content-length", "trailer"].iter().any(|n| eq(n));
        !fixed
            && self
                .head
                .values(bytes, "connection")
                .any(|v| head::tokens(v).any(|t| t.eq_ignore_ascii_case(name)))
    }
}

/// Lets `write!` append to bytes.
struct Ascii<'a>(&'a mut Vec<u8>);

impl fmt::Write for Ascii<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

const fn bad_request(reason: &'static str) -> RequestError {
    RequestError { status: 400, reason }
}

fn has_name(bytes: &[u8], f: &head::FieldRanges, name: &str) -> bool {
    bytes[f.name.clone()].eq_ignore_ascii_case(name.as_bytes())
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Digits only, at most 19 of them.
pub(in crate::edge) fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Length of the scheme of an absolute target.
fn scheme_len(target: &[u8]) -> Option<usize> {
    ["http://", "https://"].iter().map(|s| s.len()).find(|&n| {
        target.len() > n
            && (target[..n].eq_ignore_ascii_case(b"http://")
                || target[..n].eq_ignore_ascii_case(b"https://"))
    })
}

/// The host of an authority `host[:port]`; none if it is malformed.
fn host_of(authority: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(authority).ok()?;
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        if !host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.') {
            return None;
        }
        (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if !host.bytes().all(fits) {
            return None;
        }
        (host.strip_suffix('.').unwrap_or(host), port)
    };
    let good = !host.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    good.then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISITOR: VisitorInfo =
        VisitorInfo { ip: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)), tls: false };

    fn parse(text: &str) -> Result<RequestHead, RequestError> {
        let mut r = RequestHead::default();
        r.parse(text.as_bytes()).map(|()| r)
    }

    fn forwarded(text: &str) -> String {
        let mut out = Vec::new();
        parse(text).unwrap().rewrite(text.as_bytes(), VISITOR, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_head_goes_on_as_it_came() {
        let got =
            forwarded("GET /a?b HTTP/1.1\r\nUser-Agent: x\r\nhOst: A.example:80\r\nX: y\r\n\r\n");
        assert_eq!(
            got,
            "GET /a?b HTTP/1.1\r\nUser-Agent: x\r\nhOst: A.example:80\r\nX: y\r\n\
             X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: A.example:80\r\n\r\n"
        );
    }

    #[test]
    fn forwarding_is_appended() {
        let got = forwarded(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\n\
             x-forwarded-for: 198.51.100.2\r\nX-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\n\r\n",
        );
        assert!(got.contains("\r\nX-Forwarded-For: 198.51.100.1, 198.51.100.2, 192.0.2.7\r\n"));
        assert!(got.contains("\r\nX-Forwarded-Host: b\r\n"));
        assert!(got.contains("\r\nX-Forwarded-Proto: https, http\r\n"));
        assert_eq!(got.matches("orwarded-").count(), 3, "{got}");
    }

    #[test]
    fn hop_by_hop_fields_stay_here() {
        let got = forwarded(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop, Content-Length\r\n\
             Keep-Alive: 5\r\nX-Hop: 1\r\nProxy-Authorization: b\r\nTE: trailers\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: x\r\nContent-Length: 3\r\n\r\n",
        );
        for gone in ["onnection", "Keep-Alive", "X-Hop", "Proxy", "TE:", "Upgrade", "HTTP2"] {
            assert!(!got.contains(gone), "{gone} in {got}");
        }
        assert!(got.contains("Content-Length: 3\r\n"));
        let got = forwarded(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: D\r\n\r\n",
        );
        assert!(got.contains("Transfer-Encoding: chunked\r\n") && got.contains("Trailer: D"));
    }

    #[test]
    fn upgrades_pass() {
        let text = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
        assert!(parse(text).unwrap().upgrades());
        assert!(forwarded(text).contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
        let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        assert!(!parse(h2c).unwrap().upgrades());
    }

    #[test]
    fn smuggling_is_refused() {
        let refused = |rest: &str, status: u16| {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}\r\n\r\n");
            assert_eq!(parse(&text).map(|r| r.body).unwrap_err().status, status, "{rest:?}");
        };
        refused("Content-Length: 3\r\nTransfer-Encoding: chunked", 400);
        refused("Content-Length: 3\r\nContent-Length: 4", 400);
        refused("Content-Length: 3\r\nContent-Length: 3", 400);
        refused("Content-Length: 3, 3", 400);
        refused("Content-Length: +3", 400);
        refused("Content-Length: -3", 400);
        refused("Content-Length: 0x3", 400);
        refused("Content-Length:", 400);
        refused("Content-Length: 99999999999999999999", 400);
        refused("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400);
        refused("Transfer-Encoding: identity", 400);
        refused("Transfer-Encoding: chunked, identity", 400);
        refused("Transfer-Encoding: gzip, chunked", 501);
        refused("Transfer-Encoding: xchunked", 400);
        refused("Transfer-Encoding : chunked", 400);
        refused("Host: b", 400);
        refused("X: y\r\n folded", 400);
    }

    #[test]
    fn malformed_requests_are_refused() {
        for (text, status) in [
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
            ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\n", 505),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 501),
            ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ] {
            assert_eq!(parse(text).map(|r| r.body).unwrap_err().status, status, "{text:?}");
        }
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let text = "GET HTTP://B.Example:81?q HTTP/1.1\r\nHost: a\r\n\r\n";
        let r = parse(text).unwrap();
        assert_eq!(r.host(), "b.example");
        let got = forwarded(text);
        assert!(got.starts_with("GET /?q HTTP/1.1\r\nHost: B.Example:81\r\n"), "{got}");
        assert!(forwarded("GET http://b HTTP/1.1\r\nHost: b\r\n\r\n").starts_with("GET / HTTP"));
        assert!(parse("GET http://u@b/ HTTP/1.1\r\nHost: b\r\n\r\n").is_err());
        assert!(forwarded("OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n").starts_with("OPTIONS * HTTP"));
    }

    #[test]
    fn hosts_lose_case_port_and_dot() {
        for (given, host) in
            [("A.B:80", "a.b"), ("a.b.", "a.b"), ("[::1]:8", "::1"), ("a_b", "a_b")]
        {
            let text = format!("GET / HTTP/1.1\r\nHost: {given}\r\n\r\n");
            assert_eq!(parse(&text).unwrap().host(), host);
        }
    }

    #[test]
    fn connections_close_when_asked() {
        assert!(parse("GET / HTTP/1.0\r\nHost: a\r\n\r\n").unwrap().closes());
        assert!(parse("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n").unwrap().closes());
        assert!(!parse("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().closes());
    }
}
