//! Instructions of a small request and of a MiB in each direction, counted by callgrind: the
//! difference that further work of one kind makes. One connection at a time, so that threads
//! have little to coordinate; a busy machine changes almost nothing.

use crate::load;
use crate::tools::{self, Counted, Kind, Programs};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Work of a run: requests on one connection, MiB downloaded, MiB uploaded.
type Work = [u64; 3];

/// Work of every run, so that code that runs once has run.
const BASE: Work = [200, 8, 8];

/// Further work of one kind.
const MORE: Work = [2_000, 64, 64];

const NAMES: [&str; 3] = ["a small request", "a MiB down", "a MiB up"];

/// Prints a table of instructions by program and kind of work.
pub fn count(programs: &Programs, upstream: SocketAddr, dir: &Path) -> io::Result<()> {
    println!("{:<24}{:>14}{:>14}{:>14}", "instructions", NAMES[0], NAMES[1], NAMES[2]);
    for counted in [Counted::Agent, Counted::Edge] {
        for kind in [Kind::CulvertHttp, Kind::CulvertTcp] {
            let run = |work: Work| -> io::Result<u64> {
                let programs = Programs {
                    agent: programs.agent.clone(),
                    edge: programs.edge.clone(),
                    agent_args: programs.agent_args.clone(),
                    counted: Some(counted),
                };
                let tunnel = tools::start(kind, &programs, upstream, &dir.join("counted"))?;
                let requests = usize::try_from(work[0]).map_err(io::Error::other)?;
                load::repeat(&tunnel.entrance, requests)?;
                load::download(&tunnel.entrance, work[1] << 20)?;
                load::upload(&tunnel.entrance, work[2] << 20)?;
                tunnel.instructions()
            };
            let base = run(BASE)?;
            let mut row = format!("{:<24}", format!("{counted:?}, {}", kind.name()));
            for (n, more) in MORE.into_iter().enumerate() {
                let mut work = BASE;
                work[n] += more;
                let added = run(work)?.saturating_sub(base);
                row += &format!("{:>14}", added / more);
            }
            println!("{row}");
        }
    }
    Ok(())
}
