//! Traffic policies: documents of agents with rules for connections, requests and responses.
//! No socket or clock here, and no thread but the one that compiles an expression.
//!
//! [`document`] reads a document, [`compile`] compiles it to the rules of [`rule`], and
//! [`actions`] has one file for each action. An action implements [`action::PolicyAction`] for
//! the phases that [`catalog`] lists. It reads its configuration with [`reader`], and sees a
//! visitor through [`phases`].

pub mod action;
pub mod actions;
pub mod body_failures;
pub mod catalog;
pub mod compile;
pub mod document;
pub mod event_stream;
pub mod expression;
pub mod fault;
pub mod made_values;
pub mod older_form;
pub mod phases;
pub mod rate_limit;
pub mod reader;
pub mod replace;
pub mod replace_stream;
pub mod replacement_text;
pub mod request_places;
mod response_cookie;
pub mod rewrite;
pub mod rule;
pub mod search_time;
pub mod text;
pub mod values;
pub mod vars;
pub mod visit;
