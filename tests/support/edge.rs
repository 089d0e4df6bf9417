//! `culvert-edge dev` as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

use serde_json::Value;

use super::edge_rest::Rest;
use super::process::{Process, plant_secret};
use super::{TempDir, until};

/// An edge on its own ports. It survives its process: [`Edge::restart`].
pub struct Edge {
    dir: TempDir,
    process: Process,
    starts: usize,
    extra: Vec<String>,
    files: Option<usize>,
    pub agent: SocketAddr,
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub api: SocketAddr,
    pub tcp_ports: String,
    pub ca: PathBuf,
    pub config: PathBuf,
}

impl Edge {
    pub fn start() -> Self {
        Edge::start_with(&[])
    }

    /// Starts it with further arguments.
    pub fn start_with(extra: &[&str]) -> Self {
        Edge::start_in(TempDir::new(), extra, None)
    }

    /// Starts it with a limit of descriptors.
    pub fn start_limited(files: usize) -> Self {
        Edge::start_in(TempDir::new(), &[], Some(files))
    }

    /// Starts another edge with the same authtoken, certificates and rights.
    pub fn like(other: &Edge) -> Self {
        let dir = TempDir::new();
        for name in ["authtoken", "ca.key", "ca.pem", "state.key"] {
            dir.write(
                &format!("edge/{name}"),
                fs::read(other.dir().join("edge").join(name)).unwrap(),
            );
        }
        Edge::start_in(dir, &[], None)
    }

    fn start_in(dir: TempDir, extra: &[&str], files: Option<usize>) -> Self {
        let extra: Vec<String> = extra.iter().map(|a| (*a).to_owned()).collect();
        let any = "127.0.0.1:0";
        let (process, ready) = launch(&dir, 0, (&extra, files), [any; 4], "0");
        let edge = Edge {
            process,
            starts: 1,
            extra,
            files,
            agent: address(&ready, "agent_addr"),
            http: address(&ready, "http_addr"),
            https: address(&ready, "https_addr"),
            api: address(&ready, "api_addr"),
            tcp_ports: text(&ready, "tcp_ports"),
            ca: dir.path().join(text(&ready, "ca")),
            config: dir.path().join(text(&ready, "agent_config")),
            dir,
        };
        plant_secret(&edge.authtoken());
        edge
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns the process, for its output.
    pub fn output(&self) -> &Process {
        &self.process
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn authtoken(&self) -> String {
        let text = fs::read_to_string(&self.config).unwrap();
        let line = text.lines().find_map(|l| l.trim().strip_prefix("authtoken:"));
        line.expect("agent.yml has an authtoken").trim().trim_matches('"').to_owned()
    }

    /// Writes a configuration like the edge's own `agent.yml` with further lines at its end.
    pub fn config_with(&self, more: &str) -> PathBuf {
        let text = fs::read_to_string(&self.config).unwrap();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        self.dir.write(&format!("agent-{n}.yml"), format!("{}\n{more}", text.trim_end()))
    }

    /// Writes a configuration that reaches the edge by another address, with further lines
    /// below `agent:`.
    pub fn config_via(&self, addr: SocketAddr, lines: &str) -> PathBuf {
        let config = self.config_with("");
        let text = fs::read_to_string(&config).unwrap();
        let here = self.agent.to_string();
        assert!(text.contains(&here) && text.contains("agent:\n"), "{text}");
        let text = text.replace(&here, &addr.to_string());
        fs::write(&config, text.replacen("agent:\n", &format!("agent:\n{lines}"), 1)).unwrap();
        config
    }

    /// Writes a configuration that reaches edges by a list of addresses.
    pub fn config_at(&self, addresses: &[SocketAddr], more: &str) -> PathBuf {
        let config = self.config_with(more);
        let text = fs::read_to_string(&config).unwrap();
        let here = format!("\"{}\"", self.agent);
        assert!(text.contains(&here), "{text}");
        let list: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        fs::write(&config, text.replacen(&here, &format!("[{}]", list.join(", ")), 1)).unwrap();
        config
    }

    /// Returns its REST API.
    pub fn rest(&self) -> Rest {
        Rest::new(self.api, &self.dir.join("edge/api_key"))
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after its end: same directory, same addresses.
    pub fn restart(&mut self) {
        self.process.kill();
        let addresses = [self.agent, self.http, self.https, self.api].map(|a| a.to_string());
        let addresses = addresses.each_ref().map(String::as_str);
        let (process, ready) =
            launch(&self.dir, self.starts, (&self.extra, self.files), addresses, &self.tcp_ports);
        self.starts += 1;
        self.process = process;
        assert_eq!(address(&ready, "http_addr"), self.http);
    }

    /// Returns the address for a public URL.
    #[track_caller]
    pub fn address_of(&self, url: &str) -> SocketAddr {
        let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("not a URL: {url}"));
        match scheme {
            "http" => self.http,
            "https" | "tls" => self.https,
            _ => {
                let port = rest.rsplit(':').next().unwrap().parse().unwrap();
                SocketAddr::from(([127, 0, 0, 1], port))
            }
        }
    }
}

fn launch(
    dir: &TempDir,
    start: usize,
    (extra, files): (&[String], Option<usize>),
    [agent, http, https, api]: [&str; 4],
    tcp_ports: &str,
) -> (Process, Value) {
    let ready = dir.join(&format!("ready-{start}.json"));
    let program = env!("CARGO_BIN_EXE_culvert-edge");
    let mut command = Command::new(if files.is_some() { "sh" } else { program });
    if let Some(files) = files {
        command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\""), program]);
    }
    command.arg("dev").args(["--agent-addr", agent, "--http-addr", http, "--https-addr", https]);
    command.args(["--api-addr", api]);
    command.args(["--tcp-ports", tcp_ports]).arg("--dir").arg(dir.join("edge"));
    command.arg("--ready-file").arg(&ready).args(extra).current_dir(dir.path());
    let mut process = Process::start("culvert-edge", &mut command);
    let text = until("the edge's ready file", || {
        process.assert_running();
        fs::read_to_string(&ready).ok()
    });
    let ready = serde_json::from_str(&text).expect("the ready file is written whole");
    (process, ready)
}

#[track_caller]
fn text(ready: &Value, key: &str) -> String {
    match &ready[key] {
        Value::String(text) => text.clone(),
        other => panic!("ready file: {key} is {other}"),
    }
}

#[track_caller]
fn address(ready: &Value, key: &str) -> SocketAddr {
    text(ready, key).parse().unwrap_or_else(|e| panic!("ready file: {key}: {e}"))
}
