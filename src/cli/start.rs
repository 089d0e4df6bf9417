//! `start`: endpoints of the configuration file, by name.

use super::exit::CommandError;
use super::parse::ParsedCommand;
use super::session;
use crate::config::{Agent, Endpoint, is_of, nearest};

/// `service run`: `start --all`, as the command of a service.
pub(super) fn run_service(typed: ParsedCommand) -> Result<u8, CommandError> {
    let finish = |_: &ParsedCommand, mut agent: Agent| {
        if agent.endpoints.is_empty() {
            return Err(CommandError::failed(NO_ENDPOINTS));
        }
        agent.keep_others = true;
        agent.service_run = true;
        Ok(agent)
    };
    session::run(typed, Box::new(finish))
}

/// Error of a start without endpoints.
const NO_ENDPOINTS: &str =
    "the configuration has no endpoints; add some below endpoints:, or use --none";

pub(super) fn run(program: &str, typed: ParsedCommand) -> Result<u8, CommandError> {
    let names = &typed.words;
    let [all, none, strict] =
        ["all", "none", "strict"].map(|flag| typed.switch(flag).unwrap_or_default());
    match (names.is_empty(), all, none) {
        (true, false, false) => {
            return Err(CommandError::usage(format!(
                "start needs the names of endpoints, or --all, or --none\n\
                 as in \"{program} start web\" or \"{program} start --all\""
            )));
        }
        (false, true, _) => {
            return Err(CommandError::usage("start takes names or --all, not both"));
        }
        (false, _, true) | (_, true, true) => {
            return Err(CommandError::usage(
                "--none starts no endpoint; leave out the names and --all",
            ));
        }
        _ => {}
    }
    let finish = move |typed: &ParsedCommand, mut agent: Agent| {
        let known = std::mem::take(&mut agent.endpoints);
        if all && known.is_empty() {
            return Err(CommandError::failed(NO_ENDPOINTS));
        }
        agent.keep_others = all && !strict;
        agent.endpoints = match (none, all) {
            (true, _) => Vec::new(),
            (_, true) => known,
            _ => chosen(known, &typed.words)?,
        };
        Ok(agent)
    };
    session::run(typed, Box::new(finish))
}

/// Returns the endpoints of these names, in the order of the names, each once. A tunnel with
/// two schemes is two endpoints.
fn chosen(known: Vec<Endpoint>, names: &[String]) -> Result<Vec<Endpoint>, CommandError> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for name in names {
        if !known.iter().any(|endpoint| is_of(endpoint, name)) {
            return Err(unknown(&known, name));
        }
        for endpoint in known.iter().filter(|endpoint| is_of(endpoint, name)) {
            if !endpoints.iter().any(|other| other.name == endpoint.name) {
                endpoints.push(endpoint.clone());
            }
        }
    }
    Ok(endpoints)
}

fn unknown(known: &[Endpoint], name: &str) -> CommandError {
    if known.is_empty() {
        return CommandError::failed(format!(
            "endpoint {name:?} is missing: the configuration has no endpoints"
        ));
    }
    let names: Vec<&str> = known.iter().map(|endpoint| endpoint.name.as_str()).collect();
    let hint = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}? "),
        None => String::new(),
    };
    CommandError::failed(format!(
        "endpoint {name:?} is missing in the configuration; {hint}it has {}",
        names.join(", ")
    ))
}
