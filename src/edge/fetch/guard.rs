//! Decision which servers the edge may send requests to: public ones, and those that the
//! configuration allows. Sans-IO: the caller resolves names, and connects only to addresses
//! that were decided about.

use std::net::IpAddr;

use super::address::{embedded, is_public};
use super::message::{FetchError, FetchErrorKind};
use crate::cidr::Cidr;
use crate::net::url::Url;

/// Servers that are allowed besides public ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchGuard {
    /// Networks.
    pub networks: Vec<Cidr>,
    /// Hosts by name in lower case, with all of their addresses.
    pub hosts: Vec<String>,
}

impl FetchGuard {
    /// Returns a guard that allows this machine, for trials.
    pub fn with_loopback() -> Self {
        let networks = ["127.0.0.0/8", "::1/128"].iter().filter_map(|text| Cidr::parse(text));
        FetchGuard { networks: networks.collect(), hosts: Vec::new() }
    }

    /// Decides about all addresses of a URL's host. `trusted`: without TLS, only allowed servers
    /// are permitted. One refused address refuses the host: a mixture is not an accident.
    pub fn check(&self, url: &Url, addresses: &[IpAddr], trusted: bool) -> Result<(), FetchError> {
        if self.names(&url.host) {
            return Ok(());
        }
        for ip in addresses {
            let is_listed = self.lists(*ip);
            if !is_listed && !is_public(*ip) {
                let text = format!(
                    "the host '{}' has the address {ip}, which is not public; the edge allows it \
                     only if fetch.allow of edge.yml has it",
                    url.host
                );
                return Err(FetchError::new(FetchErrorKind::Refused, text));
            }
            if trusted && !url.secure && !is_listed {
                let text = format!(
                    "http://{} is not secure; use https://, or add it to fetch.allow of edge.yml",
                    url.host
                );
                return Err(FetchError::new(FetchErrorKind::Refused, text));
            }
        }
        Ok(())
    }

    fn names(&self, host: &str) -> bool {
        let bare = host.trim_end_matches('.');
        self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare))
    }

    fn lists(&self, ip: IpAddr) -> bool {
        let v4 = embedded(ip);
        self.networks.iter().any(|network| network.contains(ip) || network.contains(v4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &FetchGuard, url: &str, ips: &[&str], trusted: bool) -> Result<(), String> {
        let url = Url::parse(url).unwrap();
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        guard.check(&url, &ips, trusted).map_err(|e| {
            assert_eq!(e.kind, FetchErrorKind::Refused);
            e.to_string()
        })
    }

    #[test]
    fn public_servers_pass_and_others_need_the_configuration() {
        let strict = FetchGuard::default();
        assert_eq!(check(&strict, "https://a.example", &["8.8.8.8", "2606:4700::1"], true), Ok(()));
        for ips in [&["10.1.2.3"][..], &["8.8.8.8", "10.1.2.3"], &["64:ff9b::a01:203"]] {
            let error = check(&strict, "https://a.example", ips, false).unwrap_err();
            assert!(error.contains("fetch.allow") && error.contains("a.example"), "{error}");
        }
        let networks = vec![Cidr::parse("10.0.0.0/8").unwrap()];
        let lan = FetchGuard { networks, hosts: vec!["idp.lan".into()] };
        for ips in [&["10.1.2.3"][..], &["::ffff:10.1.2.3"], &["64:ff9b::a01:203"], &["8.8.8.8"]] {
            assert_eq!(check(&lan, "https://a.example", ips, true), Ok(()), "{ips:?}");
        }
        assert!(check(&lan, "https://a.example", &["192.168.0.1"], true).is_err());
        assert!(check(&lan, "https://a.example", &["10.1.2.3", "127.0.0.1"], true).is_err());
        assert_eq!(check(&lan, "http://IDP.lan./x", &["192.168.0.1"], true), Ok(()));
        assert!(check(&lan, "http://x.idp.lan/", &["192.168.0.1"], true).is_err());
    }

    #[test]
    fn keys_do_not_come_in_clear_from_the_internet() {
        let guard = FetchGuard::with_loopback();
        assert_eq!(check(&guard, "http://a.example", &["8.8.8.8"], false), Ok(()));
        let error = check(&guard, "http://a.example", &["8.8.8.8"], true).unwrap_err();
        assert!(error.contains("https://"), "{error}");
        assert_eq!(check(&guard, "http://127.0.0.1:9", &["127.0.0.1"], true), Ok(()));
        assert_eq!(check(&guard, "http://[::1]:9", &["::1"], true), Ok(()));
    }
}
