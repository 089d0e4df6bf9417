//! Stub of the local API.

use std::net::SocketAddr;

use crate::agent::Handle;

/// Starts nothing.
pub fn start(_: &Handle) -> Result<Option<SocketAddr>, String> {
    Ok(None)
}
