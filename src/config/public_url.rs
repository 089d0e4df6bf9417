//! Requested public URL of an endpoint. It is checked here as far as possible without the edge,
//! with the edge's codes.

use super::address::{HTTPS_PORT, parse_port};
use super::model::EndpointKind;
use crate::proto::codes::Refusal;

/// The URL's port is not the scheme's. The vendor's edge serves only that.
pub const URL_PORT: u32 = 9035;
/// The URL's scheme is not one of `http https tcp tls`.
pub const URL_SCHEME: u32 = 9036;
/// The URL has a path or a user.
pub const URL_PATH: u32 = 9037;
/// The URL ends with a slash.
pub const URL_SLASH: u32 = 9038;
/// The internal URL has no host.
pub const URL_HOST: u32 = 9028;
/// The endpoint has the binding `internal` and a URL outside of `.internal`.
pub const URL_NOT_INTERNAL: u32 = 9029;
/// The port of the URL is not a valid port.
pub const URL_NO_PORT: u32 = 9030;
/// The internal URL has too many labels.
pub const URL_LABELS: u32 = 9031;
/// The text is not a URL.
pub const URL_MALFORMED: u32 = 9034;
/// The URL of a Kubernetes binding has no host.
pub const URL_NO_SERVICE: u32 = 9039;
/// The domain is longer than a name can be.
pub const DOMAIN_TOO_LONG: u32 = 397;
/// The domain has an invalid character.
pub const DOMAIN_CHARACTER: u32 = 326;
/// Several names were requested for an endpoint.
const SEVERAL_NAMES: u32 = 9021;

/// Maximum length of a URL in bytes: the longest domain with scheme and port.
const MAX_URL: usize = "https://".len() + 253 + ":65535".len();

/// Ports that a requested URL may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortPolicy {
    /// Of the vendor's edge: public URLs have their scheme's port only.
    Vendor,
    /// Of a self-hosted edge, which decides itself.
    Any,
}

impl PortPolicy {
    /// Returns the rule for the edge `connect_url`.
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

/// Refuses a requested name with letters outside of ASCII. Its form in DNS is another name,
/// which the user must choose.
pub fn check_ascii(name: &str) -> Result<(), Refusal> {
    match name.chars().find(|c| !c.is_ascii()) {
        Some(c) => Err(Refusal::new(
            DOMAIN_CHARACTER,
            format!(
                "{name:?} has {c:?} in it; write the domain as punycode, as in \
                xn--bcher-kva."
            ),
        )),
        None => Ok(()),
    }
}

/// Checks the options that request a name: at most one may be given.
pub fn check_names(given: &[&str]) -> Result<(), Refusal> {
    if given.iter().filter(|name| !name.is_empty()).count() > 1 {
        let text = "You may specify at most one of url, domain, hostname, subdomain and \
                    remote address for an endpoint.";
        return Err(Refusal::new(SEVERAL_NAMES, text));
    }
    given.iter().try_for_each(|name| check_ascii(name))
}

/// Checks the requested public URL of an endpoint of `kind`. Empty: a random one. `bindings`:
/// internal endpoints may have any port.
pub fn check_url(
    kind: EndpointKind,
    url: &str,
    bindings: &[String],
    ports: PortPolicy,
) -> Result<(), Refusal> {
    let has_binding = |binding: &str| bindings.iter().any(|b| b == binding);
    let (internal, kubernetes) = (has_binding("internal"), has_binding("kubernetes"));
    if url.is_empty() && !internal && !kubernetes {
        return Ok(());
    }
    check_form(url)?;
    let scheme = url_scheme(url);
    check_scheme(kind, url, scheme.as_deref())?;
    let (host, port) = host_and_port(url)?;
    // The edge decides about valid names, with a code for each fault. Here the refusal also has
    // what to write.
    check_ascii(host)?;
    if internal && !host.is_empty() && !is_internal(url) {
        let text = format!("The URL {url:?} of an internal endpoint must end in .internal.");
        return Err(Refusal::new(URL_NOT_INTERNAL, text));
    }
    if is_internal(url) || internal {
        return check_internal(kind, url, host, port);
    }
    if kubernetes && host.is_empty() {
        let text = "A kubernetes endpoint needs a host in its URL, as in http://name.namespace.";
        return Err(Refusal::new(URL_NO_SERVICE, text));
    }
    let usual = if scheme.as_deref() == Some("http") { 80 } else { HTTPS_PORT };
    let is_bound = ports == PortPolicy::Vendor && !kubernetes && kind != EndpointKind::Tcp;
    if is_bound && port.is_some_and(|p| p != usual) {
        let text = format!("The URL {url:?} has a port other than {usual}; leave it out.");
        return Err(Refusal::new(URL_PORT, text));
    }
    Ok(())
}

/// Checks length and characters first, because other refusals contain the URL.
fn check_form(url: &str) -> Result<(), Refusal> {
    if url.len() > MAX_URL {
        let text = "The URL is too long: a domain has at most 253 characters.";
        return Err(Refusal::new(DOMAIN_TOO_LONG, text));
    }
    match url.chars().find(|c| c.is_whitespace() || c.is_control()) {
        Some(c) => Err(Refusal::new(URL_MALFORMED, format!("The URL {url:?} has {c:?} in it."))),
        None => Ok(()),
    }
}

fn check_scheme(kind: EndpointKind, url: &str, scheme: Option<&str>) -> Result<(), Refusal> {
    match (scheme, kind) {
        (None, _)
        | (Some("http" | "https"), EndpointKind::Http)
        | (Some("tcp"), EndpointKind::Tcp)
        | (Some("tls"), EndpointKind::Tls) => Ok(()),
        (Some("http" | "https" | "tcp" | "tls"), _) => Err(Refusal::text(format!(
            "The URL {url:?} does not fit {} {kind} endpoint; give it a URL of that kind, \
             or use the command that the URL's scheme names.",
            if kind == EndpointKind::Http { "an" } else { "a" }
        ))),
        (Some(other), _) => Err(Refusal::new(
            URL_SCHEME,
            format!("The URL {url:?} has the scheme {other:?}; use http, https, tcp or tls."),
        )),
    }
}

/// Returns the part after the scheme, which must be a host and an optional port.
fn host_and_port(url: &str) -> Result<(&str, Option<u16>), Refusal> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if rest.strip_suffix('/').is_some_and(|host| !host.contains('/')) {
        let text = format!("The URL {url:?} ends with a slash; leave it out.");
        return Err(Refusal::new(URL_SLASH, text));
    }
    if rest.contains(['/', '?', '#', '@']) {
        let text = "The URL has a path, a query or a user; give scheme, host and port only.";
        return Err(Refusal::new(URL_PATH, text));
    }
    let Some((host, port)) = rest.rsplit_once(':') else { return Ok((rest, None)) };
    let port = parse_port(port)
        .map_err(|why| Refusal::new(URL_NO_PORT, format!("In the URL {url:?} {why}.")))?;
    Ok((host, Some(port)))
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
            "The URL {url:?} has no port; an internal tcp endpoint needs one."
        )));
    }
    Ok(())
}

