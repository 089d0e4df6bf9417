//! Stands in for the local API in a build without it.

use std::net::SocketAddr;

use crate::agent::Handle;

/// Starts nothing.
pub fn start(_: &Handle) -> Result<Option<SocketAddr>, String> {
    Ok(None)
}
