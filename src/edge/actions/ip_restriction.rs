//! `IPRestriction`: networks whose visitors may connect to an endpoint.

use std::net::IpAddr;

use crate::cidr::Cidr;

/// Networks of an endpoint: a visitor must be in an allowed one and in no denied one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpRestriction {
    /// Networks that may connect.
    pub allow: Vec<Cidr>,
    /// Networks that may not connect, even if they are in `allow`.
    pub deny: Vec<Cidr>,
}

impl IpRestriction {
    /// Returns whether `ip` may connect.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.allow.iter().any(|c| c.contains(ip)) && !self.deny.iter().any(|c| c.contains(ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn deny_beats_allow() {
        let list = |t: &[&str]| t.iter().map(|c| Cidr::parse(c).unwrap()).collect();
        let r = IpRestriction { allow: list(&["10.0.0.0/8"]), deny: list(&["10.1.0.0/16"]) };
        assert!(r.admits(ip("10.2.0.1")));
        assert!(!r.admits(ip("10.1.0.1")) && !r.admits(ip("127.0.0.1")));
    }
}
