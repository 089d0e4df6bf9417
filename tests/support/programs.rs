//! Programs of this machine: finding them, and running one to its end.
//!
//! Standard library only: the bench and the network laboratory are packages of their own and
//! include this file too.
#![allow(dead_code)] // Each of them uses a part.

use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Returns the path of a program on `PATH` or where administrators' programs are.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Returns the path of a program. Its absence is an error.
pub fn require(name: &str) -> io::Result<PathBuf> {
    find(name).ok_or_else(|| io::Error::other(format!("{name} is not installed")))
}

/// Runs a command to its end. Its output is in the error if it fails.
pub fn run_quietly(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{command:?} failed: {text}")))
}

/// Sends a signal by name to processes.
pub fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let kill = format!("kill -{name} {}", pids.join(" "));
    let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
}
