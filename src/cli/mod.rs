//! The command line of `culvert`: parsing and running commands. Each command has its file.
//!
//! `table` defines the commands and flags, `parse` parses the arguments and reports every
//! error, and the command's file acts. `help` and `complete` use the same table.
//!
//! The protocol does not belong here: a command that runs the agent makes a
//! [`crate::config::Agent`] and starts it.

mod api;
mod complete;
mod config;
mod diagnose;
mod endpoint;
mod exit;
mod help;
#[cfg(test)]
mod mutate;
mod parse;
mod service;
mod session;
mod start;
mod status;
mod table;
mod tools;
#[cfg_attr(not(feature = "update"), path = "update/stub.rs")]
mod update;

use std::ffi::OsString;

use crate::config::EndpointKind;
use crate::config::edit::Setting;
use crate::event;
use crate::features;
use crate::logging::{self, Destination, Format, Level};
use crate::service::manager::Action;
use crate::sys::argv;
use exit::{CommandError, print};
pub use exit::{FAILED, FINE, NOT_RUNNING, UPDATE_AVAILABLE, USAGE};
use parse::{Invocation, ParsedCommand};

/// Authors and licences of the linked software.
const CREDITS: &str = include_str!("credits.txt");

/// Runs `args`, with the program's name first. Returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    dispatch(argv::program(), args.into_iter().skip(1)).unwrap_or_else(CommandError::report)
}

fn dispatch(
    program: &'static str,
    args: impl Iterator<Item = OsString>,
) -> Result<u8, CommandError> {
    if !features::TOOLS {
        return execute(program, parse::parse(program, args)?);
    }
    let mut args = args.peekable();
    if args.next_if(|word| word == complete::COMMAND).is_some() {
        return complete::answer(args);
    }
    execute(program, parse::parse(program, args)?)
}

fn execute(program: &'static str, invocation: Invocation) -> Result<u8, CommandError> {
    let typed = match invocation {
        Invocation::Help(command) => {
            return print(&help::text(program, command));
        }
        Invocation::Version => return version(program),
        Invocation::Run(typed) => typed,
    };
    typed.secrets().for_each(argv::hide);
    match typed.command.name {
        "http" => endpoint::run(EndpointKind::Http, typed),
        "tcp" => endpoint::run(EndpointKind::Tcp, typed),
        "tls" => endpoint::run(EndpointKind::Tls, typed),
        "tunnel" => endpoint::run_labelled(typed),
        "start" => start::run(program, typed),
        "config add-authtoken" => {
            warn_of_old_name(&typed);
            config::add(&typed, Setting::Authtoken)
        }
        "config add-api-key" => config::add(&typed, Setting::ApiKey),
        "config add-connect-url" | "config add-server-addr" => {
            config::add(&typed, Setting::ConnectUrl)
        }
        "api" if features::API => api::run(program, typed),
        "config edit" if features::TOOLS => tools::edit(&typed),
        "config upgrade" if features::TOOLS => tools::upgrade(&typed),
        "config check" => config::check(program, &typed),
        "diagnose" if features::DIAGNOSE => diagnose::run(&typed),
        "completion" if features::TOOLS => complete::script(program, &typed),
        "status" if features::TOOLS => status::run(&typed),
        "credits" if features::TOOLS => print(CREDITS),
        "service install" if features::SERVICE => service::install(&typed),
        "service uninstall" if features::SERVICE => service::uninstall(&typed),
        "service start" if features::SERVICE => service::control(&typed, Action::Start),
        "service stop" if features::SERVICE => service::control(&typed, Action::Stop),
        "service restart" if features::SERVICE => service::control(&typed, Action::Restart),
        "service status" if features::SERVICE => service::state(&typed),
        "service run" if features::SERVICE => start::run_service(typed),
        "service check" if features::SERVICE => service::check(&typed),
        "update" if features::UPDATE => update::run(&typed),
        // The table has no other command without members.
        _ => version(program),
    }
}

/// Warns of `authtoken`, a command of agent 2. It has no log, so the warning is printed for the
/// user.
fn warn_of_old_name(typed: &ParsedCommand) {
    if typed.old_name && logging::start(&Destination::Terminal, Format::Term, Level::Warn).is_ok() {
        event!(
            warn,
            obj = "app",
            "deprecated command",
            name = "authtoken",
            hint = "use config add-authtoken"
        );
    }
}

/// Prints one line that ends with the version.
fn version(program: &str) -> Result<u8, CommandError> {
    print(&format!("{program} version {}\n", env!("CARGO_PKG_VERSION")))
}