/// Returns whether the URL's host is below `.internal`, which implies that binding.
pub fn is_internal(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split([':', '/']).next().unwrap_or_default();
    host.to_ascii_lowercase().ends_with(".internal")
}

/// Returns the requested URL in the form of the protocol: its scheme in lower case, without
/// surrounding blanks.
pub fn normal_url(url: &str) -> String {
    match url.trim().split_once("://") {
        Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
        None => url.trim().to_owned(),
    }
}

/// Returns the scheme of a requested URL, in lower case.
fn url_scheme(url: &str) -> Option<String> {
    url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase())
}

/// Returns the kind of endpoint for a requested URL: HTTP unless its scheme is another one.
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
    }

    #[test]
    fn bindings_have_their_own_rules() {
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
    fn kinds_by_url() {
        assert_eq!(kind_of("TCP://"), EndpointKind::Tcp);
        assert_eq!(normal_url(" HTTP://A.example"), "http://A.example");
        assert_eq!(normal_url("a.example"), "a.example");
        assert_eq!(kind_of("tls://a"), EndpointKind::Tls);
        assert_eq!(kind_of("https://a"), EndpointKind::Http);
        assert_eq!(kind_of("a"), EndpointKind::Http);
        assert!(is_internal("https://A.Internal:1") && !is_internal("https://internal"));
    }

    #[test]
    fn one_name_only() {
        assert!(check_names(&["", "a", ""]).is_ok());
        let refusal = check_names(&["b", "a", ""]).expect_err("two names");
        assert_eq!(refusal.code, Some(9021));
    }

    #[test]
    fn the_vendors_edge_has_a_port_policy() {
        assert_eq!(PortPolicy::of_edge(crate::config::DEFAULT_EDGE), PortPolicy::Vendor);
        assert_eq!(PortPolicy::of_edge("localhost:4443"), PortPolicy::Any);
        assert_eq!(PortPolicy::of_edge("xngrok.com:443"), PortPolicy::Any);
    }
}
