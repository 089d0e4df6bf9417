//! Parses `/etc/resolv.conf` and `/etc/hosts`. Sans-IO. Unknown lines are skipped, as in C
//! libraries.

use std::net::IpAddr;

/// Maximum number of resolvers, as in C libraries (MAXNS).
const MAX_SERVERS: usize = 3;
/// Maximum number of search domains, as in C libraries (MAXDNSRCH).
const MAX_SEARCH: usize = 6;

/// Resolvers of the system, and the rules for short names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    /// Address, and the interface's name for a link-local address.
    pub servers: Vec<(IpAddr, String)>,
    /// Domains that are appended to short names.
    pub search: Vec<String>,
    /// Number of dots from which on a name is tried as a full name first.
    pub ndots: usize,
    /// Resolvers are queried over TCP (`use-vc`).
    pub use_tcp: bool,
}

impl ResolvConf {
    /// Parses a `resolv.conf`.
    pub fn parse(text: &str) -> Self {
        let mut conf =
            ResolvConf { servers: Vec::new(), search: Vec::new(), ndots: 1, use_tcp: false };
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < MAX_SERVERS => {
                    let word = words.next().unwrap_or_default();
                    let (ip, zone) = word.split_once('%').unwrap_or((word, ""));
                    if let Ok(ip) = ip.parse() {
                        conf.servers.push((ip, zone.to_owned()));
                    }
                }
                // The last line is valid.
                Some("search" | "domain") => {
                    let domains = words.map(|d| d.trim_matches('.').to_owned());
                    conf.search = domains.filter(|d| !d.is_empty()).take(MAX_SEARCH).collect();
                }
                Some("options") => {
                    for word in words {
                        conf.use_tcp |= word == "use-vc";
                        if let Some(n) = word.strip_prefix("ndots:").and_then(|n| n.parse().ok()) {
                            conf.ndots = 15.min(n);
                        }
                    }
                }
                _ => {}
            }
        }
        conf
    }

    /// Returns the full names that `name` may stand for, in order. `plain_first`: a name with
    /// a dot is tried unchanged first, whatever `ndots` is. A wildcard of a search domain
    /// would hide it.
    pub fn candidates(&self, name: &str, plain_first: bool) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let mut names: Vec<_> = self.search.iter().map(|d| format!("{name}.{d}")).collect();
        let ndots = if plain_first { self.ndots.min(1) } else { self.ndots };
        let full = if name.matches('.').count() >= ndots { 0 } else { names.len() };
        names.insert(full, name.to_owned());
        names
    }
}

/// Returns the addresses of `name` in a `hosts` file.
pub fn hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf() {
        let conf = ResolvConf::parse(
            "# made by udhcpc\nnameserver 192.0.2.1 # lan\nnameserver fe80::1%eth0\nnameserver x\n\
             search Lan. example.org\noptions timeout:1 ndots:2\nnameserver 192.0.2.2\n\
             nameserver 192.0.2.3\n",
        );
        let expected = [("192.0.2.1", ""), ("fe80::1", "eth0"), ("192.0.2.2", "")];
        assert_eq!(conf.servers, expected.map(|(ip, z)| (ip.parse().unwrap(), z.to_owned())));
        assert_eq!(conf.candidates("edge", true), ["edge.Lan", "edge.example.org", "edge"]);
        assert_eq!(conf.candidates("a.b.c", false), ["a.b.c", "a.b.c.Lan", "a.b.c.example.org"]);
        assert_eq!(conf.candidates("a.b", false), ["a.b.Lan", "a.b.example.org", "a.b"]);
        assert_eq!(conf.candidates("a.b", true), ["a.b", "a.b.Lan", "a.b.example.org"]);
        assert_eq!(conf.candidates("a.b.c.", true), ["a.b.c"]);
        assert!(!conf.use_tcp && ResolvConf::parse("options ndots:1 use-vc\n").use_tcp);
        for text in ["", "nameserver\n", "\0\u{fffd}"] {
            assert!(ResolvConf::parse(text).servers.is_empty());
        }
    }

    #[test]
    fn hosts_file() {
        let text =
            "127.0.0.1 localhost\n::1 localhost Edge # here\n\n10.0.0.1 edge edge.lan\nx edge";
        let found = hosts(text, "EDGE");
        assert_eq!(found, ["::1", "10.0.0.1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
        assert!(hosts(text, "ed").is_empty());
        assert!(hosts("", "edge").is_empty());
    }
}
