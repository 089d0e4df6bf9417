//! The encrypted byte pipe to the edge: names to addresses, proxies, dialling and
//! TLS; and fetching small files by the same means. No knowledge of frames.

pub mod dial;
pub mod dns;
pub mod fetch;
pub mod http;
pub mod records;
pub mod resolv_conf;
pub mod tls;
pub mod wire;
