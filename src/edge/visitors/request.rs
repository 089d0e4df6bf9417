//! Meaning of a visitor's request, and the head that the upstream gets.
//!
//! Strict: a request that two HTTP readers could understand differently is refused, because the
//! upstream may be the other reader. Otherwise the bytes stay as they are: order, spelling and
//! values of the fields.

use std::borrow::Cow;
use std::ops::Range;

use super::forwarded::{self, VisitorInfo};
use super::origin::ConnectionOrigin;
use super::websocket;
use crate::edge::actions::RequestInfo;
use crate::edge::actions::edits::HeaderEdits;
use crate::edge::proxies::TrustedProxies;
use crate::http1::error::HttpError;
use crate::http1::framing::{BodyFraming, MessageKind};
use crate::http1::head::{self, HeadRanges, HeaderFields};
use crate::http1::line::HttpVersion;
use crate::http1::text::host_of;
use crate::time::Instant;

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
    version: HttpVersion,
    close: bool,
    upgrade: bool,
}

impl RequestHead {
    /// Parses a head that ends with its blank line.
    pub fn parse(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        self.host.clear();
        self.upgrade = false;
        self.add_slash = false;
        let line = self.head.read_request(bytes)?;
        let target = line.method.len() + 1;
        self.method = 0..line.method.len();
        self.target = target..target + line.target.len();
        self.version = line.version;
        self.authority(bytes)?;
        self.body = self.head.framing().body(MessageKind::Request(self.version))?;
        let fields = self.head.fields(bytes);
        self.close = self.is_http10() || fields.lists("connection", "close");
        self.upgrade = !self.is_http10()
            && fields.lists("connection", "upgrade")
            && fields.first("upgrade").is_some()
            // Cleartext HTTP/2 would hide the following requests from the edge.
            && !fields.lists("upgrade", "h2c");
        Ok(())
    }

    /// Returns the client of the request.
    pub fn visitor(
        &self,
        bytes: &[u8],
        origin: ConnectionOrigin,
        tls: bool,
        proxies: &TrustedProxies,
    ) -> VisitorInfo {
        VisitorInfo::of_request(self.head.fields(bytes), origin, tls, proxies)
    }

    /// Returns the requested host: lower case, without port and final dot.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns how the body is delimited.
    pub fn body(&self) -> BodyFraming {
        self.body
    }

    /// Returns whether the connection cannot carry another request.
    pub fn closes(&self) -> bool {
        self.close
    }

    /// Returns whether the request is HTTP/1.0.
    pub fn is_http10(&self) -> bool {
        self.version == HttpVersion::Http10
    }

    /// Returns whether the request requests another protocol, such as WebSocket.
    pub fn upgrades(&self) -> bool {
        self.upgrade
    }

    /// Returns whether the response has no body (HEAD).
    pub fn is_head(&self, bytes: &[u8]) -> bool {
        &bytes[self.method.clone()] == b"HEAD"
    }

