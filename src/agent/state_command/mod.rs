//! `on_state_change`: a command of the user that runs at each change of the agent's state, for
//! a LED or a mail. One runs at a time, for a limited time; of the states in the meantime the
//! last one is reported. The supervisor calls this module and decides when the state changes.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::event;
use crate::sys;
use crate::sys::child::{ChildOutput, ChildProcess, ChildProgram};
use crate::time::{Deadline, Instant};

/// State after the end of the agent.
pub(super) const STOPPED: &str = "stopped";

/// Time that a command may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between checks whether it has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Time that a command may take at the end of the agent.
const FINAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval between these checks.
const FINAL_INTERVAL: Duration = Duration::from_millis(10);

/// Variable with the state.
const STATE: &str = "CULVERT_STATE";
/// Variables that the command inherits. Others may contain credentials.
const INHERITED: [&str; 4] = ["PATH", "HOME", "TZ", "LANG"];

/// The command, and the one that runs.
pub(super) struct StateCommand {
    /// Text for the shell; empty for none.
    command: String,
    running: Option<RunningCommand>,
    /// State that is reported when the running command has ended.
    pending: Option<&'static str>,
    /// State of the last command.
    reported: &'static str,
}

struct RunningCommand {
    child: ChildProcess,
    ends_at: Instant,
    check_at: Instant,
    /// Its processes were killed.
    killed: bool,
}

impl StateCommand {
    pub(super) fn new(command: &str) -> Self {
        StateCommand { command: command.to_owned(), running: None, pending: None, reported: "" }
    }

    /// Reports a state at the next [`Self::advance`], unless it is the one of the last report.
    pub(super) fn report(&mut self, state: &'static str) {
        if !self.command.is_empty() {
            self.pending = Some(state);
        }
    }

    /// Returns the time at which [`Self::advance`] has something to do.
    pub(super) fn deadline(&self) -> Deadline {
        self.running.as_ref().map_or(Deadline::Never, |running| Deadline::At(running.check_at))
    }

    /// Reaps a command that has ended, ends one that takes too long, and starts the next one.
    pub(super) fn advance(&mut self, now: Instant) {
        self.reap(now);
        if self.running.is_none() {
            self.start_pending(now);
        }
    }

    /// Reaps the running command if it has ended, and ends it if it takes too long.
    fn reap(&mut self, now: Instant) {
        if let Some(running) = &mut self.running
            && running.check_at <= now
            && running.has_ended(now)
        {
            self.running = None;
        }
    }

    /// Starts the command for the pending state, unless that state was reported last.
    fn start_pending(&mut self, now: Instant) {
        let Some(state) = self.pending.take().filter(|state| *state != self.reported) else {
            return;
        };
        self.reported = state;
        match start(&self.command, state) {
            Ok(child) => {
                let (ends_at, check_at) = (now + TIMEOUT, now + CHECK_INTERVAL);
                self.running = Some(RunningCommand { child, ends_at, check_at, killed: false });
            }
            Err(error) => failed(state, &error),
        }
    }

    /// Waits a short time for the running command and for the one that is pending. No process
    /// is left that this program would have to reap.
    pub(super) fn finish(&mut self) {
        for _ in 0..2 {
            let until = sys::clock() + FINAL_TIMEOUT;
            while let Some(running) = &mut self.running {
                let now = sys::clock();
                running.ends_at = running.ends_at.min(until);
                running.check_at = now;
                self.reap(now);
                // Only a process that the kernel keeps does not end.
                if now > until + FINAL_TIMEOUT {
                    return;
                }
                std::thread::sleep(FINAL_INTERVAL);
            }
            self.advance(sys::clock());
        }
    }
}

impl RunningCommand {
    /// Returns whether it has ended, and ends it at its deadline.
    fn has_ended(&mut self, now: Instant) -> bool {
        self.check_at = now + CHECK_INTERVAL;
        match self.child.try_wait() {
            Ok(Some(status)) => {
                report_end(status, self.killed);
                return true;
            }
            Ok(None) => {}
            // It is not a child any more.
            Err(_) => return true,
        }
        if self.ends_at <= now && !self.killed {
            self.killed = true;
            self.child.kill_group();
        }
        false
    }
}

/// Starts the command in a group of processes of its own.
fn start(command: &str, state: &'static str) -> io::Result<ChildProcess> {
    let mut variables = vec![OsString::from(format!("{STATE}={state}"))];
    for name in INHERITED {
        if let Some(value) = env::var_os(name) {
            let mut variable = OsString::from(format!("{name}="));
            variable.push(value);
            variables.push(variable);
        }
    }
    let environment: Vec<&OsStr> = variables.iter().map(OsString::as_os_str).collect();
    let words = ["/bin/sh", "-c", command].map(OsStr::new);
    let shell = ChildProgram {
        environment: Some(&environment),
        own_group: true,
        // A status screen and a log of records have no place for its output.
        ..ChildProgram::new(&words, ChildOutput::Discarded)
    };
    shell.start()
}

