//! URLs of web servers: parsing and redirects. Sans-IO: no names are resolved.

use std::fmt;
use std::net::IpAddr;

use crate::http1::text::printable;

/// An `http` or `https` URL without a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// True for `https`, false for `http`.
    pub secure: bool,
    /// Name or address, IPv6 without brackets.
    pub host: String,
    /// Its port, or the default port of the scheme.
    pub port: u16,
    /// Path and query, from the first slash.
    pub target: String,
}

impl Url {
    /// Parses `http://host[:port][/path]`, or the same with `https`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            let shown = Url::without_user(text);
            let what = if shown == text { "" } else { " without a user" };
            format!("'{}' is not a http:// or https:// URL{what}", printable(shown.as_bytes()))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) if rest[at..].starts_with('?') => (&rest[..at], format!("/{}", &rest[at..])),
            Some(at) => (&rest[..at], rest[at..].to_owned()),
            None => (rest, "/".to_owned()),
        };
        if target.bytes().any(|b| b <= b' ' || b == 127) {
            return Err(wrong());
        }
        let (host, port) = super::dial::split_host(authority).ok_or_else(wrong)?;
        let port = port.unwrap_or(if secure { 443 } else { 80 });
        Ok(Url { secure, host: host.to_owned(), port, target })
    }

    /// Returns what a message may contain of a URL: the part before an `@` may be a password.
    pub fn without_user(text: &str) -> &str {
        text.rsplit_once('@').map_or(text, |(_, behind)| behind)
    }

    /// Returns the URL of a `Location` in a response to this one.
    pub fn join(&self, location: &str) -> Result<Self, String> {
        if location.contains("://") {
            return Url::parse(location);
        }
        let scheme = if self.secure { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let path = match location.strip_prefix('/') {
            Some(_) => location.to_owned(),
            None => {
                let path = self.target.split('?').next().unwrap_or("/");
                let dir = path.rfind('/').map_or("", |at| &path[..at]);
                format!("{dir}/{location}")
            }
        };
        Url::parse(&format!("{scheme}://{}{path}", self.authority()))
    }

    /// Returns whether both name the same origin (RFC 6454).
    pub fn has_origin_of(&self, other: &Url) -> bool {
        (self.secure, &self.host, self.port) == (other.secure, &other.host, other.port)
    }

    /// Returns `host:port`. The port is omitted if the scheme implies it.
    pub fn authority(&self) -> String {
        let host = bracketed(&self.host);
        match (self.secure, self.port) {
            (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.target)
    }
}

/// Returns whether a host is `localhost` or a loopback address.
pub fn is_loopback_host(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns a host in the form that may precede a port.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let url = Url::parse("HTTP://[::1]:81/a?b#c").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.target.as_str()), ("::1", 81, "/a?b"));
        assert_eq!(url.authority(), "[::1]:81");
        assert_eq!(Url::parse("https://a.example").unwrap().port, 443);
        assert_eq!(Url::parse("http://a?q").unwrap().target, "/?q");
        for bad in ["", "a", "ftp://a", "http://", "http://a:0", "http://a/b c", "http://u@a/"] {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
        let error = Url::parse("http://u:secret@a/").unwrap_err();
        assert_eq!(error, "'a/' is not a http:// or https:// URL without a user");
        let base = Url::parse("http://a:81/x/y?z").unwrap();
        for (location, joined) in [
            ("/q", "http://a:81/q"),
            ("q", "http://a:81/x/q"),
            ("//b/q", "http://b/q"),
            ("https://b/q", "https://b/q"),
        ] {
            assert_eq!(base.join(location), Url::parse(joined), "{location}");
        }
    }
}
