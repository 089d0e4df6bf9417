//! The sink for a connection: it writes a stream's bytes to a socket.
//!
//! Before a socket is connected the bytes wait here, and a worker may read them. After that the
//! reactor writes them as they arrive, and only the excess waits. The window is returned to the
//! peer as bytes are written, so a slow socket slows only its own stream. [`Inbound`] decides
//! how a stream ends. HTTP and dialling do not belong here.

use std::io::{self, IoSlice};
use std::time::Duration;

use super::inbound::{Effects, Inbound, PeerEnd, Reset, StreamEffect};
use super::outlet::Outlet;
use super::{Session, Sink, Watch};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{Code, StreamId};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Deadline;

/// Log lines about sockets that the kernel did not watch.
static UNWATCHED_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(1));

/// Log lines about streams for whose bytes memory was missing.
static NO_MEMORY_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(1));

/// Time to write the bytes that arrived before a reset.
const RESET_FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Incoming half of a proxied stream.
pub struct Pipe {
    session: Session,
    stream: StreamId,
    state: Mutex<PipeState>,
    /// Notified of each change while a worker may read.
    changed: Condvar,
}

struct PipeState {
    inbound: Inbound,
    /// Events for which the reactor watches the outlet's descriptor; `None`: not registered.
    watched: Option<Watch>,
    reader: Reader,
}

/// Thread that reads the outlet's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    /// A worker, or none yet.
    Worker,
    /// The connection is parked: the reactor watches the socket.
    Reactor,
}

impl Pipe {
    /// Returns the pipe of `stream`. It must become the stream's sink.
    pub fn new(session: &Session, stream: StreamId) -> Self {
        let state = PipeState { inbound: Inbound::new(), watched: None, reader: Reader::Worker };
        Pipe { session: session.clone(), stream, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// The session of the stream.
    pub fn session(&self) -> &Session {
        &self.session
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock()
    }

    /// Reads waiting bytes, and blocks for them until `deadline`. 0 is the end. For a worker,
    /// before [`Self::attach`].
    pub fn read(&self, buf: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        let n = self.wait(deadline, |bytes| {
            let n = bytes.len().min(buf.len());
            buf[..n].copy_from_slice(&bytes[..n]);
            (n > 0).then_some((n, n))
        })?;
        Ok(n.unwrap_or(0))
    }

    /// Passes the waiting bytes to `look`, again after each new byte, until it returns how many
    /// of them it consumes, and its result. Returns `None` at the end of the stream.
    pub fn wait<T>(
        &self,
        deadline: Deadline,
        mut look: impl FnMut(&[u8]) -> Option<(usize, T)>,
    ) -> io::Result<Option<T>> {
        let mut state = self.lock();
        loop {
            let bytes = state.inbound.waiting().as_slice();
            if !bytes.is_empty()
                && let Some((taken, result)) = look(bytes)
            {
                let effects = state.inbound.take(taken);
                self.apply(state, effects);
                return Ok(Some(result));
            }
            match state.inbound.peer() {
                PeerEnd::Open => {}
                PeerEnd::Finished => return Ok(None),
                PeerEnd::Reset(reset) => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionReset,
                        format!("the stream was reset: {}", reset.code()),
                    ));
                }
            }
            state = match deadline.left(sys::clock()) {
                None => self.changed.wait(state),
                Some(left) if left.is_zero() => {
                    return Err(io::Error::from(io::ErrorKind::TimedOut));
                }
                Some(left) => self.changed.wait_timeout(state, left).0,
            };
        }
    }

    /// Returns the number of bytes that wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.lock().inbound.waiting().len()
    }

    /// Returns whether the stream was reset.
    pub fn is_reset(&self) -> bool {
        self.lock().inbound.is_reset()
    }

    /// Returns the error of a failed write of the outlet. An end that is read from the same
    /// socket is then not an orderly one.
    pub fn write_error(&self) -> Option<io::ErrorKind> {
        self.lock().inbound.write_error()
    }

    /// Connects the pipe to a socket. Waiting bytes are written, and the reactor writes all
    /// further ones.
    pub fn attach(&self, outlet: Box<dyn Outlet>) {
        self.change(|inbound| inbound.attach(outlet));
    }

    /// Discards all bytes: present and future ones are consumed unread.
    pub fn discard(&self) {
        self.change(Inbound::discard);
    }

    /// Records the end of our own direction. The pipe releases the stream after the peer's end.
    pub fn outbound_done(&self) {
        self.change(Inbound::outbound_done);
    }

    /// Resets the stream in both directions, and the outlet's connection with it.
    pub fn abort(&self, code: Code) {
        self.change(|inbound| inbound.reset_local(code));
        self.changed.notify_all();
    }

    /// Writes waiting bytes again, after a change outside of the pipe made room in the outlet.
    pub fn push(&self) {
        self.change(Inbound::room);
    }

    fn change(&self, change: impl FnOnce(&mut Inbound) -> Effects) {
        let mut state = self.lock();
        let effects = change(&mut state.inbound);
        self.apply(state, effects);
    }

    /// Watches the descriptor for room if necessary, unlocks, and carries out `effects`.
    fn apply(&self, mut state: MutexGuard<'_, PipeState>, effects: Effects) {
        let mut effects = effects;
        if state.inbound.wants_room() {
            let readable = state.reader == Reader::Reactor;
            if let Err(e) = self.watch(&mut state, Watch { readable, writable: true }) {
                if let Some(count) = UNWATCHED_LINES.lock().record(sys::clock()) {
                    event!(error, obj = "tunnel", "cannot watch socket", count = count, err = e);
                }
                let more = state.inbound.reset_local(Code::INTERNAL_ERROR);
                effects = Effects { consumed: effects.consumed + more.consumed, ..more };
            }
        }
        let closed = state.inbound.take_closed();
        if let Some(outlet) = &closed
            && state.watched.take().is_some()
        {
            self.session.unwatch(outlet.fd());
        }
        drop(state);
        drop(closed);
        self.session.consumed(self.stream, effects.consumed);
        match effects.stream {
            StreamEffect::None => {}
            StreamEffect::Release => self.session.release(self.stream),
            StreamEffect::Reset(code) => self.session.cancel(self.stream, code),
        }
    }
}

