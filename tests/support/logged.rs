//! A child process whose output goes to a file.
//!
//! Standard library only: the bench and the network laboratory are packages of their own and
//! include this file. `programs` is beside it in both.
#![allow(dead_code)] // Each of them uses a part.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::programs;

/// Interval between two checks of a condition.
const LOOK: Duration = Duration::from_millis(10);

/// A running program. It is killed when this is dropped.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a command. Its output is appended to `NAME.log` in `dir`, its input is empty.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> io::Result<Program> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        // The configuration of this machine's user is not part of a test.
        for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(variable).env_remove(variable.to_uppercase());
        }
        let child = command
            .env_remove("NGROK_AUTHTOKEN")
            .env_remove("NGROK_CONFIG")
            .env("HOME", dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("starting {name}: {e}")))?;
        Ok(Program { name: name.to_owned(), child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its output.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `text` is in its output after the first `from` bytes.
    pub fn says(&mut self, text: &str, from: usize, patience: Duration) -> io::Result<()> {
        let name = self.name.clone();
        wait(&format!("{name} says {text:?}"), patience, || {
            self.said().get(from..).is_some_and(|said| said.contains(text))
        })
        .map_err(|e| io::Error::other(format!("{e}\n{}", self.tail())))
    }

    /// Returns the last lines of its output, for a message.
    pub fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        last.iter().map(|line| format!("    {}: {line}\n", self.name)).collect()
    }

    /// Returns whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, name: &str) {
        programs::signal(name, &[self.pid()]);
    }

    /// Ends it with SIGTERM, so that a server ends its children; with SIGKILL after 10 s.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let _ = wait("its end", Duration::from_secs(10), || !self.alive());
        self.kill();
    }

    /// Ends it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until `ready` returns a value. The error names `what`.
pub fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut ready: impl FnMut() -> Option<T>,
) -> io::Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if Instant::now() >= end {
            let text = format!("not within {patience:?}: {what}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(LOOK);
    }
}

/// Waits for a condition.
pub fn wait(what: &str, patience: Duration, mut done: impl FnMut() -> bool) -> io::Result<()> {
    wait_for(what, patience, || done().then_some(()))
}
