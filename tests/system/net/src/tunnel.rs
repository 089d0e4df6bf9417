//! The tunnels under test: culvert, and common alternatives. Each is kept alive as its manual
//! recommends, all with the same limits: a sign of life each second, given up after a second
//! more.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::{EDGE, EDGE_NAME, Lab, Place};
use crate::logged::{Program, wait};
use crate::proc::family;
use crate::programs::{find, require, signal};
use crate::ssh::{self, Client};
use crate::visit::Entrance;

/// Time for a program to start.
const START: Duration = Duration::from_secs(20);
/// The port for agents.
pub const AGENT_PORT: u16 = 4443;
const HTTP_PORT: u16 = 4080;
/// The port for visitors with TLS.
pub const HTTPS_PORT: u16 = 4444;
/// The port of a TCP endpoint.
pub const TCP_PORT: u16 = 4100;
const SSH_PORT: u16 = 4022;
const SSH_ENTRANCE: u16 = 4081;
const TOKEN: &str = "laboratory-token-that-is-long-enough";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Culvert,
    Autossh,
    Dbclient,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Culvert, Kind::Autossh, Kind::Dbclient];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Culvert => "culvert",
            Kind::Autossh => "ssh -R, autossh",
            Kind::Dbclient => "dbclient -R, loop",
        }
    }

    pub fn missing(self) -> Option<String> {
        let mut needs = self.client().map_or(&[][..], Client::needs).to_vec();
        needs.extend((self == Kind::Autossh).then_some("autossh"));
        needs.iter().find(|p| find(p).is_none()).map(|p| format!("{p} is not installed"))
    }

    /// Returns the client of SSH, if it is one.
    fn client(self) -> Option<Client> {
        match self {
            Kind::Culvert => None,
            Kind::Autossh => Some(Client::OpenSsh),
            Kind::Dbclient => Some(Client::Dropbear),
        }
    }
}

/// Programs of culvert.
#[derive(Clone, Debug)]
pub struct Programs {
    pub agent: PathBuf,
    pub edge: PathBuf,
}

