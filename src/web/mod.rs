//! The local API and what is served beside it: the page, metrics, health (agent 10).
//!
//! [`start`] opens the listener and starts the one thread that serves it. Bytes
//! and decisions ([`http`], [`guard`], `json`) know no sockets; `server` and
//! `connection` know no endpoints; `api` says what a request is for and asks the
//! agent's [`Handle`]. Nothing here decides about sessions.

mod api;
mod app;
mod connection;
pub mod guard;
pub mod http;
mod jobs;
mod json;
mod listen;
mod objects;
pub mod page;
mod prometheus;
#[cfg_attr(not(feature = "inspect"), path = "requests/stub.rs")]
mod requests;
mod server;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use crate::agent::Handle;
use crate::event;
use crate::sys;

/// Starts the local API of an agent. Returns where it is; `None` if none is wanted.
pub fn start(handle: &Handle) -> Result<Option<SocketAddr>, String> {
    let Some(listener) = listen::listen(&handle.config().web_addr)? else { return Ok(None) };
    let failed = |e: std::io::Error| {
        let e = sys::fd_budget::words(&e);
        format!("cannot start the local API: {e}; web_addr: false does without")
    };
    let addr = listener.local_addr().map_err(failed)?;
    let api = api::Api::new(handle.clone(), addr, sys::clock());
    server::start(listener, Box::new(api)).map_err(failed)?;
    event!(info, obj = "web", "starting web service", addr = addr);
    Ok(Some(addr))
}
