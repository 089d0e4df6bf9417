//! Client of an agent's local API.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use super::agent::Agent;
use super::edge::Edge;
use super::process::Process;
use super::wire::{Message, Wire};

/// The local API of a running agent.
#[derive(Clone, Copy)]
pub struct Api {
    pub addr: SocketAddr,
}

/// Writes a configuration with a local API on a port that the kernel chooses, and further lines
/// below `agent:`.
pub fn config(edge: &Edge, more: &str) -> PathBuf {
    edge.config_with(&format!("  web_addr: 127.0.0.1:0\n{more}"))
}

/// Starts an agent without endpoints. Returns its API too.
#[track_caller]
pub fn idle_agent(edge: &Edge) -> (Agent, Api) {
    let config = config(edge, "");
    let mut agent = super::agent::agent(&config, ["start", "--none"]).expect(0).start();
    agent.process().wait_stderr("tunnel session started");
    let api = Api::of(agent.process());
    (agent, api)
}

impl Api {
    /// Returns the API of a process that logs to standard error.
    #[track_caller]
    pub fn of(process: &Process) -> Self {
        Api::at(&process.wait_stderr("starting web service"))
    }

    /// Returns the API at the address in a line of the log.
    #[track_caller]
    pub fn at(line: &str) -> Self {
        let addr = line.split("addr=").nth(1).and_then(|rest| rest.split_whitespace().next());
        Api { addr: addr.and_then(|a| a.parse().ok()).unwrap_or_else(|| panic!("{line}")) }
    }

    /// Sends one request on a connection of its own, with further fields (each with CR LF).
    pub fn try_ask(
        &self,
        method: &str,
        path: &str,
        fields: &str,
        body: &[u8],
    ) -> io::Result<Message> {
        let mut wire = Wire::connect(self.addr)?;
        let given = |line: &str| line.to_ascii_lowercase().starts_with("host:");
        let host = match fields.lines().any(given) {
            true => String::new(),
            false => format!("Host: {}\r\n", self.addr),
        };
        let length = match body.len() {
            0 => String::new(),
            n => format!("Content-Length: {n}\r\n"),
        };
        let head =
            format!("{method} {path} HTTP/1.1\r\n{host}{length}{fields}Connection: close\r\n\r\n");
        wire.write([head.as_bytes(), body].concat())?;
        wire.read_response(method)
    }

    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Message {
        let answer = self.try_ask(method, path, fields, body);
        answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// Sends a GET that succeeds.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, None);
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    /// Sends a call with a body of JSON. Returns status and response.
    #[track_caller]
    pub fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (fields, body) = match body {
            Some(body) => ("Content-Type: application/json\r\n", body.to_string()),
            None => ("", String::new()),
        };
        let answer = self.ask(method, path, fields, body.as_bytes());
        let status = answer.status();
        if status == 204 {
            assert!(answer.body.is_empty());
            return (204, Value::Null);
        }
        assert_eq!(answer.field("content-type"), Some("application/json"), "{method} {path}");
        let value = serde_json::from_slice(&answer.body);
        (status, value.unwrap_or_else(|e| panic!("{method} {path}: {e}: {}", answer.text())))
    }

    /// Sends a POST that creates an object.
    #[track_caller]
    pub fn create(&self, path: &str, body: Value) -> Value {
        let (status, value) = self.call("POST", path, Some(body));
        assert_eq!(status, 201, "POST {path}: {value}");
        value
    }

    /// Returns a value of `/metrics`, by its name with its labels.
    #[track_caller]
    pub fn figure(&self, name: &str) -> f64 {
        let text = self.ask("GET", "/metrics", "", b"").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }
}
