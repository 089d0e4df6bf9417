//! Reads protocol and name of the endpoint from a Bind request. Malformed names are refused
//! with ngrok's codes. Whether the credential may bind the name is decided in
//! [`super::bind`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::proto::codes::Refusal;

/// Protocol of an endpoint's visitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP, on both listeners.
    Http,
    /// TLS, by name.
    Tls,
    /// Bytes, on a port.
    Tcp,
}

/// Suffix of the hosts of internal endpoints: only traffic policies of their account reach
/// them.
const INTERNAL_SUFFIX: &str = ".internal";

/// Returns whether a host in lower case is that of an internal endpoint.
pub fn is_internal(host: &str) -> bool {
    host.ends_with(INTERNAL_SUFFIX)
}

/// Returns the port of an internal endpoint whose URL has none.
pub fn internal_port(scheme: Option<&str>) -> u16 {
    if scheme == Some("http") { 80 } else { 443 }
}

/// Address of an internal endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalAddress {
    /// Protocol of its visitors.
    pub protocol: Protocol,
    /// Its host, lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl InternalAddress {
    /// Reads the URL of an internal endpoint. The error is a sentence that continues the place
    /// of the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let shown: String = url.chars().take(100).collect();
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("needs a scheme, as https://: {shown:?}."));
        };
        let scheme = scheme.to_ascii_lowercase();
        let protocol = match &*scheme {
            "http" | "https" => Protocol::Http,
            "tls" => Protocol::Tls,
            "tcp" => Protocol::Tcp,
            _ => return Err(format!("has a scheme that is not supported: {shown:?}.")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = split_port(url, rest).map_err(|e| e.message)?;
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if !is_internal(&host) || check_host(&host).is_err() || host.starts_with('*') {
            return Err(format!("must be the URL of an internal endpoint: {shown:?}."));
        }
        match port {
            None if protocol == Protocol::Tcp => Err(format!("needs a port: {shown:?}.")),
            port => {
                let port = port.unwrap_or_else(|| internal_port(Some(&scheme)));
                Ok(InternalAddress { protocol, host, port })
            }
        }
    }
}

/// Endpoint of a Bind request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedEndpoint {
    /// Requested protocol.
    pub protocol: Protocol,
    /// `http` or `https` if the request named one of them; `tls`, `tcp`.
    pub scheme: Option<&'static str>,
    /// Requested name.
    pub name: RequestedName,
    /// Port in the URL. For TCP it is in `name`.
    pub port: Option<u16>,
}

/// Requested name of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestedName {
    /// A free name that the edge chooses.
    Any,
    /// This host, lower case; perhaps `*.x`.
    Host(String),
    /// This label below the edge's domain.
    Label(String),
    /// This port, at this host (empty: any of ours).
    Port(String, u16),
}

/// Reads `Proto` and the naming options of a Bind request (protocol 5.6).
pub fn parse(proto: &str, opts: &Map<String, Value>) -> Result<RequestedEndpoint, Refusal> {
    match proto {
        "http" => host(Protocol::Http, Some("http"), opts),
        "https" | "" => host(Protocol::Http, None, opts),
        "tls" => host(Protocol::Tls, Some("tls"), opts),
        "tcp" => port(opts),
        other => Err(Refusal::new(
            332,
            format!("'{other}' is not a supported protocol: use http, https, tcp or tls."),
        )),
    }
}

fn text<'a>(opts: &'a Map<String, Value>, key: &str) -> Result<&'a str, Refusal> {
    let value = opts.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v);
    match value {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(s)) => Ok(s.trim()),
        Some(_) => Err(Refusal::new(301, format!("The option '{key}' must be a text."))),
    }
}

