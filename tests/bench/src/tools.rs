//! The tunnels that are measured: how each is started on loopback, where its
//! visitors go and which process is the client.

use crate::load::Entrance;
use crate::process::{Process, wait_for};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes of the ring of captured requests, where there is one.
pub const RING: i64 = 1 << 20;

const START: Duration = Duration::from_secs(60);

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// No tunnel: what the load generator and the upstream can do at most.
    Direct,
    Ssh,
    Dbclient,
    CulvertTcp,
    /// Without capture of requests, whatever the machine has room for.
    CulvertHttp,
    /// The same with it.
    Inspected,
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

    /// One of the agent under test.
    pub fn is_ours(self) -> bool {
        matches!(self, Kind::CulvertTcp | Kind::CulvertHttp | Kind::Inspected)
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Direct => "no tunnel",
            Kind::Ssh => "ssh -R",
            Kind::Dbclient => "dbclient -R",
            Kind::CulvertTcp => "culvert tcp",
            Kind::CulvertHttp => "culvert http",
            Kind::Inspected => "inspected",
        }
    }
}

/// Programs under test.
pub struct Programs {
    pub agent: PathBuf,
    pub edge: PathBuf,
    /// Arguments added to each start of the agent.
    pub agent_args: Vec<String>,
    /// Which of the two runs under callgrind, if one does.
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
    /// The command that starts `program`, under callgrind if its instructions are counted.
    fn command(&self, which: Counted, dir: &Path) -> Command {
        let program = match which {
            Counted::Agent => &self.agent,
            Counted::Edge => &self.edge,
        };
        if self.counted != Some(which) {
            return Command::new(program);
        }
        let mut file = OsString::from("--callgrind-out-file=");
        file.push(dir.join(COUNTS));
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--fair-sched=yes"]).arg(file).arg(program);
        command
    }

    /// Why a kind cannot be measured on this machine, if so.
    pub fn missing(&self, kind: Kind) -> Option<String> {
        let needs: &[&str] = match kind {
            Kind::Direct => &[],
            Kind::Ssh => &["ssh", "sshd", "ssh-keygen"],
            Kind::Dbclient => &["dbclient", "dropbearkey", "sshd", "ssh-keygen"],
            Kind::CulvertTcp | Kind::CulvertHttp | Kind::Inspected => {
                return [&self.agent, &self.edge]
                    .into_iter()
                    .find(|path| !path.is_file())
                    .map(|path| format!("{} does not exist", path.display()));
            }
        };
        needs.iter().find(|p| find(p).is_none()).map(|p| format!("{p} is not installed"))
    }
}

/// A program on PATH or where administrators' programs lie.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|candidate| candidate.is_file())
}

fn program(name: &str) -> io::Result<PathBuf> {
    find(name).ok_or_else(|| io::Error::other(format!("{name} is not installed")))
}

/// A running tunnel. Dropping it ends the client first, then the server.
pub struct Tunnel {
    pub entrance: Entrance,
    client: Option<Process>,
    server: Option<Process>,
    dir: PathBuf,
}

impl Tunnel {
    pub fn client_pid(&self) -> Option<u32> {
        self.client.as_ref().map(Process::pid)
    }

    pub fn server_pid(&self) -> Option<u32> {
        self.server.as_ref().map(Process::pid)
    }

    /// What both processes wrote, for an error.
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

    /// Ends both programs and returns how many instructions the counted one ran.
    pub fn instructions(mut self) -> io::Result<u64> {
        self.client = None;
        self.server = None;
        let text = fs::read_to_string(self.dir.join(COUNTS))?;
        text.lines()
            .find_map(|line| line.strip_prefix("summary: ")?.trim().parse().ok())
            .ok_or_else(|| io::Error::other("callgrind wrote no sum"))
    }

    /// Ends the client and returns what it wrote.
    pub fn finish(mut self) -> String {
        self.client = None;
        fs::read_to_string(self.dir.join("client.log")).unwrap_or_default()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.client = None;
        self.server = None;
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
        entrance: Entrance { addr: upstream, host: upstream.to_string() },
        client: None,
        server: None,
        dir: dir.to_path_buf(),
    };
    let result = match kind {
        Kind::Direct => Ok(()),
        Kind::Ssh => ssh(&mut tunnel, upstream),
        Kind::Dbclient => dbclient(&mut tunnel, upstream),
        Kind::CulvertTcp => culvert(&mut tunnel, programs, "tcp", upstream, -1),
        Kind::CulvertHttp => culvert(&mut tunnel, programs, "http", upstream, -1),
        Kind::Inspected => culvert(&mut tunnel, programs, "http", upstream, RING),
    };
    match result {
        Ok(()) => Ok(tunnel),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}\n{}", kind.name(), tunnel.logs()))),
    }
}

