//! HTTP/1: heads of messages.
//!
//! Sans-IO: bytes in, decisions out. No sockets, threads, TLS or clock, and no policy
//! of an endpoint.

pub mod head;
