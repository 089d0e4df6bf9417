//! The agent's program: arguments in, exit status out.

use std::process::ExitCode;

use culvert::sys::alloc::{self, ALLOCATOR, Allocator};
use culvert::sys::sigaltstack;

#[global_allocator]
static GLOBAL: Allocator = ALLOCATOR;

fn main() -> ExitCode {
    sigaltstack::settle();
    // Makes the reserve. Without it now it is asked for again at each visitor.
    let _ = alloc::is_short();
    let status = culvert::cli::run(std::env::args_os());
    alloc::report();
    ExitCode::from(status)
}
