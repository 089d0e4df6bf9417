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
const TOKEN: &str = "2benchCrowd0authtoken_0123456789ABCDEFGHIJKLMNOPQRSTUV";

/// An edge in a directory of its own.
pub struct Edge {
    program: Program,
    dir: PathBuf,
    ready: String,
}

impl Edge {
    pub fn start(programs: &Programs, dir: &Path, limits: &str) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let text = format!(
            "domain: bench.test\nlisteners: {{agent: '127.0.0.1:0', http: '[::]:0', https: \
             '127.0.0.1:0', tcp: 127.0.0.1, api: '127.0.0.1:0'}}\nports: 0-0\nstate_dir: \
             state\ncredentials:\n  - {{id: one, authtoken: {TOKEN}}}\nlimits: {{{limits}}}\n"
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
        let text = format!(
            "version: 3\nagent: {{authtoken: {TOKEN}, connect_url: '{}', connect_cas: '{}', \
             web_addr: false}}\n",
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
