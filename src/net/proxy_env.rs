//! Selects the proxy of a connection from the configuration and the environment. Text only: no
//! connection is opened here.

use std::net::IpAddr;

use super::dial::split_host;
use crate::features;
use crate::http1::text::percent_decoded;
use crate::proto::secret::Secret;

/// Protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyScheme {
    /// HTTP CONNECT.
    Http,
    /// HTTP CONNECT over TLS.
    Https,
    /// SOCKS version 5.
    Socks5,
}

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// Its protocol.
    pub scheme: ProxyScheme,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password.
    pub login: Option<(String, Secret)>,
}

impl ProxyScheme {
    /// Returns its name in URLs and in Auth's `ProxyType` (protocol 5.4).
    pub const fn as_str(self) -> &'static str {
        match self {
            ProxyScheme::Http => "http",
            ProxyScheme::Https => "https",
            ProxyScheme::Socks5 => "socks5",
        }
    }
}

impl Proxy {
    /// Parses `scheme://[user[:password]@]host[:port]`; the default scheme is `http`. The error
    /// does not contain the text, because it may have a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "is not a proxy; write http://host:port, https://host:port or socks5://host:port, \
             with user:password@ in front of the host if it requires a login"
                .to_owned()
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (scheme, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyScheme::Http, 80),
            "https" => (ProxyScheme::Https, 443),
            "socks5" | "socks5h" | "socks" => (ProxyScheme::Socks5, 1080),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, rest),
        };
        let (host, given) = split_host(address).ok_or_else(wrong)?;
        let login = match login {
            None => None,
            Some(login) => {
                let (user, password) = login.split_once(':').unwrap_or((login, ""));
                let decoded = |text| decode(text).ok_or_else(wrong);
                Some((decoded(user)?, Secret::new(decoded(password)?)))
            }
        };
        Ok(Proxy { scheme, host: host.to_owned(), port: given.unwrap_or(port), login })
    }
}

/// Without the login, for messages.
impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = super::url::bracketed(&self.host);
        write!(f, "{}://{host}:{}", self.scheme.as_str(), self.port)
    }
}

/// Decodes percent-encoding. `None` for invalid codes, or if the result is not text.
fn decode(text: &str) -> Option<String> {
    percent_decoded(text, false).filter(|decoded| !decoded.contains('\0'))
}

/// Proxy of a program, and the hosts that are reached without it.
#[derive(Clone, Debug, Default)]
pub struct ProxySettings {
    proxy: Option<Proxy>,
    no_proxy: NoProxy,
}

/// Variables with the proxy, in order of precedence.
const PROXY_VARIABLES: [&str; 6] =
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

impl ProxySettings {
    /// Returns the settings: `proxy_url` for all hosts if it is not empty. Otherwise the
    /// variables of the environment, except for the hosts in `no_proxy` and this machine.
    pub fn new(
        proxy_url: &Secret,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        if !features::PROXIES && proxy_url.is_empty() {
            return Ok(ProxySettings::default());
        }
        if !features::PROXIES {
            return Err(format!("proxy_url {}", features::NO_PROXIES));
        }
        if !proxy_url.is_empty() {
            let proxy = Proxy::parse(proxy_url.expose()).map_err(|e| format!("proxy_url {e}"))?;
            return Ok(ProxySettings { proxy: Some(proxy), no_proxy: NoProxy::default() });
        }
        let set = |name: &&str| environment(name).filter(|v| !v.is_empty());
        let Some((name, url)) = PROXY_VARIABLES.iter().find_map(|n| Some((n, set(n)?))) else {
            return Ok(ProxySettings::default());
        };
        let proxy = Proxy::parse(&url).map_err(|e| format!("{name} of the environment {e}"))?;
        let list = ["no_proxy", "NO_PROXY"].iter().find_map(set).unwrap_or_default();
        Ok(ProxySettings { proxy: Some(proxy), no_proxy: NoProxy { local: true, list } })
    }

    /// Returns the proxy for a host; `None`: a direct connection.
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        self.proxy.as_ref().filter(|_| features::PROXIES && !self.no_proxy.contains(host, port))
    }
}

/// Hosts that are reached without a proxy.
#[derive(Clone, Debug, Default)]
struct NoProxy {
    /// Whether this includes this machine.
    local: bool,
    list: String,
}

impl NoProxy {
    fn contains(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ip: Option<IpAddr> = host.parse().ok();
        let is_local = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
        if self.local && is_local {
            return true;
        }
        let mut items = self.list.split([',', ' ']).filter(|item| !item.is_empty());
        items.any(|item| {
            if item == "*" {
                return true;
            }
            if let (Some(ip), Some((network, bits))) = (ip, item.split_once('/')) {
                return within(ip, network, bits);
            }
            let Some((name, only)) = split_host(item) else { return false };
            if only.is_some_and(|only| only != port) {
                return false;
            }
            if let Some(ip) = ip {
                return name.parse() == Ok(ip);
            }
            let name =
                name.strip_prefix('*').unwrap_or(name).trim_matches('.').to_ascii_lowercase();
            let rest = host.strip_suffix(name.as_str());
            !name.is_empty() && rest.is_some_and(|r| r.is_empty() || r.ends_with('.'))
        })
    }
}

