//! The encrypted byte pipe to the edge: dialling and TLS. No knowledge of frames.

pub mod dial;
pub mod records;
pub mod tls;
