//! End of a command: exit codes, their errors, and the result on standard output. The commands
//! are in files of their own.

use crate::logging;
use crate::proto::codes::Refusal;

/// Exit code: success, or ended by a signal or by the edge.
pub const FINE: u8 = 0;
/// Exit code: the command failed, or the edge refused for good.
pub const FAILED: u8 = 1;
/// Exit code: the command line is invalid.
pub const USAGE: u8 = 2;

/// Exit code of `status`: no agent is running, or it is not online (LSB).
pub const NOT_RUNNING: u8 = 3;

/// Exit code of `update --check`: a newer version is available.
pub const UPDATE_AVAILABLE: u8 = 11;

/// Reason why a command failed.
pub(super) enum CommandError {
    /// The command line is invalid.
    Usage(Refusal),
    /// The command line is valid, and the work failed.
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

    /// Reports the error to the user. Returns the exit code.
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
