//! The listeners, and the one thread that accepts for all of them: agents,
//! visitors, and the ports of TCP endpoints, which come and go.

use std::collections::HashMap;
use std::fmt;
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
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// Token of the waker; listeners' tokens are ports and small numbers above.
const WAKE: Token = Token(0);

/// How long accepting pauses when the process has no descriptors left.
const BREATH: Duration = Duration::from_millis(50);

/// How long a port may be without an endpoint: it is taken before its endpoint
/// is online.
const SETTLE: Duration = Duration::from_secs(10);

/// What a connection was accepted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// Agents.
    Agent,
    /// Visitors in clear.
    Http,
    /// Visitors over TLS.
    Https,
    /// Visitors of the TCP endpoint with this port.
    Tcp(u16),
}

/// All listeners.
pub struct Ports {
    address: IpAddr,
    first: u16,
    last: u16,
    registry: Registry,
    waker: Waker,
    poll: Mutex<Option<Poll>>,
    stopped: AtomicBool,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: usize,
    doors: HashMap<Token, (Door, TcpListener)>,
    tcp: HashMap<u16, (Token, Instant)>,
}

impl Ports {
    /// No listeners yet; TCP endpoints get ports of `range` at `address`. The range
    /// 0 to 0 leaves the choice to the system.
    pub fn new(address: IpAddr, range: (u16, u16)) -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Ports {
            address,
            first: range.0,
            last: range.1,
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKE)?,
            poll: Mutex::new(Some(poll)),
            stopped: AtomicBool::new(false),
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }

    /// Opens a door. Returns its address.
    pub fn listen(&self, door: Door, address: SocketAddr) -> io::Result<SocketAddr> {
        let mut open = self.lock();
        self.add(&mut open, door, address)
    }

    fn add(&self, open: &mut Open, door: Door, address: SocketAddr) -> io::Result<SocketAddr> {
        let mut listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let door = if let Door::Tcp(_) = door { Door::Tcp(address.port()) } else { door };
        open.next += 1;
        let token = Token(open.next);
        self.registry.register(&mut listener, token, Interest::READABLE)?;
        open.doors.insert(token, (door, listener));
        if let Door::Tcp(port) = door {
            open.tcp.insert(port, (token, sys::clock()));
        }
        Ok(address)
    }

    /// Whether TCP endpoints may have this port.
    pub fn covers(&self, port: u16) -> bool {
        port > 0 && ((self.first..=self.last).contains(&port) || self.last == 0)
    }

    /// Opens a free port.
    pub fn any(&self) -> io::Result<u16> {
        let mut open = self.lock();
        if self.last == 0 {
            let address = SocketAddr::new(self.address, 0);
            return self.add(&mut open, Door::Tcp(0), address).map(|a| a.port());
        }
        let count = u32::from(self.last - self.first) + 1;
        let start = u32::from_le_bytes(token::random::<4>()?) % count;
        for n in 0..count {
            let at = u16::try_from((start + n) % count).unwrap_or(0);
            let port = self.first + at;
            if open.tcp.contains_key(&port) {
                continue;
            }
            let address = SocketAddr::new(self.address, port);
            match self.add(&mut open, Door::Tcp(port), address) {
                Ok(address) => return Ok(address.port()),
                // Somebody else's on this machine, or not ours to open.
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
    pub fn take(&self, port: u16) -> io::Result<()> {
        let mut open = self.lock();
        if let Some((_, since)) = open.tcp.get_mut(&port) {
            *since = sys::clock();
            return Ok(());
        }
        let address = SocketAddr::new(self.address, port);
        self.add(&mut open, Door::Tcp(port), address).map(|_| ())
    }

    /// Closes this port.
    pub fn free(&self, port: u16) {
        let mut open = self.lock();
        if let Some((token, _)) = open.tcp.remove(&port)
            && let Some((_, mut listener)) = open.doors.remove(&token)
        {
            let _ = self.registry.deregister(&mut listener);
        }
    }

    /// Closes the ports that have had no endpoint for a while.
    pub fn sweep(&self, used: &[u16]) {
        let now = sys::clock();
        let unused: Vec<u16> = self
            .lock()
            .tcp
            .iter()
            .filter(|(port, (_, since))| !used.contains(port) && now.since(*since) > SETTLE)
            .map(|(port, _)| *port)
            .collect();
        for port in unused {
            self.free(port);
        }
    }

    /// Closes everything and ends [`Ports::run`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.waker.wake();
        let mut open = self.lock();
        open.doors.clear();
        open.tcp.clear();
    }

    /// Accepts until [`Ports::stop`]; `enter` gets each connection and may not block.
    pub fn run(&self, enter: impl Fn(Door, TcpStream, SocketAddr)) {
        let Some(mut poll) = self.poll.lock().take() else {
            return;
        };
        let mut events = Events::with_capacity(64);
        let mut again: Vec<Token> = Vec::new();
        let mut complaint = LineQuota::per_minute(1);
        while !self.stopped.load(Ordering::Acquire) {
            let timeout = (!again.is_empty()).then_some(BREATH);
            if let Err(e) = poll.poll(&mut events, timeout)
                && e.kind() != io::ErrorKind::Interrupted
            {
                event!(error, obj = "edge", "cannot wait for connections", err = e);
                return;
            }
            let mut ready = std::mem::take(&mut again);
            ready.extend(events.iter().map(|e| e.token()).filter(|t| *t != WAKE));
            for token in ready {
                if let Err(e) = self.accept(token, &enter) {
                    // Edge-triggered: what could not be accepted now is asked for again.
                    again.push(token);
                    if let Some(count) = complaint.record(sys::clock()) {
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

    /// Accepts all that wait at one door.
    fn accept(&self, token: Token, enter: &impl Fn(Door, TcpStream, SocketAddr)) -> io::Result<()> {
        loop {
            let (door, accepted) = {
                let open = self.lock();
                let Some((door, listener)) = open.doors.get(&token) else { return Ok(()) };
                (*door, listener.accept())
            };
            match accepted {
                Ok((socket, peer)) => {
                    let socket = TcpStream::from(OwnedFd::from(socket));
                    if socket.set_nonblocking(false).is_ok() {
                        enter(door, socket, peer);
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
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.last == 0 {
            // As it was given: a restart with the same words gives the same.
            f.write_str("0")
        } else if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
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
        let ports = Ports::new(HERE, (0, 0)).unwrap();
        let a = ports.any().unwrap();
        assert!(ports.covers(a) && !ports.covers(0));
        ports.take(a).unwrap();
        assert!(TcpStream::connect((HERE, a)).is_ok());
        ports.sweep(&[]);
        assert!(TcpStream::connect((HERE, a)).is_ok(), "it may still get its endpoint");
        ports.free(a);
        assert!(TcpStream::connect((HERE, a)).is_err());
        // A range of one port that is taken.
        let b = ports.any().unwrap();
        let narrow = Ports::new(HERE, (b, b)).unwrap();
        assert_eq!(narrow.any().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(!narrow.covers(b.wrapping_add(1)) && narrow.to_string() == b.to_string());
    }

    #[test]
    fn connections_come_with_their_door() {
        let ports = Ports::new(HERE, (0, 0)).unwrap();
        let http = ports.listen(Door::Http, SocketAddr::new(HERE, 0)).unwrap();
        let tcp = ports.any().unwrap();
        thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let ports = &ports;
            scope.spawn(move || ports.run(|door, _, peer| tell.send((door, peer)).unwrap()));
            for (address, door) in
                [(http, Door::Http), (SocketAddr::new(HERE, tcp), Door::Tcp(tcp))]
            {
                let client = TcpStream::connect(address).unwrap();
                let got = told.recv_timeout(Duration::from_secs(30)).unwrap();
                assert_eq!(got, (door, client.local_addr().unwrap()));
            }
            ports.stop();
        });
        assert!(TcpStream::connect(http).is_err());
    }
}
