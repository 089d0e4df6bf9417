//! What this build can do and a smaller one cannot, by the features of Cargo.toml.
//!
//! For code that is in every build and goes one way or the other. Both ways are compiled
//! everywhere; the one that cannot be gone is dropped with all that only it reaches. A
//! module that is there or not has its `#[cfg(feature = ...)]` at its door. Who asks for
//! what is not here is told which feature has it.

/// Directories as upstreams.
pub const FILES: bool = cfg!(feature = "files");
/// For who asks without it.
pub const NO_FILES: &str = "file:// is not known to this program: it was built without the feature \
                            `files`";

/// TLS and HTTP with others than the edge and upstreams: revocation lists, policies by
/// URL, DNS over TCP and TLS.
pub const FETCH: bool = cfg!(feature = "fetch");
/// For who asks without it.
pub const NO_FETCH: &str = "this program was built without the feature `fetch`";

/// Ways to the edge through proxies. Without them what the environment says of proxies is
/// not heeded.
pub const PROXIES: bool = cfg!(feature = "proxies");
/// For who asks without it, behind the name of the option.
pub const NO_PROXIES: &str =
    "is of no use to this program: it was built without the feature `proxies`";

/// Capture of requests.
pub const INSPECT: bool = cfg!(feature = "inspect");

/// Commands for people: completion, credits, changes of the configuration.
pub const TOOLS: bool = cfg!(feature = "tools");
/// For who asks without it.
pub const NO_TOOLS: &str = "is not known to this program: it was built without the feature `tools`";

/// The status screen.
pub const CONSOLE: bool = cfg!(feature = "console");

/// The local API, the only one that asks the agent for something.
pub const WEB: bool = cfg!(feature = "web");
