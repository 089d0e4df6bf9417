//! The agent's program.

use std::process::ExitCode;

use culvert::sys::alloc::{self, ALLOCATOR, Allocator};
use culvert::sys::sigaltstack;

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

fn main() -> ExitCode {
    sigaltstack::settle();
    // Creates the reserve. After a failure each visitor causes another attempt.
    let _ = alloc::is_short();
    let status = culvert::cli::run(std::env::args_os());
    alloc::report();
    ExitCode::from(status)
}
