//! Addresses of a visitor's connection: those of its socket, or those that a trusted proxy
//! names in a PROXY header. Data only.

use std::net::SocketAddr;

use crate::edge::proxies::TrustedProxies;
use crate::proto::proxy_protocol::decode::DecodedHeader;

/// Addresses of a visitor's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionOrigin {
    /// Address of the visitor, or of the proxy that sends HTTP on its behalf.
    pub peer: SocketAddr,
    /// Address that the visitor connected to.
    pub local: SocketAddr,
    /// Whether `peer` is a proxy whose forwarded headers count.
    pub trusted: bool,
}

impl ConnectionOrigin {
    /// Returns the addresses of a connection without a PROXY header.
    pub fn direct(proxies: &TrustedProxies, peer: SocketAddr, local: SocketAddr) -> Self {
        ConnectionOrigin { peer, local, trusted: proxies.contains(peer.ip()) }
    }

    /// Returns the addresses of a connection with a PROXY header. If the header has none, the
    /// forwarded headers do not count either: they are those of an unknown client.
    pub fn proxied(self, proxies: &TrustedProxies, header: &DecodedHeader) -> Self {
        match header.addresses {
            Some(of) => ConnectionOrigin::direct(proxies, of.source, of.destination),
            None => ConnectionOrigin { trusted: false, ..self },
        }
    }
}
