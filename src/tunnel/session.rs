//! The session as every thread sees it: one lock over muxer, sealer and outbox.
//!
//! Rank of locks: a sink's own lock, then this one; never the other way round,
//! and no sink is called under it. The only system call under it is a
//! non-blocking send.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use super::outbox::Outbox;
use super::{End, Sink};
use crate::link::records::{Content, Sealer};
use crate::link::tls::Kernel;
use crate::mux::{self, Code, StreamId, StreamType};
use crate::sys;
use crate::time::{Deadline, Instant};

/// A handle on a live session. Cheap to clone; outlives the session, whose
/// operations then fail with [`SendError::Over`].
#[derive(Clone)]
pub struct Session(pub(super) Arc<Shared>);

/// Why bytes could not be sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The stream is closed for sending: reset or finished.
    Closed(Code),
    /// The session is over.
    Over,
    /// The deadline passed first.
    Late,
    /// Too many streams, or the peer is going away: nothing was opened.
    Refused(Code),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed(code) => write!(f, "the stream is closed: {code}"),
            SendError::Over => f.write_str("the session is over"),
            SendError::Late => f.write_str("the peer took too long"),
            SendError::Refused(code) => write!(f, "no stream could be opened: {code}"),
        }
    }
}

impl std::error::Error for SendError {}

/// What a sink wants to know of its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// That there is something to read.
    pub readable: bool,
    /// That there is room to write.
    pub writable: bool,
}

pub(super) struct Shared {
    state: Mutex<State>,
    registry: Registry,
    waker: Waker,
}

/// What the lock guards.
pub(super) struct State {
    pub(super) mux: mux::Session,
    pub(super) sealer: Sealer,
    pub(super) kernel: Kernel,
    pub(super) outbox: Outbox,
    pub(super) socket: TcpStream,
    /// Sorted by stream: ids of one side rise, so an insertion is near an end.
    sinks: Vec<(StreamId, Arc<dyn Sink>)>,
    /// Threads that wait for their turn to send, first come, first served.
    turns: VecDeque<Thread>,
    /// Threads that wait for a stream's window.
    windows: Vec<(StreamId, Thread)>,
    /// Set once: no more sending. The reactor finishes the rest.
    pub(super) end: Option<End>,
}

/// The outcome of one turn at the lock.
enum Turn {
    Sent(usize),
    NoWindow,
    NoRoom,
}

