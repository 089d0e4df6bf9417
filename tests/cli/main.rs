//! The command line: the built program, its output, its exit code and the files that it reads
//! and writes. Tests that connect belong to `e2e`.

#[cfg(feature = "api")]
mod api;
mod commands;
mod completion;
mod config;
mod service;
#[path = "../support/mod.rs"]
mod support;
