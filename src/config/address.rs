//! Addresses that users write: where connections go (`8080`, `host:port`, a URL)
//! and which public URL they want. Everything that can be judged without asking
//! the edge is judged here, with the edge's own code where there is one.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::{EndpointKind, Upstream, UpstreamScheme};
use crate::features;
use crate::proto::codes::Refusal;

/// The URL's port is not the scheme's; the vendor's edge serves no other.
pub const URL_PORT: u32 = 9035;
/// The URL's scheme is none of `http https tcp tls`.
pub const URL_SCHEME: u32 = 9036;
/// The URL has a path or a user.
pub const URL_PATH: u32 = 9037;
/// The URL ends with a slash.
pub const URL_SLASH: u32 = 9038;
/// An internal URL without a host.
pub const URL_HOST: u32 = 9028;
/// An endpoint with the binding `internal` and a URL that is not below `.internal`.
pub const URL_NOT_INTERNAL: u32 = 9029;
/// The URL's port is no port.
pub const URL_NO_PORT: u32 = 9030;
/// An internal URL with too many labels.
pub const URL_LABELS: u32 = 9031;
/// What is written cannot be a URL.
pub const URL_MALFORMED: u32 = 9034;
/// A URL of a Kubernetes binding without a host.
pub const URL_NO_SERVICE: u32 = 9039;
/// A domain of more characters than a name can have.
pub const DOMAIN_TOO_LONG: u32 = 397;
/// A character that no domain has.
pub const DOMAIN_CHARACTER: u32 = 326;

/// Longest URL of an endpoint, in bytes: the longest domain with scheme and port.
const MAX_URL: usize = "https://".len() + 253 + ":65535".len();

/// The port that means HTTPS when no scheme was written.
const HTTPS_PORT: u16 = 443;

impl Upstream {
    /// Reads what a user wrote as the address of an endpoint of `kind`. The error
    /// says what to write instead; it never repeats a password.
    pub fn parse(kind: EndpointKind, text: &str) -> Result<Upstream, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("an address is needed: a port such as 8080, HOST:PORT or a URL".into());
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
                    "{other}:// is an address for an http endpoint, not for {kind}: \
                     write HOST:PORT, or use the http command"
                ));
            }
            (Some(other @ ("tcp" | "tls")), EndpointKind::Http) => {
                return Err(format!(
                    "{other}:// is an address for a tcp or tls endpoint, not for http: \
                     use http:// or https://, or the {other} command"
                ));
            }
            (Some(_), EndpointKind::Http) => {
                return Err(format!(
                    "{} has an unknown scheme: use http://, https:// or file://",
                    shown(text)
                ));
            }
            (Some(_), _) => {
                return Err(format!("{} has an unknown scheme: use tcp:// or tls://", shown(text)));
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

/// The address for a message, without a password that may stand before the `@`.
fn shown(text: &str) -> String {
    let text = match text.rsplit_once('@') {
        Some((_, rest)) => format!("...@{rest}"),
        None => text.to_owned(),
    };
    let short: String = text.chars().take(200).collect();
    format!("{short:?}")
}

/// A directory. No percent-decoding: what is written is the path.
fn directory(rest: &str) -> Result<Upstream, String> {
    if !features::FILES {
        return Err(features::NO_FILES.into());
    }
    if !rest.starts_with('/') {
        return Err(format!(
            "file://{rest} is not absolute: write three slashes and the whole path, \
             as in file:///var/www"
        ));
    }
    if rest.contains('\0') {
        return Err("the path of a file:// address cannot hold a NUL".into());
    }
    Ok(Upstream {
        scheme: UpstreamScheme::File,
        host: String::new(),
        port: 0,
        dir: PathBuf::from(rest),
    })
}

/// Host and port as written; each may be missing.
struct HostPort {
    host: String,
    port: Option<u16>,
}

impl HostPort {
    fn parse(text: &str) -> Result<HostPort, String> {
        // A lone slash at the end is what a browser's address line has.
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.contains('@') {
            return Err("a user or password cannot be given, leave it out".into());
        }
        if let Some(sign) = text.chars().find(|c| matches!(c, '/' | '?' | '#')) {
            return Err(format!(
                "a path or query cannot be given ({sign:?}), visitors bring their own"
            ));
        }
        if let Some(inner) = text.strip_prefix('[') {
            let (host, rest) = inner.split_once(']').ok_or("\"]\" is missing")?;
            let address = host.split('%').next().unwrap_or_default();
            address.parse::<Ipv6Addr>().map_err(|_| "what is in brackets is no IPv6 address")?;
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
                    "{} has no port: a {kind} endpoint needs one, as in localhost:22",
                    shown(text)
                ));
            }
        };
        let host = if self.host.is_empty() { "localhost".to_owned() } else { self.host };
        Ok(Upstream { scheme, host, port, dir: PathBuf::new() })
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
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

