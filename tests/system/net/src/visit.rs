//! Visitors in the edge's namespace, and the service in the agent's.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::{Lab, Place};

/// Time for one attempt of a visitor.
const TRY: Duration = Duration::from_millis(700);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(25);

/// Address and host for visitors.
#[derive(Clone, Debug)]
pub struct Entrance {
    pub addr: SocketAddr,
    pub host: String,
}

/// Starts a service with three responses: `/` at once, `/bulk` without an end, anything else
/// never. It ends with the namespace's last thread.
pub fn serve(lab: &Lab) -> io::Result<SocketAddr> {
    let listener = lab.within(Place::Agent, || TcpListener::bind("127.0.0.1:0")).join();
    let listener = listener.map_err(|_| io::Error::other("no listener"))??;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            thread::spawn(move || _ = answer(visitor));
        }
    });
    Ok(addr)
}

fn answer(mut visitor: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && visitor.read(&mut byte)? == 1 {
        head.push(byte[0]);
    }
    if head.starts_with(b"GET / ") {
        return visitor
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    }
    if head.starts_with(b"GET /bulk ") {
        visitor.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        let block = [b'x'; 16 * 1024];
        loop {
            visitor.write_all(&block)?;
        }
    }
    // Until the other side disconnects.
    let _ = visitor.read(&mut byte);
    Ok(())
}

/// Makes one visit. Returns whether the service responded.
fn visit(entrance: &Entrance) -> bool {
    let until = Instant::now() + TRY;
    let visit = || -> io::Result<bool> {
        let mut socket = TcpStream::connect_timeout(&entrance.addr, TRY)?;
        let host = &entrance.host;
        write!(socket, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match socket.read(&mut buffer)? {
                0 => break,
                n => answer.extend_from_slice(&buffer[..n]),
            }
        }
        Ok(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"hello"))
    };
    visit().unwrap_or(false)
}

/// A visitor with continuous requests that records when the responses changed from good to bad
/// and back.
pub struct Watch {
    changes: Arc<Mutex<Vec<(Instant, bool)>>>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    pub fn start(lab: &Lab, entrance: Entrance) -> Watch {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, ended) = (Arc::clone(&changes), Arc::clone(&stop));
        lab.within(Place::Edge, move || {
            let mut last = None;
            while !ended.load(Ordering::Relaxed) {
                let began = Instant::now();
                let good = visit(&entrance);
                if last != Some(good) {
                    last = Some(good);
                    // A good response counts from its end, a bad one from its start.
                    let at = if good { Instant::now() } else { began };
                    if let Ok(mut changes) = told.lock() {
                        changes.push((at, good));
                    }
                }
                thread::sleep(PAUSE);
            }
        });
        Watch { changes, stop }
    }

    fn changes(&self) -> Vec<(Instant, bool)> {
        self.changes.lock().map(|changes| changes.clone()).unwrap_or_default()
    }

    /// Returns whether the last visit succeeded.
    pub fn is_good(&self) -> bool {
        self.changes().last().is_some_and(|change| change.1)
    }

    /// Waits for good responses at or after `from`. Returns how long after `from` they began;
    /// zero if they never became bad. A visit that began before `from` and succeeded is not the
    /// end of an outage that is still to come.
    pub fn back(&self, from: Instant, patience: Duration) -> Option<Duration> {
        let until = Instant::now() + patience;
        loop {
            let changes = self.changes();
            match changes.last() {
                // Good since before: without an outage.
                Some((at, true)) if Instant::now() > from + TRY => {
                    return Some(at.saturating_duration_since(from));
                }
                _ if Instant::now() > until => return None,
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Waits until visits fail.
    pub fn gone(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.is_good() {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A visitor that waits for a response that never comes. It reports when it was closed.
pub struct Waiting {
    ended: Arc<Mutex<Option<Instant>>>,
}

impl Waiting {
    /// `path`: `/never` for a visitor that waits, `/bulk` for one that downloads.
    pub fn start(lab: &Lab, entrance: &Entrance, path: &'static str) -> Waiting {
        let ended = Arc::new(Mutex::new(None));
        let told = Arc::clone(&ended);
        let Entrance { addr, host } = entrance.clone();
        lab.within(Place::Edge, move || {
            let hang = || -> io::Result<()> {
                let mut socket = TcpStream::connect_timeout(&addr, TRY)?;
                write!(socket, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
                let mut buffer = [0; 64 * 1024];
                while socket.read(&mut buffer)? > 0 {}
                Ok(())
            };
            let _ = hang();
            if let Ok(mut ended) = told.lock() {
                *ended = Some(Instant::now());
            }
        });
        Waiting { ended }
    }

    /// Returns how long after `fault` it was closed. `None`: it still waits.
    pub fn let_go(&self, fault: Instant, patience: Duration) -> Option<Duration> {
        let until = Instant::now() + patience;
        loop {
            if let Some(at) = self.ended.lock().ok().and_then(|ended| *ended) {
                return Some(at.saturating_duration_since(fault));
            }
            if Instant::now() > until {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
