//! Visitors of a public URL.

use std::io;
use std::process::{Command, Output};

use super::certs;
use super::edge::Edge;
use super::wire::{Message, Wire};

/// One connection to a public URL.
pub struct Visitor {
    pub wire: Wire,
    host: String,
}

impl Visitor {
    #[track_caller]
    pub fn connect(edge: &Edge, url: &str) -> Self {
        let host = url.split_once("://").expect("a URL").1.trim_end_matches('/').to_owned();
        let to = edge.address_of(url);
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let wire = match url.split_once("://").unwrap().0 {
            "https" | "tls" => certs::connect(to, name, &edge.ca),
            _ => Wire::connect(to).unwrap_or_else(|e| panic!("{url}: {e}")),
        };
        Visitor { wire, host }
    }

    /// Returns name and port, as in the `Host` field.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Sends a request with further fields (each with CR LF) and a body.
    pub fn send(
        &mut self,
        method: &str,
        target: &str,
        fields: &str,
        body: &[u8],
    ) -> io::Result<()> {
        let length = match (body.len(), method) {
            (0, "GET" | "HEAD") => String::new(),
            (n, _) if !fields.to_ascii_lowercase().contains("transfer-encoding") => {
                format!("Content-Length: {n}\r\n")
            }
            _ => String::new(),
        };
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n{length}{fields}\r\n", self.host);
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.wire.write(bytes)
    }

    /// Sends a request and reads its response.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, fields: &str, body: &[u8]) -> Message {
        let result =
            self.send(method, target, fields, body).and_then(|()| self.wire.read_response(method));
        result.unwrap_or_else(|e| panic!("{method} {} {target}: {e}", self.host))
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Message {
        self.ask("GET", target, "", b"")
    }
}

/// Sends one GET on a connection of its own. Returns `None` without a complete response.
pub fn try_get(edge: &Edge, url: &str, target: &str) -> Option<Message> {
    let host = url.split_once("://")?.1;
    let mut wire = Wire::connect(edge.address_of(url)).ok()?;
    wire.write(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
        .ok()?;
    wire.read_response("GET").ok()
}

/// Returns whether [`Upstream::hello`](super::upstream::Upstream::hello) answers at a URL.
pub fn says_hello(edge: &Edge, url: &str) -> bool {
    try_get(edge, url, "/back").is_some_and(|answer| answer.text() == "GET /back ")
}

/// Returns whether the other end of a TCP endpoint echoes.
pub fn echoes(edge: &Edge, url: &str) -> bool {
    let Ok(mut wire) = Wire::connect(edge.address_of(url)) else { return false };
    wire.write("ping").is_ok() && wire.read_exact(4).is_ok_and(|bytes| bytes == b"ping")
}

/// Runs curl without progress output, with a time limit.
pub fn curl(args: &[&str]) -> Output {
    Command::new("curl")
        .args(["-sS", "--max-time", "60", "--noproxy", "*"])
        .args(args)
        .output()
        .expect("curl is installed (sh tests/prepare.sh)")
}

/// Runs curl. Returns its output.
#[track_caller]
pub fn curl_text(args: &[&str]) -> String {
    let output = curl(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl {args:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
