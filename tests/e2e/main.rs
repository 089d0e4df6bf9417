//! End-to-end tests: the real programs on loopback, one file a promise.
//!
//! One binary, so that the support is linked once and the promises are tested
//! side by side. A test asserts what a visitor, an upstream or the user would
//! see, never how long it took.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod blackhole;
mod bulk;
mod ceiling;
mod configs;
#[cfg(feature = "console")]
mod console;
mod deadlines;
mod detectors;
mod edge_serve;
mod fairness;
mod files;
mod floods;
mod half_close;
mod handle;
mod http;
mod inspection;
mod legs;
mod logs;
mod machine;
#[cfg(all(feature = "web", feature = "inspect"))]
mod metrics;
mod notify;
mod options;
mod overload;
mod pooling;
mod portable;
mod programs;
mod proxies;
mod reconnect;
mod reload;
mod resolution;
mod revocation;
mod secrets;
mod serve;
mod signals;
mod sse;
mod tls;
#[cfg(feature = "visitor-tls")]
mod tls_at_agent;
mod tls_refusals;
mod upstream_trust;
mod upstreams;
mod urls;
#[cfg(feature = "web")]
mod web_api;
#[cfg(feature = "web")]
mod web_guard;
#[cfg(all(feature = "web", feature = "inspect"))]
mod web_requests;
#[cfg(feature = "web")]
mod web_slow;
mod websocket;