fn host(
    protocol: Protocol,
    scheme: Option<&'static str>,
    opts: &Map<String, Value>,
) -> Result<RequestedEndpoint, Refusal> {
    let mut wanted = RequestedEndpoint { protocol, scheme, name: RequestedName::Any, port: None };
    let url = text(opts, "URL")?;
    if !url.is_empty() {
        parse_url(url, &mut wanted)?;
    }
    for key in ["Domain", "Hostname", "Subdomain"] {
        let given = text(opts, key)?;
        if given.is_empty() {
            continue;
        }
        let given = given.to_ascii_lowercase();
        let name = if key == "Subdomain" {
            check_host(&given)?;
            RequestedName::Label(given)
        } else {
            let given = given.strip_suffix('.').unwrap_or(&given);
            check_host(given)?;
            RequestedName::Host(given.to_owned())
        };
        match &wanted.name {
            RequestedName::Any => wanted.name = name,
            before if *before == name => {}
            // A client sends the values of the response again when it rebinds.
            RequestedName::Label(label) => match &name {
                RequestedName::Host(h) if h.split('.').next() == Some(label) => wanted.name = name,
                _ => return Err(conflicting_names()),
            },
            RequestedName::Host(h) if matches!(&name, RequestedName::Label(l) if h.split('.').next() == Some(l)) =>
                {}
            _ => return Err(conflicting_names()),
        }
    }
    Ok(wanted)
}

fn conflicting_names() -> Refusal {
    Refusal::new(9021, "At most one of url, subdomain, hostname and domain may be given.")
}

/// Reads a URL of an endpoint with a host.
fn parse_url(url: &str, wanted: &mut RequestedEndpoint) -> Result<(), Refusal> {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
        None => (None, url),
    };
    let allowed: &[&str] =
        if wanted.protocol == Protocol::Tls { &["tls"] } else { &["http", "https"] };
    if let Some(scheme) = &scheme {
        let Some(known) = allowed.iter().find(|a| *a == scheme) else {
            let allowed = allowed.join(", ");
            return Err(Refusal::new(
                9036,
                format!("Invalid scheme '{scheme}' in '{url}', allowed here: {allowed}."),
            ));
        };
        wanted.scheme = Some(known);
    }
    let rest = check_parts(url, rest)?;
    if rest.is_empty() {
        return Ok(());
    }
    let (host, port) = split_port(url, rest)?;
    wanted.port = port;
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    check_host(&host)?;
    wanted.name = RequestedName::Host(host);
    Ok(())
}

/// Only host and port may follow the scheme.
fn check_parts<'a>(url: &str, rest: &'a str) -> Result<&'a str, Refusal> {
    if rest.ends_with('/') && rest.matches('/').count() == 1 && !rest.contains(['?', '#']) {
        return Err(Refusal::new(9038, format!("Invalid URL '{url}': remove the '/' at its end.")));
    }
    for (mark, part) in [('/', "a path"), ('?', "a query"), ('#', "a fragment"), ('@', "a user")] {
        if rest.contains(mark) {
            return Err(Refusal::new(9037, format!("Invalid URL '{url}': {part} is not allowed.")));
        }
    }
    Ok(rest)
}

fn split_port<'a>(url: &str, rest: &'a str) -> Result<(&'a str, Option<u16>), Refusal> {
    match rest.rsplit_once(':') {
        None => Ok((rest, None)),
        Some((host, port)) => match port.parse() {
            Ok(port) if port > 0 => Ok((host, Some(port))),
            _ => Err(Refusal::new(9035, format!("Invalid port '{port}' in '{url}'."))),
        },
    }
}

