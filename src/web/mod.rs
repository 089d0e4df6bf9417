//! The local API and its other services: the page, metrics, health (agent 10).
//!
//! [`start`] opens the listener and starts the one thread that serves it. [`http`], [`guard`]
//! and `json` handle bytes and decisions without sockets. `server` and `connection` know no
//! endpoints. `api` has the routes and uses the agent's [`Handle`]. Decisions about sessions do
//! not belong here.

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

/// Starts the local API of an agent. Returns its address; `None` if it is disabled.
pub fn start(handle: &Handle) -> Result<Option<SocketAddr>, String> {
    let web_addr = &handle.config().web_addr;
    let Some(listener) = listen::listen(web_addr, Handle::listen_addresses)? else {
        return Ok(None);
    };
    let failed = |e: std::io::Error| {
        let e = sys::fd_budget::words(&e);
        format!("cannot start the local API: {e}; web_addr: false disables it")
    };
    let addr = listener.local_addr().map_err(failed)?;
    let api = api::Api::new(handle.clone(), addr, sys::clock());
    server::start(listener, Box::new(api)).map_err(failed)?;
    event!(info, obj = "web", "starting web service", addr = addr);
    Ok(Some(addr))
}
