//! Instructions of a small request and of a MiB in each direction, counted by callgrind: the
//! difference that further work of one kind makes. One connection at a time, so that threads
//! have little to coordinate; a busy machine changes almost nothing.
//!
//! `../instructions.tsv` has the last counts. `--check` compares with them.

use crate::load;
use crate::tools::{self, Counted, Kind, Programs};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

/// Work of a run: requests on one connection, MiB downloaded, MiB uploaded.
type Work = [u64; 3];

/// Work of every run, so that code that runs once has run.
const BASE: Work = [200, 8, 8];

/// Further work of one kind.
const MORE: Work = [10_000, 64, 64];

/// Work of the runs for requests.
const REQUESTS: Work = [BASE[0] + MORE[0], BASE[1], BASE[2]];

const NAMES: [&str; 3] = ["request", "MiB down", "MiB up"];

/// Last counts, with the compiler of the programs.
const NOTED: &str = include_str!("../instructions.tsv");

/// Percent that a count may exceed the noted one.
const TOLERANCE: u64 = 3;

/// The same for programs of another compiler than the noted one.
const OTHER_COMPILER_TOLERANCE: u64 = 15;

/// Most that basic auth may add to the edge's instructions of a request, in percent of a request
/// at an endpoint without options.
const BASIC_AUTH_PERCENT: u64 = 20;

/// Most instructions that a traffic policy of ten rules may add to a request at the edge.
const POLICY_INSTRUCTIONS: u64 = 40_000;

/// Times that a figure beyond its limit is counted. The least count is the figure.
const TRIES: usize = 3;

/// Programs to count, and the directories of the runs and of the files of callgrind.
pub struct Counting<'a> {
    pub programs: &'a Programs,
    pub upstream: SocketAddr,
    pub dir: &'a Path,
    pub profiles: Option<&'a Path>,
}

impl Counting<'_> {
    /// Prints a table of instructions by program and kind of work. Returns the figures beyond
    /// their limits.
    pub fn run(&self, counted: &[Counted], kinds: &[Kind]) -> io::Result<Vec<String>> {
        let mut exceeded = Vec::new();
        println!(
            "{:<24}{:>14}{:>14}{:>14}   at most",
            "instructions", NAMES[0], NAMES[1], NAMES[2]
        );
        for &counted in counted {
            for &kind in kinds {
                let name = format!("{counted:?}, {}", kind.name());
                let limits = limits(NOTED, &name, compiler(self.programs.path(counted)).as_deref());
                let mut base = self.instructions(counted, kind, BASE, "base")?;
                let mut row = format!("{name:<24}");
                for (n, more) in MORE.into_iter().enumerate() {
                    let mut work = BASE;
                    work[n] += more;
                    let mut least = u64::MAX;
                    for _ in 0..TRIES {
                        let all = self.instructions(counted, kind, work, NAMES[n])?;
                        least = least.min(all.saturating_sub(base) / more);
                        if limits.is_none_or(|limits| least <= limits[n]) {
                            break;
                        }
                        base = self.instructions(counted, kind, BASE, "base")?;
                    }
                    row += &format!("{least:>14}");
                    if limits.is_some_and(|limits| least > limits[n]) {
                        exceeded.push(format!("instructions of a {}: {name}", NAMES[n]));
                    }
                }
                match limits {
                    Some([a, b, c]) => println!("{row}   {a} {b} {c}"),
                    None => println!("{row}   -"),
                }
            }
        }
        Ok(exceeded)
    }

    /// Prints what basic auth costs the edge. Returns the figure if it is beyond its limit.
    ///
    /// The request without the option has no `Authorization`. So its parsing and its way to the
    /// upstream count as a part of basic auth.
    pub fn basic_auth(&self) -> io::Result<Option<String>> {
        let mut least = u64::MAX;
        for _ in 0..TRIES {
            let plain = self.edge_request(Kind::CulvertHttp)?;
            let checked = self.edge_request(Kind::BasicAuth)?;
            least = least.min(more_percent(plain, checked));
            println!("edge, a request without options {plain}, with basic auth {checked}");
            if least <= BASIC_AUTH_PERCENT {
                break;
            }
        }
        println!("basic auth costs the edge {least} % of a request, at most {BASIC_AUTH_PERCENT}");
        let exceeded = least > BASIC_AUTH_PERCENT;
        Ok(exceeded.then(|| "instructions of a request: basic auth at the edge".to_owned()))
    }

    /// Prints what a traffic policy costs the edge. Returns the figure if it is beyond its limit.
    pub fn policy(&self) -> io::Result<Option<String>> {
        let mut least = u64::MAX;
        for _ in 0..TRIES {
            let plain = self.edge_request(Kind::CulvertHttp)?;
            let with = self.edge_request(Kind::Policy)?;
            least = least.min(with.saturating_sub(plain));
            println!("edge, a request without a policy {plain}, with ten rules {with}");
            if least <= POLICY_INSTRUCTIONS {
                break;
            }
        }
        println!("ten rules cost the edge {least} a request, at most {POLICY_INSTRUCTIONS}");
        let exceeded = least > POLICY_INSTRUCTIONS;
        Ok(exceeded.then(|| "instructions of a request: traffic policy at the edge".to_owned()))
    }

    /// Returns the instructions of a request at the edge.
    fn edge_request(&self, kind: Kind) -> io::Result<u64> {
        let all = self.instructions(Counted::Edge, kind, REQUESTS, NAMES[0])?;
        let base = self.instructions(Counted::Edge, kind, BASE, "base")?;
        Ok(all.saturating_sub(base) / MORE[0])
    }

    /// Returns the instructions of one run of a program with `work`.
    fn instructions(
        &self,
        counted: Counted,
        kind: Kind,
        work: Work,
        what: &str,
    ) -> io::Result<u64> {
        let programs = Programs { counted: Some(counted), ..self.programs.clone() };
        let tunnel = tools::start(kind, &programs, self.upstream, &self.dir.join("counted"))?;
        let requests = usize::try_from(work[0]).map_err(io::Error::other)?;
        load::repeat(&tunnel.entrance, requests)?;
        load::download(&tunnel.entrance, work[1] << 20)?;
        load::upload(&tunnel.entrance, work[2] << 20)?;
        let profile = match self.profiles {
            Some(dir) => {
                fs::create_dir_all(dir)?;
                let name = format!("{counted:?}-{}-{what}.callgrind", kind.name());
                Some(dir.join(name.replace(' ', "-").to_lowercase()))
            }
            None => None,
        };
        tunnel.instructions(profile.as_deref())
    }
}

