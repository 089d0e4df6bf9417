//! Client of the REST API of the edge on this machine. URL and key are in its state directory.
//! Programs on other machines use `culvert api`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::edge::state::{API_KEY_FILE, API_URL_FILE};
use crate::http1::head::{MAX_HEAD_BYTES, ResponseHeadReader};
use crate::net::timed_stream::TimedStream;
use crate::sys;
use crate::time::Deadline;
use crate::tls;

/// Time for a request. A command to an agent takes up to ten seconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Longest response: a page of objects with certificates.
const MAX_RESPONSE_BYTES: u64 = 32 * 1024 * 1024;

/// The API of an edge.
pub struct EdgeApi {
    url: String,
    key: String,
}

impl EdgeApi {
    /// Reads URL and key.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let read = |name: &str| {
            let path: PathBuf = dir.join(name);
            fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(|e| {
                format!(
                    "cannot read {}: {e}; start the edge once, or name its state directory with \
                     --dir or its edge.yml with --config",
                    path.display()
                )
            })
        };
        Ok(EdgeApi { url: read(API_URL_FILE)?, key: read(API_KEY_FILE)? })
    }

    /// Returns its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a request. Returns the JSON of the response; null without a body.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let failed = |e: &dyn std::fmt::Display| {
            format!(
                "cannot reach the edge at {}: {e}; start it with 'culvert-edge serve'",
                self.url
            )
        };
        let mut stream = self.connect().map_err(|e| failed(&e))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Ngrok-Version: 2\r\nUser-Agent: culvert-edge/{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.url.split("://").nth(1).unwrap_or_default(),
            self.key,
            env!("CARGO_PKG_VERSION"),
            body.len()
        );
        let exchanged = stream.write_all(head.as_bytes()).and_then(|()| read(&mut stream));
        let (status, body) = exchanged.map_err(|e| failed(&e))?;
        let value: Value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body).map_err(|e| failed(&e))?,
        };
        if status < 400 {
            return Ok(value);
        }
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Err(format!("HTTP {status}: {} [{}]", text("msg"), text("error_code")))
    }

    /// Returns all objects of a list, page by page.
    pub fn list(&self, path: &str, plural: &str) -> Result<Vec<Value>, String> {
        let mut objects = Vec::new();
        let mut next = Some(path.to_owned());
        while let Some(path) = next {
            let mut page = self.call("GET", &path, None)?;
            if let Some(Value::Array(list)) = page.get_mut(plural).map(Value::take) {
                objects.extend(list);
            }
            let uri = page["next_page_uri"].as_str().and_then(|uri| uri.split_once("://"));
            next =
                uri.and_then(|(_, rest)| rest.split_once('/')).map(|(_, rest)| format!("/{rest}"));
        }
        Ok(objects)
    }

    fn connect(&self) -> io::Result<TimedStream> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "its URL is malformed");
        let (scheme, address) = self.url.split_once("://").ok_or_else(invalid)?;
        let address: SocketAddr = address.parse().map_err(|_| invalid())?;
        let socket = TcpStream::connect_timeout(&here(address), TIMEOUT)?;
        let stream = TimedStream::new(socket, Deadline::At(sys::clock() + TIMEOUT));
        match scheme {
            // The address is one of this machine: the connection does not leave it, and the
            // certificate is for names that others use.
            "https" => stream.secure("localhost", tls::client::unverified_config()?),
            _ => Ok(stream),
        }
    }
}

/// Returns the address to connect to for one that a listener has.
fn here(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Reads a response up to the end of the connection. Returns status and body.
fn read(stream: &mut TimedStream) -> io::Result<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    stream.take(MAX_RESPONSE_BYTES).read_to_end(&mut bytes)?;
    let invalid = |e: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("its response is malformed: {e}"))
    };
    let mut head = ResponseHeadReader::new(MAX_HEAD_BYTES);
    let used =
        head.feed(&bytes).map_err(|e| invalid(&e))?.ok_or_else(|| invalid(&"it is short"))?;
    let status = head.response().map_err(|e| invalid(&e))?.line.status;
    Ok((status, bytes.split_off(used)))
}
