//! IP restrictions of the whole edge: which addresses agents, visitors and clients of the REST
//! API may come from. Restrictions of one endpoint are in [`super::actions`].

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cidr::Cidr;

/// IP policies by id.
pub type IpPolicies = HashMap<String, Arc<IpRules>>;

/// Networks of an IP restriction: an address is admitted that is in `allow` and not in `deny`.
#[derive(Clone, Debug, Default)]
pub struct IpRules {
    /// Admitted networks.
    pub allow: Vec<Cidr>,
    /// Refused networks. They have priority.
    pub deny: Vec<Cidr>,
}

impl IpRules {
    fn admits(&self, ip: IpAddr) -> bool {
        let within = |list: &[Cidr]| list.iter().any(|network| network.contains(ip));
        within(&self.allow) && !within(&self.deny)
    }
}

/// Decision about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVerdict {
    /// No restriction refuses it.
    Admitted,
    /// A restriction that is not enforced would refuse it.
    Unenforced,
    /// A restriction refuses it.
    Refused,
}

/// Restrictions of one kind of traffic.
#[derive(Clone, Debug, Default)]
pub struct TrafficRestrictions {
    /// All of them must admit an address.
    pub enforced: Vec<IpRules>,
    /// These only cause a line in the log.
    pub unenforced: Vec<IpRules>,
}

impl TrafficRestrictions {
    /// Decides about an address.
    pub fn check(&self, ip: IpAddr) -> IpVerdict {
        let ip = ip.to_canonical();
        if self.enforced.iter().any(|rules| !rules.admits(ip)) {
            IpVerdict::Refused
        } else if self.unenforced.iter().any(|rules| !rules.admits(ip)) {
            IpVerdict::Unenforced
        } else {
            IpVerdict::Admitted
        }
    }

    /// Returns whether an address is not refused.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.check(ip) != IpVerdict::Refused
    }
}

/// Restrictions of the edge.
#[derive(Clone, Debug, Default)]
pub struct Restrictions {
    /// For agents, before their Auth is answered.
    pub agents: TrafficRestrictions,
    /// For visitors of endpoints.
    pub endpoints: TrafficRestrictions,
    /// For clients of the REST API. Loopback addresses are always admitted.
    pub rest: TrafficRestrictions,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str], deny: &[&str]) -> IpRules {
        let list = |texts: &[&str]| texts.iter().map(|t| Cidr::parse(t).unwrap()).collect();
        IpRules { allow: list(allow), deny: list(deny) }
    }

    #[test]
    fn an_address_is_in_allow_and_not_in_deny_of_every_restriction() {
        let mut traffic = TrafficRestrictions::default();
        let check = |t: &TrafficRestrictions, ip: &str| t.check(ip.parse().unwrap());
        assert_eq!(check(&traffic, "10.0.0.1"), IpVerdict::Admitted);
        traffic.enforced.push(rules(&["10.0.0.0/8", "::1/128"], &["10.1.0.0/16"]));
        assert_eq!(check(&traffic, "10.0.0.1"), IpVerdict::Admitted);
        assert_eq!(check(&traffic, "::ffff:10.0.0.1"), IpVerdict::Admitted);
        assert_eq!(check(&traffic, "10.1.0.1"), IpVerdict::Refused);
        assert_eq!(check(&traffic, "192.0.2.1"), IpVerdict::Refused);
        traffic.unenforced.push(rules(&["10.0.0.0/16"], &[]));
        assert_eq!(check(&traffic, "10.2.0.1"), IpVerdict::Unenforced);
        traffic.enforced.push(rules(&[], &[]));
        assert!(!traffic.admits("10.0.0.1".parse().unwrap()), "rules without a network to allow");
    }
}
