//! Proxies in front of the edge: the trusted ones, and the listeners to which they send PROXY
//! headers. Nothing is read here.

use std::net::IpAddr;

use crate::cidr::Cidr;

/// Proxies whose word about their clients counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Vec<Cidr>,
    /// They send a PROXY header on each connection to the http listener.
    pub header_on_http: bool,
    /// The same for the https listener.
    pub header_on_https: bool,
    /// The same for the ports of TCP endpoints.
    pub header_on_tcp: bool,
}

impl TrustedProxies {
    /// Returns whether `ip` is a trusted proxy.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }
}