impl Pipe {
    fn watch(&self, state: &mut PipeState, what: Watch) -> io::Result<()> {
        let Some(fd) = state.inbound.fd() else { return Ok(()) };
        // Edge-triggered: a registered descriptor needs no second call.
        if state.watched != Some(what) {
            self.session.watch(self.stream, fd, what, state.watched.is_some())?;
            state.watched = Some(what);
        }
        Ok(())
    }

    /// Lets the reactor read the socket. [`Sink::ready`] is called once when there are bytes or
    /// the end. Returns false if the stream has ended already.
    pub fn park(&self) -> io::Result<bool> {
        let mut state = self.lock();
        if state.inbound.is_reset() || state.inbound.fd().is_none() {
            return Ok(false);
        }
        let writable = state.watched.is_some_and(|w| w.writable);
        state.reader = Reader::Reactor;
        let watching = self.watch(&mut state, Watch { readable: true, writable });
        if watching.is_err() {
            state.reader = Reader::Worker;
        }
        watching.map(|()| true)
    }

    /// Returns whether the connection is parked.
    pub fn is_parked(&self) -> bool {
        self.lock().reader == Reader::Reactor
    }

    /// Unparks the connection if the reactor found its socket readable. Returns true for
    /// exactly one caller.
    pub fn unpark(&self) -> bool {
        let mut state = self.lock();
        if std::mem::replace(&mut state.reader, Reader::Worker) == Reader::Worker {
            return false;
        }
        match state.watched {
            Some(Watch { writable: true, .. }) => {
                let _ = self.watch(&mut state, Watch { readable: false, writable: true });
            }
            Some(_) => {
                if let Some(fd) = state.inbound.fd() {
                    self.session.unwatch(fd);
                }
                state.watched = None;
            }
            None => {}
        }
        true
    }
}

impl Sink for Pipe {
    fn data(&self, bytes: &[u8]) -> usize {
        self.data_parts(&[IoSlice::new(bytes)])
    }

    fn data_parts(&self, parts: &[IoSlice<'_>]) -> usize {
        let mut state = self.lock();
        let effects = state.inbound.data(parts);
        let read_by_worker = state.inbound.fd().is_none();
        if effects.stream == StreamEffect::None && !state.inbound.wants_room() {
            // The usual case: the reactor returns the window at its next lock.
            drop(state);
            if read_by_worker {
                self.changed.notify_all();
            }
            return effects.consumed;
        }
        if effects.stream == StreamEffect::Reset(Code::INTERNAL_ERROR)
            && let Some(count) = NO_MEMORY_LINES.lock().record(sys::clock())
        {
            event!(
                error,
                obj = "tunnel",
                "stream reset: out of memory",
                id = self.stream,
                count = count
            );
        }
        self.apply(state, Effects { consumed: 0, ..effects });
        self.changed.notify_all();
        effects.consumed
    }

    fn finished(&self) {
        self.change(Inbound::finished);
        self.changed.notify_all();
    }

    fn reset(&self, reset: Reset) {
        let mut state = self.lock();
        let effects = state.inbound.reset(reset);
        if !state.inbound.waiting().is_empty()
            && let Some(fd) = state.inbound.fd()
        {
            // A socket that accepts no bytes must not keep a dead stream forever.
            sys::keep_alive(fd, RESET_FLUSH_TIMEOUT);
        }
        self.apply(state, effects);
        self.changed.notify_all();
    }

    fn cancelled(&self, code: Code) {
        self.reset(Reset::Peer(code));
    }

    fn ready(&self, _readable: bool, writable: bool, _closed: bool) {
        if writable {
            self.push();
        }
    }
}
