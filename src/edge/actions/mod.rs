//! Actions: what the edge does with an endpoint's visitors for the options of its Bind
//! request. [`compile`] turns the options into an [`ActionSet`]. It runs in three phases with
//! a fixed order: for a connection, for the head of a request, for the head of a response.
//!
//! Fails closed: a request goes on only with a [`ForwardPlan`], and only [`ActionSet`] makes
//! one, after each action has returned [`action::Flow::Continue`]. An action that fails ends the
//! request with a page. No socket, thread or clock here, and no option outside of here. [`login`]
//! blocks for the requests that [`super::login`] sends.

pub mod accept_encoding;
pub mod action;
pub mod basic_auth;
pub mod body_encoder;
pub mod body_transform;
pub mod circuit_breaker;
pub mod compile;
pub mod compression;
pub mod edits;
pub mod headers;
pub mod ip_restriction;
pub mod location;
pub mod login;
pub mod response;
pub mod set;
pub mod tls;
pub mod user_agent;
pub mod webhook;

pub use action::{ActionError, Reply, ReplyContent, RequestInfo};
pub use set::{ActionSet, ConnectDecision, Decision, ForwardPlan, RequestVisit, failure};
