//! Addresses that users write: of upstreams (`8080`, `host:port`, a URL), edges and resolvers.
//! The public URL of an endpoint is in [`super::public_url`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::model::{EndpointKind, Upstream, UpstreamScheme};
use crate::features;

/// Port that implies HTTPS without a scheme.
pub(super) const HTTPS_PORT: u16 = 443;

impl Upstream {
    /// Parses the address of an endpoint of `kind`. The error has what to write instead, and
    /// never a password.
    pub fn parse(kind: EndpointKind, text: &str) -> Result<Upstream, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err(
                "the address is missing; give a port such as 8080, HOST:PORT or a URL".into()
            );
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let scheme = match (scheme.as_deref(), kind) {
            (None, _) => None,
            (Some("http"), EndpointKind::Http) => Some(UpstreamScheme::Http),
            (Some("https"), EndpointKind::Http) => Some(UpstreamScheme::Https),
            (Some("file"), EndpointKind::Http) => return directory(rest),
            (Some("tcp"), EndpointKind::Tcp | EndpointKind::Tls) => Some(UpstreamScheme::Tcp),
            (Some("tls"), EndpointKind::Tcp | EndpointKind::Tls) => Some(UpstreamScheme::Tls),
            (Some(other @ ("http" | "https" | "file")), kind) => {
                return Err(format!(
                    "{other}:// is an address for an http endpoint, not for {kind}; write \
                     HOST:PORT, or use the http command"
                ));
            }
            (Some(other @ ("tcp" | "tls")), EndpointKind::Http) => {
                return Err(format!(
                    "{other}:// is an address for a tcp or tls endpoint, not for http; use \
                     http:// or https://, or the {other} command"
                ));
            }
            (Some(_), EndpointKind::Http) => {
                return Err(format!(
                    "{} has an unknown scheme; use http://, https:// or file://",
                    shown(text)
                ));
            }
            (Some(_), _) => {
                return Err(format!("{} has an unknown scheme; use tcp:// or tls://", shown(text)));
            }
        };
        if kind == EndpointKind::Http && text.starts_with('/') && !text.contains(['@', '\0']) {
            return Err(format!(
                "{} is a path, not an address; to serve a directory: file://{text}",
                shown(text)
            ));
        }
        let place = HostPort::parse(rest)
            .map_err(|why| format!("{} is not an address to forward to: {why}", shown(text)))?;
        place.upstream(kind, scheme, text)
    }
}

/// Returns the address for a message, without a password before the `@`.
fn shown(text: &str) -> String {
    let text = match text.rsplit_once('@') {
        Some((_, rest)) => format!("...@{rest}"),
        None => text.to_owned(),
    };
    let short: String = text.chars().take(200).collect();
    format!("{short:?}")
}

/// Parses a directory. No percent-decoding: the text is the path.
fn directory(rest: &str) -> Result<Upstream, String> {
    if !features::FILES {
        return Err(features::NO_FILES.into());
    }
    if !rest.starts_with('/') {
        return Err(format!(
            "file://{rest} is not absolute; write three slashes and the whole path, \
             as in file:///var/www"
        ));
    }
    if rest.contains('\0') {
        return Err("the path of a file:// address contains a NUL".into());
    }
    Ok(Upstream {
        scheme: UpstreamScheme::File,
        host: String::new(),
        port: 0,
        dir: PathBuf::from(rest),
    })
}

/// Host and port of a text; each may be missing.
struct HostPort {
    host: String,
    port: Option<u16>,
}

