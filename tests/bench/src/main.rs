//! `make bench`: speed and memory of culvert beside `ssh -R` and `dbclient -R`, on loopback in
//! one run, with interleaved repetitions and medians, because machines are noisy. Ratios are
//! compared. An absolute figure is one of memory, or of a delay far above any noise.

mod api_load;
mod bind_time;
mod crowd;
mod edge;
mod instructions;
mod load;
#[path = "../../support/logged.rs"]
mod logged;
#[path = "../../support/proc.rs"]
mod proc;
#[path = "../../support/programs.rs"]
mod programs;
#[path = "../../support/ssh.rs"]
mod ssh;
mod table;
mod tools;
mod upstream;

use instructions::Counting;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use table::Results;
use tools::{Counted, Kind, Programs, Tunnel};

const USAGE: &str = "\
usage: culvert-bench [options]
  --agent FILE      the agent under test
  --edge FILE       the edge under test
  --counting FILE   the agent built with the feature count-allocs
  --agent-arg ARG   passed on to the agent (repeatable)
  --only A,B        of: none, ssh, dbclient, tcp, http, inspected
  --skip A,B        of: memory, allocs, api, bulk, requests; of --instructions: agent, edge,
                    basic-auth, policy
  --reps N          repetitions of what is noisy, default 3
  --bulk MIB        size of a bulk repetition, default 256
  --seconds S       length of a repetition of small requests, default 2
  --instructions    count instructions with callgrind instead, of one connection
  --crowd AGENTS    measure instead an edge with 10,000 idle visitors, and with so many agents
  --binds AGENTS    measure instead the time of a Bind with so many credentials and agents
  --profiles DIR    keep the files of callgrind there
  --check           exit 3 if a figure that must be reached is not; the instructions
                    must not exceed those of instructions.tsv
";

