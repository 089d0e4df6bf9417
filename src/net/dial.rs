//! TCP connections: parsing of addresses, and parallel attempts to the addresses of a host
//! until one succeeds (RFC 8305). Names and proxies are handled elsewhere.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::sys;
use crate::sys::poll::{self, PollFd};
use crate::sys::socket;
use crate::time::{Deadline, Instant};

/// Port of an edge whose address has none (protocol 1).
const DEFAULT_PORT: u16 = 443;

/// Delay between the attempts to two addresses (RFC 8305 section 5).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Maximum number of addresses that are tried.
const MAX_ADDRESSES: usize = 16;

/// Addresses that a message shows for one cause.
const MAX_SHOWN: usize = 2;

/// Time that sent bytes may stay unacknowledged before the kernel gives up. The heartbeat is
/// usually faster.
const UNACKED_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns host and port of a `connect_url`: `host`, `host:port` or `[v6]:port`. A scheme in
/// front is ignored.
pub fn split_address(text: &str) -> Result<(String, u16), String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/');
    let (host, port) =
        split_host(bare).ok_or_else(|| format!("connect_url '{text}' is not host:port"))?;
    Ok((host.to_owned(), port.unwrap_or(DEFAULT_PORT)))
}

/// Returns host and optional port of `host`, `host:port`, `[v6]`, `[v6]:port` or `v6`. Returns
/// `None` for other texts.
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
    let is_forbidden = |c: char| c.is_whitespace() || c.is_control() || "/@\\?#".contains(c);
    if host.is_empty() || host.contains(is_forbidden) {
        return None;
    }
    Some((host, port))
}

/// Returns the order in which addresses are tried: families in turn, beginning with that of the
/// first address, else in the given order (RFC 8305 section 4).
pub fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (same, other): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|a| a.is_ipv4() == first.is_ipv4());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    let mut order = Vec::new();
    while order.len() < MAX_ADDRESSES {
        match (same.next(), other.next()) {
            (None, None) => break,
            (a, b) => order.extend(a.into_iter().chain(b)),
        }
    }
    order.truncate(MAX_ADDRESSES);
    order
}

/// Moves IPv6 addresses to the front, as [`race`] expects.
pub(super) fn ipv6_first(addresses: &mut Vec<IpAddr>) {
    move_last(addresses, IpAddr::is_ipv4);
}

/// Moves the addresses that match to the end and keeps the order otherwise. (The sorting of the
/// standard library costs some kilobytes for each type of key.)
pub(super) fn move_last(addresses: &mut Vec<IpAddr>, holds: impl Fn(&IpAddr) -> bool) {
    let mut last = addresses.clone();
    last.retain(&holds);
    addresses.retain(|ip| !holds(ip));
    addresses.extend(last);
}

/// Returns the interface for a connection to `address`. Loopback addresses need none.
pub fn interface_to(interface: &str, address: SocketAddr) -> &str {
    if address.ip().is_loopback() { "" } else { interface }
}

/// Connects to the first of `addresses` that answers. Each attempt begins a little later than
/// the one before, or at once after its failure. `interface`: see [`socket::begin_connect`].
/// The socket is blocking, with keep-alive and without delay.
pub fn race(
    addresses: &[SocketAddr],
    interface: &str,
    deadline: Deadline,
) -> io::Result<TcpStream> {
    race_by(addresses, &|address| socket::begin_connect(address, interface), deadline)
}

/// Connects to one address with small segments in both directions, for a path that may lose
/// larger ones.
pub fn connect_with_small_segments(
    address: SocketAddr,
    interface: &str,
    deadline: Deadline,
) -> io::Result<TcpStream> {
    race_by(&[address], &|to| socket::begin_connect_small(to, interface), deadline)
}

fn race_by(
    addresses: &[SocketAddr],
    begin: &dyn Fn(SocketAddr) -> io::Result<TcpStream>,
    deadline: Deadline,
) -> io::Result<TcpStream> {
    let mut race = Race {
        waiting: interleave(addresses).into(),
        running: Vec::new(),
        next_start: sys::clock(),
        failures: Vec::new(),
        kind: io::ErrorKind::NotFound,
    };
    loop {
        let now = sys::clock();
        if deadline.due(now) {
            let silent = race.running.iter().map(|(a, _)| format!("{a}: no answer"));
            race.failures.extend(silent);
            return Err(unreachable(io::ErrorKind::TimedOut, &race.failures));
        }
        let is_due = race.running.is_empty() || race.next_start <= now;
        if is_due && !race.begin_next(begin, now)? {
            continue;
        }
        let left = match race.waiting.is_empty() {
            true => deadline.left(now),
            false => deadline.min(Deadline::At(race.next_start)).left(now),
        };
        let mut fds: Vec<_> = race.running.iter().map(|(_, s)| PollFd::writable(s)).collect();
        poll::wait(&mut fds, left)?;
        if let Some(socket) = race.winner(&fds, now) {
            return Ok(socket);
        }
    }
}

