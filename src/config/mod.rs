//! Configuration: files, flags and environment combined in one value. Sockets do not belong
//! here.
//!
//! [`mod@file`] finds and reads files. The keys are read in `read`; [`json`] reads the same
//! objects for the local API. [`edit`] and [`mod@upgrade`] change a file in place. [`address`],
//! [`public_url`], [`duration`] and [`size`] parse texts of users. This file has declarations
//! only; the types are in `model`.

pub mod address;
pub(crate) mod authtoken;
mod bindings;
mod diff;
pub mod document;
pub mod duration;
pub mod edit;
pub mod fault;
pub mod file;
pub mod json;
pub mod loaded;
mod model;
pub mod modules;
#[cfg(test)]
pub(crate) mod mutate;
mod nearest;
pub mod policy;
pub(crate) mod policy_catalog;
mod policy_structure;
pub mod public_url;
mod read;
pub mod size;
mod store;
pub mod typed;
pub mod update_key;
pub mod upgrade;

pub use bindings::{check_bindings, inferred_bindings};
pub use document::tab;
pub use json::{endpoint_from_json, tunnel_from_json};
pub use model::{
    Agent, Cas, ConsoleUi, DEFAULT_CLIENT_VERSION, DEFAULT_CRL, DEFAULT_EDGE,
    DEFAULT_MAX_CONNECTIONS, Endpoint, EndpointKind, InspectSize, PUBLIC_RESOLVERS,
    UPDATE_CHANNELS, UpdateOptions, Upstream, UpstreamScheme, Verify, WebAddr,
    parse_proxy_protocol,
};
pub use nearest::nearest;
pub use read::tunnels::is_of;