    /// Returns whether the request is idempotent (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self, bytes: &[u8]) -> bool {
        let method = &bytes[self.method.clone()];
        matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"PUT" | b"DELETE")
    }

    /// Returns whether a page should be HTML.
    pub fn accepts_html(&self, bytes: &[u8]) -> bool {
        head::accepts_html(self.head.fields(bytes))
    }

    /// Returns the input of an endpoint's actions. `body` is the whole body, if they need it.
    /// `unix_seconds` is the time of the wall clock.
    pub fn info<'a>(
        &'a self,
        bytes: &'a [u8],
        body: &'a [u8],
        visitor: VisitorInfo,
        (now, unix_seconds): (Instant, u64),
    ) -> RequestInfo<'a> {
        RequestInfo {
            method: &bytes[self.method.clone()],
            authority: &bytes[self.authority.clone()],
            target: &bytes[self.target.clone()],
            fields: self.head.fields(bytes),
            body,
            is_http10: self.is_http10(),
            tls: visitor.tls,
            visitor: visitor.client.ip(),
            now,
            unix_seconds,
        }
    }

    /// Returns whether the visitor waits for an interim response before it sends the body.
    /// HTTP/1.0 has no interim responses.
    pub fn expects_continue(&self, bytes: &[u8]) -> bool {
        !self.is_http10() && self.head.fields(bytes).lists("expect", "100-continue")
    }

    /// Returns the head that accepts a WebSocket; `None` if the request asks for none.
    pub fn accept_websocket(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let fits = self.upgrade && self.body == BodyFraming::None;
        fits.then(|| websocket::accept(&bytes[self.method.clone()], self.head.fields(bytes)))?
    }

    /// Returns method and path for the log, without the query, which may contain secrets.
    pub fn line<'a>(&self, bytes: &'a [u8]) -> (&'a str, &'a str) {
        let text = |r: &Range<usize>| std::str::from_utf8(&bytes[r.clone()]).unwrap_or("?");
        let path = text(&self.target);
        (text(&self.method), path.split('?').next().unwrap_or(path))
    }

    /// Finds host and port of the request: in a target that is a URL, else in Host.
    fn authority(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        let mut hosts = self.head.fields(bytes).values("host");
        let field = hosts.next().map(|host| range_of(bytes, host));
        if hosts.next().is_some() {
            return Err(HttpError::HostRepeated);
        }
        let target = &bytes[self.target.clone()];
        self.authority = match (target[0], scheme_len(target)) {
            _ if &bytes[self.method.clone()] == b"CONNECT" => {
                return Err(HttpError::ConnectMethod);
            }
            (b'/', _) => field.ok_or(HttpError::HostMissing)?,
            (b'*', _) if target == b"*" && &bytes[self.method.clone()] == b"OPTIONS" => {
                field.ok_or(HttpError::HostMissing)?
            }
            (_, Some(skip)) => {
                if field.is_none() && !self.is_http10() {
                    return Err(HttpError::HostMissing);
                }
                let rest = &target[skip..];
                let len = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
                let start = self.target.start + skip;
                self.target.start = start + len;
                self.add_slash = rest.get(len) != Some(&b'/');
                start..start + len
            }
            _ => return Err(HttpError::TargetForm),
        };
        let host = host_of(&bytes[self.authority.clone()]).ok_or(HttpError::HostInvalid)?;
        self.host.extend(host.chars().map(|c| c.to_ascii_lowercase()));
        Ok(())
    }

    /// Returns path and query for the upstream.
    fn target_for<'a>(&self, bytes: &'a [u8], edits: &'a HeaderEdits) -> Cow<'a, [u8]> {
        let target = &bytes[self.target.clone()];
        match edits.target() {
            Some(target) => Cow::Borrowed(target.as_bytes()),
            None if self.add_slash => Cow::Owned([b"/", target].concat()),
            None => Cow::Borrowed(target),
        }
    }

    /// Appends the head for the upstream to `out`: the visitor's fields without those for one
    /// hop only, then the visitor's address.
    /// `edits` are the changes of the endpoint's actions.
    pub fn rewrite(
        &self,
        bytes: &[u8],
        visitor: VisitorInfo,
        edits: &HeaderEdits,
        out: &mut Vec<u8>,
    ) {
        self.write(bytes, Some(visitor), edits, out);
    }

    /// Appends the head with the changes of `edits`, for another endpoint of this edge. What
    /// names the visitor stays as received.
    pub fn edit(&self, bytes: &[u8], edits: &HeaderEdits, out: &mut Vec<u8>) {
        self.write(bytes, None, edits, out);
    }

    fn write(
        &self,
        bytes: &[u8],
        visitor: Option<VisitorInfo>,
        edits: &HeaderEdits,
        out: &mut Vec<u8>,
    ) {
        let text = |r: &Range<usize>| &bytes[r.clone()];
        out.extend_from_slice(text(&self.method));
        out.push(b' ');
        out.extend_from_slice(&self.target_for(bytes, edits));
        out.extend_from_slice(match self.version {
            HttpVersion::Http11 => b" HTTP/1.1\r\n",
            HttpVersion::Http10 => b" HTTP/1.0\r\n",
        });

        let host = edits.host().map_or(text(&self.authority), str::as_bytes);
        let mut has_host = false;
        let fields = self.head.fields(bytes);
        for (name, value) in fields.iter() {
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            let framing = is("content-length") || is("trailer");
            if edits.removes(name) || framing && edits.body().is_some() {
                continue;
            }
            // A client must not remove the headers of a proxy either, by `Connection`.
            let kept = match visitor {
                Some(visitor) => forwarded::is_kept(name, visitor),
                None => forwarded::is_kept_for_edge(name),
            };
            if !kept.unwrap_or_else(|| !is_hop(name, fields)) {
                continue;
            }
            let is_host = is("host");
            has_host |= is_host;
            line(out, name, if is_host { host } else { value });
        }
        if !has_host {
            line(out, b"Host", host);
        }
        if let Some(body) = edits.body() {
            line(out, b"Content-Length", body.len().to_string().as_bytes());
        } else if self.body == BodyFraming::Chunked {
            line(out, b"Transfer-Encoding", b"chunked");
        }
        if self.upgrade {
            line(out, b"Connection", b"Upgrade");
            for v in fields.values("upgrade") {
                line(out, b"Upgrade", v);
            }
        }
        if let Some(visitor) = visitor {
            forwarded::write(fields, visitor, text(&self.authority), edits, out);
        }
        for added in edits.added() {
            line(out, added.name.as_bytes(), added.value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Returns whether a field is for this hop only (RFC 9110, 7.6.1).
fn is_hop(name: &[u8], fields: HeaderFields<'_>) -> bool {
    let eq = |n: &str| name.eq_ignore_ascii_case(n.as_bytes());
    let is_proxy = name.len() >= 6 && name[..6].eq_ignore_ascii_case(b"proxy-");
    if is_proxy || ["connection", "keep-alive", "te", "upgrade"].iter().any(|n| eq(n)) {
        return true;
    }
    if eq("transfer-encoding") || eq("http2-settings") {
        return true;
    }
    // A client must not remove the fields that frame or route the message.
    let fixed = ["host", "content-length", "trailer"].iter().any(|n| eq(n));
    let mut named = fields.values("connection").flat_map(head::members);
    !fixed && named.any(|member| member.eq_ignore_ascii_case(name))
}

/// Returns the range of `part` in `bytes`.
fn range_of(bytes: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - bytes.as_ptr() as usize;
    start..start + part.len()
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Returns the length of the scheme of an absolute target.
fn scheme_len(target: &[u8]) -> Option<usize> {
    ["http://", "https://"].iter().map(|s| s.len()).find(|&n| {
        target.len() > n
            && (target[..n].eq_ignore_ascii_case(b"http://")
                || target[..n].eq_ignore_ascii_case(b"https://"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visitor() -> VisitorInfo {
        let client = std::net::SocketAddr::from(([192, 0, 2, 7], 50_000));
        VisitorInfo { peer: client.ip(), client, tls: false, trusted: false }
    }

    fn parse(text: &str) -> Result<RequestHead, HttpError> {
        let mut r = RequestHead::default();
        r.parse(text.as_bytes()).map(|()| r)
    }

    fn forwarded(text: &str) -> String {
        let mut out = Vec::new();
        parse(text).unwrap().rewrite(text.as_bytes(), visitor(), &HeaderEdits::default(), &mut out);
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
             X-Forwarded-Host: A.example:80\r\nX-Real-IP: 192.0.2.7\r\n\r\n"
        );
    }

    #[test]
    fn a_connection_header_removes_no_forwarded_header() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\
                    X-Real-IP: 203.0.113.9\r\n\
                    Connection: X-Forwarded-Proto, X-Real-IP, X-Forwarded-For\r\n\r\n";
        for (trusted, proto, ip) in [(false, "http", "192.0.2.7"), (true, "https", "203.0.113.9")] {
            let mut out = Vec::new();
            let visitor = VisitorInfo { trusted, ..visitor() };
            parse(text).unwrap().rewrite(
                text.as_bytes(),
                visitor,
                &HeaderEdits::default(),
                &mut out,
            );
            let got = String::from_utf8(out).unwrap();
            assert_eq!(got.matches(&format!("X-Forwarded-Proto: {proto}\r\n")).count(), 1, "{got}");
            assert_eq!(got.matches(&format!("X-Real-IP: {ip}\r\n")).count(), 1, "{got}");
            assert_eq!(got.matches("orwarded-").count(), 3, "{got}");
        }
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
    fn http10_gets_no_interim_response_and_no_websocket() {
        let websocket = "Sec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        for (version, accepted) in [("1.1", true), ("1.0", false)] {
            let text = format!(
                "GET / HTTP/{version}\r\nHost: a\r\nExpect: 100-continue\r\n\
                 Connection: Upgrade\r\nUpgrade: websocket\r\n{websocket}\r\n"
            );
            let request = parse(&text).unwrap();
            assert_eq!(request.expects_continue(text.as_bytes()), accepted);
            assert_eq!(request.accept_websocket(text.as_bytes()).is_some(), accepted);
        }
    }

    #[test]
    fn upgrades_pass() {
        let text = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
        assert!(parse(text).unwrap().upgrades());
        assert!(forwarded(text).contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
        // The request of `docker exec`, with a body.
        let docker = "POST /exec/x/start HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                      Upgrade: tcp\r\nContent-Length: 27\r\n\r\n";
        assert!(parse(docker).unwrap().upgrades());
        let got = forwarded(docker);
        assert!(got.contains("Connection: Upgrade\r\nUpgrade: tcp\r\n"), "{got}");
        assert!(got.contains("Content-Length: 27\r\n"), "{got}");
        let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        assert!(!parse(h2c).unwrap().upgrades());
    }

    #[test]
    fn smuggling_is_refused() {
        let refused = |rest: &str, status: u16| {
            let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}\r\n\r\n");
            assert_eq!(parse(&text).map(|r| r.body).unwrap_err().status(), status, "{rest:?}");
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
            assert_eq!(parse(text).map(|r| r.body).unwrap_err().status(), status, "{text:?}");
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