struct Options {
    counting: Option<PathBuf>,
    programs: Programs,
    kinds: Vec<Kind>,
    skip: Vec<String>,
    reps: usize,
    bulk: u64,
    seconds: u64,
    instructions: bool,
    crowd: Option<usize>,
    binds: Option<usize>,
    profiles: Option<PathBuf>,
    check: bool,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        counting: None,
        programs: Programs { agent: "".into(), edge: "".into(), agent_args: vec![], counted: None },
        kinds: Kind::ALL.to_vec(),
        skip: vec![],
        reps: 3,
        bulk: 256,
        seconds: 2,
        instructions: false,
        crowd: None,
        binds: None,
        profiles: None,
        check: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--check" {
            options.check = true;
            continue;
        }
        if flag == "--instructions" {
            options.instructions = true;
            continue;
        }
        if flag == "--help" || flag == "-h" {
            return Err(String::new());
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{flag} {value}: {e}"));
        match flag.as_str() {
            "--agent" => options.programs.agent = PathBuf::from(&value),
            "--edge" => options.programs.edge = PathBuf::from(&value),
            "--profiles" => options.profiles = Some(PathBuf::from(&value)),
            "--counting" => options.counting = Some(PathBuf::from(&value)),
            "--agent-arg" => options.programs.agent_args.push(value.clone()),
            "--skip" => options.skip = value.split(',').map(String::from).collect(),
            "--reps" => options.reps = usize::try_from(number()?.max(1)).unwrap_or(1),
            "--bulk" => options.bulk = number()?.max(1),
            "--seconds" => options.seconds = number()?.max(1),
            "--crowd" => options.crowd = Some(usize::try_from(number()?.max(1)).unwrap_or(1)),
            "--binds" => options.binds = Some(usize::try_from(number()?.max(1)).unwrap_or(1)),
            "--only" => {
                options.kinds = value
                    .split(',')
                    .map(|name| match name {
                        "none" => Ok(Kind::Direct),
                        "ssh" => Ok(Kind::Ssh),
                        "dbclient" => Ok(Kind::Dbclient),
                        "tcp" => Ok(Kind::CulvertTcp),
                        "http" => Ok(Kind::CulvertHttp),
                        "inspected" => Ok(Kind::Inspected),
                        other => Err(format!("--only {other}: no such tunnel")),
                    })
                    .collect::<Result<_, _>>()?;
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprint!("{message}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(missed) if missed.is_empty() || !options.check => ExitCode::SUCCESS,
        Ok(missed) => {
            eprintln!("missed: {}", missed.join("; "));
            ExitCode::from(3)
        }
        Err(error) => {
            eprintln!("culvert-bench: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options) -> io::Result<Vec<String>> {
    if let Some(agents) = options.crowd {
        let dir = std::env::temp_dir().join(format!("culvert-crowd-{}", std::process::id()));
        return crowd::run(&options.programs, agents, &dir);
    }
    if let Some(agents) = options.binds {
        let dir = std::env::temp_dir().join(format!("culvert-binds-{}", std::process::id()));
        let missed = bind_time::run(&options.programs, agents, &dir);
        let _ = std::fs::remove_dir_all(&dir);
        return missed.map(|missed| missed.into_iter().collect());
    }
    let mut kinds = Vec::new();
    for kind in &options.kinds {
        match options.programs.missing(*kind) {
            None => kinds.push(*kind),
            // Culvert must be installed; the others are measured if they are.
            Some(why) if kind.is_ours() => {
                return Err(io::Error::other(why));
            }
            Some(why) => eprintln!("{} is left out: {why}", kind.name()),
        }
    }
    let bench = Bench {
        upstream: upstream::start()?,
        dir: std::env::temp_dir().join(format!("culvert-bench-{}", std::process::id())),
        results: Mutex::default(),
        options,
    };
    if options.instructions {
        let counted = bench.instructions(&kinds);
        let _ = std::fs::remove_dir_all(&bench.dir);
        return counted;
    }
    let result = bench.measure(&kinds);
    let _ = std::fs::remove_dir_all(&bench.dir);
    result?;
    let results = bench.results.lock().map_err(|_| io::Error::other("a thread panicked"))?;
    println!();
    Ok(results.print(&kinds).into_iter().map(String::from).collect())
}

const GIB: f64 = (1u64 << 30) as f64;
const MB: f64 = 1e6;

struct Bench<'a> {
    options: &'a Options,
    upstream: SocketAddr,
    dir: PathBuf,
    results: Mutex<Results>,
}

impl Bench<'_> {
    fn instructions(&self, kinds: &[Kind]) -> io::Result<Vec<String>> {
        let counting = Counting {
            programs: &self.options.programs,
            upstream: self.upstream,
            dir: &self.dir,
            profiles: self.options.profiles.as_deref(),
        };
        let mut counted = vec![Counted::Agent, Counted::Edge];
        counted.retain(|program| self.wanted(&format!("{program:?}").to_lowercase()));
        let kinds: Vec<Kind> = [Kind::CulvertHttp, Kind::CulvertTcp]
            .into_iter()
            .filter(|kind| kinds.contains(kind))
            .collect();
        let mut exceeded = counting.run(&counted, &kinds)?;
        if self.wanted("basic-auth") {
            exceeded.extend(counting.basic_auth()?);
        }
        if self.wanted("policy") {
            exceeded.extend(counting.policy()?);
        }
        Ok(exceeded)
    }

    fn start(&self, kind: Kind) -> io::Result<Tunnel> {
        let name = kind.name().replace(' ', "-");
        tools::start(kind, &self.options.programs, self.upstream, &self.dir.join(name))
    }

    fn add(&self, kind: Kind, key: &'static str, value: f64) {
        if let Ok(mut results) = self.results.lock() {
            results.add(kind, key, value);
        }
    }

    fn wanted(&self, what: &str) -> bool {
        !self.options.skip.iter().any(|skipped| skipped == what)
    }

    fn measure(&self, kinds: &[Kind]) -> io::Result<()> {
        if self.wanted("memory") {
            for kind in kinds.iter().filter(|kind| **kind != Kind::Direct) {
                eprintln!("memory: {}", kind.name());
                self.connections(*kind)?;
                self.big_transfer(*kind)?;
                if *kind == Kind::Inspected {
                    self.ring(*kind)?;
                }
            }
        }
        if let Some(agent) = self.options.counting.as_ref().filter(|_| self.wanted("allocs")) {
            for kind in kinds {
                if kind.is_ours() {
                    eprintln!("heap allocations: {}", kind.name());
                    self.allocations(*kind, agent)?;
                }
            }
        }
        if self.wanted("api") && kinds.contains(&Kind::CulvertHttp) {
            eprintln!("API requests");
            self.api_load()?;
        }
        let tunnels: Vec<(Kind, Tunnel)> =
            kinds.iter().map(|kind| Ok((*kind, self.start(*kind)?))).collect::<io::Result<_>>()?;
        for rep in 1..=self.options.reps {
            for (kind, tunnel) in &tunnels {
                eprintln!("speed, repetition {rep}: {}", kind.name());
                let named = |e: io::Error| {
                    io::Error::new(e.kind(), format!("{}: {e}\n{}", kind.name(), tunnel.logs()))
                };
                if self.wanted("bulk") {
                    self.bulk(*kind, tunnel).map_err(named)?;
                }
                if self.wanted("requests") {
                    self.requests(*kind, tunnel).map_err(named)?;
                }
            }
        }
        for (kind, tunnel) in &tunnels {
            if let Some(pid) = tunnel.server_pid() {
                self.add(*kind, "edge_rss", proc::family_resident(pid) as f64 / MB);
            }
        }
        Ok(())
    }

    /// Measures idle memory, and the difference after 200 open connections and after their end.
    fn connections(&self, kind: Kind) -> io::Result<()> {
        let tunnel = self.start(kind)?;
        let Some(pid) = tunnel.client_pid() else { return Ok(()) };
        load::once(&tunnel.entrance)?;
        let idle = settled(pid)?;
        self.add(kind, "idle", idle / MB);
        let open = load::idle(&tunnel.entrance, 200)?;
        let parked = settled(pid)?;
        self.add(kind, "parked", (parked - idle) / MB);
        drop(open);
        let after = settled(pid)?;
        self.add(kind, "after", (after - idle) / MB);
        Ok(())
    }

    /// Measures how much a full ring of captured requests adds to idle memory, and how much a
    /// hundred thousand further requests add.
    fn ring(&self, kind: Kind) -> io::Result<()> {
        let tunnel = self.start(kind)?;
        let Some(pid) = tunnel.client_pid() else { return Ok(()) };
        let idle = settled(pid)?;
        load::repeat(&tunnel.entrance, 1_000)?;
        let full = settled(pid)?;
        self.add(kind, "ring", (full - idle) / MB);
        load::repeat(&tunnel.entrance, 100_000)?;
        self.add(kind, "drift", (settled(pid)? - full) / MB);
        Ok(())
    }

    /// Measures how far memory rises in a transfer of 1 GiB.
    fn big_transfer(&self, kind: Kind) -> io::Result<()> {
        let tunnel = self.start(kind)?;
        let Some(pid) = tunnel.client_pid() else { return Ok(()) };
        // After a request, so that the code for it is not counted.
        load::once(&tunnel.entrance)?;
        let before = proc::resident(pid)? as f64;
        let done = Arc::new(AtomicBool::new(false));
        let sampler = {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let mut peak = 0;
                while !done.load(Ordering::Relaxed) {
                    peak = peak.max(proc::resident(pid).unwrap_or(0));
                    thread::sleep(Duration::from_millis(20));
                }
                peak
            })
        };
        let result = load::download(&tunnel.entrance, 1 << 30);
        done.store(true, Ordering::Relaxed);
        let peak = sampler.join().map_err(|_| io::Error::other("the sampler panicked"))?;
        result?;
        self.add(kind, "peak", (peak as f64 - before).max(0.0) / MB);
        Ok(())
    }

    /// Measures what requests to the API of an edge cost its visitors.
    fn api_load(&self) -> io::Result<()> {
        let Options { programs, reps, seconds, .. } = self.options;
        let time = Duration::from_secs(*seconds);
        let dir = self.dir.join("api");
        let pairs = api_load::run(programs, self.upstream, &dir, 2 * reps + 1, time)?;
        self.add(Kind::CulvertHttp, "api_pairs", pairs.len() as f64);
        for pair in pairs.iter().filter(|pair| pair.is_complete()) {
            self.add(Kind::CulvertHttp, "api_p99_without", pair.without);
            self.add(Kind::CulvertHttp, "api_p99", pair.with);
            self.add(Kind::CulvertHttp, "api_ratio", pair.with / pair.without);
        }
        Ok(())
    }

    /// Counts heap allocations on the hot path: the difference for twice the work.
    fn allocations(&self, kind: Kind, agent: &Path) -> io::Result<()> {
        let programs = Programs { agent: agent.to_path_buf(), ..self.options.programs.clone() };
        let count = |mib: u64, requests: usize| -> io::Result<f64> {
            let dir = self.dir.join("counting");
            let tunnel = tools::start(kind, &programs, self.upstream, &dir)?;
            load::download(&tunnel.entrance, mib << 20)?;
            load::repeat(&tunnel.entrance, requests)?;
            let log = tunnel.finish();
            log.lines()
                .find_map(|line| line.strip_prefix("heap allocations: ")?.parse().ok())
                .ok_or_else(|| io::Error::other(format!("the agent told no count:\n{log}")))
        };
        let base = count(64, 1_000)?;
        self.add(kind, "allocs_mib", (count(320, 1_000)? - base).max(0.0) / 256.0);
        self.add(kind, "allocs_req", (count(64, 11_000)? - base).max(0.0) / 10_000.0);
        Ok(())
    }

    fn bulk(&self, kind: Kind, tunnel: &Tunnel) -> io::Result<()> {
        // CPU time has steps of 10 ms, and these two differ by percents.
        let compared = matches!(kind, Kind::CulvertHttp | Kind::Inspected);
        let size = if compared { 4 * self.options.bulk } else { self.options.bulk } << 20;
        let mib = size as f64 / f64::from(1 << 20);
        let clock = Clock::start(tunnel)?;
        let took = load::download(&tunnel.entrance, size)?;
        let (client, server) = clock.stop()?;
        self.add(kind, "bulk", mib / took.as_secs_f64());
        if tunnel.client_pid().is_some() {
            self.add(kind, "cpu_gib", client * GIB / size as f64);
            self.add(kind, "edge_cpu_gib", server * GIB / size as f64);
        }
        // dbclient's window for this direction is so small that the full size would take
        // minutes.
        let size = if kind == Kind::Dbclient { size / 32 } else { size / 2 };
        let mib = size as f64 / f64::from(1 << 20);
        let clock = Clock::start(tunnel)?;
        let took = load::upload(&tunnel.entrance, size)?;
        let (client, _) = clock.stop()?;
        self.add(kind, "up_bulk", mib / took.as_secs_f64());
        if tunnel.client_pid().is_some() {
            self.add(kind, "up_cpu", client * GIB / size as f64);
        }
        Ok(())
    }

    fn requests(&self, kind: Kind, tunnel: &Tunnel) -> io::Result<()> {
        let clock = Clock::start(tunnel)?;
        let time = Duration::from_secs(self.options.seconds);
        let measured = load::requests(&tunnel.entrance, 10, time)?;
        let (client, server) = clock.stop()?;
        self.add(kind, "rps", measured.per_second);
        self.add(kind, "p99", measured.p99.as_secs_f64() * 1e3);
        if tunnel.client_pid().is_some() {
            self.add(kind, "cpu_req", client * 1e6 / measured.count as f64);
            self.add(kind, "edge_cpu_req", server * 1e6 / measured.count as f64);
        }
        Ok(())
    }
}

/// CPU time of both ends of a tunnel from one moment on.
struct Clock<'a> {
    tunnel: &'a Tunnel,
    client: Duration,
    server: Duration,
}

