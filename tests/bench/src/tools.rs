//! Tunnels to measure: starting them on loopback, their addresses and their processes.

use crate::load::Entrance;
use crate::logged::{Program, wait_for};
use crate::programs::{find, require};
use crate::ssh::{self, Client};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Bytes of the ring of captured requests.
pub const RING: i64 = 1 << 20;

/// Credential of `Kind::BasicAuth`, and its header line.
const CREDENTIAL: (&str, &str) =
    ("bench:correct horse", "Authorization: Basic YmVuY2g6Y29ycmVjdCBob3JzZQ==\r\n");

/// Traffic policy of `Kind::Policy`.
const POLICY: &str = include_str!("../policy.yml");

const START: Duration = Duration::from_secs(60);

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// No tunnel: the maximum of the load generator and the upstream.
    Direct,
    Ssh,
    Dbclient,
    CulvertTcp,
    /// Without capture of requests, independent of the machine's memory.
    CulvertHttp,
    /// With capture of requests.
    Inspected,
    /// Without capture, with a user and a password that the edge checks in each request. Its
    /// instructions are counted, nothing else.
    BasicAuth,
    /// Without capture, with a traffic policy of ten rules. Its instructions are counted,
    /// nothing else.
    Policy,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::Direct,
        Kind::Ssh,
        Kind::Dbclient,
        Kind::CulvertTcp,
        Kind::CulvertHttp,
        Kind::Inspected,
    ];

    /// Returns whether it is an agent under test.
    pub fn is_ours(self) -> bool {
        !matches!(self, Kind::Direct | Kind::Ssh | Kind::Dbclient)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "no tunnel",
            Kind::Ssh => "ssh -R",
            Kind::Dbclient => "dbclient -R",
            Kind::CulvertTcp => "culvert tcp",
            Kind::CulvertHttp => "culvert http",
            Kind::Inspected => "inspected",
            Kind::BasicAuth => "basic auth",
            Kind::Policy => "policy",
        }
    }
}

/// Programs under test.
#[derive(Clone)]
pub struct Programs {
    pub agent: PathBuf,
    pub edge: PathBuf,
    /// Arguments added to each start of the agent.
    pub agent_args: Vec<String>,
    /// Which of the two runs under callgrind, if any.
    pub counted: Option<Counted>,
}

/// The program whose instructions are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counted {
    Agent,
    Edge,
}

/// The file that callgrind writes at the end of the program, in the tunnel's directory.
const COUNTS: &str = "callgrind.out";

impl Programs {
    /// The file of a program.
    pub fn path(&self, which: Counted) -> &Path {
        match which {
            Counted::Agent => &self.agent,
            Counted::Edge => &self.edge,
        }
    }

    /// The command that starts `program`, under callgrind if its instructions are counted.
    fn command(&self, which: Counted, dir: &Path) -> Command {
        let program = self.path(which);
        if self.counted != Some(which) {
            return Command::new(program);
        }
        let mut file = OsString::from("--callgrind-out-file=");
        file.push(dir.join(COUNTS));
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--fair-sched=yes"]).arg(file).arg(program);
        command
    }

    /// Returns why a kind cannot be measured on this machine, if so.
    pub fn missing(&self, kind: Kind) -> Option<String> {
        let needs: &[&str] = match kind {
            Kind::Direct => &[],
            Kind::Ssh => Client::OpenSsh.needs(),
            Kind::Dbclient => Client::Dropbear.needs(),
            _ => {
                return [&self.agent, &self.edge]
                    .into_iter()
                    .find(|path| !path.is_file())
                    .map(|path| format!("{} does not exist", path.display()));
            }
        };
        needs.iter().find(|p| find(p).is_none()).map(|p| format!("{p} is not installed"))
    }
}

/// A running tunnel. Dropping it ends the client first, then the server.
pub struct Tunnel {
    pub entrance: Entrance,
    client: Option<Program>,
    server: Option<Program>,
    dir: PathBuf,
}

