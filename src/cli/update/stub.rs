//! Stub of `update` in a build without the feature. The parser refuses the command.

use super::exit::CommandError;
use super::parse::ParsedCommand;
use crate::agent::Agent;
use crate::features;

pub(super) fn run(_: &ParsedCommand) -> Result<u8, CommandError> {
    Err(CommandError::usage(features::NO_UPDATE))
}

/// No trial.
pub(super) struct Trial;

pub(super) fn started() -> Trial {
    Trial
}

pub(super) fn put_on_trial(_: &mut Agent, _: Trial) {}
