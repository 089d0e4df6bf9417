//! How much requests to the REST API of an edge raise the 99th percentile of its visitors.
//! Times with and without API requests alternate, and the median of the ratios of neighbours is
//! the figure: other work of the machine changes both.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::edge::Edge;
use crate::load::{self, Entrance};
use crate::tools::Programs;
use crate::upstream::content_length;

/// API requests in a second.
const RATE: u64 = 100;

/// Share of them that must have been answered. A pair with fewer does not count.
const ANSWERED: f64 = 0.9;

/// Connections of visitors.
const VISITORS: usize = 10;

const HOST: &str = "api.bench.test";
const START: Duration = Duration::from_secs(60);

/// One pair of neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// 99th percentile without API requests, in milliseconds.
    pub without: f64,
    /// The same with them.
    pub with: f64,
    /// API requests in a second.
    pub rate: f64,
}

/// Measures `count` pairs; each half takes `time`.
pub fn run(
    programs: &Programs,
    upstream: SocketAddr,
    dir: &Path,
    count: usize,
    time: Duration,
) -> io::Result<Vec<Pair>> {
    let edge = Edge::start(programs, dir, "api_requests_per_minute: 1000000")?;
    let mut agent = edge.agent(programs, "agent", HOST, upstream)?;
    agent.says("started tunnel", 0, START)?;
    let entrance = Entrance::new((Ipv4Addr::LOCALHOST, edge.http_port()?).into(), HOST);
    let address = edge.text("api_addr")?.parse().map_err(io::Error::other)?;
    let key = fs::read_to_string(dir.join(edge.text("api_key_file")?))?;
    let mut api = ApiClient::connect(address, key.trim())?;
    // Code that runs once, and the store, are not a part of the measurement.
    load::requests(&entrance, VISITORS, time / 4)?;
    (0..20).try_for_each(|n| api.request(n))?;
    let p99 = || -> io::Result<f64> {
        Ok(load::requests(&entrance, VISITORS, time)?.p99.as_secs_f64() * 1e3)
    };
    let mut pairs = Vec::new();
    for n in 0..count {
        // The order alternates, too: what grows with time is in both.
        let before = if n % 2 == 0 { p99()? } else { 0.0 };
        let (with, rate) = api.during(p99)?;
        let without = if n % 2 == 0 { before } else { p99()? };
        pairs.push(Pair { without, with, rate });
    }
    Ok(pairs)
}

impl Pair {
    /// Returns whether the API answered as many requests as the figure is about.
    pub fn is_complete(&self) -> bool {
        self.rate >= ANSWERED * RATE as f64
    }
}

/// A client of an API on one connection.
pub struct ApiClient {
    stream: TcpStream,
    fields: String,
    /// Path of the credential to remove next.
    created: Option<String>,
}

impl ApiClient {
    /// Connects with a key for the field Authorization.
    pub fn connect(address: SocketAddr, key: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(START))?;
        let fields = format!(
            "Host: {address}\r\nAuthorization: Bearer {key}\r\nNgrok-Version: 2\r\n\
             Content-Type: application/json\r\n"
        );
        Ok(ApiClient { stream, fields, created: None })
    }

    /// Sends requests while `measure` runs. Returns its result and the requests in a second.
    fn during(&mut self, measure: impl Fn() -> io::Result<f64>) -> io::Result<(f64, f64)> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let requests = scope.spawn(|| self.paced(&done));
            let measured = measure();
            done.store(true, Ordering::Relaxed);
            let rate = requests.join().map_err(|_| io::Error::other("the API client panicked"))?;
            Ok((measured?, rate?))
        })
    }

    /// Sends `RATE` requests a second until `done`. One that is late is sent at once.
    fn paced(&mut self, done: &AtomicBool) -> io::Result<f64> {
        let started = Instant::now();
        let mut sent = 0;
        while !done.load(Ordering::Relaxed) {
            self.request(sent)?;
            sent += 1;
            let due = started + Duration::from_micros(1_000_000 / RATE * sent);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(sent as f64 / started.elapsed().as_secs_f64())
    }

    /// Sends request number `n`: mostly reads, with a creation and a removal in ten.
    fn request(&mut self, n: u64) -> io::Result<()> {
        match n % 10 {
            3 => {
                let made = self.call("POST", "/credentials", "{\"description\": \"bench\"}")?;
                let id = made.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
                let id = id.ok_or_else(|| io::Error::other(format!("no id in {made}")))?;
                self.created = Some(format!("/credentials/{id}"));
            }
            8 => {
                if let Some(path) = self.created.take() {
                    self.call("DELETE", &path, "")?;
                }
            }
            1 | 6 => drop(self.call("GET", "/tunnel_sessions", "")?),
            2 | 7 => drop(self.call("GET", "/credentials?limit=10", "")?),
            _ => drop(self.call("GET", "/endpoints", "")?),
        }
        Ok(())
    }

    /// Returns the body of a response, which must not be an error.
    pub fn call(&mut self, method: &str, path: &str, body: &str) -> io::Result<String> {
        let length = body.len();
        let fields = &self.fields;
        write!(
            self.stream,
            "{method} {path} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
        )?;
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                if (bytes.len() - end - 4) as u64 >= content_length(&head) {
                    let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
                    return match head.starts_with("HTTP/1.1 2") {
                        true => Ok(body),
                        false => Err(io::Error::other(format!("{method} {path}: {head} {body}"))),
                    };
                }
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => bytes.extend_from_slice(&piece[..n]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_api_is_not_a_measurement() {
        let pair = Pair { without: 1.0, with: 1.0, rate: 99.0 };
        assert!(pair.is_complete());
        assert!(!Pair { rate: 89.0, ..pair }.is_complete());
    }
}
