//! One client of the local API: its socket, the request that is coming in, the
//! answer that is going out, and how long each may take. Nothing here blocks, and
//! a client who waits holds no buffer.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::app::Seen;
use super::http::{self, Body, Progress, Receiver, Reply};
use super::jobs::Ticket;
use crate::http1::head::Version;
use crate::sys::{self, Awaited};
use crate::time::{Deadline, Instant};

/// How long a head may take from its first byte, or a new client to begin one.
const HEAD_WAIT: Duration = Duration::from_secs(10);

/// How long a body may take.
const BODY_WAIT: Duration = Duration::from_secs(30);

/// How long a client may be silent between two requests.
const IDLE: Duration = Duration::from_secs(60);

/// How long a client may take nothing of an answer.
const STALL: Duration = Duration::from_secs(10);

/// How long and how far a refused request is read on, so that the refusal is not
/// lost in the reset of a connection that was closed with bytes unread.
const DRAIN: Duration = Duration::from_secs(2);
const MOST_DRAINED: usize = 4 * 1024 * 1024;

/// An answer longer than this on its way leaves the others their turn.
const TURN: usize = 128 * 1024;

/// A body of at most so many bytes goes out together with its head.
const TOGETHER: usize = 4 * 1024;

/// A client who has taken nothing of an answer for `PAUSE`, or is at it for `SLOW`, may
/// have to go for a new one.
const PAUSE: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(30);

/// A connection.
pub struct Client {
    socket: TcpStream,
    state: State,
    /// Since when it is in this state, or last made progress in it.
    since: Instant,
    /// When this request, or the wait for it, began.
    began: Instant,
    receiver: Receiver,
    /// Received and not looked at: the next request of a client in a hurry.
    pending: Vec<u8>,
    /// It had an answer before.
    again: bool,
}

enum State {
    /// A request is coming in, or awaited.
    Reading,
    /// The answer is being made.
    Waiting(Ticket),
    /// An answer is going out.
    Writing(Out),
    /// Events go out as they happen.
    Events(Out, Seen),
    /// Reads on for a moment: so many bytes so far.
    Draining(usize),
}

/// Bytes on their way out, and what comes after them.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    at: usize,
    /// The program's own bytes behind them.
    fixed: &'static [u8],
    /// More, a piece at a time.
    pieces: Option<Box<dyn Iterator<Item = Vec<u8>> + Send>>,
    chunked: bool,
    keep: bool,
}

/// What the server is to do about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Wait,
    /// Answer its request.
    Answer,
    /// Refuse what it sent with this status.
    Refuse(u16),
    /// Close it.
    Close,
}

impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Client {
    /// A client who just came.
    pub fn new(socket: TcpStream, now: Instant) -> Self {
        Client {
            socket,
            state: State::Reading,
            since: now,
            began: now,
            receiver: Receiver::default(),
            pending: Vec::new(),
            again: false,
        }
    }

    /// What to wait for at its socket.
    pub fn awaited(&self) -> Awaited {
        let (read, write) = match &self.state {
            State::Reading | State::Draining(_) => (true, false),
            // Its death is seen when the answer is written.
            State::Waiting(_) => (false, false),
            State::Writing(_) => (false, true),
            State::Events(out, _) => (true, !out.is_empty()),
        };
        Awaited::new(self.socket.as_raw_fd(), read, write)
    }

    /// Until when something must happen.
    pub fn deadline(&self) -> Deadline {
        Deadline::At(match &self.state {
            State::Reading if self.receiver.in_body() => self.since + BODY_WAIT,
            State::Reading if self.again && !self.receiver.started() => self.since + IDLE,
            State::Reading => self.since + HEAD_WAIT,
            State::Writing(_) => self.since + STALL,
            State::Events(out, _) if !out.is_empty() => self.since + STALL,
            State::Draining(_) => self.since + DRAIN,
            State::Waiting(_) | State::Events(..) => return Deadline::Never,
        })
    }

    /// The deadline has passed.
    pub fn expired(&self) -> Next {
        match self.state {
            State::Reading if self.receiver.started() => Next::Refuse(408),
            _ => Next::Close,
        }
    }

    /// Since when it could have made room for another: who has sent no request yet
    /// and who takes an answer slowly may be sent away when all places are taken.
    pub fn idle_since(&self, now: Instant) -> Option<Instant> {
        match &self.state {
            State::Reading | State::Draining(_) => Some(self.began),
            State::Writing(_) if now.since(self.since) > PAUSE || now.since(self.began) > SLOW => {
                Some(self.began)
            }
            State::Writing(_) | State::Waiting(_) | State::Events(..) => None,
        }
    }

    /// Memory that its request's body takes.
    pub fn held(&self) -> usize {
        self.receiver.held()
    }

    /// The request that is whole.
    pub fn request(&self) -> &Receiver {
        &self.receiver
    }

    /// Who waits for the answer to a job.
    pub fn ticket(&self) -> Option<Ticket> {
        match self.state {
            State::Waiting(ticket) => Some(ticket),
            _ => None,
        }
    }

    /// What an events' client has seen, if it has taken what it was sent.
    pub fn seen(&mut self) -> Option<&mut Seen> {
        match &mut self.state {
            State::Events(out, seen) if out.is_empty() => Some(seen),
            _ => None,
        }
    }

    /// Whether it listens for events.
    pub fn has_events(&self) -> bool {
        matches!(self.state, State::Events(..))
    }

    /// Its socket is ready.
    pub fn ready(&mut self, buffer: &mut [u8], now: Instant) -> Next {
        match &mut self.state {
            State::Reading => match sys::recv_now(self.socket.as_raw_fd(), buffer) {
                Ok(0) => Next::Close,
                Ok(n) => self.take(&buffer[..n], now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Next::Wait,
                Err(_) => Next::Close,
            },
            State::Draining(sum) => match sys::recv_now(self.socket.as_raw_fd(), buffer) {
                Ok(n) if n > 0 => {
                    *sum += n;
                    if *sum > MOST_DRAINED { Next::Close } else { Next::Wait }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Next::Wait,
                _ => Next::Close,
            },
            State::Events(..) => match sys::recv_now(self.socket.as_raw_fd(), buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.push(now),
                // Whatever it says, it asked for nothing but events.
                Ok(n) if n > 0 => self.push(now),
                _ => Next::Close,
            },
            State::Writing(_) => self.push(now),
            // Nothing was awaited but its death.
            State::Waiting(_) => Next::Close,
        }
    }

    fn take(&mut self, bytes: &[u8], now: Instant) -> Next {
        let (started, in_body) = (self.receiver.started(), self.receiver.in_body());
        let (used, progress) = self.receiver.feed(bytes);
        if !started && self.receiver.started() {
            self.began = now;
        }
        if started != self.receiver.started() || in_body != self.receiver.in_body() {
            self.since = now;
        }
        match progress {
            Progress::More => Next::Wait,
            Progress::Continue => {
                // A socket that takes not even this is dead, which is seen soon.
                let _ = sys::send_now(self.socket.as_raw_fd(), b"HTTP/1.1 100 Continue\r\n\r\n");
                Next::Wait
            }
            Progress::Whole => {
                self.pending = bytes.get(used..).unwrap_or_default().to_vec();
                Next::Answer
            }
            Progress::Refused(status) => Next::Refuse(status),
        }
    }

    /// Its answer is being made.
    pub fn wait(&mut self, ticket: Ticket) {
        self.state = State::Waiting(ticket);
    }

    /// Sends an answer. `whole`: the request was understood, so that another one may
    /// follow it.
    pub fn answer(&mut self, reply: Reply, whole: bool, now: Instant) -> Next {
        let (version, wants_more, only_head) = match self.receiver.head() {
            Some(head) if whole => (head.version(), head.keep_alive(), head.method() == "HEAD"),
            _ => (Version::Http11, false, false),
        };
        let keep = wants_more && reply.has_end(version);
        let mut out = Out { bytes: reply.head(version, keep), keep, ..Out::default() };
        // The next request's, or nobody's: the memory of this one goes.
        self.receiver = Receiver::default();
        self.since = now;
        match reply.body {
            Body::Events if !only_head => {
                self.state = State::Events(out, Seen::default());
                return self.push(now);
            }
            // Small ones in one packet, large ones without a copy.
            Body::Whole(bytes) if !only_head && bytes.len() <= TOGETHER => {
                out.bytes.extend_from_slice(&bytes);
            }
            Body::Whole(bytes) if !only_head => {
                out.pieces = Some(Box::new(Some(bytes).into_iter()))
            }
            Body::Fixed(bytes) if !only_head => out.fixed = bytes,
            Body::Pieces(pieces) if !only_head => {
                out.pieces = Some(pieces);
                out.chunked = version == Version::Http11;
            }
            _ => {}
        }
        self.state = State::Writing(out);
        self.push(now)
    }

    /// Sends more events.
    pub fn tell(&mut self, events: Vec<u8>, now: Instant) -> Next {
        if let State::Events(out, _) = &mut self.state {
            out.bytes = events;
            out.at = 0;
            self.since = now;
        }
        self.push(now)
    }

    /// Writes what the socket takes.
    fn push(&mut self, now: Instant) -> Next {
        let (State::Writing(out) | State::Events(out, _)) = &mut self.state else {
            return Next::Wait;
        };
        let mut turn = 0;
        while turn < TURN {
            let Some(bytes) = out.next() else { break };
            match sys::send_now(self.socket.as_raw_fd(), bytes) {
                Ok(n) => {
                    out.taken(n);
                    turn += n;
                    self.since = now;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Next::Wait,
                Err(_) => return Next::Close,
            }
        }
        if turn >= TURN {
            return Next::Wait;
        }
        if let State::Events(out, _) = &mut self.state {
            *out = Out::default();
            return Next::Wait;
        }
        let keep = matches!(&self.state, State::Writing(out) if out.keep);
        (self.since, self.began, self.again) = (now, now, true);
        if !keep {
            // Half closed: what the client still sends is read and forgotten.
            self.state = State::Draining(0);
            return match self.socket.shutdown(std::net::Shutdown::Write) {
                Ok(()) => Next::Wait,
                Err(_) => Next::Close,
            };
        }
        self.state = State::Reading;
        match std::mem::take(&mut self.pending) {
            bytes if bytes.is_empty() => Next::Wait,
            bytes => self.take(&bytes, now),
        }
    }
}

impl Out {
    fn is_empty(&self) -> bool {
        self.at == self.bytes.len() && self.fixed.is_empty() && self.pieces.is_none()
    }

    /// The next bytes, if there are any.
    fn next(&mut self) -> Option<&[u8]> {
        while self.at == self.bytes.len() && self.fixed.is_empty() {
            (self.at, self.bytes) = (0, Vec::new());
            self.bytes = match self.pieces.as_mut()?.next() {
                Some(piece) if !self.chunked => piece,
                // An empty chunk would be the last.
                Some(piece) if piece.is_empty() => continue,
                Some(piece) => http::chunk(&piece),
                None => {
                    self.pieces = None;
                    match self.chunked {
                        true => http::LAST_CHUNK.to_vec(),
                        false => return None,
                    }
                }
            };
        }
        match self.bytes.get(self.at..) {
            Some(bytes) if !bytes.is_empty() => Some(bytes),
            _ => Some(self.fixed),
        }
    }

    fn taken(&mut self, n: usize) {
        if self.at < self.bytes.len() {
            self.at += n;
        } else {
            self.fixed = self.fixed.get(n..).unwrap_or_default();
        }
    }
}
