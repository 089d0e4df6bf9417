//! Properties of a process from `/proc`.
//!
//! Standard library only: the bench and the network laboratory are packages of their own and
//! include this file too.
#![allow(dead_code)] // Each of them uses a part.

use std::fs;
use std::io;
use std::time::Duration;

/// Resident memory in KiB.
pub fn rss(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Returns the peak of the resident memory, in KiB.
pub fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Returns the address space in use, in KiB.
pub fn size(pid: u32) -> u64 {
    status(pid, "VmSize:")
}

/// Returns whether a process runs or sleeps. A zombie does not.
pub fn lives(pid: u32) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    text.lines().any(|l| l.starts_with("State:") && !l.contains('Z') && !l.contains('X'))
}

pub fn threads(pid: u32) -> u64 {
    status(pid, "Threads:")
}

/// Open file descriptors.
pub fn fds(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Returns the numbers of the open file descriptors.
pub fn fd_numbers(pid: u32) -> Vec<usize> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| file.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the counters of the scheduler for each thread: equal texts mean that no thread ran
/// in between.
pub fn schedule(pid: u32) -> String {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.map(|t| fs::read_to_string(t.path().join("schedstat")).unwrap_or_default()).collect()
}

/// Returns the memory of the process itself in bytes: without pages of files, such as its own
/// code, which the kernel drops and reads again at any time.
pub fn anonymous(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    anonymous_in(&text)
        .ok_or_else(|| io::Error::other(format!("no anonymous memory of process {pid}")))
}

/// Returns the same from the text of a `smaps_rollup`.
pub fn anonymous_in(text: &str) -> Option<u64> {
    kib(text, &["Anonymous:"])
}

/// Returns the resident memory in bytes.
///
/// `smaps_rollup` counts pages. `VmRSS` lacks the parts that each CPU has not added yet,
/// hundreds of KB on a small program. It is the fallback if the exact figure is not readable.
pub fn resident(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
    let text = match rollup {
        Ok(text) if text.contains("Rss:") => text,
        _ => fs::read_to_string(format!("/proc/{pid}/status"))?,
    };
    kib(&text, &["Rss:", "VmRSS:"])
        .ok_or_else(|| io::Error::other(format!("no resident memory of process {pid}")))
}

/// Returns the bytes of the first line that has one of `names` and counts KiB.
fn kib(text: &str, names: &[&str]) -> Option<u64> {
    let rest = text.lines().find_map(|line| names.iter().find_map(|n| line.strip_prefix(n)))?;
    rest.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Returns state, parent and CPU time (user and system) in `/proc/PID/stat`.
fn parse_stat(text: &str) -> Option<(u32, Duration)> {
    // The name is in parentheses and may contain any characters, parentheses too.
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux that this runs on. The kernel counts nanoseconds, and only
    // this value is rounded.
    Some((parent, Duration::from_millis(ticks * 10)))
}

/// CPU time of a process, threads that ended included. Resolution: 10 ms.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text)
        .map(|(_, cpu)| cpu)
        .ok_or_else(|| io::Error::other(format!("no CPU time of process {pid}")))
}

/// Returns a process and its descendants: sshd serves each connection with two children.
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

/// Returns the CPU time of a process and its descendants.
pub fn family_cpu(pid: u32) -> Duration {
    family(pid).into_iter().filter_map(|p| cpu(p).ok()).sum()
}

/// Returns the resident memory of a process and its descendants, in bytes.
pub fn family_resident(pid: u32) -> u64 {
    family(pid).into_iter().filter_map(|p| resident(p).ok()).sum()
}

fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Returns the number of TCP sockets of a process in a state, by the kernel's number (8 is
/// CLOSE_WAIT).
pub fn sockets(pid: u32, state: u8) -> usize {
    socket_timers(pid, state).len()
}

/// Returns the timers of the TCP sockets of a process in a state, by the kernel's numbers (2:
/// keep-alive, 0: no timer).
pub fn socket_timers(pid: u32, state: u8) -> Vec<u8> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        if let Ok(link) = fs::read_link(entry.path()) {
            let name = link.to_string_lossy().into_owned();
            if let Some(inode) = name.strip_prefix("socket:[") {
                inodes.push(inode.trim_end_matches(']').to_owned());
            }
        }
    }
    let mut timers = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_state = words.get(3) == Some(&format!("{state:02X}").as_str());
            if is_state && words.get(9).is_some_and(|i| inodes.iter().any(|n| n == i)) {
                let timer = words.get(5).and_then(|word| word.split(':').next());
                timers.push(timer.and_then(|t| u8::from_str_radix(t, 16).ok()).unwrap_or(0));
            }
        }
    }
    timers
}

#[cfg(test)]
mod tests {
    use std::process::Command;

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
        assert!(resident(me).unwrap() > 100_000);
        assert!(anonymous(me).unwrap() < resident(me).unwrap());
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(family(me).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
