//! culvert: a tunnel agent for small machines, and a small edge for it.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod agent;
pub mod cidr;
pub mod cli;
pub mod config;
#[cfg_attr(not(feature = "console"), path = "console/stub.rs")]
pub mod console;
pub mod diagnose;
#[cfg(feature = "edge")]
pub mod edge;
pub mod features;
pub mod http1;
#[cfg_attr(not(feature = "inspect"), path = "inspect/stub.rs")]
pub mod inspect;
pub mod logging;
#[cfg_attr(not(any(feature = "web", feature = "console", test)), path = "metrics/stub.rs")]
pub mod metrics;
pub mod mux;
pub mod net;
pub mod proto;
pub mod proxy;
#[cfg_attr(not(feature = "inspect"), path = "replay/stub.rs")]
pub mod replay;
pub mod rest_client;
pub mod service;
pub mod session;
pub mod sys;
pub mod time;
pub mod tls;
#[cfg(feature = "update")]
pub mod update;
#[cfg_attr(not(feature = "web"), path = "web/stub.rs")]
pub mod web;