impl Tunnel {
    pub fn client_pid(&self) -> Option<u32> {
        self.client.as_ref().map(Program::pid)
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Program::pid)
    }

    /// Returns the output of both processes, for an error.
    pub fn logs(&self) -> String {
        ["server.log", "client.log"]
            .into_iter()
            .map(|name| {
                let text = fs::read_to_string(self.dir.join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
                format!("  {name}:\n  {tail}\n")
            })
            .collect()
    }

    fn end(&mut self) {
        self.end_client();
        if let Some(mut server) = self.server.take() {
            server.stop();
        }
    }

    /// Ends the client as a user would: its last lines count.
    fn end_client(&mut self) {
        if let Some(mut client) = self.client.take() {
            client.stop();
        }
    }

    /// Ends both programs and returns how many instructions the counted one ran. Copies the
    /// file of callgrind to `profile`.
    pub fn instructions(mut self, profile: Option<&Path>) -> io::Result<u64> {
        self.end();
        if let Some(profile) = profile {
            fs::copy(self.dir.join(COUNTS), profile)?;
        }
        let text = fs::read_to_string(self.dir.join(COUNTS))?;
        text.lines()
            .find_map(|line| line.strip_prefix("summary: ")?.trim().parse().ok())
            .ok_or_else(|| io::Error::other("callgrind wrote no sum"))
    }

    /// Ends the client and returns what it wrote.
    pub fn finish(mut self) -> String {
        self.end_client();
        fs::read_to_string(self.dir.join("client.log")).unwrap_or_default()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Starts a tunnel of `kind` to `upstream` with its files in `dir`.
pub fn start(
    kind: Kind,
    programs: &Programs,
    upstream: SocketAddr,
    dir: &Path,
) -> io::Result<Tunnel> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    let mut tunnel = Tunnel {
        entrance: Entrance::new(upstream, upstream.to_string()),
        client: None,
        server: None,
        dir: dir.to_path_buf(),
    };
    let result = match kind {
        Kind::Direct => Ok(()),
        Kind::Ssh => openssh(&mut tunnel, upstream),
        Kind::Dbclient => dbclient(&mut tunnel, upstream),
        Kind::CulvertTcp => culvert(&mut tunnel, programs, &["tcp"], upstream, -1),
        Kind::CulvertHttp => culvert(&mut tunnel, programs, &["http"], upstream, -1),
        Kind::Inspected => culvert(&mut tunnel, programs, &["http"], upstream, RING),
        Kind::BasicAuth => {
            tunnel.entrance.fields = CREDENTIAL.1.to_owned();
            let command = ["http", "--basic-auth", CREDENTIAL.0];
            culvert(&mut tunnel, programs, &command, upstream, -1)
        }
        Kind::Policy => {
            let file = dir.join("policy.yml");
            fs::write(&file, POLICY)?;
            let file = file.display().to_string();
            let command = ["http", "--traffic-policy-file", &file];
            culvert(&mut tunnel, programs, &command, upstream, -1)
        }
    };
    match result {
        Ok(()) => Ok(tunnel),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}\n{}", kind.name(), tunnel.logs()))),
    }
}

/// Returns a loopback port that was free a moment ago.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Starts an OpenSSH server with its own keys and configuration. Returns its port.
fn sshd(tunnel: &mut Tunnel, client: Client) -> io::Result<u16> {
    let port = free_port()?;
    ssh::prepare(client, &tunnel.dir, "127.0.0.1", port, "")?;
    // sshd executes itself for each connection and needs an absolute path.
    let mut command = Command::new(require("sshd")?);
    command.args(["-D", "-e", "-f"]).arg(tunnel.dir.join("sshd_config"));
    tunnel.server = Some(Program::start("server", &mut command, &tunnel.dir)?);
    wait_for("sshd listens", START, || {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    })?;
    Ok(port)
}

