//! `update --restart`: restarts the services of the replaced program, and checks the new program.
//! An agent that may not write beside its program cannot go back by itself; this command can.

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cli::exit::{CommandError, FINE, print};
use crate::cli::service::{Request, System, is_valid_for};
use crate::cli::status;
use crate::config::WebAddr;
use crate::logging::line;
use crate::service::manager::{self, Action};
use crate::service::{InitSystem, detect, find};
use crate::sys;
use crate::update;

/// Time for a session of a service that had one before.
const SESSION_TIMEOUT: Duration = Duration::from_secs(120);

const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A service whose program was replaced.
struct RunningService {
    init: InitSystem,
    name: String,
}

impl RunningService {
    /// Returns whether each agent at the address of its local API is online, and its version. Other
    /// agents may be there too: the usual ports are shared.
    fn agents(&self) -> Vec<(bool, String)> {
        let addresses = match self.request().installed().map(|found| found.web_addr()) {
            Some(WebAddr::Usual) => {
                WebAddr::USUAL_PORTS.map(|port| WebAddr::At(format!("127.0.0.1:{port}"))).collect()
            }
            other => Vec::from_iter(other),
        };
        let agents = addresses.iter().filter_map(|address| status::find_at(address).ok());
        let version = |status: &Value| status["agent_version"].as_str().map(str::to_owned);
        agents.filter_map(|agent| Some((agent.is_online(), version(&agent.status)?))).collect()
    }

    /// Returns whether `program` can start with its configuration. The reason was reported.
    fn is_valid(&self, program: &Path) -> Result<bool, CommandError> {
        match self.request().installed() {
            Some(found) if found.ours => {
                is_valid_for(program, &found.configs, &System::here(), None)
            }
            _ => Ok(true),
        }
    }

    fn request(&self) -> Request {
        Request::new(System::here(), self.init, self.name.clone())
    }

    fn restart(&self) -> Result<(), String> {
        manager::act(self.init, &self.name, Action::Restart)?;
        show(&format_args!("Restarted service {}", self.name));
        Ok(())
    }
}

/// Step of a trial.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// The new program checks a configuration. With another one it can be tried again.
    Check,
    /// The services run the new program.
    Run,
}

/// Restarts the running services of `program`, also after a failure.
pub(super) fn restart(program: &Path) -> Result<u8, CommandError> {
    let failures = restart_all(&running_services(program)?);
    match failures.is_empty() {
        true => Ok(FINE),
        false => Err(by_hand(failures.join("; "))),
    }
}

/// Restarts the running services of a new program, and waits for the sessions of those that had
/// one. Without a session, although there is a network, the old program is put back.
pub(super) fn restart_on_trial(
    program: &Path,
    version: &str,
    has_network: &dyn Fn() -> bool,
) -> Result<u8, CommandError> {
    let services = running_services(program)?;
    for service in &services {
        let is_valid = service.is_valid(program).unwrap_or_else(|error| {
            error.report();
            false
        });
        if !is_valid {
            let why = format!("it refuses the configuration of {}, see above", service.name);
            return Err(put_back(&services, &why, Step::Check));
        }
    }
    // Before the first restart: with two agents at an address, neither is known to be its own.
    let mut online = Vec::from_iter(&services);
    online.retain(|service| matches!(service.agents()[..], [(true, _)]));
    for service in &services {
        if let Err(why) = service.restart() {
            return Err(put_back(&services, &why, Step::Run));
        }
    }
    let deadline = sys::clock() + SESSION_TIMEOUT;
    for service in &online {
        let name = &service.name;
        loop {
            let mut agents = service.agents();
            agents.retain(|(_, found)| found == version);
            if agents.iter().any(|(is_online, _)| *is_online) {
                show(&format_args!("Service {name} is online with {version}"));
                break;
            }
            if update::recorded_version() != version {
                return Err(CommandError::failed(format!(
                    "{version} failed and was replaced by the old program; see the log of {name}"
                )));
            }
            if sys::clock() >= deadline {
                // It runs, and it is the network that fails.
                if !agents.is_empty() && !has_network() {
                    return Err(CommandError::failed(format!(
                        "service {name} has no session with {version} yet: the feed cannot be \
                         reached either; check the network, or use update --rollback --restart"
                    )));
                }
                let why = format!("service {name} has no session after 2 minutes; see its log");
                return Err(put_back(&services, &why, Step::Run));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
    if !online.is_empty() {
        // Otherwise the agent confirms it, or a later start counts.
        let _ = update::confirm();
    }
    Ok(FINE)
}

/// Puts the old program back, and restarts the services if they may run the new one.
fn put_back(services: &[RunningService], why: &str, failed: Step) -> CommandError {
    let is_run = failed == Step::Run;
    let restored = match update::roll_back(is_run) {
        Ok((version, _)) => format!("{version} was restored"),
        Err(e) => format!("the old program cannot be restored: {e}"),
    };
    let mut parts = vec![format!("the new program failed: {why}"), restored];
    if is_run {
        parts.extend(restart_all(services));
    }
    CommandError::failed(parts.join("; "))
}

/// Restarts services, also after a failure. Returns the failures.
fn restart_all(services: &[RunningService]) -> Vec<String> {
    services.iter().filter_map(|service| service.restart().err()).collect()
}

/// Returns the services of this machine that run the program, without those that are stopped.
fn running_services(program: &Path) -> Result<Vec<RunningService>, CommandError> {
    let init = detect::running(Path::new("/")).map_err(by_hand)?;
    let mut services = find::services(Path::new("/"), init, program);
    if services.is_empty() {
        return Err(by_hand(format!("no service of {} runs {}", init.name(), program.display())));
    }
    services.retain(|name| match manager::state(init, name) {
        // systemd has this state between two starts.
        Ok((code, word)) => code != manager::STOPPED || word == "activating",
        Err(_) => false,
    });
    if services.is_empty() {
        print("No service of the program is running\n")?;
    }
    Ok(services.into_iter().map(|name| RunningService { init, name }).collect())
}

/// Prints a finished step. A closed output does not end the trial.
fn show(step: &fmt::Arguments) {
    let _ = print(&line(step));
}

fn by_hand(why: String) -> CommandError {
    CommandError::failed(format!("{why}; restart the agent by hand"))
}
