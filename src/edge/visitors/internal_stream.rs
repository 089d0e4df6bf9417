//! A stream to an agent for a request that no visitor's connection carries. The session's
//! reactor puts the response into a buffer, which the stream's window bounds. One thread sends the
//! request and takes the bytes from there until its deadline. HTTP does not belong here.

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
    request: Vec<u8>,
    /// Number of the bytes of `request` that were sent.
    sent: usize,
    session: Session,
    stream: StreamId,
    is_finished: bool,
    /// Place among the visitors' streams of the session.
    _place: Place,
}

/// Sink of the stream.
struct Inbox {
    state: Mutex<InboxState>,
    /// Notified of bytes, of the end, and of room in the stream's window.
    changed: Condvar,
    /// Second of the last byte of the agent. Read under the lock of the places, so not under the
    /// lock of the state.
    last_progress: AtomicU32,
}

#[derive(Default)]
struct InboxState {
    bytes: Vec<u8>,
    end: Option<ReadEnd>,
    /// The stream's window has room again.
    has_window: bool,
}

impl InternalStream {
    /// Opens a stream with the first bytes of `request`. The stream takes a place of the visitor
    /// with the address `client`. If the session has as many streams as it may, another visitor's
    /// gives way.
    pub fn open(
        target: &StreamTarget,
        client: IpAddr,
        request: Vec<u8>,
    ) -> Result<Self, SendError> {
        let sent = request.len().min(MAX_FIRST);
        let owner = visitor::owner(client);
        let mut attempts = 0;
        let mut stream = loop {
            match InternalStream::try_open(target, client, &request[..sent]) {
                Err(SendError::Refused(Code::STREAMS_EXHAUSTED))
                    if attempts < MAX_OPEN_ATTEMPTS
                        && target.streams.make_room(owner, target.session.streams()) =>
                {
                    attempts += 1;
                }
                opened => break opened?,
            }
        };
        (stream.request, stream.sent) = (request, sent);
        Ok(stream)
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
        let (request, sent) = (Vec::new(), 0);
        Ok(InternalStream {
            inbox,
            request,
            sent,
            session,
            stream,
            is_finished: false,
            _place: place,
        })
    }

    /// Sends the bytes of the request for which the window has room. Does not wait for more:
    /// a response may precede the end of the request.
    fn send(&mut self, deadline: Deadline) -> Result<(), SendError> {
        while self.sent < self.request.len() {
            let window = match self.session.window(self.stream, Deadline::At(sys::clock())) {
                // The session notifies the sink of room.
                Err(SendError::Late) => return Ok(()),
                window => window?,
            };
            let end = self.request.len().min(self.sent + window);
            self.session.send(self.stream, &self.request[self.sent..end], deadline)?;
            self.sent = end;
        }
        Ok(())
    }

    /// Returns bytes of the response, and waits for them. Sends the rest of the request meanwhile.
    pub fn read(&mut self, deadline: Deadline) -> Result<Vec<u8>, ReadEnd> {
        let mut is_sending = true;
        loop {
            // Also while bytes come: interim responses and deleted bodies can be endless.
            if deadline.left(sys::clock()).is_some_and(|left| left.is_zero()) {
                return Err(ReadEnd::Late);
            }
            // After other errors the sink has the end, or gets it.
            if is_sending && self.send(deadline) == Err(SendError::Late) {
                return Err(ReadEnd::Late);
            }
            let mut state = self.inbox.state.lock();
            let bytes = std::mem::take(&mut state.bytes);
            if !bytes.is_empty() {
                drop(state);
                self.session.consumed(self.stream, bytes.len());
                return Ok(bytes);
            }
            if let Some(end) = state.end {
                return Err(end);
            }
            if !state.has_window {
                state = match deadline.left(sys::clock()) {
                    None => self.inbox.changed.wait(state),
                    Some(left) => self.inbox.changed.wait_timeout(state, left).0,
                };
            }
            is_sending = std::mem::take(&mut state.has_window);
        }
    }

    /// Ends the stream after a complete response: in an orderly way if the request was sent to
    /// its end, else it is cancelled.
    pub fn finish(mut self) {
        if self.sent == self.request.len() {
            self.is_finished = true;
            self.session.finish(self.stream);
        }
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

    fn window(&self) {
        self.state.lock().has_window = true;
        self.changed.notify_all();
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
