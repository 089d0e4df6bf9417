//! culvert: a tunnel agent for small machines, and a small edge for it.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod agent;
pub mod cidr;
pub mod cli;
pub mod config;
#[cfg(feature = "console")]
pub mod console;
#[cfg(feature = "edge")]
pub mod edge;
pub mod features;
pub mod http1;
#[cfg(feature = "inspect")]
pub mod inspect;
#[cfg(not(feature = "inspect"))]
#[path = "inspect/stub.rs"]
pub mod inspect;
pub mod logging;
pub mod metrics;
pub mod mux;
pub mod net;
pub mod proto;
pub mod proxy;
#[cfg(feature = "inspect")]
pub mod replay;
#[cfg(not(feature = "inspect"))]
#[path = "replay/stub.rs"]
pub mod replay;
pub mod session;
pub mod sys;
pub mod time;
pub mod tls;
#[cfg(feature = "web")]
pub mod web;
