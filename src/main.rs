//! The agent's program.

use std::process::ExitCode;

use culvert::sys::alloc::{self, ALLOCATOR, Allocator};
use culvert::sys::sigaltstack;

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

fn main() -> ExitCode {
    sigaltstack::settle();
    alloc::prepare();
    let status = culvert::cli::run(std::env::args_os());
    alloc::report();
    ExitCode::from(status)
}