fn report_end(status: ExitStatus, killed: bool) {
    if killed {
        event!(warn, obj = "app", "state command timed out");
    } else if let Some(signal) = status.signal() {
        event!(warn, obj = "app", "state command failed", err = format_args!("signal {signal}"));
    } else if let Some(code @ 1..) = status.code() {
        event!(warn, obj = "app", "state command failed", err = format_args!("exit code {code}"));
    }
}

fn failed(state: &str, error: &io::Error) {
    event!(warn, obj = "app", "cannot start state command", name = state, err = error);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A command that writes its states into a file.
    struct Recorded {
        command: StateCommand,
        path: PathBuf,
    }

    impl Recorded {
        fn new(name: &str, script: &str) -> Recorded {
            let path = env::temp_dir().join(format!("culvert-state-{name}-{}", std::process::id()));
            let _ = fs::remove_file(&path);
            let script = script.replace("FILE", path.to_str().unwrap());
            Recorded { command: StateCommand::new(&script), path }
        }

        fn report(&mut self, state: &'static str) {
            self.command.report(state);
            self.command.advance(sys::clock());
        }

        /// Advances until the running command and its successor have ended.
        fn settle(&mut self) {
            self.settle_after(Duration::ZERO);
        }

        /// The same, with a clock that is ahead.
        fn settle_after(&mut self, ahead: Duration) {
            until("the end of the command", || {
                self.command.advance(sys::clock() + ahead);
                self.command.running.is_none()
            });
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.path).unwrap_or_default()
        }
    }

    /// Waits for a condition.
    fn until(what: &str, mut condition: impl FnMut() -> bool) {
        let limit = sys::clock() + Duration::from_secs(30);
        while !condition() {
            assert!(sys::clock() < limit, "{what}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    impl Drop for Recorded {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path);
        }
    }

    #[test]
    fn states_during_a_command_are_reported_by_the_last_one() {
        let mut recorded = Recorded::new("last", "echo $CULVERT_STATE >>FILE");
        for state in ["connecting", "online", "reconnecting", "online"] {
            recorded.report(state);
        }
        recorded.settle();
        assert_eq!(recorded.text(), "connecting\nonline\n");
        recorded.report("online");
        assert!(recorded.command.running.is_none(), "the state is the same");
        recorded.report("reconnecting");
        recorded.report("online");
        recorded.report("reconnecting");
        recorded.settle();
        assert_eq!(recorded.text(), "connecting\nonline\nreconnecting\n");
    }

    #[test]
    fn a_command_that_takes_too_long_is_killed_with_its_children() {
        let mut recorded = Recorded::new("slow", "sleep 1000 & echo $! >FILE; wait");
        recorded.report("online");
        until("the start of the command", || !recorded.text().is_empty());
        recorded.settle_after(TIMEOUT);
        let stat = format!("/proc/{}/stat", recorded.text().trim());
        // A zombie of another parent may be left for a moment.
        until("the end of its child", || {
            fs::read_to_string(&stat).map_or(true, |text| text.contains(") Z"))
        });
    }

    #[test]
    fn the_end_waits_for_the_last_report_and_for_no_other() {
        let mut recorded = Recorded::new("end", "echo $CULVERT_STATE >>FILE; sleep 1000");
        recorded.report("online");
        recorded.report(STOPPED);
        recorded.command.finish();
        assert!(recorded.command.running.is_none());
        assert!(recorded.text().ends_with("stopped\n"), "{}", recorded.text());
    }

    #[test]
    fn without_a_command_nothing_is_started() {
        let mut none = StateCommand::new("");
        none.report("online");
        none.advance(sys::clock());
        assert!(none.running.is_none());
        assert_eq!(none.deadline(), Deadline::Never);
    }

    #[test]
    fn the_environment_has_the_state_and_no_other_variable_of_the_agent() {
        let mut recorded = Recorded::new("env", "env >FILE");
        recorded.report("online");
        recorded.settle();
        let text = recorded.text();
        assert!(text.contains("CULVERT_STATE=online\n"), "{text}");
        let known = ["CULVERT_STATE", "PWD", "SHLVL", "_", "OLDPWD"];
        for name in text.lines().filter_map(|line| line.split('=').next()) {
            assert!(INHERITED.contains(&name) || known.contains(&name), "{text}");
        }
    }
}
