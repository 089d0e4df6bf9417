//! `update`: checks the feed, asks on a terminal, and replaces the program. Also the count of
//! the starts of a new program. The steps are in [`crate::update`].

mod restart;

use std::io::{self, BufRead, IsTerminal};
use std::path::Path;

use super::exit::{CommandError, UPDATE_AVAILABLE, print};
use super::parse::ParsedCommand;
use crate::agent::Agent;
use crate::config::{UPDATE_CHANNELS, file};
use crate::event;
use crate::logging::{self, Destination, Format, Level, line};
use crate::net::Dialer;
use crate::update::{self, Feed, NO_FEED, Offer, StartedProgram, Trial, Updater, VERSION, Wanted};

pub(super) fn run(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let given = |flag: &str| typed.switch(flag) == Some(true);
    if given("rollback") {
        if given("check") {
            return Err(CommandError::usage("give --check or --rollback, not both"));
        }
        let (version, path) = update::roll_back(true).map_err(CommandError::failed)?;
        print(&line(&format_args!("Restored {version}: {path}")))?;
        return match given("restart") {
            true => restart::restart(Path::new(&path)),
            false => not_restarted(),
        };
    }
    let loaded =
        file::load(&typed.list("config")).map_err(|e| CommandError::failed(e.to_string()))?;
    let mut config = loaded.agent;
    if let Some(name) = typed.text("channel") {
        let known = UPDATE_CHANNELS.iter().find(|known| **known == name);
        config.update.channel = known.copied().unwrap_or(config.update.channel);
    }
    let feed = Feed::of(&config).map_err(CommandError::failed)?;
    let feed = feed.ok_or_else(|| CommandError::failed(NO_FEED))?;
    let dialer = Dialer::new(&config).map_err(CommandError::Failed)?;
    let updater = Updater::new(&feed, &dialer).map_err(CommandError::failed)?;
    let any = Wanted { version: None, permit_major: true };
    let release = match updater.check(&any).map_err(CommandError::failed)? {
        Offer::Current(why) => return print(&line(&format_args!("No update: {why}"))),
        Offer::Release(release) => release,
    };
    let (version, size) = (&release.version, release.size());
    let offer = line(&format_args!("Update available: {VERSION} to {version}, {size} bytes"));
    if given("check") {
        print(&offer)?;
        return Ok(UPDATE_AVAILABLE);
    }
    let prepared = updater.prepare(&release).map_err(CommandError::failed)?;
    print(&offer)?;
    if !given("yes") && io::stdin().is_terminal() && !is_wanted()? {
        return print("Nothing was changed\n");
    }
    let path = updater.install(&release, prepared).map_err(CommandError::failed)?;
    print(&line(&format_args!("Updated to {version}: {path}")))?;
    if !given("restart") {
        return not_restarted();
    }
    let has_network = || updater.check(&any).is_ok();
    restart::restart_on_trial(Path::new(&path), &version.to_string(), &has_network)
}

/// Prints that a restart is needed.
fn not_restarted() -> Result<u8, CommandError> {
    print("A running agent uses it after a restart; --restart restarts the service\n")
}

/// Asks the user on the terminal.
fn is_wanted() -> Result<bool, CommandError> {
    print("Install it? [y/N] ")?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(|e| CommandError::failed(format!("cannot read the answer: {e}")))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Counts the start of a new program, before its configuration is read. A program that was
/// started too often without a session is replaced by the old one, which is executed.
pub(super) fn started() -> Option<Trial> {
    match StartedProgram::check() {
        StartedProgram::Confirmed => None,
        StartedProgram::OnTrial(trial) => Some(trial),
        StartedProgram::RolledBack(old) => {
            // The log of the configuration is not open yet.
            let _ = logging::start(&Destination::Terminal, Format::Term, Level::Warn);
            old.log("too many starts without a session");
            let error = old.execute();
            event!(error, obj = "update", "cannot execute old program", err = error);
            None
        }
    }
}

/// Puts a new program on trial.
pub(super) fn put_on_trial(agent: &mut Agent, trial: Option<Trial>) {
    if let Some(trial) = trial {
        agent.on_trial(trial);
    }
}
