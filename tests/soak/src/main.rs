//! `make soak`: "bytes arrive complete, or the connection is reset", under a mixed load with
//! faults and restarts. Both ends classify each outcome. A forbidden outcome, or a program
//! whose resource use has grown, fails the run.

mod bytes;
mod flat;
mod keepalive;
mod ledger;
#[path = "../../support/logged.rs"]
mod logged;
mod plan;
#[path = "../../support/proc.rs"]
mod proc;
#[path = "../../support/programs.rs"]
mod programs;
mod shared;
mod upstream;
mod visitor;
mod websocket;
#[path = "../../support/websocket_frame.rs"]
mod websocket_frame;
mod wire;
mod world;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use flat::Usage;
use plan::Kind;
use shared::{Restart, Shared};
use upstream::Upstreams;
use world::{Targets, World};

const USAGE: &str = "\
usage: culvert-soak --edge FILE --agent FILE [options]
  --requests N       requests and connections of visitors, default 1000000
  --minutes N        longest time, default 15
  --restarts N       restarts of the edge, default 5; the agent restarts once if N > 0
  --seed N           default: from the clock. The plans of a seed are always the same
  --visit KIND:N     only this visit, of: http, down, slow-http, websocket, tcp, slow-tcp
  --only KIND,...    only these kinds
  --node FILE        node, for the keep-alive client
  --node-script FILE its script
  --node-requests N  its requests each way, default 10000
";

/// Lanes of each kind, in the order of [`Kind::ALL`]. There are enough slow ones for paused
/// readers to reach the limit of a session.
const LANES: [usize; 6] = [24, 3, 48, 3, 6, 8];

struct Options {
    edge: PathBuf,
    agent: PathBuf,
    requests: u64,
    minutes: u64,
    restarts: usize,
    seed: u64,
    visit: Option<(Kind, u64)>,
    only: Vec<Kind>,
    node: Option<(PathBuf, PathBuf)>,
    node_requests: u64,
}

fn kind(name: &str) -> Result<Kind, String> {
    let names = ["http", "down", "slow-http", "websocket", "tcp", "slow-tcp"];
    let at = names.iter().position(|n| *n == name);
    at.map(|at| Kind::ALL[at]).ok_or_else(|| format!("not a kind of visits: {name}"))
}

