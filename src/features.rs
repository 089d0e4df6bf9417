//! Abilities of this build, by the features of Cargo.toml.
//!
//! Code of every build branches on these constants. Both branches are compiled everywhere; the
//! linker removes the dead one with the code that only it uses. A module that a build may lack
//! has a stub: `x/mod.rs` is the real one, `x/stub.rs` replaces it, and one
//! `#[cfg_attr(not(feature = ...), path = "x/stub.rs")]` at the declaration of the module
//! selects it. The texts name the missing feature.

/// Directories as upstreams.
pub const FILES: bool = cfg!(feature = "files");
/// Error for its use without the feature.
pub const NO_FILES: &str = "file:// is not supported: built without feature `files`";

/// TLS and HTTP with other servers than the edge and upstreams: revocation lists, policies by
/// URL, DNS over TCP and TLS.
pub const FETCH: bool = cfg!(feature = "fetch");
/// Error for its use without the feature.
pub const NO_FETCH: &str = "built without feature `fetch`";

/// Connections to the edge through proxies. Without them the proxies of the environment are
/// ignored.
pub const PROXIES: bool = cfg!(feature = "proxies");
/// Error for its use without the feature, after the name of the option.
pub const NO_PROXIES: &str = "is not supported: built without feature `proxies`";

/// Capture of requests.
pub const INSPECT: bool = cfg!(feature = "inspect");

/// The command `api`.
pub const API: bool = cfg!(feature = "api");
/// Error for its use without the feature.
pub const NO_API: &str = "is not supported: built without feature `api`";

/// Commands for interactive use: completion, credits, changes of the configuration.
pub const TOOLS: bool = cfg!(feature = "tools");
/// Error for its use without the feature.
pub const NO_TOOLS: &str = "is not supported: built without feature `tools`";

/// The check of the structure of traffic policies. The edge checks them too.
pub const POLICY_CHECK: bool = TOOLS;

/// A command at each change of the state.
pub const STATE_COMMAND: bool = cfg!(feature = "state-command");

/// The command `service`.
pub const SERVICE: bool = cfg!(feature = "service");
/// Error for its use without the feature.
pub const NO_SERVICE: &str = "is not supported: built without feature `service`";

/// Updates of the program from a feed of its owner.
pub const UPDATE: bool = cfg!(feature = "update");
/// Error for its use without the feature.
pub const NO_UPDATE: &str = "is not supported: built without feature `update`";

/// The command `diagnose`.
pub const DIAGNOSE: bool = cfg!(feature = "diagnose");
/// Error for its use without the feature.
pub const NO_DIAGNOSE: &str = "is not supported: built without feature `diagnose`";

/// The status screen.
pub const CONSOLE: bool = cfg!(feature = "console");

/// The local API, the only source of requests to the agent.
pub const WEB: bool = cfg!(feature = "web");

/// Ed25519, and P-384 for the keys of a session.
pub const CURVES: bool = cfg!(feature = "curves");

/// Counts heap allocations.
pub const COUNT_ALLOCS: bool = cfg!(feature = "count-allocs");

/// Faults in the muxer for the self-check of its simulator.
pub const FAULT_INJECTION: bool = cfg!(feature = "fault-injection");