/// A loopback port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn run_quietly(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{:?} failed: {}",
        command.get_program(),
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// An OpenSSH server with keys and configuration of its own; returns its port.
fn sshd(tunnel: &mut Tunnel, user_key: &str) -> io::Result<u16> {
    let dir = tunnel.dir.clone();
    let port = free_port()?;
    run_quietly(
        Command::new(program("ssh-keygen")?)
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join("host_key")),
    )?;
    fs::write(dir.join("authorized_keys"), user_key)?;
    let at = dir.display();
    fs::write(
        dir.join("sshd_config"),
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {at}/host_key\n\
             AuthorizedKeysFile {at}/authorized_keys\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             AllowTcpForwarding yes\nUseDNS no\nPrintMotd no\nMaxStartups 100\n"
        ),
    )?;
    // As root, sshd separates privileges in this directory and does not make it.
    if find("id").is_some_and(|id| {
        Command::new(id).arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"))
    }) {
        fs::create_dir_all("/run/sshd")?;
    }
    // sshd starts itself anew for each connection and wants an absolute path.
    let server = Process::start(
        Command::new(program("sshd")?).args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")),
        &dir.join("server.log"),
    )?;
    tunnel.server = Some(server);
    wait_for("sshd listens", START, || {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
    })?;
    Ok(port)
}

fn user() -> io::Result<String> {
    let output = Command::new(program("id")?).arg("-un").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Waits until a small request gets through the tunnel.
fn wait_for_service(tunnel: &mut Tunnel) -> io::Result<()> {
    let entrance = tunnel.entrance.clone();
    let client = &mut tunnel.client;
    wait_for("the tunnel serves", START, || {
        if !client.as_mut().is_some_and(Process::alive) {
            return Some(Err(io::Error::other("the client ended")));
        }
        crate::load::once(&entrance).ok().map(Ok)
    })?
}

fn ssh(tunnel: &mut Tunnel, upstream: SocketAddr) -> io::Result<()> {
    let dir = tunnel.dir.clone();
    run_quietly(
        Command::new(program("ssh-keygen")?)
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join("user_key")),
    )?;
    let key = fs::read_to_string(dir.join("user_key.pub"))?;
    let port = sshd(tunnel, &key)?;
    let entrance = free_port()?;
    tunnel.entrance.addr = SocketAddr::from((Ipv4Addr::LOCALHOST, entrance));
    let client = Process::start(
        Command::new(program("ssh")?)
            .args(["-F", "none", "-N", "-T", "-i"])
            .arg(dir.join("user_key"))
            .args(["-c", "aes128-gcm@openssh.com"])
            .args(["-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"])
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "StrictHostKeyChecking=no"])
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}/known_hosts", dir.display()))
            .args(["-p", &port.to_string(), "-R"])
            .arg(format!("127.0.0.1:{entrance}:{upstream}"))
            .arg(format!("{}@127.0.0.1", user()?)),
        &dir.join("client.log"),
    )?;
    tunnel.client = Some(client);
    wait_for_service(tunnel)
}

fn dbclient(tunnel: &mut Tunnel, upstream: SocketAddr) -> io::Result<()> {
    let dir = tunnel.dir.clone();
    let keygen = program("dropbearkey")?;
    run_quietly(Command::new(&keygen).args(["-t", "ed25519", "-f"]).arg(dir.join("user_key")))?;
    let shown = Command::new(&keygen).arg("-y").arg("-f").arg(dir.join("user_key")).output()?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let key = shown
        .lines()
        .find(|line| line.starts_with("ssh-"))
        .ok_or_else(|| io::Error::other("dropbearkey shows no public key"))?;
    let port = sshd(tunnel, &format!("{key}\n"))?;
    let entrance = free_port()?;
    tunnel.entrance.addr = SocketAddr::from((Ipv4Addr::LOCALHOST, entrance));
    let client = Process::start(
        Command::new(program("dbclient")?)
            .env("HOME", &dir)
            .args(["-N", "-T", "-y", "-y", "-i"])
            .arg(dir.join("user_key"))
            .args(["-p", &port.to_string(), "-R"])
            .arg(format!("127.0.0.1:{entrance}:{upstream}"))
            .arg(format!("{}@127.0.0.1", user()?)),
        &dir.join("client.log"),
    )?;
    tunnel.client = Some(client);
    wait_for_service(tunnel)
}

fn culvert(
    tunnel: &mut Tunnel,
    programs: &Programs,
    command: &str,
    upstream: SocketAddr,
    ring: i64,
) -> io::Result<()> {
    let dir = tunnel.dir.clone();
    let inspect = dir.join("inspect.yml");
    fs::write(&inspect, format!("version: 3\nagent:\n  inspect_db_size: {ring}\n"))?;
    let ready = dir.join("ready.json");
    let server = Process::start(
        programs
            .command(Counted::Edge, &dir)
            .arg("dev")
            .arg("--dir")
            .arg(&dir)
            .arg("--ready-file")
            .arg(&ready)
            .args(["--agent-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
            .args(["--https-addr", "127.0.0.1:0", "--tcp-ports", "0"]),
        &dir.join("server.log"),
    )?;
    tunnel.server = Some(server);
    wait_for("the edge is ready", START, || {
        fs::metadata(&ready).is_ok_and(|file| file.len() > 0).then_some(())
    })?;
    let client = Process::start(
        programs
            .command(Counted::Agent, &dir)
            .arg(command)
            .arg(upstream.to_string())
            .arg("--config")
            .arg(dir.join("agent.yml"))
            .arg("--config")
            .arg(&inspect)
            .args(&programs.agent_args),
        &dir.join("client.log"),
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
    tunnel.entrance =
        Entrance { addr: (Ipv4Addr::LOCALHOST, port).into(), host: authority.to_string() };
    wait_for_service(tunnel)
}
