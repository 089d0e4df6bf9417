//! Proxying: from a stream of the edge to an upstream and back.
//!
//! A stream starts as [`Incoming`], which reads its proxy header on the reactor thread. It
//! becomes a [`Conn`]. The [`Pool`] serves it with a worker while its upstream sends. TLS to
//! the edge and other messages than the proxy header do not belong here.

mod conn;
mod copy;
pub mod dial;
pub mod files;
mod incoming;
pub mod pages;
mod pool;
mod refusals;
mod target;
mod upstream;
mod upstream_tls;
#[cfg_attr(not(feature = "visitor-tls"), path = "visitor_tls/stub.rs")]
mod visitor_tls;

pub use conn::Conn;
pub use incoming::{Incoming, Routes};
pub use pool::{Pool, PoolNumbers};
pub use target::ProxyTarget;
#[cfg(feature = "inspect")]
pub(crate) use upstream::UpstreamConn;
pub use upstream_tls::UpstreamTlsConfig;
pub use visitor_tls::server_config;
