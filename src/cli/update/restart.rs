//! `update --restart`: restarts the services of the replaced program, and checks the new program.
//! An agent that may not write beside its program cannot go back by itself; this command can.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::cli::exit::{CommandError, FINE, print};
use crate::cli::service::{Request, System, is_valid_for};
use crate::cli::status;
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
    /// Returns whether it is online, and the version of its agent; `None` without a local API.
    fn session(&self) -> Option<(bool, String)> {
        let agent = status::find_at(&self.request().installed()?.web_addr()).ok()?;
        let version = agent.status["agent_version"].as_str()?;
        Some((agent.status["status"] == "online", version.to_owned()))
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
        manager::act(self.init, &self.name, Action::Restart)
    }
}

/// Restarts the running services of `program`.
pub(super) fn restart(program: &Path) -> Result<u8, CommandError> {
    services(program)?.iter().try_for_each(restart_one)?;
    Ok(FINE)
}

/// Restarts the running services of a new program, and waits for the sessions of those that had
/// one. Without a session, although there is a network, the old program is put back.
pub(super) fn restart_on_trial(
    program: &Path,
    version: &str,
    has_network: &dyn Fn() -> bool,
) -> Result<u8, CommandError> {
    let services = services(program)?;
    for service in &services {
        if !service.is_valid(program)? {
            let why = format!("it refuses the configuration of {}, see above", service.name);
            // With another configuration it can be tried again.
            return Err(put_back(&[], &why, false));
        }
    }
    let mut online = Vec::new();
    for service in &services {
        if service.session().is_some_and(|(is_online, _)| is_online) {
            online.push(service);
        }
        restart_one(service)?;
    }
    let deadline = sys::clock() + SESSION_TIMEOUT;
    for service in &online {
        let name = &service.name;
        loop {
            let session = service.session().filter(|(_, found)| found == version);
            if session.as_ref().is_some_and(|(is_online, _)| *is_online) {
                print(&line(&format_args!("Service {name} is online with {version}")))?;
                break;
            }
            if update::recorded_version() != version {
                return Err(CommandError::failed(format!(
                    "{version} failed and was replaced by the old program; see the log of {name}"
                )));
            }
            if sys::clock() >= deadline {
                // It runs, and it is the network that fails.
                if session.is_some() && !has_network() {
                    return Err(CommandError::failed(format!(
                        "service {name} has no session with {version} yet: the feed cannot be \
                         reached either; check the network, or use update --rollback --restart"
                    )));
                }
                let why = format!("service {name} has no session after 2 minutes; see its log");
                return Err(put_back(&services, &why, true));
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

/// Puts the old program back and restarts the services that ran the new one.
fn put_back(services: &[RunningService], why: &str, is_bad: bool) -> CommandError {
    let mut text = format!("the new program failed: {why}");
    match update::roll_back(is_bad) {
        Ok((version, _)) => text += &format!("; {version} was restored"),
        Err(e) => text += &format!("; the old program cannot be restored: {e}"),
    }
    for service in services {
        if let Err(e) = service.restart() {
            text += &format!("; {e}");
        }
    }
    CommandError::failed(text)
}

/// Returns the services of this machine that run the program, without those that are stopped.
fn services(program: &Path) -> Result<Vec<RunningService>, CommandError> {
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

fn restart_one(service: &RunningService) -> Result<(), CommandError> {
    service.restart().map_err(by_hand)?;
    print(&line(&format_args!("Restarted service {}", service.name)))?;
    Ok(())
}

fn by_hand(why: String) -> CommandError {
    CommandError::failed(format!("{why}; restart the agent by hand"))
}
