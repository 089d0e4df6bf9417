//! `Location` of a response whose request got another `Host`: a redirect to the name that the
//! upstream knows is mapped back to the public one, so that the visitor stays here.

use super::action::ActionError;
use super::response::{ResponseAction, ResponseHead, ResponsePlan};

/// Maps redirects back to the public name.
#[derive(Debug)]
pub struct LocationMapping;

impl ResponseAction for LocationMapping {
    fn run(&self, head: &mut ResponseHead<'_>, plan: &ResponsePlan) -> Result<(), ActionError> {
        let Some(host) = &plan.upstream_host else { return Ok(()) };
        for name in ["Location", "Content-Location"] {
            head.replace(name, |value| {
                let rest = strip_origin(value, host)?;
                let mut mapped = if plan.tls { b"https://".to_vec() } else { b"http://".to_vec() };
                mapped.extend_from_slice(&plan.authority);
                mapped.extend_from_slice(rest);
                Some(mapped)
            });
        }
        Ok(())
    }
}

/// Returns what follows the origin in an absolute URL with this host, which may have a port.
fn strip_origin<'a>(url: &'a [u8], host: &str) -> Option<&'a [u8]> {
    let text = std::str::from_utf8(url).ok()?;
    let after = |scheme: &str| {
        let start = text.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
    };
    let (rest, default) = match (after("http://"), after("https://")) {
        (Some(rest), _) => (rest, ":80"),
        (None, Some(rest)) => (rest, ":443"),
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let without = |text: &'a str| text.strip_suffix(default).unwrap_or(text);
    let host = host.strip_suffix(default).unwrap_or(host);
    without(authority).eq_ignore_ascii_case(host).then_some(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_origin_of_the_upstream_is_stripped() {
        let strip = |url: &str, host: &str| {
            strip_origin(url.as_bytes(), host).map(|r| String::from_utf8(r.to_vec()).unwrap())
        };
        assert_eq!(strip("http://localhost:8080/a?b", "localhost:8080").unwrap(), "/a?b");
        assert_eq!(strip("HTTPS://LocalHost:8080", "localhost:8080").unwrap(), "");
        assert_eq!(strip("http://site.local:80/x", "site.local").unwrap(), "/x");
        assert_eq!(strip("https://site.local/x", "site.local:443").unwrap(), "/x");
        assert_eq!(strip("http://site.local?q", "site.local").unwrap(), "?q");
        for other in ["/login", "http://localhost:8081/", "http://localhost:8080.evil/", "//x/y"] {
            assert_eq!(strip(other, "localhost:8080"), None, "{other}");
        }
        assert_eq!(strip("http://a@localhost:8080/", "localhost:8080"), None);
    }
}