/// Attempts to connect to one host.
struct Race {
    /// Addresses without an attempt yet.
    waiting: VecDeque<SocketAddr>,
    running: Vec<(SocketAddr, TcpStream)>,
    /// Time of the next attempt.
    next_start: Instant,
    failures: Vec<String>,
    /// Kind of the last failure.
    kind: io::ErrorKind,
}

impl Race {
    /// Begins the next attempt. Returns false if another one may begin at once. The error: no
    /// address is left.
    fn begin_next(
        &mut self,
        begin: &dyn Fn(SocketAddr) -> io::Result<TcpStream>,
        now: Instant,
    ) -> io::Result<bool> {
        let Some(address) = self.waiting.pop_front() else {
            return match self.running.is_empty() {
                true => Err(unreachable(self.kind, &self.failures)),
                false => Ok(true),
            };
        };
        match begin(address) {
            Ok(socket) => {
                self.running.push((address, socket));
                self.next_start = now + CONNECTION_ATTEMPT_DELAY;
                return Ok(true);
            }
            Err(e) if sys::fd_budget::is_exhausted(&e) && !self.running.is_empty() => {
                // An attempt with enough time is ended. Otherwise a working address behind
                // several silent ones would never be tried.
                let (first, _) = self.running.remove(0);
                self.failures.push(format!("{first}: no answer before descriptors ran out"));
                self.waiting.push_front(address);
            }
            Err(e) => {
                self.kind = e.kind();
                self.failures.push(format!("{address}: {}", sys::fd_budget::words(&e)));
            }
        }
        Ok(false)
    }

    /// Returns an attempt that succeeded. Removes those that failed; then the next one may
    /// begin at `now`.
    fn winner(&mut self, fds: &[PollFd], now: Instant) -> Option<TcpStream> {
        for at in (0..fds.len()).rev().filter(|at| fds[*at].is_ready()) {
            let (address, socket) = self.running.swap_remove(at);
            let outcome = match socket.take_error() {
                Ok(None) => configure(&socket),
                Ok(Some(e)) | Err(e) => Err(e),
            };
            match outcome {
                Ok(()) => return Some(socket),
                Err(e) => {
                    self.kind = e.kind();
                    self.failures.push(format!("{address}: {e}"));
                    self.next_start = now;
                }
            }
        }
        None
    }
}

/// Sets the options that the rest of the program expects.
fn configure(socket: &TcpStream) -> io::Result<()> {
    socket.peer_addr()?;
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    sys::keep_alive(socket.as_raw_fd(), UNACKED_TIMEOUT);
    Ok(())
}

fn unreachable(kind: io::ErrorKind, failures: &[String]) -> io::Error {
    let text = match failures {
        [] => "no address to connect to".to_owned(),
        list => format!("cannot connect: {}", join_failures(list)),
    };
    io::Error::new(kind, text)
}

