//! The TCP connection to the edge: names to addresses, addresses to a socket,
//! all within one deadline.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::sys;
use crate::time::Deadline;

/// The port of an edge that was named without one (protocol 1).
const DEFAULT_PORT: u16 = 443;

/// How long one address may take, while there are others.
const EACH: Duration = Duration::from_secs(5);

/// How long sent bytes may stay unacknowledged before the kernel gives up; the
/// heartbeat is usually quicker.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Host and port of a `connect_url`: `host`, `host:port`, `[v6]:port`; a scheme
/// in front is ignored.
pub fn split_address(text: &str) -> Result<(String, u16), String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let (host, port) =
        split_host(bare).ok_or_else(|| format!("connect_url '{text}' is not host:port"))?;
    Ok((host.to_owned(), port.unwrap_or(DEFAULT_PORT)))
}

/// Host and port, if one is named, of `host`, `host:port`, `[v6]`, `[v6]:port`, `v6`.
/// `None` for what is none of these.
pub fn split_host(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (host, "") => (host, None),
            (host, tail) => (host, Some(tail.strip_prefix(':')?)),
        },
        // A bare IPv6 address has no port.
        None if text.matches(':').count() > 1 => (text, None),
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => None,
        Some(port) => Some(port.parse().ok().filter(|p| *p != 0)?),
    };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/@\\?#".contains(c);
    if host.is_empty() || host.contains(odd) {
        return None;
    }
    Some((host, port))
}

/// Connects to the first address of `host` that answers.
pub fn dial(host: &str, port: u16, deadline: Deadline) -> io::Result<TcpStream> {
    let addresses: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|e| io::Error::new(e.kind(), format!("cannot resolve '{host}': {e}")))?
        .collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("'{host}' has no address"));
    for address in addresses {
        let left = deadline.left(sys::clock()).unwrap_or(EACH).min(EACH);
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("connecting to {host}:{port} took too long"),
            ));
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                sys::keep_alive(socket.as_raw_fd(), UNACKNOWLEDGED);
                return Ok(socket);
            }
            Err(e) => {
                failure = io::Error::new(e.kind(), format!("cannot connect to {address}: {e}"));
            }
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_all_forms() {
        let good = [
            ("edge.example", "edge.example", 443),
            ("edge.example:8443", "edge.example", 8443),
            ("https://edge.example:8443/", "edge.example", 8443),
            ("[::1]:4443", "::1", 4443),
            ("[::1]", "::1", 443),
            ("::1", "::1", 443),
            ("127.0.0.1:1", "127.0.0.1", 1),
        ];
        for (text, host, port) in good {
            assert_eq!(split_address(text), Ok((host.to_owned(), port)), "{text}");
        }
        for text in ["", ":443", "host:", "host:0", "host:99999", "[::1", "a/b", "u@h:1"] {
            assert!(split_address(text).is_err(), "{text}");
        }
    }
}
