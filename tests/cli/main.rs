//! The command line: the built program, its output, its exit status and the files that it
//! reads and writes. Nothing here connects anywhere; what does belongs to `e2e`.

mod commands;
mod completion;
mod config;
#[path = "../support/mod.rs"]
mod support;