/// Joins notes of the form `ADDRESS: CAUSE` in one line: each cause once, then its addresses.
/// Without a network all causes are equal, and a log on a router truncates lines over 1 KiB.
pub(super) fn join_failures(failures: &[String]) -> String {
    let parts = |failure: &'_ str| failure.find(": ").map_or(0, |at| at + 2);
    let mut out = String::new();
    for (n, failure) in failures.iter().enumerate() {
        let why = failure.split_at(parts(failure)).1;
        let alike = |other: &&String| other.split_at(parts(other)).1 == why;
        if failures[..n].iter().any(|other| alike(&other)) {
            continue;
        }
        let mut who: Vec<_> = failures.iter().filter(alike).map(|f| &f[..parts(f)]).collect();
        who.dedup();
        if n > 0 {
            out.push_str("; ");
        }
        out.push_str(why);
        for (n, who) in who.iter().take(MAX_SHOWN).enumerate().filter(|(_, who)| !who.is_empty()) {
            out.push_str(if n == 0 { " (" } else { ", " });
            out.push_str(who.trim_end_matches(": "));
        }
        match who.len().saturating_sub(MAX_SHOWN) {
            0 if who.concat().is_empty() => {}
            0 => out.push(')'),
            more => out.push_str(&format!(" and {more} more)")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn who_failed_alike_stands_together() {
        let failures = ["a:1: no", "a:1: no", "b:1: no", "[::1]:1: refused", "c: x: no", "what"];
        let failures = failures.map(str::to_owned);
        assert_eq!(join_failures(&failures), "no (a:1, b:1); refused ([::1]:1); x: no (c); what");
        assert_eq!(join_failures(&failures[..1]), "no (a:1)");
        let failures = ["a: no", "b: no", "c: no", "d: no", "e: so"].map(str::to_owned);
        assert_eq!(join_failures(&failures), "no (a, b and 2 more); so (e)");
        assert_eq!(join_failures(&[]), "");
    }

    fn soon() -> Deadline {
        Deadline::At(sys::clock() + Duration::from_secs(20))
    }

    /// Returns a port of 127.0.0.1 without a listener.
    fn refusing() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

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
        for text in ["", ":443", "host:", "host:0", "host:99999", "[::1", "[::1]x", "a/b", "u@h:1"]
        {
            assert!(split_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn families_take_turns() {
        let of = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        let came = of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let order = of(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "[::3]:1"]);
        assert_eq!(interleave(&came), order);
        assert_eq!(interleave(&came.repeat(9)).len(), MAX_ADDRESSES);
    }

    #[test]
    fn the_first_that_answers_wins() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        // 192.0.2.1 belongs to no host: it refuses or is silent, depending on the network.
        let addresses = [refusing(), "[::1]:1".parse().unwrap(), refusing(), good];
        let socket = race(&addresses, "", soon()).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), good);
        let socket = race(&[good], "lo", soon()).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), good);
    }

    #[test]
    fn each_failure_is_told() {
        let (one, two) = (refusing(), refusing());
        let error = race(&[one, two], "", soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let text = error.to_string();
        assert!(text.contains(&one.to_string()) && text.contains(&two.to_string()), "{text}");
        let error = race(&[one], "none0", soon()).unwrap_err().to_string();
        assert!(error.contains("connect_interface 'none0'"), "{error}");
        assert!(race(&[], "", soon()).unwrap_err().to_string().contains("no address"));
    }

    /// A full backlog drops connections: a silent address on loopback.
    fn deaf() -> (socket2::Socket, Vec<TcpStream>, io::Error) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let deaf = socket.unwrap();
        deaf.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        deaf.listen(0).unwrap();
        let address = deaf.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        let full = loop {
            let short = Deadline::At(sys::clock() + Duration::from_millis(300));
            match race(&[address], "", short) {
                Ok(socket) => filling.push(socket),
                Err(e) => break e,
            }
        };
        (deaf, filling, full)
    }

    #[test]
    fn silence_ends_by_the_deadline_and_does_not_hold_up_the_next() {
        let (deaf, _filling, full) = deaf();
        let address = deaf.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(full.kind(), io::ErrorKind::TimedOut);
        assert!(full.to_string().contains("no answer"), "{full}");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        assert_eq!(race(&[address, good], "", soon()).unwrap().peer_addr().unwrap(), good);
    }

    /// With one descriptor for all addresses, each is tried in turn.
    #[test]
    fn a_silent_address_makes_room_for_the_next_when_descriptors_run_out() {
        let (deaf, _filling, _) = deaf();
        let silent = deaf.local_addr().unwrap().as_socket().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        // The value on every Linux.
        const EMFILE: i32 = 24;
        let tried = std::cell::RefCell::new(Vec::new());
        let begin = |address| {
            // Every second attempt finds the table full.
            tried.borrow_mut().push(address);
            match tried.borrow().len() % 2 {
                0 => Err(io::Error::from_raw_os_error(EMFILE)),
                _ => socket::begin_connect(address, ""),
            }
        };
        let socket = race_by(&[silent, silent, good], &begin, soon()).unwrap();
        assert_eq!(socket.peer_addr().unwrap(), good);
        assert_eq!(*tried.borrow(), [silent, silent, silent, good, good]);
        let nothing = |_| Err(io::Error::from_raw_os_error(EMFILE));
        let error = race_by(&[good, good], &nothing, soon()).unwrap_err();
        assert!(error.to_string().contains("Too many open files"), "{error}");
    }
}