/// Reads the address of an edge, `host[:port]`, and writes it with its port.
pub fn parse_edge(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains("://") {
        return Err(format!("{} has a scheme: write HOST:PORT", shown(text)));
    }
    let place = HostPort::parse(text)
        .map_err(|why| format!("{} is not the address of an edge: {why}", shown(text)))?;
    if place.host.is_empty() {
        return Err(format!("{} has no host: write HOST:PORT", shown(text)));
    }
    let port = place.port.unwrap_or(HTTPS_PORT);
    let host = &place.host;
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Reads the address of a resolver: `IP`, `IP:port`, `[IPv6]:port`.
pub fn parse_resolver(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    match (bare.parse::<IpAddr>(), text.trim().parse::<SocketAddr>()) {
        (Ok(ip), _) => Ok(SocketAddr::new(ip, 53)),
        (_, Ok(address)) if address.port() != 0 => Ok(address),
        _ => Err(format!("{} is not the address of a resolver: write IP or IP:PORT", shown(text))),
    }
}

/// Which ports a wanted URL may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortPolicy {
    /// The vendor's edge: public URLs have their scheme's port only.
    Vendor,
    /// An edge of one's own: it knows best.
    Any,
}

impl PortPolicy {
    /// The rule at the edge `connect_url`.
    pub fn of_edge(connect_url: &str) -> PortPolicy {
        let host = connect_url.split(':').next().unwrap_or_default();
        let vendor = ["ngrok-agent.com", "ngrok.com"];
        if vendor.iter().any(|name| host == *name || host.ends_with(&format!(".{name}"))) {
            PortPolicy::Vendor
        } else {
            PortPolicy::Any
        }
    }
}

/// Refuses a wanted name that has letters which names in DNS do not have: what it is there
/// is another name, which only the user can mean.
pub fn check_ascii(name: &str) -> Result<(), Refusal> {
    match name.chars().find(|c| !c.is_ascii()) {
        Some(c) => Err(Refusal::new(
            DOMAIN_CHARACTER,
            format!("{name:?} has {c:?} in it: write the domain as punycode, as in xn--bcher-kva."),
        )),
        None => Ok(()),
    }
}

