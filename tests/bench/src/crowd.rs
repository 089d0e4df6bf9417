//! `--crowd`: what an edge costs for each idle visitor and for each agent, and how long a
//! newcomer waits while one address holds every place. No figure here is a ratio. With
//! `--check` each has a limit.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::edge::Edge;
use crate::load::{self, Entrance};
use crate::logged::wait;
use crate::tools::Programs;
use crate::upstream;

const VISITORS: usize = 10_000;
const BUSY_VISITORS: usize = 200;
const START: Duration = Duration::from_secs(60);
const CROWD_START: Duration = Duration::from_secs(600);
const HOST: &str = "crowd.bench.test";

/// Limits of the edge's memory for each idle visitor and each agent, in KiB.
const VISITOR_KIB: f64 = 8.0;
const AGENT_KIB: f64 = 64.0;

/// Threads that idle visitors may add.
const VISITOR_THREADS: u64 = 2;

/// Longest wait of a newcomer for its response.
const NEWCOMER_WAIT: Duration = Duration::from_secs(1);

/// Measures and prints. `agents` is the number of agents. Returns the figures above their limit.
pub fn run(programs: &Programs, agents: usize, dir: &Path) -> io::Result<Vec<String>> {
    fs::create_dir_all(dir)?;
    let mut figures = Figures::default();
    let result = visitors(programs, &dir.join("visitors"), &mut figures)
        .and_then(|()| busy_visitors(programs, &dir.join("busy"), &mut figures))
        .and_then(|()| many_agents(programs, agents, &dir.join("agents"), &mut figures));
    let _ = fs::remove_dir_all(dir);
    result.map(|()| figures.missed)
}

/// What was measured.
#[derive(Default)]
struct Figures {
    missed: Vec<String>,
}

impl Figures {
    fn print(&mut self, text: String, good: bool) {
        println!("{text}");
        if !good {
            self.missed.push(text);
        }
    }
}

/// Idle visitors, then newcomers at an edge whose places are all taken.
fn visitors(programs: &Programs, dir: &Path, figures: &mut Figures) -> io::Result<()> {
    let edge = Edge::start(programs, dir, &format!("visitors: {VISITORS}, idle_seconds: 3600"))?;
    let to = upstream::start()?;
    let mut agent = edge.agent(programs, "agent", HOST, to)?;
    agent.says("started tunnel", 0, START)?;
    let port = edge.http_port()?;
    let entrance = Entrance::new((Ipv4Addr::LOCALHOST, port).into(), HOST);
    load::once(&entrance)?;
    let before = (edge.memory()?, edge.threads());
    let mut kept = load::idle(&entrance, VISITORS)?;
    let most = before.1 + VISITOR_THREADS;
    wait("the threads of idle visitors to end", START, || edge.threads() <= most)?;
    let memory = edge.memory()?.saturating_sub(before.0) as f64 / VISITORS as f64 / 1024.0;
    figures.print(
        format!("{VISITORS} idle visitors: {memory:.1} KiB each, {} threads", edge.threads()),
        memory <= VISITOR_KIB,
    );
    for (name, address) in [
        ("the same address", SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        ("another address", SocketAddr::from((Ipv6Addr::LOCALHOST, port))),
    ] {
        let wait = visit(address)?;
        let text = format!("newcomer of {name}, all places idle: {wait:?}");
        figures.print(text, wait <= NEWCOMER_WAIT);
    }
    // Those that are still connected are served.
    let served = kept.iter_mut().skip(2).step_by(97).filter_map(|wire| request(wire).ok()).count();
    let asked = (VISITORS - 2).div_ceil(97);
    let text = format!("idle visitors that are served again: {served} of {asked}");
    figures.print(text, served == asked);
    Ok(())
}

/// A newcomer while one address holds every place with requests under way.
fn busy_visitors(programs: &Programs, dir: &Path, figures: &mut Figures) -> io::Result<()> {
    let edge = Edge::start(programs, dir, &format!("visitors: {BUSY_VISITORS}"))?;
    let mut agent = edge.agent(programs, "agent", HOST, upstream::start()?)?;
    agent.says("started tunnel", 0, START)?;
    let port = edge.http_port()?;
    let mut uploads = Vec::new();
    for _ in 0..BUSY_VISITORS {
        let mut wire = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        write!(wire, "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 9\r\n\r\nx")?;
        uploads.push(wire);
    }
    wait("the uploads to arrive", START, || edge.threads() >= BUSY_VISITORS as u64)?;
    let wait = visit((Ipv6Addr::LOCALHOST, port).into())?;
    let text = format!("newcomer of another address, all places busy: {wait:?}");
    figures.print(text, wait <= NEWCOMER_WAIT);
    drop(uploads);
    Ok(())
}

fn many_agents(
    programs: &Programs,
    count: usize,
    dir: &Path,
    figures: &mut Figures,
) -> io::Result<()> {
    let limits = format!("unauthenticated: {count}, agents: {}", count + 8);
    let edge = Edge::start(programs, dir, &limits)?;
    let to = upstream::start()?;
    let mut first = edge.agent(programs, "agent", HOST, to)?;
    first.says("started tunnel", 0, START)?;
    let before = (edge.memory()?, edge.threads());
    let mut agents = Vec::new();
    for n in 0..count {
        agents.push(edge.agent(
            programs,
            &format!("agent-{n}"),
            &format!("n{n}.bench.test"),
            to,
        )?);
    }
    for agent in &mut agents {
        agent.says("started tunnel", 0, CROWD_START)?;
    }
    wait("the threads of the handshakes to end", START, || {
        edge.threads() <= before.1 + count as u64 + 2
    })?;
    let memory = edge.memory()?.saturating_sub(before.0) as f64 / count as f64 / 1024.0;
    figures.print(format!("{count} agents: {memory:.1} KiB each"), memory <= AGENT_KIB);
    Ok(())
}

/// Returns how long a new visitor waits for its response.
fn visit(address: SocketAddr) -> io::Result<Duration> {
    let start = Instant::now();
    request(&mut TcpStream::connect(address)?)?;
    Ok(start.elapsed())
}

fn request(wire: &mut TcpStream) -> io::Result<()> {
    wire.set_read_timeout(Some(START))?;
    write!(wire, "GET /small HTTP/1.1\r\nHost: {HOST}\r\n\r\n")?;
    let mut response = Vec::new();
    let mut buffer = [0; 1024];
    while !response.ends_with(&[b'x'; 100]) {
        match wire.read(&mut buffer)? {
            0 => return Err(io::Error::other(String::from_utf8_lossy(&response).into_owned())),
            n => response.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(())
}
