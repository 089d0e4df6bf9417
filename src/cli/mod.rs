//! The command line of `culvert`: what was typed, to what is meant, to what is
//! done. One file a command; `args` defines them all.
//!
//! The way: `words` brings what was typed into order and answers every mistake,
//! `argh` makes the structs of `args` of it, and the command's file acts.
//!
//! Nothing here touches the protocol: a command that runs the agent makes a
//! [`crate::config::Agent`] and hands it over.

mod args;
mod config;
mod endpoint;
mod help;
mod session;
mod start;
mod words;

use std::ffi::OsString;

use argh::{ArgsInfo, FromArgs};

use crate::log;
use crate::proto::codes::Refusal;
use crate::sys::argv;
use args::{Command, Culvert};

/// Exit status: fine, or ended by a signal or from the edge.
pub const FINE: u8 = 0;
/// Exit status: it failed, or the edge refused for good.
pub const FAILED: u8 = 1;
/// Exit status: the command line is wrong.
pub const USAGE: u8 = 2;

/// Why a command did not do what it was asked for.
enum Failure {
    /// What was typed cannot be meant.
    Usage(Refusal),
    /// It was understood and could not be done.
    Failed(Refusal),
}

impl Failure {
    fn usage(text: impl Into<String>) -> Self {
        Failure::Usage(Refusal::text(text))
    }

    fn failed(text: impl Into<String>) -> Self {
        Failure::Failed(Refusal::text(text))
    }
}

/// Runs what `args` say, the program's name first. The result is the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    match dispatch(argv::program(), args.into_iter().skip(1)) {
        Ok(status) => status,
        Err(Failure::Usage(refusal)) => {
            log::fatal(&refusal);
            USAGE
        }
        Err(Failure::Failed(refusal)) => {
            log::fatal(&refusal);
            FAILED
        }
    }
}

fn dispatch(program: &'static str, args: impl Iterator<Item = OsString>) -> Result<u8, Failure> {
    let info = Culvert::get_args_info();
    let typed = match words::parse(program, &info, args)? {
        words::Meaning::Help(path) => {
            log::announce_all(&help::text(program, &info, &path));
            return Ok(FINE);
        }
        words::Meaning::Run(typed) => typed,
    };
    let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
    // `words` has found every mistake that argh would find.
    let culvert = Culvert::from_args(&[program], &typed)
        .map_err(|exit| Failure::usage(exit.output.trim_end()))?;
    match culvert.command {
        // `--version` beside a command, too.
        _ if culvert.version => Ok(version(program)),
        None => {
            log::announce_all(&help::text(program, &info, &[]));
            Ok(FINE)
        }
        Some(Command::Version(_)) => Ok(version(program)),
        Some(Command::Http(http)) => endpoint::run(http.split()),
        Some(Command::Tcp(tcp)) => endpoint::run(tcp.split()),
        Some(Command::Tls(tls)) => endpoint::run(tls.split()),
        Some(Command::Start(start)) => start::run(program, start),
        Some(Command::Config(config)) => config::run(program, config),
    }
}

/// One line that ends with the number.
fn version(program: &str) -> u8 {
    log::announce(&format!("{program} version {}", env!("CARGO_PKG_VERSION")));
    FINE
}