fn options() -> Result<Options, String> {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut options = Options {
        edge: PathBuf::new(),
        agent: PathBuf::new(),
        requests: 1_000_000,
        minutes: 15,
        restarts: 5,
        seed: clock.as_millis() as u64 % 1_000_000_000,
        visit: None,
        only: Kind::ALL.to_vec(),
        node: None,
        node_requests: 10_000,
    };
    let mut script = PathBuf::from("tests/soak/keepalive.mjs");
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{flag} {value}: {e}"));
        match flag.as_str() {
            "--edge" => options.edge = value.into(),
            "--agent" => options.agent = value.into(),
            "--requests" => options.requests = number()?,
            "--minutes" => options.minutes = number()?.max(1),
            "--restarts" => options.restarts = number()? as usize,
            "--seed" => options.seed = number()?,
            "--node" => options.node = Some((value.into(), PathBuf::new())),
            "--node-script" => script = value.into(),
            "--node-requests" => options.node_requests = number()?,
            "--only" => options.only = value.split(',').map(kind).collect::<Result<_, _>>()?,
            "--visit" => {
                let (name, number) = value.split_once(':').ok_or("--visit needs KIND:N")?;
                let number = number.parse().map_err(|e| format!("--visit {value}: {e}"))?;
                options.visit = Some((kind(name)?, number));
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    if let Some(node) = &mut options.node {
        node.1 = script;
    }
    for (flag, file) in [("--edge", &mut options.edge), ("--agent", &mut options.agent)] {
        *file = file.canonicalize().map_err(|e| format!("{flag} {}: {e}", file.display()))?;
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
    println!("seed {}", options.seed);
    let dir = std::env::temp_dir().join(format!("culvert-soak-{}", std::process::id()));
    match run(&options, &dir) {
        Ok(true) => {
            let _ = std::fs::remove_dir_all(&dir);
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("FAILED; the logs are in {}", dir.display());
            ExitCode::from(1)
        }
        Err(e) => {
            eprintln!("culvert-soak: {e}; the logs are in {}", dir.display());
            ExitCode::from(1)
        }
    }
}

fn run(options: &Options, dir: &std::path::Path) -> io::Result<bool> {
    let node = options.node.as_ref().map(|(node, script)| keepalive::Node::start(node, script));
    let node = node.transpose()?;
    let upstreams = Upstreams::bind()?;
    let targets = Targets {
        http: upstreams.http()?,
        tcp: upstreams.tcp()?,
        down: upstreams.down,
        node: node.as_ref().map(|node| node.upstream),
    };
    // The upstreams answer the probes of the start and need the entrances later.
    let shared = Arc::new(Shared {
        seed: options.seed,
        ledger: Default::default(),
        restarts: Default::default(),
        gate: Default::default(),
        upstream_connections: AtomicU64::new(0),
    });
    upstreams.start(&shared);
    let mut world = World::start(&options.edge, &options.agent, &targets, dir)?;
    let mut right = true;
    if let Some(node) = node
        && !node.compare(&world.entrances, options.node_requests, options.seed)?
    {
        println!("MISSED: the keep-alive client of Node fails more often through the tunnel");
        right = false;
    }
    if let Some((kind, number)) = options.visit {
        visitor::visit(&shared, &world.entrances, kind, number);
        // The upstreams must see the end of the visit and not that of the programs.
        drop(drain(&shared)?);
    } else {
        right &= soak(options, &shared, &mut world)?;
    }
    println!("{}\n{}", shared.ledger.table(), shared.ledger.sorts());
    let failures = shared.ledger.failures();
    println!(
        "{} requests and connections, {} MiB in bodies, {failures} failures, seed {}",
        shared.ledger.requests(),
        shared.ledger.bytes.load(Ordering::Relaxed) >> 20,
        options.seed
    );
    for line in world.panics() {
        println!("MISSED: {line}");
        right = false;
    }
    Ok(right && failures == 0 && shared.ledger.is_clean())
}

/// Visitors of all kinds, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    lanes: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn start(options: &Options, shared: &Arc<Shared>, world: &World) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut lanes = Vec::new();
        for (kind, count) in Kind::ALL.into_iter().zip(LANES) {
            if !options.only.contains(&kind) {
                continue;
            }
            let numbers = Arc::new(AtomicU64::new(0));
            for _ in 0..count {
                let (shared, stop) = (Arc::clone(shared), Arc::clone(&stop));
                let numbers = Arc::clone(&numbers);
                let entrances = world.entrances;
                let lane = move || {
                    while !stop.load(Ordering::SeqCst) {
                        let _open = shared.gate.read().expect("gate");
                        let number = numbers.fetch_add(1, Ordering::SeqCst);
                        if !visitor::visit(&shared, &entrances, kind, number) {
                            // A visitor that finds the tunnel down tries again a little later.
                            thread::sleep(Duration::from_millis(200));
                        }
                    }
                };
                lanes.push(thread::spawn(lane));
            }
        }
        Load { stop, lanes }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for lane in self.lanes.drain(..) {
            let _ = lane.join();
        }
    }
}

/// Requests before the first drained point whose memory is compared. Before that, buffers and
/// the store of captured requests still grow to their size.
const WARM_REQUESTS: u64 = 20_000;

/// One life of a program, from its start to its restart.
struct Life {
    name: &'static str,
    /// Requests before it.
    began: u64,
    first: Option<Usage>,
    /// Whether memory is compared with that of the first drained point.
    warm: bool,
}

impl Life {
    fn new(name: &'static str, began: u64) -> Life {
        Life { name, began, first: None, warm: false }
    }

    /// Records the usage at a drained point. Returns whether it is the same as at the first
    /// one.
    fn drained(&mut self, pid: u32, usage: Usage, requests: u64) -> io::Result<bool> {
        let Some(first) = self.first else {
            self.warm = requests - self.began >= WARM_REQUESTS;
            let memory = if self.warm { "" } else { " (too few requests to compare memory)" };
            println!("{} first drained: {}{memory}", self.name, describe(&usage));
            self.first = Some(usage);
            return Ok(true);
        };
        let usage = match usage.fits(&first, self.warm) {
            true => usage,
            false => flat::wait_to_fit(pid, &first, self.warm)?,
        };
        let fits = usage.fits(&first, self.warm);
        let verdict = if fits { "" } else { "MISSED: " };
        println!("{verdict}{} drained: {}", self.name, describe(&usage));
        Ok(fits)
    }
}

fn describe(usage: &Usage) -> String {
    let Usage { resident, anonymous, threads, descriptors } = usage;
    let (resident, anonymous) = (resident / 1024, anonymous / 1024);
    format!("{anonymous} KiB ({resident} resident), {threads} threads, {descriptors} descriptors")
}

/// Returns the restarts of a run: of the edge by both signals in turn, of the agent once in the
/// middle.
fn restarts(edge: usize) -> Vec<Restart> {
    let mut list: Vec<Restart> = (0..edge)
        .map(|n| if n % 2 == 0 { Restart::EdgeKilled } else { Restart::EdgeEnded })
        .collect();
    if edge > 0 {
        list.insert(edge.div_ceil(2), Restart::AgentEnded);
    }
    list
}

fn soak(options: &Options, shared: &Arc<Shared>, world: &mut World) -> io::Result<bool> {
    let started = Instant::now();
    let mut restarts = restarts(options.restarts).into_iter().peekable();
    // Each life has load before its first drained point, before its second, and before the
    // restart that ends it.
    let parts = 3 * (restarts.len() as u32 + 1);
    let mut schedule = Schedule {
        requests: options.requests,
        end: started + Duration::from_secs(60 * options.minutes),
        parts,
        part: 0,
    };
    let mut edge = Life::new("edge", 0);
    let mut agent = Life::new("agent", 0);
    let mut right = true;
    let load = Load::start(options, shared, world);
    loop {
        for _ in 0..2 {
            schedule.pass(shared);
            let gate = drain(shared)?;
            let pids = [world.edge_pid(), world.agent_pid()];
            let usages = flat::settled(pids)?;
            right &= edge.drained(pids[0], usages[0], shared.ledger.requests())?;
            right &= agent.drained(pids[1], usages[1], shared.ledger.requests())?;
            drop(gate);
        }
        schedule.pass(shared);
        let Some(restart) = restarts.next() else { break };
        println!("{restart:?} after {} requests", shared.ledger.requests());
        shared.restarts.begin(restart);
        match restart {
            Restart::EdgeKilled | Restart::EdgeEnded => {
                world.restart_edge(restart == Restart::EdgeKilled)?;
                edge = Life::new("edge", shared.ledger.requests());
            }
            Restart::AgentEnded => {
                world.restart_agent()?;
                agent = Life::new("agent", shared.ledger.requests());
            }
        }
        shared.restarts.end();
    }
    drop(load);
    println!("{} s", started.elapsed().as_secs());
    Ok(right)
}

/// Time that a drained point takes.
const DRAIN: Duration = Duration::from_secs(24);

/// Parts of a run that have the same share of the requests and of the time.
struct Schedule {
    requests: u64,
    end: Instant,
    parts: u32,
    part: u32,
}

impl Schedule {
    /// Lets the load run until its share of the requests or of the time has passed.
    fn pass(&mut self, shared: &Shared) {
        let left = self.parts - self.part;
        let drains = DRAIN * (2 * left / 3);
        let time = self.end.saturating_duration_since(Instant::now()).saturating_sub(drains);
        let until = Instant::now() + time / left;
        self.part += 1;
        let requests = self.requests * u64::from(self.part) / u64::from(self.parts);
        while shared.ledger.requests() < requests && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Delays new visits and waits for the running ones to end, at the upstreams too.
fn drain(shared: &Shared) -> io::Result<std::sync::RwLockWriteGuard<'_, ()>> {
    let gate = shared.gate.write().map_err(|_| io::Error::other("a visitor panicked"))?;
    let ended = logged::wait("the upstreams' connections end", Duration::from_secs(90), || {
        shared.upstream_connections.load(Ordering::SeqCst) == 0
    });
    if ended.is_err() {
        let left = shared.upstream_connections.load(Ordering::SeqCst);
        let sort = "Hang: connections at the upstreams after all visits";
        shared.ledger.describe(sort, &left.to_string());
    }
    Ok(gate)
}
