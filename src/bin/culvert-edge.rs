//! The self-hosted edge as a program.

use std::process::ExitCode;

use culvert::sys::alloc::{self, ALLOCATOR, Allocator};
use culvert::sys::sigaltstack;

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

fn main() -> ExitCode {
    sigaltstack::settle();
    alloc::prepare();
    let args = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    ExitCode::from(culvert::edge::args::main(args))
}