/// Judges the public URL that an endpoint of `kind` wants. Empty is a random one.
/// `bindings` as asked for: what stays inside may have any port.
pub fn check_url(
    kind: EndpointKind,
    url: &str,
    bindings: &[String],
    ports: PortPolicy,
) -> Result<(), Refusal> {
    let asked = |binding: &str| bindings.iter().any(|b| b == binding);
    if url.is_empty() && !asked("internal") && !asked("kubernetes") {
        return Ok(());
    }
    // Refusals show the URL.
    if url.len() > MAX_URL {
        let text = "The URL is too long: a domain has at most 253 characters.";
        return Err(Refusal::new(DOMAIN_TOO_LONG, text));
    }
    if let Some(c) = url.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(Refusal::new(URL_MALFORMED, format!("The URL {url:?} has {c:?} in it.")));
    }
    let scheme = url_scheme(url);
    let rest = match url.split_once("://") {
        Some((_, rest)) => rest,
        None => url,
    };
    let fits = match (scheme.as_deref(), kind) {
        (None, _)
        | (Some("http" | "https"), EndpointKind::Http)
        | (Some("tcp"), EndpointKind::Tcp)
        | (Some("tls"), EndpointKind::Tls) => true,
        (Some("http" | "https" | "tcp" | "tls"), _) => false,
        (Some(other), _) => {
            return Err(Refusal::new(
                URL_SCHEME,
                format!("The URL {url:?} has the scheme {other:?}: use http, https, tcp or tls."),
            ));
        }
    };
    if !fits {
        return Err(Refusal::text(format!(
            "The URL {url:?} does not fit {} {kind} endpoint: give it a URL of that kind, \
             or use the command that the URL's scheme names.",
            if kind == EndpointKind::Http { "an" } else { "a" }
        )));
    }
    if let Some(host) = rest.strip_suffix('/')
        && !host.contains('/')
    {
        return Err(Refusal::new(
            URL_SLASH,
            format!("The URL {url:?} ends with a slash: leave it out."),
        ));
    }
    if rest.contains(['/', '?', '#', '@']) {
        let text = "The URL has a path, a query or a user: give scheme, host and port only.";
        return Err(Refusal::new(URL_PATH, text));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => {
            let port = parse_port(port)
                .map_err(|why| Refusal::new(URL_NO_PORT, format!("In the URL {url:?} {why}.")))?;
            (host, Some(port))
        }
        None => (rest, None),
    };
    // What a name may look like is for the edge to say: it has a code for each way
    // to get it wrong. This one wants to know what to do, too.
    check_ascii(host)?;
    if asked("internal") && !host.is_empty() && !is_internal(url) {
        return Err(Refusal::new(
            URL_NOT_INTERNAL,
            format!("The URL {url:?} of an internal endpoint must end in .internal."),
        ));
    }
    if is_internal(url) || asked("internal") {
        return check_internal(kind, url, host, port);
    }
    let kubernetes = asked("kubernetes");
    if kubernetes && host.is_empty() {
        let text = "A kubernetes endpoint needs a host in its URL, as in http://name.namespace.";
        return Err(Refusal::new(URL_NO_SERVICE, text));
    }
    let usual = match scheme.as_deref() {
        Some("http") => 80,
        _ => HTTPS_PORT,
    };
    if ports == PortPolicy::Vendor
        && !kubernetes
        && kind != EndpointKind::Tcp
        && port.is_some_and(|p| p != usual)
    {
        return Err(Refusal::new(
            URL_PORT,
            format!("The URL {url:?} has a port other than {usual}: leave it out."),
        ));
    }
    Ok(())
}

fn check_internal(
    kind: EndpointKind,
    url: &str,
    host: &str,
    port: Option<u16>,
) -> Result<(), Refusal> {
    if host.is_empty() {
        let text = "An internal endpoint needs a host in its URL, as in https://name.internal.";
        return Err(Refusal::new(URL_HOST, text));
    }
    if host.split('.').count() > 5 {
        let text = format!("The host of the URL {url:?} has more than five parts.");
        return Err(Refusal::new(URL_LABELS, text));
    }
    if kind == EndpointKind::Tcp && port.is_none() {
        return Err(Refusal::text(format!(
            "The URL {url:?} has no port: an internal tcp endpoint needs one."
        )));
    }
    Ok(())
}

/// Whether the URL's host is below `.internal`, which implies that binding.
pub fn is_internal(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split([':', '/']).next().unwrap_or_default();
    host.to_ascii_lowercase().ends_with(".internal")
}

/// A wanted URL as it is sent: its scheme in lower case, no blanks around it.
pub fn normal_url(url: &str) -> String {
    match url.trim().split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None => url.trim().to_owned(),
    }
}

/// The scheme of a wanted URL, in lower case.
fn url_scheme(url: &str) -> Option<String> {
    url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())
}

