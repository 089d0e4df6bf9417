//! The agent's program: arguments in, exit status out.

use std::process::ExitCode;

/// musl's allocator maps and unmaps memory for every large record; this one does
/// not, gives memory back after a burst, and costs 7 KB.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    ExitCode::from(culvert::cli::run(std::env::args_os()))
}
