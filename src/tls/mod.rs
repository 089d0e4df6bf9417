//! TLS with the edge, upstreams and visitors: configurations, record protection,
//! revocation lists.
//! Opening sockets and resolving names belongs to `net`.

pub mod client;
pub mod crl;
mod error;
mod handshake;
pub mod key_update;
pub mod provider;
pub mod records;
pub mod roots;
pub mod server;
pub mod x509;

pub use error::{explain, explain_web};
pub use handshake::Established;
pub(crate) use handshake::{time_left, timed_out};
