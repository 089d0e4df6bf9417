//! Forwarded headers of a request: the client that they name, and what the upstream gets.
//!
//! Only the headers of a trusted proxy count. Those of other peers are replaced, because an
//! application cannot distinguish them from the edge's own. Other header fields belong to
//! [`super::request`].

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::origin::ConnectionOrigin;
use crate::edge::actions::edits::HeaderEdits;
use crate::edge::proxies::TrustedProxies;
use crate::http1::head::{self, HeaderFields};

/// Fields beside `X-Forwarded-*` by which applications learn the client or its scheme.
const FORWARDED_FIELDS: [&[u8]; 4] =
    [b"x-real-ip", b"forwarded", b"front-end-https", b"x-url-scheme"];

const FORWARDED_PREFIX: &[u8] = b"x-forwarded-";

/// Client of a request, and the peer that sent the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorInfo {
    /// Address of the peer.
    pub peer: IpAddr,
    /// Address of the client. The port is 0 if a proxy did not name it.
    pub client: SocketAddr,
    /// Whether the client uses TLS.
    pub tls: bool,
    /// Whether the peer is a trusted proxy.
    pub trusted: bool,
}

impl VisitorInfo {
    /// Returns the client of a connection, before a request names another.
    pub fn of_connection(origin: ConnectionOrigin, tls: bool) -> Self {
        let ConnectionOrigin { peer, trusted, .. } = origin;
        VisitorInfo { peer: peer.ip(), client: peer, tls, trusted }
    }

    /// Returns the client of a request with these fields. `tls`: the edge terminated TLS.
    pub fn of_request(
        fields: HeaderFields<'_>,
        origin: ConnectionOrigin,
        tls: bool,
        proxies: &TrustedProxies,
    ) -> Self {
        let mut visitor = VisitorInfo::of_connection(origin, tls);
        if visitor.trusted {
            let is_secure =
                |s: &[u8]| s.eq_ignore_ascii_case(b"https") || s.eq_ignore_ascii_case(b"wss");
            let scheme = fields.values("x-forwarded-proto").flat_map(head::members).last();
            visitor.client = client(fields, proxies).unwrap_or(visitor.client);
            visitor.tls = scheme.map_or(tls, is_secure);
        }
        visitor
    }
}

/// Returns the rightmost address of `X-Forwarded-For` that is not a trusted proxy. Addresses
/// to the left of it, or of an invalid one, may be forged.
fn client(fields: HeaderFields<'_>, proxies: &TrustedProxies) -> Option<SocketAddr> {
    let mut client = None;
    let mut first_proxy = None;
    for member in fields.values("x-forwarded-for").flat_map(head::members) {
        match address(member) {
            Some(address) if proxies.contains(address.ip()) => {
                first_proxy = first_proxy.or(Some(address));
            }
            Some(address) => client = Some(address),
            None => (client, first_proxy) = (None, None),
        }
    }
    client.or(first_proxy)
}

/// Reads an address with or without a port. The port is 0 if it is missing.
fn address(member: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(member).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let without_port = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    let found = without_port.or_else(|_| text.parse::<SocketAddr>()).ok()?;
    Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
}

/// Returns whether the upstream gets this field of the visitor as it is. `None`: it is not a
/// forwarded header.
pub fn is_kept(name: &[u8], visitor: VisitorInfo) -> Option<bool> {
    is_forwarded(name).then(|| {
        // CGI and its relatives read X_Real_Ip as X-Real-IP: no proxy sends that spelling.
        visitor.trusted
            && !name.contains(&b'_')
            && !name.eq_ignore_ascii_case(b"x-forwarded-for")
            && !name.eq_ignore_ascii_case(b"forwarded")
    })
}

/// Returns the same for another endpoint of this edge, which decides about the field itself.
pub fn is_kept_for_edge(name: &[u8]) -> Option<bool> {
    is_forwarded(name).then_some(true)
}

