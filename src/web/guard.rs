//! Decides from the head of a request whether the local API answers it: the defence against
//! pages of other sites in a browser on this machine. No sockets, no clock.
//!
//! The API has no authentication. It trusts every program of this machine except browsers,
//! which run scripts of other sites. Such a page reaches the API by a name of its own that
//! resolves to 127.0.0.1 (DNS rebinding): `Host` reveals it. Or it sends a request across
//! sites: `Origin` and `Sec-Fetch-Site` reveal it. No response has a CORS field, so nothing can
//! be read across sites either.

use std::net::IpAddr;

use crate::cidr::Cidr;
use crate::http1::head::HttpRequest;
use crate::http1::line::HttpVersion;

/// Domains that a public registry never assigns, so no attacker has a name below them.
const PRIVATE: [&str; 5] = [".local", ".lan", ".internal", ".home.arpa", ".localdomain"];

/// Hosts that are answered.
#[derive(Debug)]
pub struct Guard {
    allowed: Vec<AllowedHost>,
    /// Without a configured list, and with a listener beyond loopback.
    open: bool,
}

/// An entry of `web_allow_hosts` (agent 10.2).
#[derive(Debug)]
enum AllowedHost {
    /// An address, or a network.
    Network(Cidr),
    /// This name.
    Name(String),
    /// Names with this end, which begins with a dot.
    Suffix(String),
}

/// Reason why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardError {
    /// `Host` is missing, repeated or invalid.
    BadHost,
    /// The host is not allowed.
    Host,
    /// The request is from a page of another site.
    Origin,
}

impl Guard {
    /// Returns the guard of `web_allow_hosts` for a listener at `bound`.
    pub fn new(allow: &[String], bound: IpAddr) -> Self {
        let entry = |text: &String| {
            let text = text.trim().to_ascii_lowercase();
            let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(&text);
            match Cidr::parse(bare) {
                Some(network) => AllowedHost::Network(network),
                None if text.starts_with('.') => AllowedHost::Suffix(text),
                None => AllowedHost::Name(text),
            }
        };
        Guard {
            allowed: allow.iter().map(entry).collect(),
            open: allow.is_empty() && !bound.to_canonical().is_loopback(),
        }
    }

    /// Checks the head of a request.
    pub fn judge(&self, head: &HttpRequest<'_>) -> Result<(), GuardError> {
        let mut hosts = head.fields().values("host");
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host,
            // Browsers do not use HTTP/1.0 and always send `Host`.
            (None, _) if head.version() == HttpVersion::Http10 => b"localhost",
            _ => return Err(GuardError::BadHost),
        };
        let host = std::str::from_utf8(host).map_err(|_| GuardError::BadHost)?;
        // A target that is a URL has priority over `Host`.
        let authority = head.authority().unwrap_or(host);
        if !self.allows(host_of(authority).ok_or(GuardError::BadHost)?) {
            return Err(GuardError::Host);
        }
        let reads = matches!(head.method(), "GET" | "HEAD");
        let navigates = reads && head.text("sec-fetch-mode") == Some("navigate");
        // All of them, although a browser sends one.
        for (name, value) in head.fields().iter() {
            let value = std::str::from_utf8(value).map_err(|_| GuardError::Origin);
            if name.eq_ignore_ascii_case(b"sec-fetch-site") {
                // A link that the user followed is allowed from any site.
                if !matches!(value?, "same-origin" | "none") && !navigates {
                    return Err(GuardError::Origin);
                }
            } else if name.eq_ignore_ascii_case(b"origin") && !reads {
                let from = value?.split_once("://").ok_or(GuardError::Origin)?.1;
                // Behind a proxy that changes the host, the list has the allowed sites.
                let listed = || host_of(from).is_some_and(|host| self.lists(host));
                if !from.eq_ignore_ascii_case(authority) && !listed() {
                    return Err(GuardError::Origin);
                }
            }
        }
        Ok(())
    }

    /// Returns whether a host without its port is answered. The machine's own names always are,
    /// because names of other sites cannot be equal to them.
    fn allows(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        if is_local(host) || self.lists(host) {
            return true;
        }
        self.open && (host.parse::<IpAddr>().is_ok() || !host.contains('.') || ends(host, &PRIVATE))
    }

    /// Returns whether the configured list has the host.
    fn lists(&self, host: &str) -> bool {
        let ip = host.parse::<IpAddr>();
        self.allowed.iter().any(|entry| match entry {
            AllowedHost::Network(network) => ip.as_ref().is_ok_and(|ip| network.contains(*ip)),
            AllowedHost::Name(name) => name.eq_ignore_ascii_case(host),
            AllowedHost::Suffix(suffix) => ends(host, &[suffix]),
        })
    }
}

