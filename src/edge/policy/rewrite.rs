//! Change of a whole URL by a regular expression, for `url-rewrite` and `redirect`. The
//! expression may match anywhere in `scheme://host:port/path?query`. Sends nothing.

use super::replace::{ReplaceError, Replacement};
use crate::http1::text::percent_encode_byte;

/// Longest result.
const MAX_URL_BYTES: usize = 8 * 1024;

/// Matches that are kept for the variables of the action.
const MAX_MATCHES: usize = 16;

/// URL after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedUrl {
    /// The URL. Bytes that a URL cannot have are escaped.
    pub url: String,
    /// What matched.
    pub matches: Vec<String>,
}

/// Where a request goes after a change of its URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTarget<'a> {
    /// Host and port; `None` if the URL begins with a path.
    pub authority: Option<&'a str>,
    /// Path and query; begins with a slash unless the path is empty.
    pub target: &'a str,
}

/// Replaces all matches in a URL. `None`: nothing matched, or nothing changed.
pub fn replace_matches(url: &str, rule: &Replacement) -> Result<Option<ChangedUrl>, ReplaceError> {
    let mut matches: Vec<String> = Vec::new();
    let mut keep = |text: &str| {
        if matches.len() < MAX_MATCHES {
            matches.push(text.to_owned());
        }
    };
    let changed = rule.apply(url, MAX_URL_BYTES, &mut keep)?;
    Ok(changed.and_then(|new| changed_url(url, &new, matches)))
}

/// Replaces the whole URL. `None`: it is the same.
pub fn replace_whole(url: &str, new: &str) -> Result<Option<ChangedUrl>, ReplaceError> {
    match new.len() <= MAX_URL_BYTES {
        true => Ok(changed_url(url, new, vec![url.to_owned()])),
        false => Err(ReplaceError::TooLong),
    }
}

/// Completes a path with the scheme and the host of the URL, and a scheme with a path with the
/// host: `/.*` matches the host too, and `to` is then behind the scheme. Several slashes are a
/// path too: a path from a request must not become another host.
fn changed_url(old: &str, new: &str, matches: Vec<String>) -> Option<ChangedUrl> {
    let origin = origin_len(old);
    let new = match (new.starts_with('/'), path_without_host(new)) {
        (true, _) => escape(&format!("{}{new}", &old[..origin])),
        (false, Some((scheme, path))) => {
            let host = old[..origin].split_once("://").map_or("", |(_, host)| host);
            escape(&format!("{scheme}://{host}{path}"))
        }
        (false, None) => escape(new),
    };
    (new != escape(old)).then_some(ChangedUrl { url: new, matches })
}

/// Splits a URL without a host, `https:/path` or `https:///path`, into scheme and path.
fn path_without_host(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    let path = match rest.strip_prefix("//") {
        Some(path) => path,
        None => rest,
    };
    path.starts_with('/').then_some((scheme, path))
}

/// Returns the length of scheme, host and port.
fn origin_len(url: &str) -> usize {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at)
}

/// Escapes what cannot be in a URL: controls, spaces, quotes, and characters outside ASCII.
fn escape(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    for byte in url.bytes() {
        match byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            true => out.push(char::from(byte)),
            false => percent_encode_byte(byte, &mut out),
        }
    }
    out
}

/// Splits a URL with a scheme, or a path, for a request. `None`: it is neither.
pub fn request_target(url: &str) -> Option<RequestTarget<'_>> {
    let url = url.split('#').next().unwrap_or(url);
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let start = url.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..])
    });
    match rest {
        Some(rest) => {
            let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            // A user and a password are not part of `Host`.
            let authority = authority.rsplit('@').next().filter(|host| !host.is_empty())?;
            Some(RequestTarget { authority: Some(authority), target })
        }
        None if url.starts_with('/') => Some(RequestTarget { authority: None, target: url }),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::replace::tests::replacement;
    use super::*;

    fn change(url: &str, from: &str, to: &str) -> Option<String> {
        let rule = replacement(from, to);
        replace_matches(url, &rule).unwrap().map(|changed| changed.url)
    }

    #[test]
    fn the_expression_matches_anywhere_in_the_whole_url() {
        let url = "https://a.example/products/12?x=1";
        let to = |from: &str, to: &str| change(url, from, to);
        assert_eq!(to("/products", "/shop").unwrap(), "https://a.example/shop/12?x=1");
        assert_eq!(to(r"/products/(\d+)", "/p?id=$1&").unwrap(), "https://a.example/p?id=12&?x=1");
        assert_eq!(to("^https://a", "http://b").unwrap(), "http://b.example/products/12?x=1");
        assert_eq!(to("^/products", "/shop"), None, "the path is not the start");
        assert_eq!(to("/products", "/products"), None, "the same URL");
        assert_eq!(to(".*", "/x").unwrap(), "https://a.example/x");
        assert_eq!(to("/.*", "/x").unwrap(), "https://a.example/x", "the host matches too");
        assert_eq!(to(r"a\.example/products/", "/p?id=").unwrap(), "https://a.example/p?id=12?x=1");
        assert_eq!(to("/.*", "x").unwrap(), "https:x", "not a path");
        assert_eq!(change("http://a/b/b", "b", "c").unwrap(), "http://a/c/c");
    }

    #[test]
    fn a_path_stays_at_the_host() {
        let url = "https://a.example:8443/x";
        let whole = |to: &str| replace_whole(url, to).unwrap().map(|changed| changed.url);
        assert_eq!(whole("/y?a b").unwrap(), "https://a.example:8443/y?a%20b");
        assert_eq!(whole("//evil.example/").unwrap(), "https://a.example:8443//evil.example/");
        assert_eq!(whole("https://b.example").unwrap(), "https://b.example");
        assert_eq!(whole("/x"), None);
        assert_eq!(whole("https://a.example:8443/x"), None);
        assert_eq!(replace_whole("http://a?q", "/y").unwrap().unwrap().url, "http://a/y");
        assert!(replace_whole(url, &"/y".repeat(5000)).is_err());
    }

    #[test]
    fn no_header_line_can_be_added() {
        let changed = replace_whole("http://a/", "/b\r\nSet-Cookie: c=ü").unwrap().unwrap();
        assert_eq!(changed.url, "http://a/b%0D%0ASet-Cookie:%20c=%C3%BC");
    }

    #[test]
    fn the_matches_are_reported() {
        let rule = replacement("b+", "c");
        let changed = replace_matches("http://a/b/bb", &rule).unwrap().unwrap();
        assert_eq!(changed.matches, ["b", "bb"]);
        let many = format!("http://a/{}", "b/".repeat(100));
        assert_eq!(replace_matches(&many, &rule).unwrap().unwrap().matches.len(), MAX_MATCHES);
    }

    #[test]
    fn a_request_goes_to_a_host_or_a_path() {
        let target = |url| request_target(url).map(|t| (t.authority, t.target));
        assert_eq!(target("http://a:80/b?c#d"), Some((Some("a:80"), "/b?c")));
        assert_eq!(target("HTTPS://u:p@a?c"), Some((Some("a"), "?c")));
        assert_eq!(target("/b?c"), Some((None, "/b?c")));
        assert_eq!(target("http://a"), Some((Some("a"), "")));
        assert_eq!(target("products"), None);
        assert_eq!(target("http:///x"), None);
    }
}
