//! Node's keep-alive client: early responses through the tunnel and directly, compared.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::shared::Entrances;

pub struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub upstream: SocketAddr,
}

impl Node {
    /// Starts the script, whose upstream listens at once.
    pub fn start(node: &Path, script: &Path) -> io::Result<Node> {
        let mut child =
            Command::new(node).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("pipes to node are missing"));
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let upstream = line.trim().parse().map_err(|e| io::Error::other(format!("{line}: {e}")))?;
        Ok(Node { child, input, output, upstream })
    }

    /// Sends this number of requests on each path. Prints the report of the script. Returns
    /// whether the tunnel added no failure.
    pub fn compare(mut self, entrances: &Entrances, requests: u64, seed: u64) -> io::Result<bool> {
        let host = entrances.host("node");
        writeln!(self.input, "{} {host} {requests} {seed}", entrances.http)?;
        for line in self.output.by_ref().lines() {
            println!("node: {}", line?);
        }
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
