//! What a visitor says, read before it is believed: HTTP heads, bodies, the
//! first message of TLS, and the pages that the edge answers with itself.
//!
//! Sans-IO: bytes in, decisions and bytes out. No sockets, threads, TLS or
//! clock here, so that a test can hold every hostile byte in its hand.

pub mod chunked;
pub mod head;
pub mod pages;
pub mod request;
pub mod response;
pub mod sni;
