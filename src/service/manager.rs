//! Calls the init system: start, stop, restart, state. Files are the work of `install`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use super::InitSystem;
use crate::sys::child::{ChildOutput, ChildProgram};

/// Exit codes of LSB for the state of a service.
pub const RUNNING: u8 = 0;
/// The service has ended without a stop.
pub const DEAD: u8 = 1;
/// The service is stopped.
pub const STOPPED: u8 = 3;
/// The service is not installed, or its state is not known.
pub const UNKNOWN: u8 = 4;

/// Time after which runit detects a new link, in attempts of [`RUNIT_INTERVAL`].
const RUNIT_ATTEMPTS: u32 = 40;
const RUNIT_INTERVAL: Duration = Duration::from_millis(250);

/// Seconds that runit waits for the end of the agent.
const RUNIT_PATIENCE: &str = "20";

/// An action on an installed service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Starts it.
    Start,
    /// Stops it.
    Stop,
    /// Stops and starts it.
    Restart,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Restart => "restart",
        }
    }
}

/// Makes the init system read its files again.
pub fn reload(init: InitSystem) -> Result<(), String> {
    match init {
        InitSystem::Systemd => call("systemctl", &["daemon-reload"]),
        _ => Ok(()),
    }
}

/// Carries out an action.
pub fn act(init: InitSystem, name: &str, action: Action) -> Result<(), String> {
    let word = action.word();
    match init {
        // The agent is ready when its configuration is accepted, which may need the network.
        InitSystem::Systemd if action != Action::Stop => {
            call("systemctl", &["--no-block", word, name])
        }
        InitSystem::Systemd => call("systemctl", &[word, name]),
        InitSystem::OpenRc => call("rc-service", &[name, word]),
        InitSystem::Runit => {
            let directory = runit_directory(name);
            let supervised = Path::new(&directory).join("supervise/ok");
            for _ in 0..RUNIT_ATTEMPTS {
                if supervised.exists() {
                    break;
                }
                thread::sleep(RUNIT_INTERVAL);
            }
            call("sv", &["-w", RUNIT_PATIENCE, word, &directory])
        }
        InitSystem::Procd | InitSystem::Busybox | InitSystem::SysV => call(&script(name), &[word]),
    }
}

/// Ends the supervision of a service of runit whose link was removed.
pub fn release(init: InitSystem, name: &str) {
    let directory = runit_directory(name);
    if init == InitSystem::Runit && Path::new(&directory).join("supervise/ok").exists() {
        // runsvdir does it too, later.
        let _ = output("sv", &["-w", RUNIT_PATIENCE, "exit", &directory]);
    }
}

/// Returns the state as an exit code of LSB, with its name.
pub fn state(init: InitSystem, name: &str) -> Result<(u8, String), String> {
    let (script, directory) = (script(name), runit_directory(name));
    let (program, arguments): (&str, &[&str]) = match init {
        InitSystem::Systemd => ("systemctl", &["is-active", name]),
        InitSystem::Procd => (&script, &["running"]),
        InitSystem::OpenRc => ("rc-service", &[name, "status"]),
        InitSystem::Runit => ("sv", &["status", &directory]),
        InitSystem::Busybox | InitSystem::SysV => (&script, &["status"]),
    };
    let (text, status) = output(program, arguments)?;
    let running = match init {
        InitSystem::Runit => text.starts_with("run:"),
        _ => status.success(),
    };
    let code = match (init, status.code()) {
        _ if running => RUNNING,
        (InitSystem::SysV | InitSystem::Busybox, Some(1)) | (InitSystem::OpenRc, Some(32)) => DEAD,
        _ => STOPPED,
    };
    let word = match code {
        RUNNING => "running",
        DEAD => "dead",
        _ => "stopped",
    };
    // Other words of systemd, such as `activating` and `failed`, have more information.
    let own = matches!(init, InitSystem::Systemd) && !running && !text.trim().is_empty();
    Ok((code, if own { text.trim().to_owned() } else { word.to_owned() }))
}

/// Returns the command that shows the log.
pub fn log_command(init: InitSystem, name: &str) -> String {
    match init {
        InitSystem::Systemd => format!("journalctl -u {name}"),
        InitSystem::Procd => "logread -e culvert".to_owned(),
        InitSystem::Runit => "the files of svlogd below /var/log".to_owned(),
        InitSystem::OpenRc | InitSystem::Busybox | InitSystem::SysV => {
            format!("the system log, entries of {name}")
        }
    }
}

fn script(name: &str) -> String {
    format!("/etc/init.d/{name}")
}

fn runit_directory(name: &str) -> String {
    format!("/etc/sv/{name}")
}

/// Runs a program whose output is for the user.
fn call(program: &str, arguments: &[&str]) -> Result<(), String> {
    let (_, status) = run(program, arguments, ChildOutput::Inherited)?;
    match status.success() {
        true => Ok(()),
        false => Err(fault(program, arguments, &format!("failed: {status}"))),
    }
}

fn output(program: &str, arguments: &[&str]) -> Result<(String, ExitStatus), String> {
    run(program, arguments, ChildOutput::Piped)
}

fn run(
    program: &str,
    arguments: &[&str],
    output: ChildOutput,
) -> Result<(String, ExitStatus), String> {
    let mut words = vec![OsStr::new(program)];
    words.extend(arguments.iter().map(OsStr::new));
    let ended = ChildProgram::new(&words, output).start().and_then(|mut child| child.output());
    ended.map_err(|e| fault(program, arguments, &format!("cannot be run: {e}")))
}

fn fault(program: &str, arguments: &[&str], what: &str) -> String {
    format!("\"{program} {}\" {what}", arguments.join(" "))
}
