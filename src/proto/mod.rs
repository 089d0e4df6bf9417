//! The messages of the tunnel protocol. Sans-IO: bytes in, structs out.
//! No sockets, no threads, no clock, and no knowledge of frames.
//!
//! [`messages`] are the calls (protocol 5), [`proxy_header`] is the header of a
//! visitor's connection (protocol 6.1), [`codes`] is what a refusal means.

pub mod base64;
pub mod codes;
mod fields;
pub mod json;
pub mod messages;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod secret;

pub use fields::DecodeError;
