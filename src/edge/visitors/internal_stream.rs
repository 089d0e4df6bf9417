//! A stream to an agent for a request that no visitor's connection carries. The session's
//! reactor puts the response into a buffer, which the stream's window bounds. The thread that
//! sends the request takes the bytes from there until its deadline. HTTP does not belong here.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::stream_target::StreamTarget;
use super::visitor;
use crate::edge::places::{Holder, Place};
use crate::mux::{Code, MAX_FIRST, StreamId, StreamType};
use crate::session::{Reset, SendError, Session, Sink};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex};
use crate::time::{Deadline, Instant};

/// Attempts to open a stream after another one gave way: visitors want it, too.
const MAX_OPEN_ATTEMPTS: usize = 8;

/// Why no further byte of a response can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadEnd {
    /// The agent has ended its direction after all bytes.
    Finished,
    /// The stream was cut: bytes may be missing.
    Cut,
    /// The deadline has passed.
    Late,
}

/// A stream that carries one request. Dropping it cancels the stream, unless it was finished.
pub struct InternalStream {
    inbox: Arc<Inbox>,
    session: Session,
    stream: StreamId,
    is_finished: bool,
    /// Place among the visitors' streams of the session.
    _place: Place,
}

/// Sink of the stream.
struct Inbox {
    state: Mutex<InboxState>,
    /// Notified of bytes and of the end.
    changed: Condvar,
    /// Second of the last byte of the agent. Read under the lock of the places, so not under the
    /// lock of the state.
    last_progress: AtomicU32,
}

#[derive(Default)]
struct InboxState {
    bytes: Vec<u8>,
    end: Option<ReadEnd>,
}

impl InternalStream {
    /// Opens a stream and sends `bytes`. The stream takes a place of the visitor with the address
    /// `client`. If the session has as many streams as it may, another visitor's gives way.
    pub fn open(
        target: &StreamTarget,
        client: IpAddr,
        bytes: &[u8],
        deadline: Deadline,
    ) -> Result<Self, SendError> {
        let (first, rest) = bytes.split_at(bytes.len().min(MAX_FIRST));
        let owner = visitor::owner(client);
        let mut attempts = 0;
        let stream = loop {
            match InternalStream::try_open(target, client, first) {
                Err(SendError::Refused(Code::STREAMS_EXHAUSTED))
                    if attempts < MAX_OPEN_ATTEMPTS
                        && target.streams.make_room(owner, target.session.streams()) =>
                {
                    attempts += 1;
                }
                opened => break opened?,
            }
        };
        match stream.send(rest, deadline) {
            // A response may precede the end of the request.
            Ok(()) | Err(SendError::Closed(_)) => Ok(stream),
            Err(error) => Err(error),
        }
    }

    fn try_open(target: &StreamTarget, client: IpAddr, first: &[u8]) -> Result<Self, SendError> {
        let inbox = Arc::new(Inbox {
            state: Mutex::default(),
            changed: Condvar::new(),
            last_progress: AtomicU32::new(sys::clock().as_seconds()),
        });
        let place = target.streams.insert(visitor::owner(client));
        let sink: Arc<dyn Sink> = Arc::<Inbox>::clone(&inbox);
        let session = target.session.clone();
        let stream = session.open(StreamType::PROXY, first, sink)?;
        let holder: Arc<dyn Holder> = Arc::<Inbox>::clone(&inbox);
        if !place.set_holder(&holder) {
            inbox.end(ReadEnd::Cut);
        }
        Ok(InternalStream { inbox, session, stream, is_finished: false, _place: place })
    }

    fn send(&self, mut bytes: &[u8], deadline: Deadline) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let window = self.session.window(self.stream, deadline)?;
            let (part, rest) = bytes.split_at(window.min(bytes.len()));
            self.session.send(self.stream, part, deadline)?;
            bytes = rest;
        }
        Ok(())
    }

    /// Returns bytes of the response, and waits for them.
    pub fn read(&self, deadline: Deadline) -> Result<Vec<u8>, ReadEnd> {
        let mut state = self.inbox.state.lock();
        loop {
            // Also while bytes come: interim responses and deleted bodies can be endless.
            if deadline.left(sys::clock()).is_some_and(|left| left.is_zero()) {
                return Err(ReadEnd::Late);
            }
            let bytes = std::mem::take(&mut state.bytes);
            if !bytes.is_empty() {
                drop(state);
                self.session.consumed(self.stream, bytes.len());
                return Ok(bytes);
            }
            if let Some(end) = state.end {
                return Err(end);
            }
            state = match deadline.left(sys::clock()) {
                None => self.inbox.changed.wait(state),
                Some(left) => self.inbox.changed.wait_timeout(state, left).0,
            };
        }
    }

    /// Ends the stream in an orderly way, after a complete response.
    pub fn finish(mut self) {
        self.is_finished = true;
        self.session.finish(self.stream);
    }
}

impl Drop for InternalStream {
    fn drop(&mut self) {
        match self.is_finished {
            true => self.session.release(self.stream),
            false => self.session.cancel(self.stream, Code::STREAM_CANCELLED),
        }
    }
}

impl Inbox {
    /// Records the end. The first one counts.
    fn end(&self, end: ReadEnd) {
        self.state.lock().end.get_or_insert(end);
        self.changed.notify_all();
    }
}

impl Sink for Inbox {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        state.bytes.extend_from_slice(bytes);
        drop(state);
        self.last_progress.store(sys::clock().as_seconds(), Ordering::Relaxed);
        self.changed.notify_all();
        // The reader consumes them.
        0
    }

    fn finished(&self) {
        self.end(ReadEnd::Finished);
    }

    fn reset(&self, _: Reset) {
        self.end(ReadEnd::Cut);
    }

    fn cancelled(&self, _: Code) {
        // The end before the reset is not an orderly one.
        self.end(ReadEnd::Cut);
    }
}

impl Holder for Inbox {
    fn give_way(self: Arc<Self>, _: bool) {
        self.end(ReadEnd::Cut);
    }

    fn last_progress(&self) -> Instant {
        let seconds = self.last_progress.load(Ordering::Relaxed);
        Instant::ZERO + Duration::from_secs(seconds.into())
    }
}
