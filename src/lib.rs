//! culvert: a tunnel agent for small machines, and a small edge for it.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod agent;
pub mod cli;
pub mod config;
#[cfg(feature = "console")]
pub mod console;
#[cfg(feature = "edge")]
pub mod edge;
pub mod features;
#[cfg(feature = "inspect")]
pub mod inspect;
#[cfg(not(feature = "inspect"))]
#[path = "inspect/off.rs"]
pub mod inspect;
pub mod link;
pub mod log;
pub mod metrics;
pub mod mux;
pub mod proto;
pub mod proxy;
pub mod sys;
pub mod tally;
pub mod time;
pub mod tunnel;
#[cfg(feature = "web")]
pub mod web;
