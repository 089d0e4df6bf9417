//! Stands in for the status screen in a build without it.

use std::net::SocketAddr;

use crate::agent::Handle;

/// A screen that does not exist.
pub enum Console {}

impl Console {
    /// Starts nothing.
    pub fn start(_: &Handle, _: Option<SocketAddr>) -> Option<Console> {
        None
    }
}