impl HostPort {
    fn parse(text: &str) -> Result<HostPort, String> {
        // Users copy addresses with a final slash from browsers.
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.contains('@') {
            return Err("a user or password is not supported; leave it out".into());
        }
        if let Some(sign) = text.chars().find(|c| matches!(c, '/' | '?' | '#')) {
            return Err(format!(
                "a path or query is not supported ({sign:?}): requests have their own"
            ));
        }
        if let Some(inner) = text.strip_prefix('[') {
            let (host, rest) = inner.split_once(']').ok_or("\"]\" is missing")?;
            let address = host.split('%').next().unwrap_or_default();
            address
                .parse::<Ipv6Addr>()
                .map_err(|_| "the part in brackets is not an IPv6 address")?;
            let port = match rest.strip_prefix(':') {
                Some(port) => Some(parse_port(port)?),
                None if rest.is_empty() => None,
                None => return Err("after \"]\" only a colon and a port can follow".into()),
            };
            return Ok(HostPort { host: host.to_owned(), port });
        }
        if text.bytes().filter(|b| *b == b':').count() > 1 {
            return Err("an IPv6 address must stand in brackets, as in [::1]:8080".into());
        }
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(parse_port(port)?)),
            None if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                ("", Some(parse_port(text)?))
            }
            None => (text, None),
        };
        check_host(host)?;
        Ok(HostPort { host: host.to_owned(), port })
    }

    fn upstream(
        self,
        kind: EndpointKind,
        scheme: Option<UpstreamScheme>,
        text: &str,
    ) -> Result<Upstream, String> {
        let scheme = match (scheme, kind) {
            (Some(scheme), _) => scheme,
            (None, EndpointKind::Http) if self.port == Some(HTTPS_PORT) => UpstreamScheme::Https,
            (None, EndpointKind::Http) => UpstreamScheme::Http,
            (None, EndpointKind::Tcp | EndpointKind::Tls) => UpstreamScheme::Tcp,
        };
        let port = match (self.port, scheme) {
            (Some(port), _) => port,
            (None, UpstreamScheme::Http) => 80,
            (None, UpstreamScheme::Https) => HTTPS_PORT,
            (None, _) => {
                return Err(format!(
                    "{} has no port; a {kind} endpoint needs one, as in localhost:22",
                    shown(text)
                ));
            }
        };
        let host = if self.host.is_empty() { "localhost".to_owned() } else { self.host };
        Ok(Upstream { scheme, host, port, dir: PathBuf::new() })
    }
}

pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err("the port must be a number from 1 to 65535".into()),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    if host.len() > 253 {
        return Err("the host name is longer than 253 characters".into());
    }
    if host.starts_with(['-', '.']) || host.contains("..") {
        return Err("a host name cannot begin with a hyphen or have an empty part".into());
    }
    match host.chars().find(|c| !(c.is_ascii_alphanumeric() || "-._".contains(*c))) {
        Some(c) => Err(format!("{c:?} cannot be in a host name")),
        None => Ok(()),
    }
}

