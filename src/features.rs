//! What this build can do and a smaller one cannot, by the features of Cargo.toml.
//!
//! Code that is in every build branches on these constants. Both branches are compiled
//! everywhere; the linker drops the dead one with all that only it reaches. A module that a
//! build may lack has a stub: `x/mod.rs` is real, `x/stub.rs` stands in, and one
//! `#[cfg_attr(not(feature = ...), path = "x/stub.rs")]` where the module is declared
//! selects it. The texts name the feature that is missing.

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

/// Ed25519, and P-384 for the keys of a session.
pub const CURVES: bool = cfg!(feature = "curves");

/// Counts heap allocations.
pub const COUNT_ALLOCS: bool = cfg!(feature = "count-allocs");

/// Faults in the muxer for the self-check of its simulator.
pub const FAULT_INJECTION: bool = cfg!(feature = "fault-injection");