/// The kind of endpoint that a wanted URL asks for: HTTP unless its scheme says
/// otherwise.
pub fn kind_of(url: &str) -> EndpointKind {
    match url_scheme(url).as_deref() {
        Some("tcp") => EndpointKind::Tcp,
        Some("tls") => EndpointKind::Tls,
        _ => EndpointKind::Http,
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

    fn code(kind: EndpointKind, url: &str, ports: PortPolicy) -> Option<Option<u32>> {
        check_url(kind, url, &[], ports).err().map(|refusal| refusal.code)
    }

    #[test]
    fn wanted_urls() {
        for (kind, url) in [
            (EndpointKind::Http, ""),
            (EndpointKind::Http, "app.example.com"),
            (EndpointKind::Http, "https://app.example.com"),
            (EndpointKind::Http, "https://app.example.com:443"),
            (EndpointKind::Http, "http://app.example.com:80"),
            (EndpointKind::Http, "HTTP://"),
            (EndpointKind::Http, "https://*.example.com"),
            (EndpointKind::Http, "https://svc.internal:1234"),
            (EndpointKind::Tcp, "tcp://"),
            (EndpointKind::Tcp, "tcp://1.tcp.example:12345"),
            (EndpointKind::Tcp, "1.tcp.example:12345"),
            (EndpointKind::Tcp, "tcp://db.internal:5432"),
            (EndpointKind::Tls, "tls://a.example"),
            (EndpointKind::Tls, "a.example"),
        ] {
            assert_eq!(code(kind, url, PortPolicy::Vendor), None, "{url}");
        }
        for (kind, url, expected) in [
            (EndpointKind::Http, "https://a.example:8443", Some(URL_PORT)),
            (EndpointKind::Http, "http://a.example:443", Some(URL_PORT)),
            (EndpointKind::Tls, "tls://a.example:444", Some(URL_PORT)),
            (EndpointKind::Http, "ftp://a.example", Some(URL_SCHEME)),
            (EndpointKind::Http, "https://a.example/x", Some(URL_PATH)),
            (EndpointKind::Http, "https://u@a.example", Some(URL_PATH)),
            (EndpointKind::Http, "https://a.example/", Some(URL_SLASH)),
            (
                EndpointKind::Http,
                &format!("https://{}/", "a".repeat(10_000)),
                Some(DOMAIN_TOO_LONG),
            ),
            (EndpointKind::Http, "https://a.b.c.d.e.internal", Some(URL_LABELS)),
            (EndpointKind::Tcp, "https://a.example", None),
            (EndpointKind::Http, "tcp://a.example:1", None),
            (EndpointKind::Tcp, "tcp://db.internal", None),
            (EndpointKind::Http, "https://a:x", Some(URL_NO_PORT)),
            (EndpointKind::Tcp, "tcp://a:65536", Some(URL_NO_PORT)),
            (EndpointKind::Tcp, "tcp://a:", Some(URL_NO_PORT)),
            (EndpointKind::Http, "https://a b", Some(URL_MALFORMED)),
            (EndpointKind::Http, "a\u{0}", Some(URL_MALFORMED)),
            (EndpointKind::Http, "https://bücher.example", Some(DOMAIN_CHARACTER)),
            (EndpointKind::Tls, "tls://a.例え", Some(DOMAIN_CHARACTER)),
        ] {
            assert_eq!(code(kind, url, PortPolicy::Vendor), Some(expected), "{url}");
        }
        assert_eq!(code(EndpointKind::Http, "http://a.localhost:8080", PortPolicy::Any), None);
        let internal = ["internal".to_owned()];
        let error = check_url(EndpointKind::Http, "https://", &internal, PortPolicy::Any)
            .expect_err("no host");
        assert_eq!(error.code, Some(URL_HOST));
        let with = |binding: &str, url| {
            let error =
                check_url(EndpointKind::Http, url, &[binding.to_owned()], PortPolicy::Any).err();
            error.map(|refusal| refusal.code)
        };
        assert_eq!(with("internal", "https://a.example"), Some(Some(URL_NOT_INTERNAL)));
        assert_eq!(with("internal", "https://a.internal"), None);
        assert_eq!(with("internal", ""), Some(Some(URL_HOST)));
        assert_eq!(with("kubernetes", "http://"), Some(Some(URL_NO_SERVICE)));
        assert_eq!(with("public", ""), None);
        assert_eq!(with("kubernetes", "http://a.b:8080"), None);
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
        assert_eq!(PortPolicy::of_edge(crate::config::DEFAULT_EDGE), PortPolicy::Vendor);
        assert_eq!(PortPolicy::of_edge("localhost:4443"), PortPolicy::Any);
        assert_eq!(PortPolicy::of_edge("xngrok.com:443"), PortPolicy::Any);
    }

    #[test]
    fn kinds_by_url() {
        assert_eq!(kind_of("TCP://"), EndpointKind::Tcp);
        assert_eq!(normal_url(" HTTP://A.example"), "http://A.example");
        assert_eq!(normal_url("a.example"), "a.example");
        assert_eq!(kind_of("tls://a"), EndpointKind::Tls);
        assert_eq!(kind_of("https://a"), EndpointKind::Http);
        assert_eq!(kind_of("a"), EndpointKind::Http);
        assert!(is_internal("https://A.Internal:1") && !is_internal("https://internal"));
    }
}
