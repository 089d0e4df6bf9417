//! Memory, threads and descriptors of a program at drained points: those of one run of the
//! program are equal, with any load between them.

use std::io;
use std::time::{Duration, Instant};

use crate::logged::wait_for;
use crate::proc;

/// Idle threads of the programs end after five seconds. Free memory is returned every five
/// seconds by the edge, and by the agent with its heartbeat, every ten.
const SETTLED: Duration = Duration::from_secs(16);
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage {
    /// For the reader only, because it depends on the pages of code in use.
    pub resident: u64,
    /// The compared value.
    pub anonymous: u64,
    pub threads: u64,
    pub descriptors: usize,
}

impl Usage {
    fn of(pid: u32) -> io::Result<Usage> {
        Ok(Usage {
            resident: proc::resident(pid)?,
            anonymous: proc::anonymous(pid)?,
            threads: proc::threads(pid),
            descriptors: proc::fds(pid),
        })
    }

    /// Returns whether it is as flat as at the `first` drained point. Without `memory` only
    /// threads and descriptors are compared.
    pub fn fits(&self, first: &Usage, memory: bool) -> bool {
        let most = first.anonymous + first.anonymous / 20 + 128 * 1024;
        (self.anonymous <= most || !memory)
            && self.threads == first.threads
            && self.descriptors == first.descriptors
    }
}

/// Waits until threads and descriptors of all programs have not changed for a while.
pub fn settled<const N: usize>(pids: [u32; N]) -> io::Result<[Usage; N]> {
    let mut last = all(pids)?;
    let mut since = Instant::now();
    wait_for("programs at rest", DEADLINE, || {
        let usages = match all(pids) {
            Ok(usages) => usages,
            Err(e) => return Some(Err(e)),
        };
        let same = usages.iter().zip(&last).all(|(now, before)| {
            now.threads == before.threads && now.descriptors == before.descriptors
        });
        last = usages;
        if !same {
            since = Instant::now();
        }
        (since.elapsed() >= SETTLED).then_some(Ok(usages))
    })?
}

fn all<const N: usize>(pids: [u32; N]) -> io::Result<[Usage; N]> {
    let mut usages = [Usage { resident: 0, anonymous: 0, threads: 0, descriptors: 0 }; N];
    for (usage, pid) in usages.iter_mut().zip(pids) {
        *usage = Usage::of(pid)?;
    }
    Ok(usages)
}

/// Waits until the usage fits `first`. Returns the last one.
pub fn wait_to_fit(pid: u32, first: &Usage, memory: bool) -> io::Result<Usage> {
    let mut last = Usage::of(pid)?;
    let _ = wait_for("a program as flat as before", DEADLINE, || {
        last = Usage::of(pid).unwrap_or(last);
        last.fits(first, memory).then_some(())
    });
    Ok(last)
}