/// A running tunnel: server in the edge's namespace, client in the agent's.
pub struct Tunnel {
    pub kind: Kind,
    pub entrance: Entrance,
    pub server: Program,
    pub client: Program,
    pub dir: PathBuf,
    programs: Programs,
    upstream: SocketAddr,
    environment: Vec<(&'static str, String)>,
    edge_environment: Vec<(&'static str, String)>,
}

/// Settings that differ between culvert's agents in the faults.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Lines below `agent:`, each with its line end.
    pub options: String,
    /// Address of the agent's local API.
    pub web_addr: String,
    /// Address of the edge for the agent.
    pub address: String,
    /// Address where the edge listens for agents.
    pub agents: String,
    /// Lines below `listeners:` of the edge, each with its line end.
    pub listeners: String,
    /// Further endpoints, each line with its line end.
    pub endpoints: String,
    /// Variables of the agent's environment.
    pub environment: Vec<(&'static str, String)>,
    /// Variables of the edge's environment.
    pub edge_environment: Vec<(&'static str, String)>,
}

impl Default for Setting {
    fn default() -> Self {
        Setting {
            options: "  heartbeat_interval: 1s\n  heartbeat_tolerance: 1s\n".to_owned(),
            web_addr: "false".to_owned(),
            address: format!("{EDGE_NAME}:{AGENT_PORT}"),
            agents: format!("0.0.0.0:{AGENT_PORT}"),
            listeners: String::new(),
            endpoints: String::new(),
            environment: Vec::new(),
            edge_environment: Vec::new(),
        }
    }
}

impl Tunnel {
    /// Starts both ends without waiting for the client's success.
    pub fn start(
        lab: &Lab,
        kind: Kind,
        programs: &Programs,
        upstream: SocketAddr,
        dir: &Path,
        setting: &Setting,
    ) -> io::Result<Tunnel> {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        prepare(kind, dir, setting, upstream)?;
        let server = server(lab, kind, programs, dir, &setting.edge_environment)?;
        let client = client(lab, kind, programs, upstream, dir, &setting.environment)?;
        let port = if kind == Kind::Culvert { HTTP_PORT } else { SSH_ENTRANCE };
        let entrance = Entrance {
            addr: format!("{EDGE}:{port}").parse().map_err(io::Error::other)?,
            host: "web.lab.example".to_owned(),
        };
        let programs = programs.clone();
        let Setting { environment, edge_environment, .. } = setting.clone();
        Ok(Tunnel {
            kind,
            entrance,
            server,
            client,
            dir: dir.to_owned(),
            programs,
            upstream,
            environment,
            edge_environment,
        })
    }

    /// Kills the server and the processes that serve its sessions.
    pub fn kill_server(&mut self) {
        end(&mut self.server);
    }

    /// Kills the client and the process that restarts it.
    pub fn kill_client(&mut self) {
        end(&mut self.client);
    }

    /// Starts the server again, and waits until it listens.
    pub fn start_server(&mut self, lab: &Lab) -> io::Result<()> {
        self.server = server(lab, self.kind, &self.programs, &self.dir, &self.edge_environment)?;
        Ok(())
    }

    /// Starts the client again, as after a crash.
    pub fn start_client(&mut self, lab: &Lab) -> io::Result<()> {
        self.client =
            client(lab, self.kind, &self.programs, self.upstream, &self.dir, &self.environment)?;
        Ok(())
    }

    /// Stops or continues the server and its children.
    pub fn freeze_server(&self, frozen: bool) {
        signal(if frozen { "STOP" } else { "CONT" }, &family(self.server.pid()));
    }

    /// Stops or continues the client, like a suspend of its machine.
    pub fn freeze_client(&self, frozen: bool) {
        signal(if frozen { "STOP" } else { "CONT" }, &family(self.client.pid()));
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        end(&mut self.client);
        end(&mut self.server);
    }
}

/// A shell's loop and a session's child survive their parent otherwise.
fn end(program: &mut Program) {
    signal("KILL", &family(program.pid()));
    program.kill();
}

/// The files that both ends need.
fn prepare(kind: Kind, dir: &Path, setting: &Setting, upstream: SocketAddr) -> io::Result<()> {
    let at = dir.display();
    if kind == Kind::Culvert {
        let Setting { options, web_addr, address, agents, listeners, endpoints, .. } = setting;
        fs::write(
            dir.join("edge.yml"),
            format!(
                "domain: lab.example\nlisteners:\n  agent: '{agents}'\n  http: \
                 0.0.0.0:{HTTP_PORT}\n  https: 0.0.0.0:{HTTPS_PORT}\n  tcp: \
                 0.0.0.0\n{listeners}ports: {TCP_PORT}-{TCP_PORT}\nstate_dir: \
                 {at}/edge\ncredentials:\n  - id: lab\n    authtoken: {TOKEN}\n"
            ),
        )?;
        return fs::write(
            dir.join("agent.yml"),
            format!(
                "version: 3\nagent:\n  authtoken: {TOKEN}\n  connect_url: {address}\n  \
                 connect_cas: {at}/edge/ca.pem\n  web_addr: {web_addr}\n{options}endpoints:\n  - name: \
                 web\n    url: http://web.lab.example\n    upstream:\n      url: {upstream}\n{endpoints}"
            ),
        );
    }
    if dir.join("sshd_config").exists() {
        return Ok(());
    }
    let Some(client) = kind.client() else { return Ok(()) };
    let more = "GatewayPorts clientspecified\nClientAliveInterval 1\nClientAliveCountMax 1\n";
    ssh::prepare(client, dir, "0.0.0.0", SSH_PORT, more)
}

fn server(
    lab: &Lab,
    kind: Kind,
    programs: &Programs,
    dir: &Path,
    environment: &[(&str, String)],
) -> io::Result<Program> {
    let (mut command, port) = match kind {
        Kind::Culvert => {
            let mut command = lab.command(Place::Edge, &programs.edge);
            command.args(["serve", "--log", "stderr", "--config"]).arg(dir.join("edge.yml"));
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            (command, AGENT_PORT)
        }
        _ => {
            let mut command = lab.command(Place::Edge, require("sshd")?);
            command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
            (command, SSH_PORT)
        }
    };
    let mut server = Program::start("server", &mut command, dir)?;
    let listens = |_: ()| {
        let address = format!("{EDGE}:{port}");
        lab.within(Place::Edge, move || std::net::TcpStream::connect(address).is_ok())
            .join()
            .unwrap_or(false)
    };
    wait("the server listens", START, || listens(()))
        .map_err(|e| io::Error::other(format!("{e}\n{}", server.tail())))?;
    if !server.alive() {
        return Err(io::Error::other(format!("the server ended\n{}", server.tail())));
    }
    Ok(server)
}

fn client(
    lab: &Lab,
    kind: Kind,
    programs: &Programs,
    upstream: SocketAddr,
    dir: &Path,
    environment: &[(&str, String)],
) -> io::Result<Program> {
    let at = dir.display();
    let forward = format!("0.0.0.0:{SSH_ENTRANCE}:{upstream}");
    let mut command = match kind {
        Kind::Culvert => {
            let mut command = lab.command(Place::Agent, &programs.agent);
            command.args(["start", "--all", "--log", "stdout", "--log-level", "debug", "--config"]);
            command.arg(dir.join("agent.yml"));
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            command
        }
        Kind::Autossh => {
            let mut command = lab.command(Place::Agent, require("autossh")?);
            // No monitoring port: ssh's own signs of life, as the manual recommends.
            command.env("AUTOSSH_GATETIME", "0").args(["-M", "0"]);
            ssh::openssh_options(&mut command, dir);
            command
                .args(["-o", "ConnectTimeout=10"])
                .args(["-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=1"])
                .args(["-p", &SSH_PORT.to_string(), "-R", &forward])
                .arg(format!("root@{EDGE}"));
            command
        }
        Kind::Dbclient => {
            let mut command = lab.command(Place::Agent, "sh");
            let dbclient = require("dbclient")?;
            let dbclient = dbclient.display();
            command.arg("-c").arg(format!(
                "while :; do {dbclient} -N -T -y -y -K 1 -i {at}/user_key -o \
                 ExitOnForwardFailure=yes -p {SSH_PORT} -R {forward} root@{EDGE}; sleep 1; done"
            ));
            command
        }
    };
    Program::start("client", &mut command, dir)
}