/// Reads the naming options of a TCP endpoint.
fn port(opts: &Map<String, Value>) -> Result<RequestedEndpoint, Refusal> {
    let mut wanted = RequestedEndpoint {
        protocol: Protocol::Tcp,
        scheme: Some("tcp"),
        name: RequestedName::Any,
        port: None,
    };
    for key in ["URL", "Addr"] {
        let given = text(opts, key)?;
        let (scheme, rest) = given.split_once("://").unwrap_or(("tcp", given));
        if !scheme.eq_ignore_ascii_case("tcp") {
            return Err(Refusal::new(
                9036,
                format!("Invalid scheme '{scheme}' in '{given}', allowed here: tcp."),
            ));
        }
        let rest = check_parts(given, rest)?;
        if rest.is_empty() {
            continue;
        }
        let (host, port) = split_port(given, rest)?;
        let Some(port) = port else {
            return Err(Refusal::new(9035, format!("The address '{given}' needs a port.")));
        };
        let name = RequestedName::Port(host.to_ascii_lowercase(), port);
        if wanted.name != RequestedName::Any && wanted.name != name {
            return Err(conflicting_names());
        }
        wanted.name = name;
    }
    Ok(wanted)
}

/// Checks the characters and lengths of a host.
pub fn check_host(host: &str) -> Result<(), Refusal> {
    let fail = |code, reason: String| Err(Refusal::new(code, format!("{reason}: '{host}'.")));
    if host.len() > 253 {
        return Err(Refusal::new(397, "Domains may not be longer than 253 characters."));
    }
    if let Some(c) = host.chars().find(|c| !c.is_ascii_alphanumeric() && !".*-_".contains(*c)) {
        let hint = if c.is_ascii() { "" } else { ", which must be punycode (xn--...)" };
        return fail(326, format!("Invalid character '{c}' in the domain{hint}"));
    }
    if host.contains('_') {
        return fail(355, "Domains may not contain '_'".into());
    }
    if host.contains("..") {
        return fail(327, "Domains may not contain '..'".into());
    }
    for (at, part) in host.split('.').enumerate() {
        if part.len() > 63 {
            return fail(396, "No part of a domain may be longer than 63 characters".into());
        }
        if part == "*" && at == 0 && host.len() > 2 {
            continue;
        }
        if part.is_empty() || part.contains('*') || part.starts_with('-') {
            return fail(
                328,
                format!("Invalid first character of the part '{part}' of the domain"),
            );
        }
        if part.ends_with('-') {
            return fail(329, format!("Invalid last character of the part '{part}' of the domain"));
        }
        if part.get(2..4) == Some("--") && !part.starts_with("xn--") {
            return fail(330, format!("Invalid '--' in the part '{part}' of the domain"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn want(proto: &str, opts: Value) -> Result<RequestedEndpoint, Refusal> {
        parse(proto, opts.as_object().unwrap())
    }

    fn host(name: &str) -> RequestedName {
        RequestedName::Host(name.into())
    }

    #[test]
    fn nothing_wanted() {
        let w = want("https", json!({"URL": "", "Domain": null, "Hostname": ""})).unwrap();
        assert_eq!((w.protocol, w.scheme, w.name), (Protocol::Http, None, RequestedName::Any));
        assert_eq!(want("http", json!({})).unwrap().scheme, Some("http"));
        let w = want("https", json!({"URL": "http://"})).unwrap();
        assert_eq!((w.scheme, w.name), (Some("http"), RequestedName::Any));
        assert_eq!(
            want("tcp", json!({"Addr": "", "URL": "tcp://"})).unwrap().name,
            RequestedName::Any
        );
        assert_eq!(want("tls", json!({})).unwrap().protocol, Protocol::Tls);
    }

    #[test]
    fn every_way_to_name_a_host() {
        for opts in [
            json!({"URL": "https://A.Example:443"}),
            json!({"url": "a.example"}),
            json!({"Domain": "a.example."}),
            json!({"Hostname": "a.example", "Domain": "A.example"}),
        ] {
            assert_eq!(want("https", opts).unwrap().name, host("a.example"));
        }
        assert_eq!(
            want("https", json!({"Subdomain": "a"})).unwrap().name,
            RequestedName::Label("a".into())
        );
        let back = json!({"Subdomain": "a", "Hostname": "a.example"});
        assert_eq!(want("https", back).unwrap().name, host("a.example"));
        assert_eq!(want("https", json!({"URL": "*.a.example"})).unwrap().name, host("*.a.example"));
        assert_eq!(want("https", json!({"URL": "https://a:8443"})).unwrap().port, Some(8443));
    }

    #[test]
    fn internal_addresses_have_a_scheme_and_a_port() {
        let address = |url: &str| {
            let InternalAddress { protocol, host, port } = InternalAddress::parse(url).ok()?;
            Some((protocol, host, port))
        };
        for (url, protocol, host, port) in [
            ("https://A.internal", Protocol::Http, "a.internal", 443),
            ("http://a.b.internal/", Protocol::Http, "a.b.internal", 80),
            ("http://a.internal:8080", Protocol::Http, "a.internal", 8080),
            ("tls://a.internal.", Protocol::Tls, "a.internal", 443),
            ("tcp://a.internal:22", Protocol::Tcp, "a.internal", 22),
        ] {
            assert_eq!(address(url), Some((protocol, host.to_owned(), port)), "{url}");
        }
        for url in [
            "a.internal",
            "https://a.example",
            "https://internal",
            "https://a.internal.example",
            "https://*.internal",
            "https://a.internal/path",
            "https://u@a.internal",
            "ftp://a.internal",
            "tcp://a.internal",
            "https://a.internal:0",
            "https://.internal",
        ] {
            assert_eq!(address(url), None, "{url}");
        }
    }

    #[test]
    fn addresses() {
        for opts in [
            json!({"URL": "tcp://h.example:20000"}),
            json!({"Addr": "H.example:20000"}),
            json!({"Addr": "h.example:20000", "URL": "tcp://h.example:20000"}),
        ] {
            let name = want("tcp", opts).unwrap().name;
            assert_eq!(name, RequestedName::Port("h.example".into(), 20000));
        }
    }

    #[test]
    fn codes_of_what_is_wrong() {
        for (proto, opts, code) in [
            ("ssh", json!({}), 332),
            ("https", json!({"URL": 5}), 301),
            ("https", json!({"URL": "ftp://a"}), 9036),
            ("https", json!({"URL": "tcp://a:1"}), 9036),
            ("tls", json!({"URL": "https://a"}), 9036),
            ("tcp", json!({"URL": "https://a:1"}), 9036),
            ("tcp", json!({"URL": "tcp://a"}), 9035),
            ("tcp", json!({"Addr": "a:0"}), 9035),
            ("https", json!({"URL": "https://a:x"}), 9035),
            ("https", json!({"URL": "https://a/b"}), 9037),
            ("https", json!({"URL": "https://a?b"}), 9037),
            ("https", json!({"URL": "https://u@a"}), 9037),
            ("https", json!({"URL": "https://a/"}), 9038),
            ("https", json!({"Domain": "a.example", "Subdomain": "b"}), 9021),
            ("https", json!({"Domain": "a.example", "Hostname": "b.example"}), 9021),
            ("https", json!({"Domain": "a b"}), 326),
            ("https", json!({"Domain": "ä.example"}), 326),
            ("https", json!({"Domain": "a..b"}), 327),
            ("https", json!({"Domain": ".a"}), 328),
            ("https", json!({"Domain": "-a.b"}), 328),
            ("https", json!({"Domain": "a*.b"}), 328),
            ("https", json!({"Domain": "a.*.b"}), 328),
            ("https", json!({"Domain": "*"}), 328),
            ("https", json!({"Domain": "a-.b"}), 329),
            ("https", json!({"Domain": "ab--c.d"}), 330),
            ("https", json!({"Domain": "a_b.c"}), 355),
            ("https", json!({"Domain": format!("{}.c", "a".repeat(64))}), 396),
            ("https", json!({"Domain": "a.".repeat(130) + "b"}), 397),
        ] {
            assert_eq!(want(proto, opts.clone()).unwrap_err().code, Some(code), "{proto} {opts}");
        }
        let refusal = want("https", json!({"Domain": "ä.example"})).unwrap_err();
        assert!(refusal.message.contains("punycode (xn--...)"), "{refusal}");
    }
}
