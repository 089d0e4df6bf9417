//! Common steps of all commands that run the agent: reading the configuration, starting the
//! log, and running.

use std::time::Duration;

use super::exit::CommandError;
use super::parse::ParsedCommand;
use super::update;
use crate::agent::{FETCH_TIMEOUT, preflight};
use crate::config::loaded::{Loaded, LogOptions};
use crate::config::public_url::PortPolicy;
use crate::config::{Agent, InspectSize, file, size};
use crate::console::Console;
use crate::logging::{self, Destination, Format, Level};
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;
use crate::{agent, event, web};

/// Time to fetch a traffic policy at a reload, while everything else runs.
const FETCH_AGAIN: Duration = Duration::from_secs(3);

/// Maximum length of a session's `--metadata` in characters, and the edge's code for a longer
/// one.
const MAX_METADATA: usize = 4096;
const METADATA_TOO_LONG: u32 = 100;

/// Reads the configuration, applies the flags, and starts the log.
fn prepare(typed: &ParsedCommand) -> Result<Agent, CommandError> {
    let log = log_flags(typed);
    if log.target.is_some() {
        // An error of the configuration is a record of this log too.
        start_log(log.clone(), &LogOptions::default())?;
    }
    let loaded = load(typed)?;
    start_log(log, &loaded.log)?;
    for path in &loaded.files {
        event!(info, obj = "app", "open config file", path = path.display(), err = "nil");
    }
    if loaded.files.is_empty() {
        event!(info, obj = "app", "no configuration paths supplied");
    }
    for warning in &loaded.warnings {
        event!(warn, obj = "app", "configuration warning", err = warning);
    }
    for note in &loaded.notes {
        if note.off {
            event!(debug, obj = "app", "option is not used", name = note.path);
        } else {
            event!(info, obj = "app", "option is not used", name = note.path);
        }
    }
    let mut agent = loaded.agent;
    let is_vendor = PortPolicy::of_edge(&agent.connect_url) == PortPolicy::Vendor;
    if !is_vendor {
        logging::use_own_error_pages();
    }
    warn(typed, is_vendor);
    over(&mut agent, typed)?;
    Ok(agent)
}

/// Reads the files, with the flags that the endpoints of a file depend on.
fn load(typed: &ParsedCommand) -> Result<Loaded, CommandError> {
    file::load_with(&typed.list("config"), typed.text("connect-url"), typed.text("connect-cas"))
        .map_err(|error| CommandError::failed(error.to_string()))
}

/// Logs one warning for each replacement of outdated flags. Traffic policies are the
/// vendor's: another edge may refuse them.
fn warn(typed: &ParsedCommand, with_policies: bool) {
    if typed.command.hidden {
        event!(
            warn,
            obj = "app",
            "deprecated command",
            name = typed.command.name,
            hint = "use http, tcp or tls"
        );
    }
    for (flags, instead) in typed.deprecated() {
        if !with_policies && instead.starts_with("a traffic policy") {
            continue;
        }
        let hint = format_args!("use {instead}");
        event!(warn, obj = "app", "deprecated flag", name = flags, hint = hint);
    }
}

/// Applies the flags of the session on top of files and environment.
fn over(agent: &mut Agent, typed: &ParsedCommand) -> Result<(), CommandError> {
    if let Some(token) = typed.text("authtoken").filter(|token| !token.is_empty()) {
        agent.authtoken = Secret::new(token);
    }
    if let Some(metadata) = typed.of_session("metadata") {
        if metadata.chars().count() > MAX_METADATA {
            let text = format!("--metadata is longer than {MAX_METADATA} characters");
            return Err(CommandError::Usage(Refusal::new(METADATA_TOO_LONG, text)));
        }
        agent.metadata = metadata.to_owned();
    }
    if typed.of_session("inspect") == Some("false") {
        agent.inspect_db_size = InspectSize::Off;
        for endpoint in &mut agent.endpoints {
            endpoint.inspect = false;
        }
    }
    if let Some(text) = typed.text("max-connections") {
        match text.parse::<u16>() {
            Ok(n) if n > 0 => agent.max_connections = Some(usize::from(n)),
            _ => {
                return Err(CommandError::usage(
                    "--max-connections must be a number from 1 to 65535",
                ));
            }
        }
    }
    if let Some(text) = typed.text("memory-limit") {
        let limit = size::parse(text)
            .map_err(|why| CommandError::usage(format!("--memory-limit {why}")))?;
        agent.memory_limit = Some(limit);
    }
    Ok(())
}

/// Makes the agent of a command from the result of the files.
pub(super) type MakeAgent =
    Box<dyn Fn(&ParsedCommand, Agent) -> Result<Agent, CommandError> + Send>;

/// Checks everything that can be checked before a connection, and runs the agent. `finish`
/// makes the command's agent from the result of the files, also at each reload.
pub(super) fn run(typed: ParsedCommand, finish: MakeAgent) -> Result<u8, CommandError> {
    let trial = update::started();
    let agent = checked(finish(&typed, prepare(&typed)?)?, FETCH_TIMEOUT)?;
    let mut agent = agent::Agent::new(agent).map_err(CommandError::Failed)?;
    update::put_on_trial(&mut agent, trial);
    agent.reread_with(move || {
        let again =
            read_again(&typed).and_then(|agent| checked(finish(&typed, agent)?, FETCH_AGAIN));
        again.map_err(|error| error.refusal().to_string())
    });
    let web = web::start(&agent.handle()).map_err(CommandError::failed)?;
    let _console = Console::start(&agent.handle(), web);
    Ok(agent.run())
}

/// Reads the files again and applies the flags.
fn read_again(typed: &ParsedCommand) -> Result<Agent, CommandError> {
    let mut agent = load(typed)?.agent;
    over(&mut agent, typed)?;
    Ok(agent)
}

/// Checks what endpoints need. At the first visitor it would be too late.
pub(super) fn checked(mut agent: Agent, patience: Duration) -> Result<Agent, CommandError> {
    agent::check(&agent).map_err(CommandError::failed)?;
    for endpoint in &mut agent.endpoints {
        preflight(endpoint, patience).map_err(CommandError::Failed)?;
    }
    Ok(agent)
}

/// Returns the flags of the log. The parser has checked their values.
fn log_flags(typed: &ParsedCommand) -> LogOptions {
    LogOptions {
        target: typed.text("log").map(Destination::from_text),
        format: typed.text("log-format").and_then(Format::from_name),
        level: typed.text("log-level").and_then(Level::from_name),
    }
}

/// Starts the log: flags have priority over the file, the file over the default. By default
/// warnings and errors are written to standard error, for the user.
fn start_log(flags: LogOptions, file: &LogOptions) -> Result<(), CommandError> {
    let target = flags.target.or_else(|| file.target.clone());
    let level = flags.level.or(file.level);
    let usual = if target.is_some() { Level::Info } else { Level::Warn };
    let target = target.unwrap_or(Destination::Terminal);
    let format = flags.format.or(file.format).unwrap_or(Format::Term);
    logging::start(&target, format, level.unwrap_or(usual))
        .map_err(|text| CommandError::Failed(Refusal::text(text)))
}
