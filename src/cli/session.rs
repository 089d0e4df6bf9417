//! What all commands share that run the agent: read the configuration, start the
//! log, and hand over.

use std::fs;

use super::Failure;
use super::args::SessionFlags;
use crate::config::{Agent, Endpoint, Scheme, file};
use crate::log::{self, Format, Level, Target};
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;
use crate::sys::argv;
use crate::{agent, event};

/// Reads the configuration, puts the flags over it, and starts the log.
fn prepare(flags: SessionFlags) -> Result<Agent, Failure> {
    let log = log_flags(&flags)?;
    if log.target.is_some() {
        // A fault of the configuration is a record of this log, too.
        start_log(log.clone(), &file::Log::default())?;
    }
    let loaded = file::load(&flags.config).map_err(|error| Failure::failed(error.to_string()))?;
    start_log(log, &loaded.log)?;
    for path in &loaded.files {
        event!(info, obj = "app", "open config file", path = path.display(), err = "nil");
    }
    if loaded.files.is_empty() {
        event!(info, obj = "app", "no configuration paths supplied");
    }
    for warning in &loaded.warnings {
        event!(warn, obj = "app", warning);
    }
    for note in &loaded.notes {
        let msg = "this version has no use for an option of the configuration";
        if note.off {
            event!(debug, obj = "app", msg, name = note.path);
        } else {
            event!(info, obj = "app", msg, name = note.path);
        }
    }
    if flags.region.is_some() {
        event!(info, obj = "app", "the region is ignored, connect_url names the edge");
    }
    if let Some(token) = &flags.authtoken {
        argv::hide(token);
    }
    Ok(over(loaded.agent, &flags))
}

/// What the files say now, with the flags over it.
fn read_again(flags: &SessionFlags) -> Result<Agent, Failure> {
    let loaded = file::load(&flags.config).map_err(|error| Failure::failed(error.to_string()))?;
    Ok(over(loaded.agent, flags))
}

/// Flags over the files.
fn over(mut agent: Agent, flags: &SessionFlags) -> Agent {
    if let Some(token) = &flags.authtoken {
        agent.authtoken = Secret::new(token.clone());
    }
    agent
}

/// Checks what can be checked before anything is dialled, and runs the agent. `finish`
/// makes the command's agent of what the files say: when they are read again, too.
pub(super) fn run(
    flags: SessionFlags,
    finish: impl Fn(Agent) -> Result<Agent, Failure> + Send + 'static,
) -> Result<u8, Failure> {
    let agent = checked(finish(prepare(flags.clone())?)?)?;
    let mut agent = agent::Agent::new(agent).map_err(Failure::Failed)?;
    agent.reread_with(move || {
        let again = read_again(&flags).and_then(&finish).and_then(checked);
        again.map_err(|failure| match failure {
            Failure::Usage(refusal) | Failure::Failed(refusal) => refusal.to_string(),
        })
    });
    #[cfg(feature = "web")]
    let _web = crate::web::start(&agent.handle()).map_err(Failure::failed)?;
    #[cfg(all(feature = "console", not(feature = "web")))]
    let _web = None;
    #[cfg(feature = "console")]
    let _console = crate::console::Console::start(&agent.handle(), _web);
    Ok(agent.run())
}

fn checked(agent: Agent) -> Result<Agent, Failure> {
    agent.endpoints.iter().try_for_each(check).map(|()| agent)
}

/// A directory must be there: to find out at the first visitor is too late.
fn check(endpoint: &Endpoint) -> Result<(), Failure> {
    let upstream = &endpoint.upstream;
    if upstream.scheme != Scheme::File {
        return Ok(());
    }
    let dir = upstream.dir.display();
    match fs::metadata(&upstream.dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::failed(format!("{dir} is not a directory: name one in {upstream}"))),
        Err(error) => {
            Err(Failure::failed(format!("the directory {dir} cannot be served: {error}")))
        }
    }
}

fn log_flags(flags: &SessionFlags) -> Result<file::Log, Failure> {
    let wrong = |flag: &str, names: &str| Failure::usage(format!("{flag} must be {names}"));
    let format = match &flags.log_format {
        None => None,
        Some(text) => Some(
            Format::from_name(text).ok_or_else(|| wrong("--log-format", "term, logfmt or json"))?,
        ),
    };
    let level = match &flags.log_level {
        None => None,
        Some(text) => Some(
            Level::from_name(text)
                .ok_or_else(|| wrong("--log-level", "debug, info, warn, error or crit"))?,
        ),
    };
    let target = flags.log.as_deref().map(Target::from_text);
    Ok(file::Log { target, format, level })
}

/// Flags over the file over the default: without a word about the log, warnings
/// and errors go to standard error, so that somebody sees what is wrong.
fn start_log(flags: file::Log, file: &file::Log) -> Result<(), Failure> {
    let target = flags.target.or_else(|| file.target.clone());
    let level = flags.level.or(file.level);
    let usual = if target.is_some() { Level::Info } else { Level::Warn };
    let target = target.unwrap_or(Target::Terminal);
    let format = flags.format.or(file.format).unwrap_or(Format::Term);
    log::start(&target, format, level.unwrap_or(usual))
        .map_err(|text| Failure::Failed(Refusal::text(text)))
}
