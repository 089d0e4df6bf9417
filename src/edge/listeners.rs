//! Listening sockets for agents, visitors and TCP endpoints, with one thread that accepts
//! for all of them. The ports of TCP endpoints are opened and closed at any time. What a
//! connection is used for is not decided here.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::edge::token;
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// Token of the waker. The tokens of listeners are higher numbers.
const WAKER_TOKEN: Token = Token(0);

/// Pause before the next attempt when accepting failed, mostly for lack of descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// Time that a port may be without an endpoint. It is opened before its endpoint is online.
const UNUSED_PORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Purpose of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// Connections of agents.
    Agent,
    /// Visitors without TLS.
    Http,
    /// Visitors over TLS.
    Https,
    /// Clients of the REST API.
    Api,
    /// Visitors of the TCP endpoint with this port.
    Tcp(u16),
}

/// All listeners.
pub struct Listeners {
    address: IpAddr,
    first: u16,
    last: u16,
    registry: Registry,
    waker: Waker,
    poll: Mutex<Option<Poll>>,
    stopped: AtomicBool,
    open: Mutex<OpenListeners>,
}

#[derive(Default)]
struct OpenListeners {
    next: usize,
    listeners: HashMap<Token, (ListenerKind, TcpListener)>,
    tcp: HashMap<u16, (Token, Instant)>,
}

