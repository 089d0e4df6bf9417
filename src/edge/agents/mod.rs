//! Agents at the edge: from a connection to the endpoints that are online. Nothing here
//! reads a visitor's bytes.
//!
//! [`accept`] takes a connection, [`auth`] authenticates it. [`handler`] handles its calls,
//! which [`rpc`] reads. [`bind`] decides which name an endpoint gets, [`labels`] which hosts a
//! labelled tunnel serves. [`registry`] has the
//! endpoints that are online, [`table`] the sessions.

pub mod accept;
pub mod acl;
pub mod address;
pub mod auth;
pub mod bind;
pub mod credentials;
pub mod encoded_reply;
pub mod handler;
pub mod identity;
pub mod info;
pub mod labels;
pub mod late_replies;
pub mod options;
pub mod overview;
pub mod registry;
pub mod remote;
pub mod revocation;
pub mod rpc;
pub mod session;
pub mod stranger;
pub mod table;
pub mod unsent_binds;