/// Returns by how many percent, rounded up, `count` exceeds `plain`.
fn more_percent(plain: u64, count: u64) -> u64 {
    (count.saturating_sub(plain) * 100).div_ceil(plain.max(1))
}

/// Returns the limits of the row `name`, or `None` if the file does not have it.
fn limits(noted: &str, name: &str, compiler: Option<&str>) -> Option<Work> {
    let mut lines = noted.lines().filter(|line| !line.starts_with('#'));
    let same = lines.next().is_some_and(|first| Some(first) == compiler);
    let percent = 100 + if same { TOLERANCE } else { OTHER_COMPILER_TOLERANCE };
    let row = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?;
    let counts: Vec<u64> = row.split('\t').map_while(|count| count.parse().ok()).collect();
    Some(Work::try_from(counts).ok()?.map(|count| count * percent / 100))
}

/// Returns the compiler of a program, as `rustc version 1.90.0`, from the file with its symbols
/// that `cross/build.sh` makes beside it.
fn compiler(program: &Path) -> Option<String> {
    const MARK: &[u8] = b"rustc version ";
    let name = format!("{}.symbols", program.file_name()?.to_str()?);
    let file = fs::read(program.with_file_name(name)).ok()?;
    let start = file.windows(MARK.len()).position(|bytes| bytes == MARK)?;
    let len = file[start + MARK.len()..].iter().position(|b| !b"0123456789.".contains(b))?;
    String::from_utf8(file[start..start + MARK.len() + len].to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# comment\nrustc version 1.90.0\nAgent, culvert tcp\t100\t2000\t3000\n";

    #[test]
    fn limits_are_noted_counts_and_a_tolerance() {
        let same = limits(TEXT, "Agent, culvert tcp", Some("rustc version 1.90.0"));
        assert_eq!(same, Some([103, 2_060, 3_090]));
        let other = limits(TEXT, "Agent, culvert tcp", Some("rustc version 1.91.0"));
        assert_eq!(other, Some([115, 2_300, 3_450]));
        assert_eq!(limits(TEXT, "Agent, culvert tcp", None), other);
        assert_eq!(limits(TEXT, "Agent, culvert", None), None);
    }

    #[test]
    fn percents_are_rounded_up() {
        assert_eq!(more_percent(1_000, 1_200), 20);
        assert_eq!(more_percent(1_000, 1_201), 21);
        assert_eq!(more_percent(1_000, 900), 0);
    }

    #[test]
    fn every_noted_row_is_read() {
        let rows = NOTED.lines().filter(|line| line.contains('\t') && !line.starts_with('#'));
        let names: Vec<&str> = rows.filter_map(|row| row.split('\t').next()).collect();
        assert!(!names.is_empty());
        for name in names {
            assert!(limits(NOTED, name, None).is_some(), "{name}");
        }
    }
}
