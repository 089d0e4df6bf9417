//! The agent: connects, authenticates, binds its endpoints, serves, reconnects.
//!
//! [`Agent::run`] runs on the main thread: see `supervisor`, which carries out the decisions of
//! `legs`, `endpoints`, `host_events` and `reload`. A session's reactor thread calls `handler`.
//! Visitors are served by [`crate::proxy`]. Other parts of the program have a [`Handle`]. HTTP
//! does not belong here.

mod auth;
mod backoff;
mod budget;
mod change_plan;
mod commands;
mod endpoint;
mod endpoints;
mod events;
mod failure;
mod handle;
mod handler;
mod host_events;
mod leg;
mod legs;
mod options;
mod path;
mod preflight;
mod reload;
mod requests;
mod routes;
pub mod rpc;
mod service_manager;
#[cfg_attr(not(feature = "state-command"), path = "state_command/stub.rs")]
mod state_command;
mod status;
mod supervisor;
#[cfg_attr(not(feature = "update"), path = "updates/stub.rs")]
mod updates;

pub use crate::proxy::PoolNumbers;
pub use handle::Handle;
pub use preflight::{FETCH_TIMEOUT, preflight};
pub use requests::StartError;
pub use status::{AgentState, EndpointState, EndpointView, LegStatus, Status};
pub use updates::UpdateHandle;
#[cfg(feature = "update")]
pub use updates::UpdateState;

use crate::config;
use crate::features;
use crate::logging;
use crate::proto::codes::Refusal;
use crate::sys::{self, argv, signals, terminal};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use supervisor::{Exit, Supervisor};

/// Checks the token's text and that an agent can keep the limits of a configuration. The
/// error begins with the option.
pub fn check(config: &config::Agent) -> Result<(), String> {
    if let Some(why) = config::authtoken::fault(config.authtoken.expose()) {
        return Err(format!("authtoken {why}"));
    }
    updates::check(config)?;
    budget::for_config(config).map(|_| ())
}

/// Checks that there is an authtoken.
pub fn check_token(config: &config::Agent) -> Result<(), Refusal> {
    supervisor::check_token(config)
}

/// Checks everything that can be checked before a start, and starts nothing.
pub fn check_start(config: &config::Agent) -> Result<(), Refusal> {
    supervisor::check(config)
}

/// An agent that has not been started.
pub struct Agent(Supervisor);

impl Agent {
    /// Checks everything that can be checked before a packet is sent.
    pub fn new(config: config::Agent) -> Result<Agent, Refusal> {
        Supervisor::new(config).map(Agent)
    }

    /// Sets the function that reads the configuration again: on SIGHUP, and before a restart
    /// that the edge requests. Without it SIGHUP has no effect.
    pub fn reread_with(
        &mut self,
        reread: impl FnMut() -> Result<config::Agent, String> + Send + 'static,
    ) {
        self.0.reread_with(Box::new(reread));
    }

    /// Puts a new program on trial: without a session in time the old one is started.
    #[cfg(feature = "update")]
    pub fn on_trial(&mut self, trial: crate::update::Trial) {
        self.0.on_trial(trial);
    }

    /// Returns a handle for other threads. It is valid before [`Self::run`] and after.
    pub fn handle(&self) -> Handle {
        self.0.handle()
    }

    /// Runs until a signal, a stop from the edge or a final error. Returns the exit code: 0, or
    /// 1 after an error, which was reported to the user.
    pub fn run(self) -> u8 {
        match self.0.run() {
            Ok(Exit::Stopped) => 0,
            Ok(Exit::Restart) => restart(),
            Err(refusal) => {
                logging::fatal(&refusal);
                1
            }
        }
    }
}

/// Returns the path of this program, which is also the name of the process. A removed file has
/// no path, and a replaced one that of the new program.
fn program_path() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_default();
    let Some(replaced) = path.as_os_str().as_encoded_bytes().strip_suffix(b" (deleted)") else {
        return path;
    };
    let replaced = Path::new(OsStr::from_bytes(replaced));
    match features::UPDATE && replaced.is_file() {
        true => replaced.to_owned(),
        false => "/proc/self/exe".into(),
    }
}

/// Waits between attempts to restart, in ms. Endpoints are offline in the meantime.
const RESTART_WAITS_MS: [u64; 4] = [200, 1_000, 5_000, 0];

/// Executes this program again, with the same arguments, environment and pid. Retries if memory
/// or descriptors are missing, because no other program would start it.
fn restart() -> u8 {
    terminal::give_back();
    // A stop request takes precedence.
    signals::graceful(false);
    if signals::stops() > 0 {
        return 0;
    }
    let mut error = io::Error::other("");
    for wait in RESTART_WAITS_MS {
        error = sys::exec(&program_path(), &argv::original());
        thread::sleep(Duration::from_millis(wait));
    }
    logging::fatal(&Refusal::text(format!("cannot restart: {error}")));
    1
}
