//! Connections that wait for bytes of their peer without a thread. One thread waits for all
//! of them, and resumes those that are readable or whose time is over. The protocols of the
//! connections do not belong here.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};

use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::{Deadline, Instant};

/// Token of the waker. The tokens of connections are higher numbers.
const WAKER_TOKEN: Token = Token(0);

/// Pause before the next attempt when the wait failed.
const POLL_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A connection that waits. It is dropped when the parking is stopped.
pub trait Parked: Send {
    /// Returns its socket.
    fn fd(&self) -> RawFd;

    /// Continues when there are bytes to read, or their end. Does not block.
    fn resume(self: Box<Self>);

    /// Ends or continues the wait when its time is over. Does not block.
    fn expire(self: Box<Self>);
}

/// All connections that wait.
pub struct Parking {
    registry: Registry,
    waker: Waker,
    poll: Mutex<Option<Poll>>,
    stopped: AtomicBool,
    table: Mutex<ParkingTable>,
}

#[derive(Default)]
struct ParkingTable {
    last: usize,
    parked: HashMap<Token, (Instant, Box<dyn Parked>)>,
    deadlines: BTreeSet<(Instant, Token)>,
}

impl ParkingTable {
    /// Returns a token that no connection has. On 32 bits the numbers start again after some
    /// weeks under load.
    fn next_token(&mut self) -> Token {
        loop {
            self.last = self.last.wrapping_add(1);
            let token = Token(self.last);
            if token != WAKER_TOKEN && !self.parked.contains_key(&token) {
                return token;
            }
        }
    }
}

