//! How a command ends: the exit statuses, the error behind each, and the result on standard
//! output. What a command does is in its own file.

use crate::logging;
use crate::proto::codes::Refusal;

/// Exit status: success, or ended by a signal or from the edge.
pub const FINE: u8 = 0;
/// Exit status: the command failed, or the edge refused for good.
pub const FAILED: u8 = 1;
/// Exit status: the command line is wrong.
pub const USAGE: u8 = 2;

/// Why a command did not do its work.
pub(super) enum CommandError {
    /// The command line is wrong.
    Usage(Refusal),
    /// The command line is right, and the work failed.
    Failed(Refusal),
}

impl CommandError {
    pub(super) fn usage(text: impl Into<String>) -> Self {
        CommandError::Usage(Refusal::text(text))
    }

    pub(super) fn failed(text: impl Into<String>) -> Self {
        CommandError::Failed(Refusal::text(text))
    }

    pub(super) fn refusal(&self) -> &Refusal {
        let (CommandError::Usage(refusal) | CommandError::Failed(refusal)) = self;
        refusal
    }

    /// Reports the error to the user. Returns the exit status.
    pub(super) fn report(self) -> u8 {
        logging::fatal(self.refusal());
        match self {
            CommandError::Usage(_) => USAGE,
            CommandError::Failed(_) => FAILED,
        }
    }
}

/// Prints the result of a command.
pub(super) fn print(text: &str) -> Result<u8, CommandError> {
    logging::print(text).map_err(CommandError::failed)?;
    Ok(FINE)
}