impl Listeners {
    /// Creates an empty set. TCP endpoints get ports of `range` at `address`. The range 0 to
    /// 0 leaves the choice to the system.
    pub fn new(address: IpAddr, range: (u16, u16)) -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Listeners {
            address,
            first: range.0,
            last: range.1,
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKER_TOKEN)?,
            poll: Mutex::new(Some(poll)),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        })
    }

    /// Opens a listener. Returns its address.
    pub fn listen(&self, kind: ListenerKind, address: SocketAddr) -> io::Result<SocketAddr> {
        let mut open = self.open.lock();
        self.add(&mut open, kind, address)
    }

    fn add(
        &self,
        open: &mut OpenListeners,
        kind: ListenerKind,
        address: SocketAddr,
    ) -> io::Result<SocketAddr> {
        let mut listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let kind =
            if let ListenerKind::Tcp(_) = kind { ListenerKind::Tcp(address.port()) } else { kind };
        open.next += 1;
        let token = Token(open.next);
        self.registry.register(&mut listener, token, Interest::READABLE)?;
        open.listeners.insert(token, (kind, listener));
        if let ListenerKind::Tcp(port) = kind {
            open.tcp.insert(port, (token, sys::clock()));
        }
        Ok(address)
    }

    /// Returns whether TCP endpoints may use this port.
    pub fn is_in_range(&self, port: u16) -> bool {
        port > 0 && ((self.first..=self.last).contains(&port) || self.last == 0)
    }

    /// Opens a free port that is not in `reserved`.
    pub fn open_any_port(&self, reserved: &HashSet<u16>) -> io::Result<u16> {
        let mut open = self.open.lock();
        if self.last == 0 {
            let address = SocketAddr::new(self.address, 0);
            return self.add(&mut open, ListenerKind::Tcp(0), address).map(|a| a.port());
        }
        let count = u32::from(self.last - self.first) + 1;
        let start = u32::from_le_bytes(token::random::<4>()?) % count;
        for n in 0..count {
            let at = u16::try_from((start + n) % count).unwrap_or(0);
            let port = self.first + at;
            if open.tcp.contains_key(&port) || reserved.contains(&port) {
                continue;
            }
            let address = SocketAddr::new(self.address, port);
            match self.add(&mut open, ListenerKind::Tcp(port), address) {
                Ok(address) => return Ok(address.port()),
                // Another program uses the port, or this process may not open it.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                    ) => {}
                Err(e) => return Err(e),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "all are in use"))
    }

    /// Opens this port, if it is not open already.
    pub fn open_port(&self, port: u16) -> io::Result<()> {
        let mut open = self.open.lock();
        if let Some((_, since)) = open.tcp.get_mut(&port) {
            *since = sys::clock();
            return Ok(());
        }
        let address = SocketAddr::new(self.address, port);
        self.add(&mut open, ListenerKind::Tcp(port), address).map(|_| ())
    }

    /// Closes a port, unless `in_use` returns true. An endpoint that goes online meanwhile is
    /// seen by `in_use`, or opens the port again.
    pub fn close_port_unless(&self, port: u16, in_use: impl FnOnce() -> bool) {
        let mut open = self.open.lock();
        if !in_use() {
            self.close(&mut open, port);
        }
    }

    fn close(&self, open: &mut OpenListeners, port: u16) {
        if let Some((token, _)) = open.tcp.remove(&port)
            && let Some((_, mut listener)) = open.listeners.remove(&token)
        {
            let _ = self.registry.deregister(&mut listener);
        }
    }

    /// Closes the ports that had no endpoint for a while.
    pub fn close_unused_ports(&self, in_use: impl Fn(u16) -> bool) {
        let now = sys::clock();
        let mut open = self.open.lock();
        let is_old = |since: Instant| now.since(since) > UNUSED_PORT_TIMEOUT;
        let old = open.tcp.iter().filter(|(_, (_, since))| is_old(*since));
        let unused: Vec<u16> = old.map(|(port, _)| *port).filter(|port| !in_use(*port)).collect();
        for port in unused {
            self.close(&mut open, port);
        }
    }

    /// Closes everything and ends [`Listeners::run`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.waker.wake();
        let mut open = self.open.lock();
        open.listeners.clear();
        open.tcp.clear();
    }

    /// Accepts until [`Listeners::stop`]; `enter` gets each connection and may not block.
    pub fn run(&self, enter: impl Fn(ListenerKind, TcpStream, SocketAddr)) {
        let Some(mut poll) = self.poll.lock().take() else {
            return;
        };
        let mut events = Events::with_capacity(64);
        let mut retry: Vec<Token> = Vec::new();
        let mut warnings = LineQuota::per_minute(1);
        while !self.stopped.load(Ordering::Acquire) {
            let timeout = (!retry.is_empty()).then_some(ACCEPT_RETRY_DELAY);
            if let Err(e) = poll.poll(&mut events, timeout)
                && e.kind() != io::ErrorKind::Interrupted
            {
                // Not bounded: nothing is accepted after it.
                event!(error, obj = "edge", "cannot wait for connections", err = e);
                return;
            }
            let mut ready = std::mem::take(&mut retry);
            ready.extend(events.iter().map(|e| e.token()).filter(|t| *t != WAKER_TOKEN));
            for token in ready {
                if let Err(e) = self.accept(token, &enter) {
                    // Edge-triggered: no new event comes for these connections.
                    retry.push(token);
                    if let Some(count) = warnings.record(sys::clock()) {
                        event!(
                            error,
                            obj = "edge",
                            "cannot accept connections",
                            count = count,
                            err = e
                        );
                    }
                }
            }
        }
    }

    /// Accepts all waiting connections of one listener.
    fn accept(
        &self,
        token: Token,
        enter: &impl Fn(ListenerKind, TcpStream, SocketAddr),
    ) -> io::Result<()> {
        loop {
            let (kind, accepted) = {
                let open = self.open.lock();
                let Some((kind, listener)) = open.listeners.get(&token) else { return Ok(()) };
                (*kind, listener.accept())
            };
            match accepted {
                Ok((socket, peer)) => {
                    let socket = TcpStream::from(OwnedFd::from(socket));
                    if socket.set_nonblocking(false).is_ok() {
                        enter(kind, socket, peer);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Returns the ports of TCP endpoints in the form of `--tcp-ports`.
    pub fn port_range(&self) -> String {
        if self.last == 0 {
            // The system chooses: the range stays the same after a restart.
            "0".into()
        } else if self.first == self.last {
            self.first.to_string()
        } else {
            format!("{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::mpsc;
    use std::thread;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn ports_open_and_close() {
        let ports = Listeners::new(HERE, (0, 0)).unwrap();
        let a = ports.open_any_port(&HashSet::new()).unwrap();
        assert!(ports.is_in_range(a) && !ports.is_in_range(0));
        ports.open_port(a).unwrap();
        assert!(TcpStream::connect((HERE, a)).is_ok());
        ports.close_unused_ports(|_| false);
        assert!(TcpStream::connect((HERE, a)).is_ok(), "it may still get its endpoint");
        ports.close_port_unless(a, || true);
        assert!(TcpStream::connect((HERE, a)).is_ok(), "in use");
        ports.close_port_unless(a, || false);
        assert!(TcpStream::connect((HERE, a)).is_err());
        // A range of one port, which is in use.
        let b = ports.open_any_port(&HashSet::new()).unwrap();
        let narrow = Listeners::new(HERE, (b, b)).unwrap();
        assert_eq!(
            narrow.open_any_port(&HashSet::new()).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        assert!(!narrow.is_in_range(b.wrapping_add(1)) && narrow.port_range() == b.to_string());
    }

    #[test]
    fn connections_come_with_their_door() {
        let ports = Listeners::new(HERE, (0, 0)).unwrap();
        let http = ports.listen(ListenerKind::Http, SocketAddr::new(HERE, 0)).unwrap();
        let tcp = ports.open_any_port(&HashSet::new()).unwrap();
        thread::scope(|scope| {
            let (accepted, accepted_rx) = mpsc::channel();
            let ports = &ports;
            scope.spawn(move || ports.run(|kind, _, peer| accepted.send((kind, peer)).unwrap()));
            for (address, kind) in
                [(http, ListenerKind::Http), (SocketAddr::new(HERE, tcp), ListenerKind::Tcp(tcp))]
            {
                let client = TcpStream::connect(address).unwrap();
                let got = accepted_rx.recv_timeout(Duration::from_secs(30)).unwrap();
                assert_eq!(got, (kind, client.local_addr().unwrap()));
            }
            ports.stop();
        });
        assert!(TcpStream::connect(http).is_err());
    }
}
