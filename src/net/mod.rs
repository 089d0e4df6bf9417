//! Connections to the edge: name resolution, proxies, dialling and TLS, and the download of
//! small files with the same means. Frames do not belong here.
//!
//! [`Dialer`] is the entry. Sans-IO: [`dns`], [`resolv_conf`], [`url`],
//! [`http_connect`], [`socks5`], [`proxy_env`].

pub mod bridge;
pub mod dial;
mod dialer;
pub mod dns;
mod dns_stream;
mod dns_udp;
#[cfg_attr(not(feature = "fetch"), path = "http_client/stub.rs")]
pub mod http_client;
pub mod http_connect;
pub mod last_good;
pub mod proxy_env;
mod proxy_tunnel;
pub mod resolv_conf;
pub mod resolver;
pub mod socks5;
pub mod timed_stream;
pub mod url;

pub use dialer::{DialError, Dialer};