/// Returns whether applications read a client or a scheme in this field.
fn is_forwarded(name: &[u8]) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        a.len() == b.len()
            && a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a, *b) == (b'_', b'-'))
    };
    name.get(..FORWARDED_PREFIX.len()).is_some_and(|start| same(start, FORWARDED_PREFIX))
        || FORWARDED_FIELDS.iter().any(|field| same(name, field))
}

/// Writes the forwarded headers for the upstream. `authority` is the host that the visitor
/// requests. What `edits` removes is left out.
pub fn write(
    fields: HeaderFields<'_>,
    visitor: VisitorInfo,
    authority: &[u8],
    edits: &HeaderEdits,
    out: &mut Vec<u8>,
) {
    // A visitor on an IPv6 socket with an IPv4 address is shown with that.
    let (peer, client) = (visitor.peer.to_canonical(), visitor.client.ip().to_canonical());
    let is_sent = |name: &str| visitor.trusted && fields.first(name).is_some();
    let is_missing = |name: &str| !is_sent(name) && !edits.removes(name.as_bytes());
    let scheme: &[u8] = if visitor.tls { b"https" } else { b"http" };
    if !edits.removes(b"x-forwarded-for") {
        begin_list("X-Forwarded-For", fields, visitor, out);
        let _ = write!(Ascii(out), "{peer}\r\n");
    }
    if is_missing("x-forwarded-proto") {
        out.extend_from_slice(&[b"X-Forwarded-Proto: ", scheme, b"\r\n"].concat());
    }
    if is_missing("x-forwarded-host") {
        out.extend_from_slice(&[b"X-Forwarded-Host: ", authority, b"\r\n"].concat());
    }
    if is_missing("x-real-ip") {
        let _ = write!(Ascii(out), "X-Real-IP: {client}\r\n");
    }
    if is_sent("forwarded") && !edits.removes(b"forwarded") {
        begin_list("Forwarded", fields, visitor, out);
        let _ = match peer {
            IpAddr::V4(ip) => write!(Ascii(out), "for={ip}\r\n"),
            IpAddr::V6(ip) => write!(Ascii(out), "for=\"[{ip}]\"\r\n"),
        };
    }
}

