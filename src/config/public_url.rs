//! The public URL that an endpoint wants. Everything that can be checked without the edge
//! is checked here, with the edge's own code where it has one.

use super::address::{HTTPS_PORT, parse_port};
use super::model::EndpointKind;
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
/// The port of the URL is not a valid port.
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
/// More than one name for an endpoint.
const SEVERAL_NAMES: u32 = 9021;

/// Longest URL of an endpoint, in bytes: the longest domain with scheme and port.
const MAX_URL: usize = "https://".len() + 253 + ":65535".len();

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

/// Judges the ways to ask for a name: at most one of them may be given.
pub fn check_names(given: &[&str]) -> Result<(), Refusal> {
    if given.iter().filter(|name| !name.is_empty()).count() > 1 {
        let text = "You may specify at most one of url, domain, hostname, subdomain and \
                    remote address for an endpoint.";
        return Err(Refusal::new(SEVERAL_NAMES, text));
    }
    given.iter().try_for_each(|name| check_ascii(name))
}

/// Checks the public URL that an endpoint of `kind` wants. Empty is a random one.
/// `bindings` as asked for: what stays inside may have any port.
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
    // What a name may look like is for the edge to decide: it has a code for each fault of
    // a name. Here the refusal also says what to write.
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
        let text = format!("The URL {url:?} has a port other than {usual}: leave it out.");
        return Err(Refusal::new(URL_PORT, text));
    }
    Ok(())
}

/// Checks length and characters first: the other refusals show the URL.
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
            "The URL {url:?} does not fit {} {kind} endpoint: give it a URL of that kind, \
             or use the command that the URL's scheme names.",
            if kind == EndpointKind::Http { "an" } else { "a" }
        ))),
        (Some(other), _) => Err(Refusal::new(
            URL_SCHEME,
            format!("The URL {url:?} has the scheme {other:?}: use http, https, tcp or tls."),
        )),
    }
}

/// Returns what follows the scheme, which must be a host and a port and no more.
fn host_and_port(url: &str) -> Result<(&str, Option<u16>), Refusal> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    if rest.strip_suffix('/').is_some_and(|host| !host.contains('/')) {
        let text = format!("The URL {url:?} ends with a slash: leave it out.");
        return Err(Refusal::new(URL_SLASH, text));
    }
    if rest.contains(['/', '?', '#', '@']) {
        let text = "The URL has a path, a query or a user: give scheme, host and port only.";
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
