//! The self-hosted edge as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    culvert::sys::sigaltstack::settle();
    let args = std::env::args_os().map(|a| a.to_string_lossy().into_owned());
    ExitCode::from(culvert::edge::args::main(args))
}
