//! TLS with the edge, upstreams and visitors: configurations, record protection,
//! revocation lists.
//!
//! No sockets are opened here and no names are resolved; that is `net`.

pub mod client;
pub mod crl;
pub mod provider;
pub mod records;
