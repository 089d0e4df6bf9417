//! `status`: asks the local API of the running agent for its session and endpoints, and prints
//! them. Changes nothing. The API itself is in `web`.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::exit::{CommandError, FINE, NOT_RUNNING, print};
use super::parse::ParsedCommand;
use crate::config::{WebAddr, file};
use crate::http1::head::ResponseHeadReader;
use crate::net::resolver::listen_addresses;

/// Time for one call, also for another program that does not respond.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest head and response of a call.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_RESPONSE_BYTES: u64 = 4 * 1024 * 1024;

/// Longest text of the agent in one line.
const MAX_TEXT_CHARS: usize = 400;

pub(super) fn run(typed: &ParsedCommand) -> Result<u8, CommandError> {
    let loaded =
        file::load(&typed.list("config")).map_err(|e| CommandError::failed(e.to_string()))?;
    let as_json = typed.switch("json") == Some(true);
    if loaded.agent.web_addr == WebAddr::Off {
        return Err(CommandError::failed(format!("{API_IS_OFF} to use this command")));
    }
    let (text, code) = match find_at(&loaded.agent.web_addr) {
        Ok(agent) => (agent.text(as_json), agent.code()),
        Err(why) if as_json => {
            (json!({"status": "not running", "err": why}).to_string() + "\n", NOT_RUNNING)
        }
        Err(why) => (format!("status     not running: {why}\n"), NOT_RUNNING),
    };
    print(&text)?;
    Ok(code)
}

const API_IS_OFF: &str = "the local API is off; remove web_addr: false";

/// Returns the session and the endpoints of the agent at this address, as text.
pub(super) fn text_at(address: &WebAddr) -> String {
    match find_at(address) {
        Ok(agent) => agent.text(false),
        Err(why) => format!("session    not known: {why}\n"),
    }
}

/// Returns the agent at this address.
pub(super) fn find_at(address: &WebAddr) -> Result<RunningAgent, String> {
    match address {
        WebAddr::Off => Err(API_IS_OFF.to_owned()),
        WebAddr::At(text) => match listen_addresses(text) {
            Ok(addresses) => find(text, addresses.into_iter().map(reachable)),
            Err(why) => Err(format!("no agent responds at {text}: {why}")),
        },
        WebAddr::Usual => find(
            "127.0.0.1:4040",
            WebAddr::USUAL_PORTS.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        ),
    }
}

/// Returns the loopback address for one that stands for every address of this machine: the API
/// refuses requests to the latter.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The answers of a running agent.
pub(super) struct RunningAgent {
    address: SocketAddr,
    /// The object of `/api/status`.
    pub status: Value,
    tunnels: Value,
}

/// Returns the first agent at these addresses.
fn find(shown: &str, addresses: impl Iterator<Item = SocketAddr>) -> Result<RunningAgent, String> {
    let mut why = format!("no agent responds at {shown}");
    for address in addresses {
        match get(address, "/api/status") {
            Ok(status) if status["status"].is_string() && status["session"].is_object() => {
                let tunnels = get(address, "/api/tunnels")?;
                return Ok(RunningAgent { address, status, tunnels });
            }
            Ok(_) => {}
            Err(error) => why = format!("no agent responds at {shown}: {error}"),
        }
    }
    Err(why)
}

fn get(address: SocketAddr, path: &str) -> Result<Value, String> {
    let call = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = call().map_err(|e| e.to_string())?;
    let mut reader = ResponseHeadReader::new(MAX_HEAD_BYTES);
    let taken = reader.feed(&bytes).map_err(|e| e.sentence().to_owned())?;
    let body = taken.and_then(|len| bytes.get(len..)).ok_or("its response is incomplete")?;
    let status = reader.response().map_err(|e| e.sentence().to_owned())?.line.status;
    if status != 200 {
        return Err(format!("it responds with status {status}"));
    }
    serde_json::from_slice(body).map_err(|_| "its response is not JSON".to_owned())
}

impl RunningAgent {
    pub fn is_online(&self) -> bool {
        self.status["status"] == "online"
    }

    fn code(&self) -> u8 {
        if self.is_online() { FINE } else { NOT_RUNNING }
    }

    fn text(&self, as_json: bool) -> String {
        if as_json {
            let mut object: Map<String, Value> =
                self.status.as_object().cloned().unwrap_or_default();
            object.insert("web_addr".to_owned(), self.address.to_string().into());
            object.insert("tunnels".to_owned(), self.tunnels["tunnels"].clone());
            return Value::Object(object).to_string() + "\n";
        }
        let mut out = format!(
            "status     {} for {}\n",
            text(&self.status["status"]),
            duration(self.status["status_seconds"].as_u64().unwrap_or(0))
        );
        // Writing to a String cannot fail.
        for leg in self.status["session"]["legs"].as_array().into_iter().flatten() {
            let (address, latency) = (text(&leg["address"]), text(&leg["latency"]));
            let _ = writeln!(out, "session    {address}, latency {latency}");
        }
        if let Some(why) = self.status["err"].as_str().filter(|why| !why.is_empty()) {
            let _ = writeln!(out, "error      {}", shown(why));
        }
        if let Some(seconds) = self.status["next_try_seconds"].as_u64() {
            let _ = writeln!(out, "next try   in {}", duration(seconds));
        }
        let _ = writeln!(out, "web        http://{}", self.address);
        for tunnel in self.tunnels["tunnels"].as_array().into_iter().flatten() {
            let (name, url) = (text(&tunnel["name"]), text(&tunnel["public_url"]));
            let upstream = text(&tunnel["config"]["addr"]);
            let _ = match tunnel["status"].as_str() {
                Some(state) => {
                    writeln!(out, "endpoint   {name}: {state}: {}", text(&tunnel["err"]))
                }
                None => writeln!(out, "endpoint   {name}: {url} -> {upstream}"),
            };
        }
        out
    }
}

fn text(value: &Value) -> String {
    shown(value.as_str().unwrap_or("-"))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns a time as `2d 3h`, `3h 4m`, `4m 5s` or `5s`.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in
            [(0, "0s"), (61, "1m 1s"), (3_660, "1h 1m"), (90_000, "1d 1h"), (59, "59s")]
        {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn a_text_of_the_agent_is_one_line() {
        assert_eq!(shown("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(shown(&"ä".repeat(1000)).chars().count(), MAX_TEXT_CHARS);
    }
}