/// Returns whether `ip` is in `network/bits`.
fn within(ip: IpAddr, network: &str, bits: &str) -> bool {
    let (Ok(network), Ok(bits)) = (network.parse(), bits.parse::<u32>()) else { return false };
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) if bits <= 32 => {
            (u32::from(a) ^ u32::from(b)).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if bits <= 128 => {
            (u128::from(a) ^ u128::from(b)).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(all(test, feature = "proxies"))]
mod tests {
    use super::*;

    fn settings(proxy_url: &str, environment: &[(&str, &str)]) -> Result<ProxySettings, String> {
        ProxySettings::new(&Secret::new(proxy_url), &|name| {
            environment.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        })
    }

    fn shown(settings: &ProxySettings, host: &str) -> String {
        settings.proxy_for(host, 443).map(Proxy::to_string).unwrap_or_default()
    }

    #[test]
    fn proxies_in_all_forms() {
        for (text, as_shown) in [
            ("proxy:3128", "http://proxy:3128"),
            ("http://proxy", "http://proxy:80"),
            ("HTTPS://proxy/", "https://proxy:443"),
            ("socks5://[::1]", "socks5://[::1]:1080"),
            ("socks5h://u:p@proxy:1", "socks5://proxy:1"),
        ] {
            assert_eq!(Proxy::parse(text).unwrap().to_string(), as_shown, "{text}");
        }
        let login = Proxy::parse("http://us%3Aer:p%40ss:%C3%A9@h:1").unwrap().login.unwrap();
        assert_eq!((login.0.as_str(), login.1.expose()), ("us:er", "p@ss:é"));
        for text in ["", "socks4://h:1", "http://", "http://u:secret@", "http://u:%zz@h", "h:0"] {
            let error = Proxy::parse(text).unwrap_err();
            assert!(error.contains("socks5://") && !error.contains("secret"), "{text}: {error}");
        }
        let printed = format!("{:?}", Proxy::parse("http://u:secret@h").unwrap());
        assert!(!printed.contains("secret"));
    }

    #[test]
    fn the_first_that_is_set_counts() {
        let environment =
            [("ALL_PROXY", "socks5://all"), ("HTTP_PROXY", "upper"), ("http_proxy", "lower")];
        assert_eq!(shown(&settings("", &environment).unwrap(), "x"), "http://lower:80");
        assert_eq!(shown(&settings("", &environment[..2]).unwrap(), "x"), "http://upper:80");
        assert_eq!(shown(&settings("", &environment[..1]).unwrap(), "x"), "socks5://all:1080");
        assert_eq!(shown(&settings("https://set", &environment).unwrap(), "x"), "https://set:443");
        let both = [("https_proxy", "https"), ("http_proxy", "http"), ("HTTPS_PROXY", "")];
        assert_eq!(shown(&settings("", &both).unwrap(), "x"), "http://https:80");
        assert_eq!(shown(&settings("", &[]).unwrap(), "x"), "");
        let error = settings("", &[("http_proxy", "ftp://u:secret@h")]).unwrap_err();
        assert!(error.starts_with("http_proxy of the environment") && !error.contains("secret"));
        assert!(settings("ftp://h", &[]).unwrap_err().starts_with("proxy_url"));
    }

    #[test]
    fn who_is_reached_without() {
        let no_proxy = |list: &str, host: &str| {
            let made = settings("", &[("http_proxy", "p"), ("NO_PROXY", list)]).unwrap();
            shown(&made, host).is_empty()
        };
        for (list, host) in [
            ("*", "edge.example"),
            ("example", "edge.example"),
            (".example", "Edge.Example."),
            ("*.example", "edge.example"),
            ("a, edge.example:443", "edge.example"),
            ("192.0.2.0/24 x", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::/32", "2001:db8:1::1"),
            ("0.0.0.0/0", "192.0.2.7"),
            ("", "localhost"),
            ("", "127.0.0.9"),
            ("", "::1"),
        ] {
            assert!(no_proxy(list, host), "{list} {host}");
        }
        for (list, host) in [
            ("", "edge.example"),
            ("ample", "edge.example"),
            ("edge.example:80", "edge.example"),
            ("192.0.2.0/24", "192.0.3.7"),
            ("192.0.2.0/33", "192.0.2.7"),
            ("2001:db8::/32", "192.0.2.7"),
            (".", "edge.example"),
            ("192.0.2.0/24", "edge.example"),
        ] {
            assert!(!no_proxy(list, host), "{list} {host}");
        }
        // The configured proxy has priority over the environment.
        let made = settings("http://p", &[("no_proxy", "*")]).unwrap();
        assert_eq!(shown(&made, "localhost"), "http://p:80");
    }
}
