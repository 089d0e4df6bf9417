//! Traffic policies: documents of agents with rules for connections, requests and responses.
//! No socket or clock here, and no thread but the one that compiles an expression. What an
//! action does is in [`crate::edge::actions`].

pub mod catalog;
pub mod document;
pub mod event_stream;
pub mod expression;
pub mod fault;
pub mod rate_limit;
pub mod replace;
pub mod rewrite;
