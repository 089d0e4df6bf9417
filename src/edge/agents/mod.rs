//! The edge and its agents: sessions, credentials, names, ports and the endpoints that
//! are online.
//!
//! [`session`] authenticates an agent, [`rpc`] takes its calls, [`bind`] decides about
//! names, [`registry`] holds what is online. Nothing here reads a visitor's bytes.

pub mod acl;
pub mod address;
pub mod bind;
pub mod credentials;
pub mod options;
pub mod registry;
pub mod restriction;
pub mod rpc;
pub mod session;
