//! How much longer a Bind takes at an edge with many credentials and agents than at one with
//! ten. Binds at the two edges alternate, and their medians are compared.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::api_load::ApiClient;
use crate::edge::{AgentOptions, Edge};
use crate::load::percentile;
use crate::logged::Program;
use crate::tools::{Programs, free_port};
use crate::upstream;

/// Credentials and agents of the small edge.
const FEW: usize = 10;

/// Binds at each edge.
const BINDS: usize = 200;

/// Most that a Bind at the large edge may take, as a multiple.
const RATIO: f64 = 1.2;

const START: Duration = Duration::from_secs(600);

/// Prints the times with `count` credentials and agents. Returns the figure if it is beyond its
/// limit.
pub fn run(programs: &Programs, count: usize, dir: &Path) -> io::Result<Option<String>> {
    let to = upstream::start()?;
    let mut few = Populated::start(programs, FEW, &dir.join("few"), to)?;
    let mut many = Populated::start(programs, count, &dir.join("many"), to)?;
    let (mut with_few, mut with_many) = (Vec::new(), Vec::new());
    for n in 0..BINDS + 10 {
        let (a, b) = (few.bind(to)?, many.bind(to)?);
        // The first ones run code that runs once.
        if n >= 10 {
            with_few.push(a);
            with_many.push(b);
        }
    }
    let [few, many] = [with_few, with_many].map(|mut micros| percentile(&mut micros, 50));
    let ratio = f64::from(many) / f64::from(few.max(1));
    let verdict = if ratio <= RATIO { "ok" } else { "MISS" };
    println!(
        "a Bind with {count} credentials and agents: {many} us, with {FEW}: {few} us; ratio \
         {ratio:.2}, at most {RATIO} {verdict}"
    );
    Ok((ratio > RATIO).then(|| "time of a Bind with many agents".to_owned()))
}

/// An edge with as many agents as credentials. The first agent binds further endpoints.
struct Populated {
    _agents: Vec<Program>,
    _edge: Edge,
    api: ApiClient,
}

impl Populated {
    fn start(programs: &Programs, count: usize, dir: &Path, to: SocketAddr) -> io::Result<Self> {
        let limits = format!("unauthenticated: {count}, agents: {}", count + 8);
        let edge = Edge::with_credentials(programs, dir, count, &limits)?;
        let web = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut agents = Vec::new();
        for n in 0..count {
            let host = format!("n{n}.bench.test");
            let options = AgentOptions { credential: n, web: (n == 0).then_some(web) };
            agents.push(edge.agent_with(programs, &format!("agent-{n}"), &host, to, options)?);
        }
        for agent in &mut agents {
            agent.says("started tunnel", 0, START)?;
        }
        let api = ApiClient::connect(web, "none")?;
        Ok(Populated { _agents: agents, _edge: edge, api })
    }

    /// Binds an endpoint and removes it. Returns the time of the Bind in microseconds.
    fn bind(&mut self, to: SocketAddr) -> io::Result<u32> {
        let body = format!(
            "{{\"name\": \"more\", \"proto\": \"http\", \"addr\": \"{to}\", \"hostname\": \
             \"more.bench.test\", \"schemes\": [\"http\"]}}"
        );
        let started = Instant::now();
        self.api.call("POST", "/api/tunnels", &body)?;
        let took = u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.api.call("DELETE", "/api/tunnels/more", "")?;
        Ok(took)
    }
}
