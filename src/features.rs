//! What this build can do and a smaller one cannot, by the features of Cargo.toml.
//!
//! For code that is in every build and goes one way or the other. Both ways are compiled
//! everywhere; the one that cannot be gone is dropped with all that only it reaches. A
//! module that is there or not has its `#[cfg(feature = ...)]` at its door.

/// Directories as upstreams.
pub const FILES: bool = cfg!(feature = "files");

/// TLS and HTTP with others than the edge and upstreams: revocation lists, policies by
/// URL, DNS over TCP and TLS.
pub const FETCH: bool = cfg!(feature = "fetch");

/// Ways to the edge through proxies. Without them what the environment says of proxies is
/// not heeded.
pub const PROXIES: bool = cfg!(feature = "proxies");

/// The local API, the only one that asks the agent for something.
pub const WEB: bool = cfg!(feature = "web");

/// What a user is told who asks for what is not here.
pub fn lacking(feature: &str) -> String {
    format!("this program was built without the feature `{feature}`")
}
