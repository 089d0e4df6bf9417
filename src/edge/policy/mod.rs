//! Traffic policies: documents of agents with rules for connections, requests and responses.
//! No socket, thread or clock here. What an action does is in [`crate::edge::actions`].

pub mod catalog;
pub mod document;
pub mod event_stream;
pub mod fault;
pub mod rate_limit;
pub mod replace;
pub mod rewrite;
