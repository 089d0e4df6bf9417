//! The encrypted byte pipe to the edge: names to addresses, proxies, dialling, TLS
//! and revocation; and fetching small files by the same means. No knowledge of
//! frames.
//!
//! [`Dialer`] is the door. Sans-IO: [`dns`], [`resolv_conf`], [`http`],
//! [`http_connect`], [`socks5`], [`via`].

pub mod bridge;
pub mod crl;
pub mod dial;
mod dialer;
pub mod dns;
pub mod fetch;
pub mod http;
pub mod http_connect;
pub mod provider;
pub mod records;
pub mod resolv_conf;
pub mod resolve;
pub mod socks5;
pub mod state;
pub mod tls;
pub mod via;
pub mod wire;

pub use dialer::{Dialer, Error};