/// Parses the address of an edge, `host[:port]`. Returns it with its port.
pub fn parse_edge(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains("://") {
        return Err(format!("{} has a scheme; write HOST:PORT", shown(text)));
    }
    let place = HostPort::parse(text)
        .map_err(|why| format!("{} is not the address of an edge: {why}", shown(text)))?;
    if place.host.is_empty() {
        return Err(format!("{} has no host; write HOST:PORT", shown(text)));
    }
    let port = place.port.unwrap_or(HTTPS_PORT);
    let host = &place.host;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Parses the address of a resolver: `IP`, `IP:port`, `[IPv6]:port`.
pub fn parse_resolver(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    match (bare.parse::<IpAddr>(), text.trim().parse::<SocketAddr>()) {
        (Ok(ip), _) => Ok(SocketAddr::new(ip, 53)),
        (_, Ok(address)) if address.port() != 0 => Ok(address),
        _ => Err(format!("{} is not the address of a resolver; write IP or IP:PORT", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(kind: EndpointKind, text: &str) -> String {
        match Upstream::parse(kind, text) {
            Ok(upstream) => {
                let shown = upstream.to_string();
                assert_eq!(Upstream::parse(kind, &shown), Ok(upstream), "{shown} is stable");
                shown
            }
            Err(error) => {
                assert!(!error.contains('\n') && !error.contains("hush"), "{error}");
                "error".to_owned()
            }
        }
    }

    #[test]
    fn every_row_of_the_table() {
        let rows = [
            ("", "error", "error"),
            ("8080", "http://localhost:8080", "localhost:8080"),
            (" 8080 ", "http://localhost:8080", "localhost:8080"),
            ("443", "https://localhost:443", "localhost:443"),
            ("localhost:443", "https://localhost:443", "localhost:443"),
            ("host:443", "https://host:443", "host:443"),
            ("http://localhost:443", "http://localhost:443", "error"),
            (":8080", "http://localhost:8080", "localhost:8080"),
            ("host:8080", "http://host:8080", "host:8080"),
            ("host", "http://host:80", "error"),
            ("[::1]:8080", "http://[::1]:8080", "[::1]:8080"),
            ("[::1]", "http://[::1]:80", "error"),
            ("[fe80::1%eth0]:80", "http://[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
            ("http://host", "http://host:80", "error"),
            ("https://host", "https://host:443", "error"),
            ("http://host:1", "http://host:1", "error"),
            ("HTTPS://host:1", "https://host:1", "error"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443", "error"),
            ("http://", "http://localhost:80", "error"),
            ("https://", "https://localhost:443", "error"),
            ("tcp://host:22", "error", "host:22"),
            ("tls://host:22", "error", "tls://host:22"),
            ("tcp://host", "error", "error"),
            ("tcp://", "error", "error"),
            ("file:///dir", "file:///dir", "error"),
            ("/dir", "error", "error"),
            ("file:///a b/%41", "file:///a b/%41", "error"),
            ("file://dir", "error", "error"),
            ("file://", "error", "error"),
        ];
        for (text, http, other) in rows {
            let http = if !features::FILES && text.starts_with("file:") { "error" } else { http };
            assert_eq!(parsed(EndpointKind::Http, text), http, "http {text:?}");
            assert_eq!(parsed(EndpointKind::Tcp, text), other, "tcp {text:?}");
            assert_eq!(parsed(EndpointKind::Tls, text), other, "tls {text:?}");
        }
    }

    #[test]
    fn what_is_no_address() {
        let texts = [
            "0",
            "65536",
            "99999999999999999999",
            "+80",
            "-1",
            "host:",
            "host:x",
            "host:+80",
            "host:0",
            "::1",
            "::1:80",
            "[::1",
            "[::1]80",
            "[x]:80",
            "a b:80",
            "http://h/path",
            "http://h?q",
            "http://h#f",
            "http://u:hush@h",
            "ftp://h",
            "://h",
            "h:1:2",
            "é:80",
            "host/",
            "http:/h",
            "http://h//",
            "h\u{0}:80",
        ];
        for text in texts {
            let expected = if text == "host/" { "http://host:80" } else { "error" };
            assert_eq!(parsed(EndpointKind::Http, text), expected, "{text:?}");
        }
        assert_eq!(parsed(EndpointKind::Http, "http://localhost:8080/"), "http://localhost:8080");
        assert_eq!(parsed(EndpointKind::Http, &"a".repeat(254)), "error");
    }

    #[test]
    fn errors_say_what_to_do() {
        let error = |kind, text| Upstream::parse(kind, text).expect_err("an error");
        assert!(error(EndpointKind::Tcp, "host").contains("has no port"));
        assert!(error(EndpointKind::Http, "::1").contains("brackets"));
        assert!(error(EndpointKind::Http, "tcp://h:1").contains("the tcp command"));
        assert!(error(EndpointKind::Http, "http://u:hush@h").contains("user or password"));
        assert!(error(EndpointKind::Http, "/tmp").ends_with("to serve a directory: file:///tmp"));
        assert!(!error(EndpointKind::Tcp, "/tmp").contains("file:"));
    }

    #[test]
    fn edges() {
        assert_eq!(parse_edge("a.example"), Ok("a.example:443".into()));
        assert_eq!(parse_edge("a.example:80"), Ok("a.example:80".into()));
        assert_eq!(parse_edge("[::1]:80"), Ok("[::1]:80".into()));
        assert_eq!(parse_edge("[::1]"), Ok("[::1]:443".into()));
        for text in ["", "443", ":443", "https://a.example", "a:b", "u@a", "::1"] {
            assert!(parse_edge(text).is_err(), "{text}");
        }
    }
}