fn user() -> io::Result<String> {
    let output = Command::new(require("id")?).arg("-un").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Waits until a small request gets through the tunnel.
fn wait_for_service(tunnel: &mut Tunnel) -> io::Result<()> {
    let entrance = tunnel.entrance.clone();
    let client = &mut tunnel.client;
    wait_for("the tunnel serves", START, || {
        if !client.as_mut().is_some_and(Program::alive) {
            return Some(Err(io::Error::other("the client ended")));
        }
        crate::load::once(&entrance).ok().map(Ok)
    })?
}

fn openssh(tunnel: &mut Tunnel, upstream: SocketAddr) -> io::Result<()> {
    let port = sshd(tunnel, Client::OpenSsh)?;
    let mut command = Command::new(require("ssh")?);
    ssh::openssh_options(&mut command, &tunnel.dir);
    command.args(["-c", "aes128-gcm@openssh.com"]);
    forward(tunnel, command, port, upstream)
}

fn dbclient(tunnel: &mut Tunnel, upstream: SocketAddr) -> io::Result<()> {
    let port = sshd(tunnel, Client::Dropbear)?;
    let mut command = Command::new(require("dbclient")?);
    command.args(["-N", "-T", "-y", "-y", "-i"]).arg(tunnel.dir.join("user_key"));
    forward(tunnel, command, port, upstream)
}

/// Starts a client of the server at `port` with `-R` for a port that is free.
fn forward(
    tunnel: &mut Tunnel,
    mut command: Command,
    port: u16,
    upstream: SocketAddr,
) -> io::Result<()> {
    let entrance = free_port()?;
    tunnel.entrance.addr = SocketAddr::from((Ipv4Addr::LOCALHOST, entrance));
    command
        .args(["-p", &port.to_string(), "-R"])
        .arg(format!("127.0.0.1:{entrance}:{upstream}"))
        .arg(format!("{}@127.0.0.1", user()?));
    tunnel.client = Some(Program::start("client", &mut command, &tunnel.dir)?);
    wait_for_service(tunnel)
}

fn culvert(
    tunnel: &mut Tunnel,
    programs: &Programs,
    command: &[&str],
    upstream: SocketAddr,
    ring: i64,
) -> io::Result<()> {
    let dir = tunnel.dir.clone();
    let inspect = dir.join("inspect.yml");
    fs::write(&inspect, format!("version: 3\nagent:\n  inspect_db_size: {ring}\n"))?;
    let ready = dir.join("ready.json");
    let server = Program::start(
        "server",
        programs
            .command(Counted::Edge, &dir)
            .arg("dev")
            .arg("--dir")
            .arg(&dir)
            .arg("--ready-file")
            .arg(&ready)
            .args(["--agent-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
            .args(["--https-addr", "127.0.0.1:0", "--tcp-ports", "0"]),
        &dir,
    )?;
    tunnel.server = Some(server);
    wait_for("the edge is ready", START, || {
        fs::metadata(&ready).is_ok_and(|file| file.len() > 0).then_some(())
    })?;
    let client = Program::start(
        "client",
        programs
            .command(Counted::Agent, &dir)
            .args(command)
            .arg(upstream.to_string())
            .arg("--config")
            .arg(dir.join("agent.yml"))
            .arg("--config")
            .arg(&inspect)
            .args(&programs.agent_args),
        &dir,
    )?;
    tunnel.client = Some(client);
    let log = dir.join("client.log");
    let url = wait_for("the agent prints its URL", START, || {
        let text = fs::read_to_string(&log).ok()?;
        let line = text.lines().find(|line| line.contains(" -> "))?;
        Some(line.split(" -> ").next().unwrap_or_default().to_string())
    })?;
    let authority = url.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
    let port = authority
        .rsplit(':')
        .next()
        .and_then(|port| port.parse::<u16>().ok())
        .ok_or_else(|| io::Error::other(format!("no port in the agent's URL {url}")))?;
    tunnel.entrance.addr = (Ipv4Addr::LOCALHOST, port).into();
    tunnel.entrance.host = authority.to_string();
    wait_for_service(tunnel)
}
