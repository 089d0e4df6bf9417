//! The agent: connects, authenticates, binds its endpoints, serves, reconnects.
//!
//! [`run`] is the whole life of it, on the main thread: see `supervisor`. The
//! session's reactor thread calls `handler`; visitors go to [`crate::proxy`]. No
//! HTTP here.

mod backoff;
mod commands;
mod endpoints;
mod handler;
mod notes;
mod options;
pub mod rpc;
mod supervisor;

use crate::config;
use crate::log;
use crate::proto::codes::Refusal;
use supervisor::{Finish, Supervisor};

/// Runs the agent until it is told to stop, and returns the exit status: 0 after
/// a signal or a stop from the edge, 1 after an error that more tries cannot
/// mend, which has been told to the user.
pub fn run(config: config::Agent) -> u8 {
    match Supervisor::new(config).and_then(Supervisor::run) {
        Ok(Finish::Stopped) => 0,
        Ok(Finish::Restart) => restart(),
        Err(refusal) => {
            log::fatal(&refusal);
            1
        }
    }
}

/// Becomes a fresh copy of this program, with the same arguments, environment and pid.
fn restart() -> u8 {
    use std::os::unix::process::CommandExt;
    let mut arguments = crate::sys::argv::original().into_iter();
    let name = arguments.next().unwrap_or_default();
    let error = std::process::Command::new("/proc/self/exe").arg0(name).args(arguments).exec();
    log::fatal(&Refusal::text(format!("cannot start anew: {error}")));
    1
}
