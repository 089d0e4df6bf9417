//! One connection of a client of the local API: its socket, the incoming request, the outgoing
//! response, and the time limit of each. It never blocks, and a waiting connection holds no
//! buffer. The content of responses does not belong here.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::app::EventCursor;
use super::http::{self, ApiReply, ReplyBody};
use super::jobs::JobId;
use crate::http1::line::HttpVersion;
use crate::http1::receiver::{ReadProgress, RequestReceiver};
use crate::sys;
use crate::sys::poll::PollFd;
use crate::time::{Deadline, Instant};

/// Time for a head from its first byte, or for a new client to begin one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that a client may be silent between two requests.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time that a client may read nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time and bytes for reading the rest of a refused request. A close with unread bytes is a
/// reset, in which the refusal may be lost.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DRAINED_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a response after which the other connections have their turn.
const MAX_TURN_BYTES: usize = 128 * 1024;

/// Largest body that is sent together with its head.
const INLINE_BODY_BYTES: usize = 4 * 1024;

/// A client that has read nothing of a response for `SLOW_PAUSE`, or needs `SLOW_TOTAL` for it,
/// may be closed in favour of a new one.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
const SLOW_TOTAL: Duration = Duration::from_secs(30);

/// Connection of a client.
pub struct Connection {
    socket: TcpStream,
    state: Phase,
    /// Time of the last change of state, or of the last progress in it.
    since: Instant,
    /// Time at which this request, or the wait for it, began.
    request_began: Instant,
    receiver: RequestReceiver,
    /// Received bytes that were not parsed: the next request of a client that does not wait.
    pending: Vec<u8>,
    /// Whether a response was sent before.
    served_before: bool,
}

enum Phase {
    /// A request is being received, or expected.
    Reading,
    /// The response is being made.
    Waiting(JobId),
    /// A response is being sent.
    Writing(Outgoing),
    /// Events are sent as they occur.
    Events(Outgoing, EventCursor),
    /// Discards the rest of a request, with the number of bytes so far.
    Draining(usize),
}

/// Bytes to send, and what follows them.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    at: usize,
    /// Static bytes after them.
    fixed: &'static [u8],
    /// Further bytes, piece by piece.
    pieces: Option<Box<dyn Iterator<Item = Vec<u8>> + Send>>,
    chunked: bool,
    keep: bool,
}

