//! `culvert-edge serve` as a child process, with the test's configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::edge_rest::Rest;
use super::process::Process;
use super::wire::Wire;
use super::{TempDir, until};

/// Common part of all configurations here. Credentials and limits are the test's.
pub const LISTENERS: &str = "\
domain: tunnels.test
listeners: {agent: '127.0.0.1:0', http: '127.0.0.1:0', https: '127.0.0.1:0', api: '127.0.0.1:0', tcp: 127.0.0.1}
ports: 0-0
state_dir: state
";

/// A running edge.
pub struct Serve {
    dir: TempDir,
    process: Process,
    ready: Value,
}

impl Serve {
    /// Starts it with [`LISTENERS`] and `more`.
    #[track_caller]
    pub fn start(more: &str) -> Self {
        Serve::start_in(TempDir::new(), more)
    }

    /// Starts it in a directory that has files named by the configuration.
    #[track_caller]
    pub fn start_in(dir: TempDir, more: &str) -> Self {
        Serve::start_with(dir, more, &[])
    }

    /// The same with more arguments.
    #[track_caller]
    pub fn start_with(dir: TempDir, more: &str, args: &[&str]) -> Self {
        let config = dir.write("edge.yml", format!("{LISTENERS}{more}"));
        let file = dir.join("ready.json");
        let mut command = serve(&config, &dir);
        command.args(args);
        let mut process =
            Process::start("culvert-edge serve", command.arg("--ready-file").arg(&file));
        let text = until("the edge's ready file", || {
            process.assert_running();
            std::fs::read_to_string(&file).ok()
        });
        Serve { ready: serde_json::from_str(&text).unwrap(), process, dir }
    }

    /// Returns an address of the ready file: `agent_addr`, `http_addr`, `https_addr`.
    pub fn address(&self, key: &str) -> SocketAddr {
        self.ready[key].as_str().unwrap().parse().unwrap()
    }

    /// Returns its REST API.
    pub fn rest(&self) -> Rest {
        let file = self.ready["api_key_file"].as_str().unwrap();
        Rest::new(self.address("api_addr"), &self.dir.join(file))
    }

    /// Writes the configuration anew, sends SIGHUP and returns the log line about it: the
    /// configuration was applied, or why it was not.
    #[track_caller]
    pub fn reload(&mut self, text: &str) -> String {
        self.dir.write("edge.yml", text);
        let start = self.process.stderr_lines();
        self.process.signal("HUP");
        self.process.wait_stderr_from(start, "configuration ").1
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn dir(&self) -> &TempDir {
        &self.dir
    }

    /// Returns the process's number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the file with the edge's CA.
    pub fn ca(&self) -> PathBuf {
        self.dir.join(self.ready["ca"].as_str().unwrap())
    }

    /// Writes a configuration for agents with a credential.
    pub fn config(&self, name: &str, token: &str) -> PathBuf {
        let ca = self.ca();
        let agent = self.ready["agent_addr"].as_str().unwrap();
        let text = format!(
            "version: 3\nagent: {{authtoken: {token}, connect_url: '{agent}', connect_cas: '{}'}}\n",
            ca.display()
        );
        self.dir.write(name, text)
    }

    /// Writes a file into its directory.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        self.dir.write(name, text)
    }

    /// Connects a visitor that has requested `/` of a host.
    pub fn visit(&self, host: &str) -> Wire {
        let mut wire = Wire::connect(self.address("http_addr")).unwrap();
        wire.write(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).unwrap();
        wire
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.process.assert_running();
        }
    }
}

/// Returns the command, to be run in a directory of the test.
pub fn serve(config: &Path, dir: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_culvert-edge"));
    command.arg("serve").arg("--config").arg(config).current_dir(dir.path());
    command
}