impl Clock<'_> {
    fn start(tunnel: &Tunnel) -> io::Result<Clock<'_>> {
        let (client, server) = Self::read(tunnel)?;
        Ok(Clock { tunnel, client, server })
    }

    fn read(tunnel: &Tunnel) -> io::Result<(Duration, Duration)> {
        let client = tunnel.client_pid().map_or(Ok(Duration::ZERO), proc::cpu)?;
        let server = tunnel.server_pid().map_or(Duration::ZERO, proc::family_cpu);
        Ok((client, server))
    }

    /// Returns the seconds of client and server.
    fn stop(self) -> io::Result<(f64, f64)> {
        let (client, server) = Self::read(self.tunnel)?;
        let since = |end: Duration, start| end.saturating_sub(start).as_secs_f64();
        Ok((since(client, self.client), since(server, self.server)))
    }
}

/// Returns the resident memory at rest: the lowest of 12 s without a lower value (or of 40 s).
/// Programs release threads and buffers a while after their last use. The agent releases code a
/// second after a heartbeat, which it sends every 10 s.
fn settled(pid: u32) -> io::Result<f64> {
    let mut least = proc::resident(pid)?;
    let mut same = 0;
    for _ in 0..160 {
        thread::sleep(Duration::from_millis(250));
        let now = proc::resident(pid)?;
        same = if now >= least { same + 1 } else { 0 };
        least = least.min(now);
        if same >= 48 {
            break;
        }
    }
    Ok(least as f64)
}