/// Begins a list field with the members that a trusted proxy sent.
fn begin_list(name: &str, fields: HeaderFields<'_>, visitor: VisitorInfo, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    for value in fields.values(name).filter(|value| visitor.trusted && !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cidr::Cidr;
    use crate::http1::head::HeadRanges;

    fn proxies() -> TrustedProxies {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|n| Cidr::parse(n).unwrap()).to_vec();
        TrustedProxies { networks, ..TrustedProxies::default() }
    }

    fn with(lines: &str, peer: &str, check: impl FnOnce(HeaderFields<'_>, VisitorInfo)) {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut ranges = HeadRanges::default();
        ranges.read_request(head.as_bytes()).unwrap();
        let fields = ranges.fields(head.as_bytes());
        let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
        let origin = ConnectionOrigin::direct(&proxies(), peer, peer);
        check(fields, VisitorInfo::of_request(fields, origin, false, &proxies()));
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_a_proxy() {
        for (lines, expected) in [
            ("", "10.0.0.1:50000"),
            ("X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1:0"),
            ("X-Forwarded-For: 192.0.2.1:777\r\n", "192.0.2.1:777"),
            ("X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n", "192.0.2.1:0"),
            ("X-Forwarded-For: 192.0.2.1, 10.9.9.9, ,10.1.1.1\r\n", "192.0.2.1:0"),
            ("X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 10.2.2.2\r\n", "192.0.2.1:0"),
            ("X-Forwarded-For: 10.3.3.3, 10.2.2.2\r\n", "10.3.3.3:0"),
            ("X-Forwarded-For: 192.0.2.1, unknown\r\n", "10.0.0.1:50000"),
            ("X-Forwarded-For: 192.0.2.1, _hidden, 10.2.2.2\r\n", "10.2.2.2:0"),
            ("X-Forwarded-For: 192.0.2.1, 1.2.3, 192.0.2.2\r\n", "192.0.2.2:0"),
            ("X-Forwarded-For: 2001:db8::1\r\n", "[2001:db8::1]:0"),
            ("X-Forwarded-For: [2001:db8::1]\r\n", "[2001:db8::1]:0"),
            ("X-Forwarded-For: [2001:db8::1]:99, fd00::7\r\n", "[2001:db8::1]:99"),
            ("X-Forwarded-For: ::ffff:192.0.2.1, ::ffff:10.0.0.2\r\n", "192.0.2.1:0"),
            ("X-Forwarded-For: \r\n", "10.0.0.1:50000"),
        ] {
            with(lines, "10.0.0.1", |_, v| assert_eq!(v.client.to_string(), expected, "{lines}"));
            // The same from a peer that is not a proxy.
            with(lines, "192.0.2.200", |_, v| {
                assert_eq!(v.client.to_string(), "192.0.2.200:50000", "{lines}");
            });
        }
    }

    #[test]
    fn a_proxy_names_the_scheme() {
        for (lines, tls) in [
            ("", false),
            ("X-Forwarded-Proto: https\r\n", true),
            ("X-Forwarded-Proto: WSS\r\n", true),
            ("X-Forwarded-Proto: http\r\n", false),
            ("X-Forwarded-Proto: https, http\r\n", false),
        ] {
            with(lines, "10.0.0.1", |_, v| assert_eq!(v.tls, tls, "{lines}"));
            with(lines, "192.0.2.1", |_, v| assert!(!v.tls, "{lines}"));
        }
    }

    const SPELLINGS: [&[u8]; 8] = [
        b"X-Forwarded-For",
        b"x-forwarded-proto",
        b"X-Forwarded-Ssl",
        b"X_Forwarded_Host",
        b"x-real_ip",
        b"Forwarded",
        b"Front-End-Https",
        b"X-Url-Scheme",
    ];

    #[test]
    fn fields_that_name_a_client_are_not_a_visitors() {
        with("", "192.0.2.1", |_, visitor| {
            for name in SPELLINGS {
                assert_eq!(
                    is_kept(name, visitor),
                    Some(false),
                    "{}",
                    String::from_utf8_lossy(name)
                );
            }
            for name in [&b"X-Forwarded"[..], b"X-Real-IPs", b"Forwarded-For", b"Host"] {
                assert_eq!(is_kept(name, visitor), None, "{}", String::from_utf8_lossy(name));
            }
        });
        with("", "10.0.0.1", |_, visitor| {
            for (name, kept) in
                SPELLINGS.into_iter().zip([false, true, true, false, false, false, true, true])
            {
                assert_eq!(is_kept(name, visitor), Some(kept), "{}", String::from_utf8_lossy(name));
            }
        });
    }

    fn written(lines: &str, peer: &str) -> String {
        let mut out = Vec::new();
        with(lines, peer, |fields, visitor| {
            write(fields, visitor, b"a:80", &HeaderEdits::default(), &mut out)
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_visitors_headers_are_replaced_and_a_proxys_completed() {
        let lines = "X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\
                     X-Forwarded-Host: b\r\nX-Real-IP: 203.0.113.9\r\nForwarded: for=x\r\n";
        assert_eq!(
            written(lines, "192.0.2.7"),
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a:80\r\n\
             X-Real-IP: 192.0.2.7\r\n"
        );
        assert_eq!(
            written(lines, "10.0.0.1"),
            "X-Forwarded-For: 203.0.113.9, 192.0.2.1, 10.0.0.1\r\n\
             Forwarded: for=x, for=10.0.0.1\r\n"
        );
        assert_eq!(
            written("X-Forwarded-For: 192.0.2.1\r\nForwarded: for=y\r\n", "fd00::1"),
            "X-Forwarded-For: 192.0.2.1, fd00::1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: a:80\r\nX-Real-IP: 192.0.2.1\r\n\
             Forwarded: for=y, for=\"[fd00::1]\"\r\n"
        );
    }
}