/// Next action of the server for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Wait for an event.
    Wait,
    /// Answer the request.
    Answer,
    /// Refuse the request with this status.
    Refuse(u16),
    /// Close the connection.
    Close,
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Connection {
    /// Creates the state of a new client.
    pub fn new(socket: TcpStream, now: Instant) -> Self {
        Connection {
            socket,
            state: Phase::Reading,
            since: now,
            request_began: now,
            receiver: http::receiver(),
            pending: Vec::new(),
            served_before: false,
        }
    }

    /// Returns the events of the socket to wait for.
    pub fn awaited(&self) -> PollFd {
        let (read, write) = match &self.state {
            Phase::Reading | Phase::Draining(_) => (true, false),
            // A disconnect is detected when the response is written.
            Phase::Waiting(_) => (false, false),
            Phase::Writing(_) => (false, true),
            Phase::Events(out, _) => (true, !out.is_empty()),
        };
        PollFd::new(&self.socket, read, write)
    }

    /// Returns the deadline of the current state.
    pub fn deadline(&self) -> Deadline {
        Deadline::At(match &self.state {
            Phase::Reading if self.receiver.in_body() => self.since + BODY_TIMEOUT,
            Phase::Reading if self.served_before && !self.receiver.started() => {
                self.since + IDLE_TIMEOUT
            }
            Phase::Reading => self.since + HEAD_TIMEOUT,
            Phase::Writing(_) => self.since + WRITE_TIMEOUT,
            Phase::Events(out, _) if !out.is_empty() => self.since + WRITE_TIMEOUT,
            Phase::Draining(_) => self.since + DRAIN_TIMEOUT,
            Phase::Waiting(_) | Phase::Events(..) => return Deadline::Never,
        })
    }

    /// Handles a deadline that has passed.
    pub fn expired(&self) -> ClientAction {
        match self.state {
            Phase::Reading if self.receiver.started() => ClientAction::Refuse(408),
            _ => ClientAction::Close,
        }
    }

    /// Returns since when this connection may be closed for a new one when all places are
    /// taken: one that has sent no request yet, or that reads a response slowly.
    pub fn idle_since(&self, now: Instant) -> Option<Instant> {
        match &self.state {
            Phase::Reading | Phase::Draining(_) => Some(self.request_began),
            Phase::Writing(_)
                if now.since(self.since) > SLOW_PAUSE
                    || now.since(self.request_began) > SLOW_TOTAL =>
            {
                Some(self.request_began)
            }
            Phase::Writing(_) | Phase::Waiting(_) | Phase::Events(..) => None,
        }
    }

    /// Returns the memory of the request's body.
    pub fn held(&self) -> usize {
        self.receiver.held()
    }

    /// Returns the complete request.
    pub fn request(&self) -> &RequestReceiver {
        &self.receiver
    }

    /// Returns the job whose response the connection waits for.
    pub fn job_id(&self) -> Option<JobId> {
        match self.state {
            Phase::Waiting(job_id) => Some(job_id),
            _ => None,
        }
    }

    /// Returns the cursor of a client of events, if everything was sent.
    pub fn cursor(&mut self) -> Option<&mut EventCursor> {
        match &mut self.state {
            Phase::Events(out, cursor) if out.is_empty() => Some(cursor),
            _ => None,
        }
    }

    /// Returns whether it receives events.
    pub fn has_events(&self) -> bool {
        matches!(self.state, Phase::Events(..))
    }

    /// Handles a ready socket.
    pub fn ready(&mut self, buffer: &mut [u8], now: Instant) -> ClientAction {
        match &mut self.state {
            Phase::Reading => match sys::recv_now(self.socket.as_raw_fd(), buffer) {
                Ok(0) => ClientAction::Close,
                Ok(n) => self.take(&buffer[..n], now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ClientAction::Wait,
                Err(_) => ClientAction::Close,
            },
            Phase::Draining(sum) => match sys::recv_now(self.socket.as_raw_fd(), buffer) {
                Ok(n) if n > 0 => {
                    *sum += n;
                    if *sum > MAX_DRAINED_BYTES { ClientAction::Close } else { ClientAction::Wait }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ClientAction::Wait,
                _ => ClientAction::Close,
            },
            Phase::Events(..) => match sys::recv_now(self.socket.as_raw_fd(), buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.push(now),
                // Further bytes are ignored: the client requested events only.
                Ok(n) if n > 0 => self.push(now),
                _ => ClientAction::Close,
            },
            Phase::Writing(_) => self.push(now),
            // Only a disconnect was waited for.
            Phase::Waiting(_) => ClientAction::Close,
        }
    }

    fn take(&mut self, bytes: &[u8], now: Instant) -> ClientAction {
        let (started, in_body) = (self.receiver.started(), self.receiver.in_body());
        let (used, progress) = self.receiver.feed(bytes);
        if !started && self.receiver.started() {
            self.request_began = now;
        }
        if started != self.receiver.started() || in_body != self.receiver.in_body() {
            self.since = now;
        }
        match progress {
            ReadProgress::More => ClientAction::Wait,
            ReadProgress::Continue => {
                // If the socket accepts not even this, it is dead, which is detected soon.
                let _ = sys::send_now(self.socket.as_raw_fd(), b"HTTP/1.1 100 Continue\r\n\r\n");
                ClientAction::Wait
            }
            ReadProgress::Whole => {
                self.pending = bytes.get(used..).unwrap_or_default().to_vec();
                ClientAction::Answer
            }
            ReadProgress::Refused(_) | ReadProgress::TooLarge => {
                ClientAction::Refuse(progress.refusal().unwrap_or(400))
            }
        }
    }

    /// Waits for the response of a job.
    pub fn wait(&mut self, job_id: JobId) {
        self.state = Phase::Waiting(job_id);
    }

    /// Sends a response. `whole`: the request was parsed completely, so another one may follow.
    pub fn answer(&mut self, reply: ApiReply, whole: bool, now: Instant) -> ClientAction {
        let (version, wants_more, only_head) = match self.receiver.head() {
            Some(head) if whole => (head.version(), head.keep_alive(), head.method() == "HEAD"),
            _ => (HttpVersion::Http11, false, false),
        };
        let keep = wants_more && reply.has_end(version);
        let mut out = Outgoing { bytes: reply.head(version, keep), keep, ..Outgoing::default() };
        // The memory of this request is released.
        self.receiver = http::receiver();
        self.since = now;
        match reply.body {
            ReplyBody::Events if !only_head => {
                self.state = Phase::Events(out, EventCursor::default());
                return self.push(now);
            }
            // Small ones in one packet, large ones without a copy.
            ReplyBody::Whole(bytes) if !only_head && bytes.len() <= INLINE_BODY_BYTES => {
                out.bytes.extend_from_slice(&bytes);
            }
            ReplyBody::Whole(bytes) if !only_head => {
                out.pieces = Some(Box::new(Some(bytes).into_iter()))
            }
            ReplyBody::Fixed(bytes) if !only_head => out.fixed = bytes,
            ReplyBody::Pieces(pieces) if !only_head => {
                out.pieces = Some(pieces);
                out.chunked = version == HttpVersion::Http11;
            }
            _ => {}
        }
        self.state = Phase::Writing(out);
        self.push(now)
    }

    /// Sends further events.
    pub fn send_events(&mut self, events: Vec<u8>, now: Instant) -> ClientAction {
        if let Phase::Events(out, _) = &mut self.state {
            out.bytes = events;
            out.at = 0;
            self.since = now;
        }
        self.push(now)
    }

    /// Writes as far as the socket accepts bytes.
    fn push(&mut self, now: Instant) -> ClientAction {
        let (Phase::Writing(out) | Phase::Events(out, _)) = &mut self.state else {
            return ClientAction::Wait;
        };
        let mut turn = 0;
        while turn < MAX_TURN_BYTES {
            let Some(bytes) = out.next() else { break };
            match sys::send_now(self.socket.as_raw_fd(), bytes) {
                Ok(n) => {
                    out.taken(n);
                    turn += n;
                    self.since = now;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return ClientAction::Wait,
                Err(_) => return ClientAction::Close,
            }
        }
        if turn >= MAX_TURN_BYTES {
            return ClientAction::Wait;
        }
        if let Phase::Events(out, _) = &mut self.state {
            *out = Outgoing::default();
            return ClientAction::Wait;
        }
        let keep = matches!(&self.state, Phase::Writing(out) if out.keep);
        (self.since, self.request_began, self.served_before) = (now, now, true);
        if !keep {
            // Half closed: further bytes of the client are read and discarded.
            self.state = Phase::Draining(0);
            return match self.socket.shutdown(std::net::Shutdown::Write) {
                Ok(()) => ClientAction::Wait,
                Err(_) => ClientAction::Close,
            };
        }
        self.state = Phase::Reading;
        match std::mem::take(&mut self.pending) {
            bytes if bytes.is_empty() => ClientAction::Wait,
            bytes => self.take(&bytes, now),
        }
    }
}

impl Outgoing {
    fn is_empty(&self) -> bool {
        self.at == self.bytes.len() && self.fixed.is_empty() && self.pieces.is_none()
    }

    /// Returns the next bytes, if there are any.
    fn next(&mut self) -> Option<&[u8]> {
        while self.at == self.bytes.len() && self.fixed.is_empty() {
            (self.at, self.bytes) = (0, Vec::new());
            self.bytes = match self.pieces.as_mut()?.next() {
                Some(piece) if !self.chunked => piece,
                // An empty chunk would be the last one.
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
