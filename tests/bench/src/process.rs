//! Child processes and what the kernel says of them: resident memory, CPU time.
//!
//! Linux only. Nothing here knows which program it looks at.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A child that ends when this is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`; its output goes to `log`, its input is empty.
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Process> {
        let out = File::create(log)?;
        let err = out.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(|e| {
            io::Error::new(e.kind(), format!("starting {:?}: {e}", command.get_program()))
        })?;
        Ok(Process { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A polite request first, so that a server can take its children along.
        let pid = self.pid().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        let end = Instant::now() + Duration::from_secs(10);
        while self.alive() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `ready` gives a value; `what` names it in the error.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> Option<T>,
) -> io::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{what}: not within {} s", limit.as_secs()),
            ));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Resident memory in bytes.
///
/// `smaps_rollup` counts pages; `VmRSS` is off by what each CPU has not yet
/// added up, hundreds of KB on a small program. It is the fallback where the
/// exact figure may not be read.
pub fn rss(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let text = match rollup {
        Ok(text) if text.contains("Rss:") => text,
        _ => fs::read_to_string(format!("/proc/{pid}/status"))?,
    };
    text.lines()
        .find_map(|line| line.strip_prefix("Rss:").or_else(|| line.strip_prefix("VmRSS:")))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other(format!("no resident memory of process {pid}")))
}

/// The state, parent and CPU time (user and system) in `/proc/PID/stat`.
fn parse_stat(text: &str) -> Option<(u32, Duration)> {
    // The name is in parentheses and may hold anything, parentheses too.
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux that this runs on. The sum is exact in the
    // kernel (it counts nanoseconds) and only rounded here.
    Some((parent, Duration::from_millis(ticks * 10)))
}

/// CPU time of a process, threads that ended included. Resolution: 10 ms.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text)
        .map(|(_, cpu)| cpu)
        .ok_or_else(|| io::Error::other(format!("no CPU time of process {pid}")))
}

/// A process and all below it: sshd serves each connection with two children.
pub fn family(pid: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    if let Ok(entries) = fs::read_dir("/proc") {
        for entry in entries.flatten() {
            let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(text) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
            if let Some((parent, _)) = parse_stat(&text) {
                parents.push((child, parent));
            }
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(child, _)| *child));
        next += 1;
    }
    family
}

/// CPU time of a process and all below it.
pub fn family_cpu(pid: u32) -> Duration {
    family(pid).into_iter().filter_map(|p| cpu(p).ok()).sum()
}

/// Resident memory of a process and all below it, in bytes.
pub fn family_rss(pid: u32) -> u64 {
    family(pid).into_iter().filter_map(|p| rss(p).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_nasty_name() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 0 0 0 12 34 0 0 20 0 1 0 1 2 3";
        assert_eq!(parse_stat(line), Some((7, Duration::from_millis(460))));
        assert_eq!(parse_stat("42 (cut"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_family() {
        let me = std::process::id();
        assert!(rss(me).unwrap() > 100_000);
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(family(me).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