impl Parking {
    /// Creates a parking without connections.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        Ok(Parking {
            registry: poll.registry().try_clone()?,
            waker: Waker::new(poll.registry(), WAKER_TOKEN)?,
            poll: Mutex::new(Some(poll)),
            stopped: AtomicBool::new(false),
            table: Mutex::default(),
        })
    }

    /// Leaves a connection here until it is readable or `deadline` is over. Does not block.
    /// On failure it is dropped.
    pub fn park(&self, parked: Box<dyn Parked>, deadline: Instant) -> io::Result<()> {
        self.park_with(parked, deadline, || self.waker.wake())
    }

    fn park_with(
        &self,
        parked: Box<dyn Parked>,
        deadline: Instant,
        wake: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let fd = parked.fd();
        let mut table = self.table.lock();
        let token = table.next_token();
        let is_first = table.deadlines.first().is_none_or(|(first, _)| deadline < *first);
        // Under the lock: the thread of the poll finds it in the table.
        self.registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        table.deadlines.insert((deadline, token));
        table.parked.insert(token, (deadline, parked));
        drop(table);
        // The thread sleeps until a later deadline.
        let woken = if is_first { wake() } else { Ok(()) };
        if woken.is_err() {
            drop(self.take(token));
        }
        woken
    }

    /// Resumes connections until [`Parking::stop`].
    pub fn run(&self) {
        let Some(mut poll) = self.poll.lock().take() else { return };
        self.run_with(|events, timeout| poll.poll(events, timeout));
    }

    fn run_with(&self, mut wait: impl FnMut(&mut Events, Option<Duration>) -> io::Result<()>) {
        let mut events = Events::with_capacity(256);
        let mut warnings = LineQuota::per_minute(1);
        while !self.stopped.load(Ordering::Acquire) {
            let due = self.table.lock().deadlines.first().map(|(first, _)| *first);
            let timeout = due.map_or(Deadline::Never, Deadline::At).left(sys::clock());
            if let Err(e) = wait(&mut events, timeout)
                && e.kind() != io::ErrorKind::Interrupted
            {
                events.clear();
                if let Some(count) = warnings.record(sys::clock()) {
                    event!(
                        error,
                        obj = "edge",
                        "cannot wait for parked connections",
                        count = count,
                        err = e
                    );
                }
                // The connections still end at their deadlines.
                thread::sleep(POLL_RETRY_DELAY);
            }
            for event in events.iter().filter(|e| e.token() != WAKER_TOKEN) {
                if let Some(parked) = self.take(event.token()) {
                    parked.resume();
                }
            }
            self.expire(sys::clock());
        }
    }

    fn expire(&self, now: Instant) {
        loop {
            let first = self.table.lock().deadlines.first().copied();
            match first {
                Some((deadline, token)) if deadline <= now => {
                    if let Some(parked) = self.take(token) {
                        parked.expire();
                    }
                }
                _ => return,
            }
        }
    }

    fn take(&self, token: Token) -> Option<Box<dyn Parked>> {
        let mut table = self.table.lock();
        let (deadline, parked) = table.parked.remove(&token)?;
        table.deadlines.remove(&(deadline, token));
        let _ = self.registry.deregister(&mut SourceFd(&parked.fd()));
        Some(parked)
    }

    /// Returns the number of connections that wait.
    pub fn count(&self) -> usize {
        self.table.lock().parked.len()
    }

    /// Ends [`Parking::run`].
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Waiting {
        socket: TcpStream,
        number: u32,
        ends: Sender<(u32, &'static str)>,
    }

    impl Parked for Waiting {
        fn fd(&self) -> RawFd {
            self.socket.as_raw_fd()
        }

        fn resume(self: Box<Self>) {
            self.ends.send((self.number, "readable")).unwrap();
        }

        fn expire(self: Box<Self>) {
            self.ends.send((self.number, "late")).unwrap();
        }
    }

    /// Returns a connection that waits, and its client.
    fn waiting(number: u32, ends: &Sender<(u32, &'static str)>) -> (Box<dyn Parked>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let socket = listener.accept().unwrap().0;
        (Box::new(Waiting { socket, number, ends: ends.clone() }), client)
    }

    #[test]
    fn a_failed_wait_is_repeated_and_deadlines_count_meanwhile() {
        let parking = Parking::new().unwrap();
        let (ends, ended) = channel();
        let (late, _late) = waiting(1, &ends);
        let (readable, mut client) = waiting(2, &ends);
        parking.park(late, sys::clock()).unwrap();
        parking.park(readable, sys::clock() + Duration::from_secs(3600)).unwrap();
        let fails = AtomicBool::new(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut poll = parking.poll.lock().take().unwrap();
                parking.run_with(|events, timeout| match fails.load(Ordering::Relaxed) {
                    true => Err(io::ErrorKind::OutOfMemory.into()),
                    false => poll.poll(events, timeout),
                });
            });
            let next = || ended.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(next(), (1, "late"));
            fails.store(false, Ordering::Relaxed);
            client.write_all(b"x").unwrap();
            assert_eq!(next(), (2, "readable"));
            parking.stop();
        });
    }

    #[test]
    fn a_connection_whose_deadline_is_not_watched_is_dropped() {
        let parking = Parking::new().unwrap();
        let (ends, ended) = channel();
        let (parked, mut client) = waiting(1, &ends);
        let failed = || Err(io::ErrorKind::BrokenPipe.into());
        let deadline = sys::clock() + Duration::from_secs(3600);
        assert!(parking.park_with(parked, deadline, failed).is_err());
        assert_eq!(parking.count(), 0);
        // Its socket is closed.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop(ends);
        assert!(ended.recv().is_err());
    }

    #[test]
    fn numbers_that_start_again_are_unique() {
        let (ends, _ended) = channel();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut table = ParkingTable { last: usize::MAX - 1, ..ParkingTable::default() };
        for expected in [usize::MAX, 1, 3] {
            let token = table.next_token();
            assert_eq!(token, Token(expected));
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let waiting = Waiting { socket, number: 0, ends: ends.clone() };
            let parked: Box<dyn Parked> = Box::new(waiting);
            // The connection with the next number still waits.
            table.parked.insert(Token(2), (Instant::ZERO, parked));
        }
    }

    #[test]
    fn readable_connections_and_late_ones_are_handed_over() {
        let parking = Parking::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (ends, ended) = channel();
        let park = |number, seconds| {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            // Bytes from before it is parked count.
            if number == 1 {
                client.write_all(b"x").unwrap();
            }
            let socket = listener.accept().unwrap().0;
            let waiting = Waiting { socket, number, ends: ends.clone() };
            let deadline = sys::clock() + Duration::from_secs(seconds);
            parking.park(Box::new(waiting), deadline).unwrap();
            client
        };
        thread::scope(|scope| {
            scope.spawn(|| parking.run());
            let next = || ended.recv_timeout(Duration::from_secs(60)).unwrap();
            let _one = park(1, 3600);
            assert_eq!(next(), (1, "readable"));
            let two = park(2, 3600);
            let mut three = park(3, 3600);
            let _four = park(4, 0);
            assert_eq!(next(), (4, "late"));
            three.write_all(b"x").unwrap();
            assert_eq!(next(), (3, "readable"));
            assert_eq!(parking.count(), 1);
            drop(two);
            assert_eq!(next(), (2, "readable"), "its end");
            parking.stop();
        });
        assert_eq!(parking.count(), 0);
    }
}
