//! Connections to the edge: name resolution, proxies, dialling and TLS, and the download
//! of small files by the same means. No knowledge of frames.
//!
//! [`Dialer`] is the entry. Sans-IO: [`dns`], [`resolv_conf`], [`http_message`],
//! [`http_connect`], [`socks5`], [`proxy_env`].

pub mod bridge;
pub mod dial;
mod dialer;
pub mod dns;
mod dns_stream;
mod dns_udp;
pub mod http_client;
pub mod http_connect;
pub mod http_message;
pub mod last_good;
pub mod proxy_env;
mod proxy_tunnel;
pub mod resolv_conf;
pub mod resolver;
pub mod socks5;
pub mod timed_stream;

pub use dialer::{DialError, Dialer};
