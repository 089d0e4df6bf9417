//! HTTP/1: the one parser of this program, for the edge, the agent and their clients,
//! and text for HTML and terminals.
//!
//! Sans-IO: bytes in, decisions out. No sockets, threads, TLS or clock, and no policy of
//! an endpoint.

pub mod chunked;
pub mod error;
pub mod framing;
pub mod head;
pub mod line;
mod repair;
pub mod status;
pub mod text;
