//! An edge with a configuration file, and agents of it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::logged::{Program, wait_for};
use crate::proc;
use crate::tools::Programs;

const START: Duration = Duration::from_secs(60);

/// Settings of an agent that is not the usual one.
#[derive(Default)]
pub struct AgentOptions {
    /// Number of its credential.
    pub credential: usize,
    /// Address of its local API.
    pub web: Option<SocketAddr>,
}

/// Returns the authtoken of a credential.
fn token(number: usize) -> String {
    format!("2benchCrowd0authtoken{number:05}_0123456789ABCDEFGHIJKLMNOPQR")
}

/// An edge in a directory of its own.
pub struct Edge {
    program: Program,
    dir: PathBuf,
    ready: String,
}

impl Edge {
    pub fn start(programs: &Programs, dir: &Path, limits: &str) -> io::Result<Self> {
        Self::with_credentials(programs, dir, 1, limits)
    }

    /// Starts an edge with a number of credentials.
    pub fn with_credentials(
        programs: &Programs,
        dir: &Path,
        count: usize,
        limits: &str,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let credentials: String =
            (0..count).map(|n| format!("  - {{id: c{n}, authtoken: {}}}\n", token(n))).collect();
        let text = format!(
            "domain: bench.test\nlisteners: {{agent: '127.0.0.1:0', http: '[::]:0', https: \
             '127.0.0.1:0', tcp: 127.0.0.1, api: '127.0.0.1:0'}}\nports: 0-0\nstate_dir: \
             state\ncredentials:\n{credentials}limits: {{{limits}}}\n"
        );
        fs::write(dir.join("edge.yml"), text)?;
        let mut command = Command::new(&programs.edge);
        command.args(["serve", "--config", "edge.yml", "--ready-file", "ready.json"]);
        let program = Program::start("edge", command.current_dir(dir), dir)?;
        let ready = wait_for("the edge's ready file", START, || {
            fs::read_to_string(dir.join("ready.json")).ok()
        })?;
        Ok(Edge { program, dir: dir.to_path_buf(), ready })
    }

    /// Returns a text of the ready file.
    pub fn text(&self, key: &str) -> io::Result<&str> {
        let rest = self.ready.split(&format!("\"{key}\"")).nth(1);
        rest.and_then(|rest| rest.split('"').nth(1))
            .ok_or_else(|| io::Error::other(format!("no {key} in {}", self.ready)))
    }

    pub fn http_port(&self) -> io::Result<u16> {
        let port = self.text("http_addr")?.rsplit(':').next().and_then(|port| port.parse().ok());
        port.ok_or_else(|| io::Error::other("no port in http_addr"))
    }

    pub fn agent(
        &self,
        programs: &Programs,
        name: &str,
        host: &str,
        to: SocketAddr,
    ) -> io::Result<Program> {
        self.agent_with(programs, name, host, to, AgentOptions::default())
    }

    pub fn agent_with(
        &self,
        programs: &Programs,
        name: &str,
        host: &str,
        to: SocketAddr,
        options: AgentOptions,
    ) -> io::Result<Program> {
        let web = options.web.map_or("false".to_owned(), |web| format!("'{web}'"));
        let text = format!(
            "version: 3\nagent: {{authtoken: {}, connect_url: '{}', connect_cas: '{}', \
             web_addr: {web}}}\n",
            token(options.credential),
            self.text("agent_addr")?,
            self.dir.join(self.text("ca")?).display()
        );
        let config = self.dir.join(format!("{name}.yml"));
        fs::write(&config, text)?;
        let mut command = Command::new(&programs.agent);
        command.args(["http", &to.to_string(), "--url", &format!("http://{host}"), "--config"]);
        Program::start(name, command.arg(config).args(["--log", "stdout"]), &self.dir)
    }

    pub fn memory(&self) -> io::Result<u64> {
        proc::resident(self.program.pid())
    }

    pub fn threads(&self) -> u64 {
        proc::threads(self.program.pid())
    }
}
