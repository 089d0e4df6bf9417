//! Messages of the tunnel protocol. Sans-IO: bytes and structs. Sockets, threads, clock and
//! frames do not belong here.
//!
//! [`messages`] has the calls (protocol 5), [`proxy_header`] the header of a visitor's
//! connection (protocol 6.1), [`codes`] the meaning of a refusal.

pub mod base64;
pub mod codes;
mod fields;
pub mod hex;
pub mod json;
pub mod messages;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod secret;

pub use fields::DecodeError;
