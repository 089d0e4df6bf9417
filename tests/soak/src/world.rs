//! The edge and the agent under test: real programs on loopback, with ports that stay the same
//! across restarts.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::logged::{Program, wait_for};
use crate::shared::Entrances;
use crate::upstream::{GREETING, MAGIC, PROBE};

/// The agent's authtoken. It is valid only for the edge of this run, on loopback.
const AUTHTOKEN: &str = "soak-soak-soak-soak-soak-soak-soak-soak-soak-soak";

const START: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of the upstreams.
pub struct Targets {
    pub http: SocketAddr,
    pub tcp: SocketAddr,
    pub down: SocketAddr,
    pub node: Option<SocketAddr>,
}

pub struct World {
    dir: PathBuf,
    edge_program: PathBuf,
    agent_program: PathBuf,
    edge: Program,
    agent: Program,
    addresses: Addresses,
    pub entrances: Entrances,
}

#[derive(Clone)]
struct Addresses {
    agent: String,
    http: String,
    https: String,
}

impl World {
    pub fn start(edge: &Path, agent: &Path, targets: &Targets, dir: &Path) -> io::Result<World> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let any = "127.0.0.1:0".to_owned();
        let tcp_port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut addresses = Addresses { agent: any.clone(), http: any.clone(), https: any };
        // This number of visitors does not reach the default limit of buffered bytes.
        let config = format!(
            "domain: localhost\nlisteners: {{tcp: 127.0.0.1}}\nports: {tcp_port}\n\
             state_dir: edge\ncredentials: [{{id: soak, authtoken: {AUTHTOKEN}}}]\n\
             limits: {{session_buffer_mib: 2}}\n"
        );
        fs::write(dir.join("edge.yml"), config)?;
        let edge_process = start_edge(edge, dir, &addresses)?;
        let ready = fs::read_to_string(dir.join("ready.json"))?;
        addresses.agent = member(&ready, "agent_addr")?;
        addresses.http = member(&ready, "http_addr")?;
        addresses.https = member(&ready, "https_addr")?;
        let entrances = Entrances {
            http: addresses.http.parse().map_err(io::Error::other)?,
            tcp: (Ipv4Addr::LOCALHOST, tcp_port).into(),
        };
        let mut endpoints = format!(
            "version: 3\nagent:\n  authtoken: {AUTHTOKEN}\n  connect_url: {}\n  \
             connect_cas: edge/ca.pem\n  web_addr: false\n  inspect_db_size: 1048576\nendpoints:\n",
            addresses.agent
        );
        let mut add = |name: &str, url: &str, upstream: String| {
            endpoints += &format!(
                "  - name: {name}\n    url: {url}\n    upstream: {{url: \"{upstream}\"}}\n"
            );
        };
        add("web", "http://web.localhost", format!("http://{}", targets.http));
        add("down", "http://down.localhost", format!("http://{}", targets.down));
        add("raw", &format!("tcp://localhost:{tcp_port}"), format!("tcp://{}", targets.tcp));
        if let Some(node) = targets.node {
            add("node", "http://node.localhost", format!("http://{node}"));
        }
        fs::write(dir.join("endpoints.yml"), endpoints)?;
        let agent_process = start_agent(agent, dir)?;
        let mut world = World {
            dir: dir.to_owned(),
            edge_program: edge.to_owned(),
            agent_program: agent.to_owned(),
            edge: edge_process,
            agent: agent_process,
            addresses,
            entrances,
        };
        world.wait_for_service()?;
        Ok(world)
    }

    pub fn edge_pid(&self) -> u32 {
        self.edge.pid()
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.pid()
    }

    /// Ends the edge and starts it again: same directory, same ports.
    pub fn restart_edge(&mut self, kill: bool) -> io::Result<()> {
        if kill {
            self.edge.kill();
        } else {
            self.edge.stop();
        }
        self.edge = start_edge(&self.edge_program, &self.dir, &self.addresses)?;
        self.wait_for_service()
    }

    pub fn restart_agent(&mut self) -> io::Result<()> {
        self.agent.stop();
        self.agent = start_agent(&self.agent_program, &self.dir)?;
        self.wait_for_service()
    }

    /// Waits until every endpoint serves.
    fn wait_for_service(&mut self) -> io::Result<()> {
        let entrances = self.entrances;
        let served = wait_for("the tunnel serves", START, || {
            if !self.edge.alive() || !self.agent.alive() {
                return Some(Err(io::Error::other("a program ended")));
            }
            let all = [("web", "200"), ("down", "502")];
            let http = all
                .iter()
                .all(|(name, status)| probe_http(&entrances, name).is_ok_and(|s| s == *status));
            (http && probe_tcp(&entrances).is_ok()).then_some(Ok(()))
        });
        served.and_then(|ok| ok).map_err(|e| io::Error::other(format!("{e}\n{}", self.tails())))
    }

    /// The last lines of both programs.
    pub fn tails(&self) -> String {
        format!("{}{}", self.edge.tail(), self.agent.tail())
    }

    /// Lines of a panic or an abort in the logs.
    pub fn panics(&self) -> Vec<String> {
        let logs = format!("{}{}", self.edge.said(), self.agent.said());
        logs.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect()
    }
}

