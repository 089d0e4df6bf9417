//! A program that runs in the laboratory, and what it wrote.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running program. Dropping ends it.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; what it writes goes to `NAME.log` in `dir`, behind what is there.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> io::Result<Program> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
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
            .map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
        Ok(Program { name: name.to_owned(), child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it wrote so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has written `text` behind the first `from` bytes.
    pub fn says(&mut self, text: &str, from: usize, patience: Duration) -> io::Result<()> {
        let name = self.name.clone();
        wait(&format!("{name} says {text:?}"), patience, || {
            self.said().get(from..).is_some_and(|said| said.contains(text))
        })
        .map_err(|e| io::Error::other(format!("{e}\n{}", self.tail())))
    }

    /// The last lines that it wrote, for a message.
    pub fn tail(&self) -> String {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        last.iter().map(|line| format!("    {}: {line}\n", self.name)).collect()
    }

    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it without asking, and takes leave of it.
    pub fn kill(&mut self) {
        self.signal(Signal::CONT);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for a condition, at most `patience`.
pub fn wait(what: &str, patience: Duration, mut done: impl FnMut() -> bool) -> io::Result<()> {
    let until = Instant::now() + patience;
    loop {
        if done() {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(io::Error::other(format!("not within {patience:?}: {what}")));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where a program lies: on PATH or where administrators' programs are.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}
