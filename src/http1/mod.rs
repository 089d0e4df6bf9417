//! HTTP/1: heads of messages, and their text.
//!
//! Sans-IO: bytes in, decisions out. No sockets, threads, TLS or clock, and no policy
//! of an endpoint.

pub mod head;
pub mod text;