/// Returns the command of a program under test. The C library of most machines keeps the stacks
/// of ended threads, up to 40 MB, which is not memory of the program.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("GLIBC_TUNABLES", "glibc.pthread.stack_cache_size=0");
    command
}

fn start_edge(program: &Path, dir: &Path, addresses: &Addresses) -> io::Result<Program> {
    let ready = dir.join("ready.json");
    let _ = fs::remove_file(&ready);
    let mut command = command(program);
    command.args(["serve", "--config", "edge.yml", "--ready-file"]).arg(&ready);
    command.args(["--agent-addr", &addresses.agent, "--http-addr", &addresses.http]);
    command.args(["--https-addr", &addresses.https]);
    command.current_dir(dir);
    let mut edge = Program::start("edge", &mut command, dir)?;
    let started = wait_for("the edge is ready", START, || {
        if !edge.alive() {
            return Some(Err(io::Error::other("the edge ended")));
        }
        fs::metadata(&ready).is_ok_and(|file| file.len() > 0).then_some(Ok(()))
    });
    started.and_then(|ok| ok).map_err(|e| io::Error::other(format!("{e}\n{}", edge.tail())))?;
    Ok(edge)
}

fn start_agent(program: &Path, dir: &Path) -> io::Result<Program> {
    let mut command = command(program);
    command.args(["start", "--all", "--log", "stderr", "--config", "endpoints.yml"]);
    command.current_dir(dir);
    Program::start("agent", &mut command, dir)
}

/// Returns the text member `name` of the ready file, which has no escapes.
fn member(json: &str, name: &str) -> io::Result<String> {
    let value =
        json.split_once(&format!("\"{name}\":\"")).and_then(|(_, rest)| rest.split('"').next());
    value.map(str::to_owned).ok_or_else(|| io::Error::other(format!("{name} is missing in {json}")))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    Ok(stream)
}

/// The status that an endpoint answers.
fn probe_http(entrances: &Entrances, name: &str) -> io::Result<String> {
    let mut stream = connect(entrances.http)?;
    let host = entrances.host(name);
    write!(stream, "GET /probe HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    Ok(text.split(' ').nth(1).unwrap_or("").to_owned())
}

fn probe_tcp(entrances: &Entrances) -> io::Result<()> {
    let mut stream = connect(entrances.tcp)?;
    stream.write_all(MAGIC)?;
    stream.write_all(&PROBE.to_be_bytes())?;
    let mut answer = [0; GREETING.len() + 2];
    stream.read_exact(&mut answer)
}