impl Session {
    pub(super) fn new(
        mux: mux::Session,
        sealer: Sealer,
        kernel: Kernel,
        socket: TcpStream,
        registry: Registry,
        waker: Waker,
    ) -> Self {
        let state = State {
            mux,
            sealer,
            kernel,
            outbox: Outbox::new(),
            socket,
            sinks: Vec::new(),
            turns: VecDeque::new(),
            windows: Vec::new(),
            end: None,
        };
        Session(Arc::new(Shared { state: Mutex::new(state), registry, waker }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug that ends the process in a release;
        // in a test the state is still the best there is.
        self.0.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Opens a stream of type `kind`, whose first frame carries `first` too (at
    /// most 4 KiB). `sink` gets what the peer answers.
    pub fn open(
        &self,
        kind: StreamType,
        first: &[u8],
        sink: Arc<dyn Sink>,
    ) -> Result<StreamId, SendError> {
        self.open_with(kind, first, |_| sink)
    }

    /// As [`Self::open`], for a sink that must know its stream: `make` runs under
    /// the session's lock and may not use the session.
    pub fn open_with(
        &self,
        kind: StreamType,
        first: &[u8],
        make: impl FnOnce(StreamId) -> Arc<dyn Sink>,
    ) -> Result<StreamId, SendError> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Err(SendError::Over);
        }
        let stream = state.mux.open(kind, first).map_err(|e| SendError::Refused(e.code()))?;
        let sink = make(stream);
        state.add_sink(stream, sink);
        self.flush(&mut state);
        Ok(stream)
    }

    /// Sends all of `bytes`, waiting for window and link as long as it takes, at
    /// most until `deadline`. Not on the reactor thread.
    pub fn send(
        &self,
        stream: StreamId,
        mut bytes: &[u8],
        deadline: Deadline,
    ) -> Result<(), SendError> {
        let mut queued = false;
        while !bytes.is_empty() {
            let mut state = self.lock();
            match self.turn(&mut state, stream, bytes, queued) {
                Ok(Turn::Sent(n)) => {
                    bytes = &bytes[n..];
                    if std::mem::take(&mut queued) {
                        state.turns.pop_front();
                    }
                    state.call_next();
                }
                Ok(Turn::NoRoom) => {
                    if !queued {
                        state.turns.push_back(thread::current());
                        queued = true;
                    }
                    drop(state);
                    if let Err(e) = pause(deadline) {
                        self.leave_queue();
                        return Err(e);
                    }
                }
                Ok(Turn::NoWindow) => {
                    if std::mem::take(&mut queued) {
                        state.turns.pop_front();
                        state.call_next();
                    }
                    state.windows.push((stream, thread::current()));
                    drop(state);
                    let waited = pause(deadline);
                    let me = thread::current().id();
                    self.lock().windows.retain(|(_, t)| t.id() != me);
                    waited?;
                }
                Err(e) => {
                    if queued {
                        drop(state);
                        self.leave_queue();
                    }
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// How many bytes `stream` may send now, at least 1: waits for the peer to take
    /// some, at most until `deadline`. Who reads no more than that from elsewhere
    /// never holds bytes that cannot leave. After [`SendError::Late`] the sink's
    /// [`Sink::window`] is called when there is room again.
    pub fn window(&self, stream: StreamId, deadline: Deadline) -> Result<usize, SendError> {
        loop {
            let mut state = self.lock();
            if state.end.is_some() {
                return Err(SendError::Over);
            }
            match state.mux.window(stream) {
                Ok(n) => return Ok(n),
                Err(mux::SendError::Closed(code)) => return Err(SendError::Closed(code)),
                Err(_) => {}
            }
            if deadline.due(sys::clock()) {
                return Err(SendError::Late);
            }
            state.windows.push((stream, thread::current()));
            drop(state);
            let waited = pause(deadline);
            let me = thread::current().id();
            self.lock().windows.retain(|(_, t)| t.id() != me);
            // Late: one more look, so that room that came meanwhile is not lost.
            if waited.is_err() {
                continue;
            }
        }
    }

    /// Sends what can be sent at once: from the reactor thread, or where losing
    /// the rest is better than waiting. Returns how many bytes went.
    pub fn try_send(&self, stream: StreamId, bytes: &[u8]) -> Result<usize, SendError> {
        let mut sent = 0;
        let mut state = self.lock();
        while sent < bytes.len() {
            match self.turn(&mut state, stream, &bytes[sent..], false)? {
                Turn::Sent(n) => sent += n,
                Turn::NoWindow | Turn::NoRoom => break,
            }
        }
        Ok(sent)
    }

    /// One turn: control frames that wait, then one or two frames of `bytes`.
    fn turn(
        &self,
        state: &mut State,
        stream: StreamId,
        bytes: &[u8],
        my_turn: bool,
    ) -> Result<Turn, SendError> {
        if state.end.is_some() {
            return Err(SendError::Over);
        }
        let first = state.turns.front().is_none_or(|t| my_turn && t.id() == thread::current().id());
        if !first {
            return Ok(Turn::NoRoom);
        }
        let mut sent = 0;
        let mut stopped = None;
        while sent < bytes.len() && state.outbox.has_room() {
            match state.seal_data(stream, &bytes[sent..]) {
                Ok(n) => sent += n,
                Err(mux::SendError::ControlPending) => {
                    // More control than fits beside data: it goes first, alone.
                    self.flush(state);
                    if state.mux.has_transmit() {
                        break;
                    }
                }
                Err(e) => {
                    stopped = Some(e);
                    break;
                }
            }
        }
        self.flush(state);
        if sent > 0 {
            return Ok(Turn::Sent(sent));
        }
        match stopped {
            None | Some(mux::SendError::ControlPending) => Ok(Turn::NoRoom),
            Some(mux::SendError::NoWindow) => Ok(Turn::NoWindow),
            Some(mux::SendError::Closed(code)) => Err(SendError::Closed(code)),
        }
    }

    /// Seals the control frames that wait and sends what the socket takes. Errors
    /// end the session; the reactor sees to it.
    pub(super) fn flush(&self, state: &mut State) {
        if let Err(why) = state.push_out() {
            state.fail(End::Lost(why));
            let _ = self.0.waker.wake();
        }
    }

    fn leave_queue(&self) {
        let me = thread::current().id();
        let mut state = self.lock();
        state.turns.retain(|t| t.id() != me);
        state.call_next();
    }

    fn with_mux(&self, change: impl FnOnce(&mut mux::Session)) {
        let mut state = self.lock();
        if state.end.is_none() {
            change(&mut state.mux);
            if state.mux.has_transmit() {
                self.flush(&mut state);
            }
        }
    }

    /// Ends our direction of `stream`, after what was sent.
    pub fn finish(&self, stream: StreamId) {
        self.with_mux(|mux| mux.finish(stream));
    }

    /// Ends both directions of `stream` at once and forgets its sink.
    pub fn reset(&self, stream: StreamId, code: Code) {
        self.with_mux(|mux| mux.reset(stream, code));
        self.release(stream);
    }

    /// Ends both directions of `stream` so that every peer notices: FIN, then RST
    /// (protocol 2.6). Forgets its sink.
    pub fn cancel(&self, stream: StreamId, code: Code) {
        self.with_mux(|mux| mux.cancel(stream, code));
        self.release(stream);
    }

    /// Gives `n` bytes of the stream's window back to the peer.
    pub fn consumed(&self, stream: StreamId, n: usize) {
        if n > 0 {
            self.with_mux(|mux| mux.consumed(stream, n));
        }
    }

    /// Forgets the sink of `stream`. The stream itself is over, or its bytes are
    /// not wanted: those that came and those to come are consumed unread.
    pub fn release(&self, stream: StreamId) {
        let mut state = self.lock();
        let removed = state.take_sink(stream);
        if state.end.is_none() {
            state.mux.consumed(stream, usize::MAX);
        }
        drop(state);
        // Dropped outside the lock: a sink may own the last handle of much.
        drop(removed);
    }

    /// Starts the requester's side of the heartbeat (protocol 4).
    pub fn start_heartbeat(&self, interval: Duration, tolerance: Duration) {
        let now = sys::clock();
        self.with_mux(|mux| {
            // Reason: refused only when the session is ending, which is told elsewhere.
            let _ = mux.start_heartbeat(interval, tolerance, now);
        });
        // The reactor sleeps until deadlines that it knows: this one is new.
        let _ = self.0.waker.wake();
    }

    /// Says goodbye (GOAWAY) and ends the session: what is queued is still sent.
    pub fn close(&self, code: Code, text: &str) {
        let mut state = self.lock();
        if state.end.is_some() {
            return;
        }
        state.mux.go_away(code, text);
        self.flush(&mut state);
        let end =
            if code == Code::NO_ERROR { End::Closed } else { End::Failed(code, text.to_owned()) };
        state.fail(end);
        drop(state);
        let _ = self.0.waker.wake();
    }

    /// Whether the session is over, or about to be.
    pub fn is_over(&self) -> bool {
        self.lock().end.is_some()
    }

    /// The time of the last heartbeat's way there and back.
    pub fn latency(&self) -> Option<Duration> {
        self.lock().mux.latency()
    }

    /// Streams that are open, heartbeats included.
    pub fn streams(&self) -> usize {
        self.lock().mux.streams()
    }

    /// Has the reactor watch `fd` for the sink of `stream`, whose
    /// [`Sink::ready`] is called once at once if it is ready, and at each change
    /// from then on. `again`: `fd` is watched already, for something else.
    pub fn watch(&self, stream: StreamId, fd: RawFd, what: Watch, again: bool) -> io::Result<()> {
        let interest = match what {
            Watch { readable: true, writable: true } => Interest::READABLE | Interest::WRITABLE,
            Watch { readable: true, .. } => Interest::READABLE,
            Watch { .. } => Interest::WRITABLE,
        };
        let token = Token(stream.get() as usize);
        let mut source = SourceFd(&fd);
        if again {
            self.0.registry.reregister(&mut source, token, interest)
        } else {
            self.0.registry.register(&mut source, token, interest)
        }
    }

    /// Ends what [`Self::watch`] began.
    pub fn unwatch(&self, fd: RawFd) {
        let _ = self.0.registry.deregister(&mut SourceFd(&fd));
    }
}

/// Waits to be called, at most a second: then the caller looks for itself.
fn pause(deadline: Deadline) -> Result<(), SendError> {
    let most = Duration::from_secs(1);
    let left = deadline.left(sys::clock()).unwrap_or(most);
    if left.is_zero() {
        return Err(SendError::Late);
    }
    thread::park_timeout(left.min(most));
    Ok(())
}

impl State {
    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn find(&self, stream: StreamId) -> Result<usize, usize> {
        self.sinks.binary_search_by_key(&stream, |(s, _)| *s)
    }

    pub(super) fn sink(&self, stream: StreamId) -> Option<Arc<dyn Sink>> {
        self.find(stream).ok().map(|at| Arc::clone(&self.sinks[at].1))
    }

    pub(super) fn add_sink(&mut self, stream: StreamId, sink: Arc<dyn Sink>) {
        match self.find(stream) {
            Ok(at) => self.sinks[at].1 = sink,
            Err(at) => self.sinks.insert(at, (stream, sink)),
        }
    }

    pub(super) fn take_sink(&mut self, stream: StreamId) -> Option<Arc<dyn Sink>> {
        let at = self.find(stream).ok()?;
        let (_, sink) = self.sinks.remove(at);
        if self.sinks.is_empty() {
            // A burst's table goes back.
            self.sinks.shrink_to(16);
        }
        Some(sink)
    }

    pub(super) fn take_sinks(&mut self) -> Vec<(StreamId, Arc<dyn Sink>)> {
        std::mem::take(&mut self.sinks)
    }

    /// One record: the control frames that wait, then one DATA frame. Returns the
    /// bytes of `bytes` that went into it. The outbox has room.
    fn seal_data(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, mux::SendError> {
        let State { mux, sealer, outbox, .. } = self;
        let mut outcome = Err(mux::SendError::ControlPending);
        let most = bytes.len().saturating_add(CONTROL_RECORD);
        let sealed = outbox.record(sealer, Content::Data, most, |content| {
            let control = if mux.has_transmit() { mux.transmit(content) } else { 0 };
            let room = content.len() - control;
            if room <= FRAME_HEADER {
                return control;
            }
            match mux.grant(stream, bytes.len().min(room - FRAME_HEADER)) {
                Ok(grant) => {
                    let frame = &mut content[control..];
                    frame[..FRAME_HEADER].copy_from_slice(&grant.header);
                    frame[FRAME_HEADER..FRAME_HEADER + grant.len]
                        .copy_from_slice(&bytes[..grant.len]);
                    outcome = Ok(grant.len);
                    control + FRAME_HEADER + grant.len
                }
                Err(e) => {
                    outcome = Err(e);
                    control
                }
            }
        });
        if let Err(e) = sealed {
            self.fail(End::Lost(e.to_string()));
            return Err(mux::SendError::Closed(Code::INTERNAL_ERROR));
        }
        outcome
    }

    /// Seals the control frames that wait as far as there is room, and sends.
    /// On an error nothing more can be sent.
    pub(super) fn push_out(&mut self) -> Result<(), String> {
        loop {
            if self.sealer.wants_renewal() && self.outbox.has_room() {
                self.renew_key()?;
            }
            while self.mux.has_transmit() && self.outbox.has_room() {
                let State { mux, sealer, outbox, .. } = self;
                outbox
                    .record(sealer, Content::Data, CONTROL_RECORD, |content| mux.transmit(content))
                    .map_err(|e| e.to_string())?;
            }
            let fd = self.fd();
            let done = self.outbox.flush(fd).map_err(|e| e.to_string())?;
            if !done || !self.mux.has_transmit() {
                return Ok(());
            }
        }
    }

    /// Tells the peer of a new key and changes to it (RFC 8446 section 4.6.3).
    pub(super) fn renew_key(&mut self) -> Result<(), String> {
        const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
        let State { sealer, outbox, kernel, .. } = self;
        outbox
            .record(sealer, Content::Handshake, KEY_UPDATE.len(), |content| {
                content.copy_from_slice(&KEY_UPDATE);
                KEY_UPDATE.len()
            })
            .map_err(|e| e.to_string())?;
        *sealer = kernel.next_sealer().map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Ends the session for every sender. The first reason counts.
    pub(super) fn fail(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
        }
        for thread in self.turns.drain(..) {
            thread.unpark();
        }
        for (_, thread) in self.windows.drain(..) {
            thread.unpark();
        }
    }

    /// Calls the thread whose turn it is, if there is room for it.
    pub(super) fn call_next(&mut self) {
        if let Some(thread) = self.turns.front()
            && self.outbox.has_room()
        {
            thread.unpark();
        }
    }

    /// Calls the threads that wait for `stream`'s window.
    pub(super) fn call_window(&mut self, stream: StreamId) {
        for (_, thread) in self.windows.iter().filter(|(s, _)| *s == stream) {
            thread.unpark();
        }
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.mux.deadline()
    }

    pub(super) fn tick(&mut self, now: Instant) -> Option<mux::Event<'static>> {
        self.mux.tick(now)
    }
}

/// Most bytes of a record that holds control frames alone: a small session
/// should touch little memory. The largest control frame, a SYN with what goes
/// with it, fits.
const CONTROL_RECORD: usize = 8_192;

/// Bytes of a frame's header (protocol 2.1).
const FRAME_HEADER: usize = 8;
