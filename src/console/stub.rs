//! Stub of the status screen.

use std::net::SocketAddr;

use crate::agent::Handle;

/// Type without values.
pub enum Console {}

impl Console {
    /// Starts nothing.
    pub fn start(_: &Handle, _: Option<SocketAddr>) -> Option<Console> {
        None
    }
}