/// Returns the host of `host[:port]`, an IPv6 address without brackets.
fn host_of(authority: &str) -> Option<&str> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => match authority.find(':') {
            Some(colon) => authority.split_at(colon),
            None => (authority, ""),
        },
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let fine = !host.is_empty()
        && port.bytes().all(|b| b.is_ascii_digit())
        && (rest.is_empty() || rest.starts_with(':'))
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:%".contains(&b));
    fine.then_some(host)
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || ends(host, &[".localhost"])
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Returns whether a host ends with one of the suffixes, with more in front of it.
fn ends(host: &str, suffixes: &[&str]) -> bool {
    suffixes.iter().any(|suffix| {
        let at = host.len().saturating_sub(suffix.len());
        at > 0 && host.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::HeadRanges;

    fn judge(guard: &Guard, request: &str) -> Result<(), GuardError> {
        let bytes = request.replace('\n', "\r\n");
        let mut head = HeadRanges::default();
        let head = head.request(bytes.as_bytes()).unwrap();
        guard.judge(&head)
    }

    fn guard(allow: &[&str], bound: &str) -> Guard {
        let allow: Vec<String> = allow.iter().map(|a| (*a).to_owned()).collect();
        Guard::new(&allow, bound.parse().unwrap())
    }

    fn host(guard: &Guard, host: &str) -> Result<(), GuardError> {
        judge(guard, &format!("GET /api HTTP/1.1\nHost: {host}\n\n"))
    }

    #[test]
    fn hosts_by_the_list_and_by_where_we_listen() {
        let loopback = guard(&[], "127.0.0.1");
        let wide = guard(&[], "0.0.0.0");
        let listed = guard(
            &["8.8.8.8", "10.0.0.0/8", "1::/16", "Example.com", ".corp.example", "[2001:db8::1]"],
            "0.0.0.0",
        );
        for local in [
            "localhost",
            "LOCALHOST:4040",
            "a.localhost:1",
            "127.0.0.1:4040",
            "127.9.9.9",
            "[::1]:4040",
            "localhost.",
            "[::ffff:127.0.0.1]",
        ] {
            for guard in [&loopback, &wide, &listed] {
                assert_eq!(host(guard, local), Ok(()), "{local}");
            }
        }
        for (name, expected) in [
            ("evil.example", [false, false, false]),
            ("localhost.evil.example", [false, false, false]),
            ("127.0.0.1.evil.example", [false, false, false]),
            ("evillocalhost", [false, true, false]),
            (".localhost", [false, false, false]),
            ("192.168.1.1:4040", [false, true, false]),
            ("[2001:db8::1]:80", [false, true, true]),
            ("[2001:0db8:0::1]:80", [false, true, true]),
            ("ngrok:4040", [false, true, false]),
            ("router.lan", [false, true, false]),
            ("ngrok.default.svc.cluster.local", [false, true, false]),
            ("8.8.8.8", [false, true, true]),
            ("10.255.0.1", [false, true, true]),
            ("[1:ffff::]", [false, true, true]),
            ("EXAMPLE.com:8080", [false, false, true]),
            ("a.example.com", [false, false, false]),
            ("x.corp.example", [false, false, true]),
            ("corp.example", [false, false, false]),
            ("xcorp.example", [false, false, false]),
        ] {
            let seen = [&loopback, &wide, &listed].map(|guard| host(guard, name).is_ok());
            assert_eq!(seen, expected, "{name}");
        }
    }

    #[test]
    fn a_request_says_its_host_once() {
        let guard = guard(&[], "127.0.0.1");
        for bad in
            ["", "\u{e9}", "a b", "localhost:80:80", "[::1", "[::1]x", "localhost:x", "a@localhost"]
        {
            assert_eq!(host(&guard, bad), Err(GuardError::BadHost), "{bad}");
        }
        let twice = "GET / HTTP/1.1\nHost: localhost\nHost: localhost\n\n";
        assert_eq!(judge(&guard, twice), Err(GuardError::BadHost));
        assert_eq!(judge(&guard, "GET / HTTP/1.1\n\n"), Err(GuardError::BadHost));
        assert_eq!(judge(&guard, "GET / HTTP/1.0\n\n"), Ok(()));
    }

    #[test]
    fn the_host_of_a_url_counts_in_the_place_of_the_field() {
        let guard = guard(&[], "127.0.0.1");
        let ask = |target: &str, host: &str| {
            judge(&guard, &format!("GET {target} HTTP/1.1\nHost: {host}\n\n"))
        };
        for local in ["http://127.0.0.1:4040/api", "HTTP://localhost", "https://[::1]:1?x"] {
            assert_eq!(ask(local, "localhost"), Ok(()), "{local}");
            assert_eq!(ask(local, "evil.example"), Ok(()), "{local}");
        }
        for (target, expected) in [
            ("http://evil.example/api", GuardError::Host),
            ("http://evil.example?http://localhost/", GuardError::Host),
            ("http://localhost.evil.example", GuardError::Host),
            ("http://localhost@evil.example/", GuardError::BadHost),
            ("http://evil.example@localhost/", GuardError::BadHost),
            ("http:///api", GuardError::BadHost),
            ("http://localhost\\@evil.example/", GuardError::BadHost),
        ] {
            assert_eq!(ask(target, "localhost"), Err(expected), "{target}");
        }
        let twice = "GET http://localhost/ HTTP/1.1\nHost: localhost\nHost: localhost\n\n";
        assert_eq!(judge(&guard, twice), Err(GuardError::BadHost));
        let none = "GET http://evil.example/ HTTP/1.0\n\n";
        assert_eq!(judge(&guard, none), Err(GuardError::Host));
    }

    #[test]
    fn what_changes_state_comes_from_our_own_page_or_from_no_page() {
        let guard = guard(&["app.example.com"], "127.0.0.1");
        let ask = |method: &str, fields: &str| {
            judge(
                &guard,
                &format!("{method} /api/tunnels HTTP/1.1\nHost: localhost:4040\n{fields}\n"),
            )
        };
        for method in ["POST", "PUT", "DELETE"] {
            assert_eq!(ask(method, ""), Ok(()));
            assert_eq!(ask(method, "Origin: http://localhost:4040\n"), Ok(()));
            assert_eq!(ask(method, "Origin: https://app.example.com\n"), Ok(()));
            assert_eq!(ask(method, "Sec-Fetch-Site: same-origin\n"), Ok(()));
            let second = "Sec-Fetch-Site: none\nSec-Fetch-Site: cross-site\n";
            assert_eq!(ask(method, second), Err(GuardError::Origin));
            for foreign in [
                "Origin: http://evil.example\n",
                "Origin: http://localhost:3000\n",
                "Origin: null\n",
                "Origin: https://localhost:4040.evil.example\n",
                "Origin:\n",
                "Sec-Fetch-Site: cross-site\n",
                "Sec-Fetch-Site: same-site\n",
                "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\n",
            ] {
                assert_eq!(ask(method, foreign), Err(GuardError::Origin), "{method} {foreign}");
            }
        }
        assert_eq!(ask("GET", "Sec-Fetch-Site: none\nSec-Fetch-Mode: navigate\n"), Ok(()));
        assert_eq!(ask("GET", "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate\n"), Ok(()));
        assert_eq!(
            ask("GET", "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: no-cors\n"),
            Err(GuardError::Origin)
        );
    }
}
