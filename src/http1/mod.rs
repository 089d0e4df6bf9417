//! HTTP/1: the only parser of this program, for the edge, the agent and their clients, and text
//! for HTML and terminals.
//!
//! Sans-IO: bytes as arguments, decisions as results. Sockets, threads, TLS, clock and policy
//! of an endpoint do not belong here.

pub mod chunked;
pub mod error;
pub mod framing;
pub mod head;
pub mod line;
#[cfg(test)]
pub(crate) mod mutator;
pub mod receiver;
mod repair;
pub mod status;
pub mod text;
