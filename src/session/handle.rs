//! Handle of a session for all threads, with two locks: one for the muxer and one for the write
//! half (sealer, send buffer, socket).
//!
//! Rank of locks: a sink's own lock, then the write half, then the muxer. No sink is called
//! under the latter two. The muxer's lock is held for short computations only, so the reactor
//! never waits for a send. The write half's lock is held for sealing and a non-blocking send at
//! most. Sending is in `sender` and `frame_writer`.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::Thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use super::send_buffer::SendBuffer;
use super::send_error::SendError;
use super::{End, Reset, Sink};
use crate::mux::{self, Code, Role, StreamId, StreamType};
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::{Deadline, Instant};
use crate::tls::key_update::KeySchedule;
use crate::tls::records::Sealer;

/// Handle of a live session. Cheap to clone. It may outlive the session; its operations then
/// fail with [`SendError::Over`].
#[derive(Clone)]
pub struct Session(pub(super) Arc<Shared>);

/// Events of a descriptor that a sink waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The descriptor has bytes to read.
    pub readable: bool,
    /// The descriptor has room to write.
    pub writable: bool,
}

pub(super) struct Shared {
    core: Mutex<Core>,
    pub(super) out: Mutex<WriteHalf>,
    pub(super) registry: Registry,
    waker: Waker,
    turns: AtomicU32,
}

/// The muxer, with the sinks and waiting threads of its streams.
pub(super) struct Core {
    pub(super) mux: mux::Muxer,
    /// Sorted by stream. Ids of one side rise, so an insertion is near an end.
    sinks: Vec<(StreamId, Arc<dyn Sink>)>,
    /// Threads that wait for a stream's window.
    pub(super) windows: Vec<(StreamId, Thread)>,
    /// Set once: no further sending. The reactor completes the end.
    pub(super) end: Option<End>,
}

/// The sending half of the session: sealer, send buffer and socket.
pub(super) struct WriteHalf {
    pub(super) sealer: Sealer,
    pub(super) kernel: KeySchedule,
    pub(super) send_buffer: SendBuffer,
    pub(super) socket: TcpStream,
    /// Threads that wait for their turn to send, in order of arrival. The first one has the
    /// turn and waits for the socket.
    pub(super) turns: VecDeque<Thread>,
    /// Whether the reactor watches the socket for room.
    pub(super) armed: bool,
}

impl Session {
    pub(super) fn new(
        mux: mux::Muxer,
        sealer: Sealer,
        kernel: KeySchedule,
        socket: TcpStream,
        registry: Registry,
        waker: Waker,
    ) -> Self {
        let core = Core { mux, sinks: Vec::new(), windows: Vec::new(), end: None };
        let send_buffer = SendBuffer::new();
        let out =
            WriteHalf { sealer, kernel, send_buffer, socket, turns: VecDeque::new(), armed: false };
        let (core, out, turns) = (Mutex::new(core), Mutex::new(out), AtomicU32::new(0));
        Session(Arc::new(Shared { core, out, registry, waker, turns }))
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock()
    }

    pub(super) fn out(&self) -> MutexGuard<'_, WriteHalf> {
        self.0.out.lock()
    }

    /// Opens a stream of type `kind`. Its first frame carries `first` too (at most 4 KiB).
    /// `sink` gets the peer's bytes.
    pub fn open(
        &self,
        kind: StreamType,
        first: &[u8],
        sink: Arc<dyn Sink>,
    ) -> Result<StreamId, SendError> {
        self.open_with(kind, first, |_| sink)
    }

    /// Opens a stream like [`Self::open`], for a sink that needs the stream's id. `make` runs
    /// under the muxer's lock and must not use the session.
    pub fn open_with(
        &self,
        kind: StreamType,
        first: &[u8],
        make: impl FnOnce(StreamId) -> Arc<dyn Sink>,
    ) -> Result<StreamId, SendError> {
        let mut core = self.core();
        if core.end.is_some() {
            return Err(SendError::Over);
        }
        let stream = core.mux.open(kind, first).map_err(|e| SendError::Refused(e.code()))?;
        let sink = make(stream);
        core.add_sink(stream, sink);
        drop(core);
        self.pump();
        Ok(stream)
    }

    fn with_mux(&self, change: impl FnOnce(&mut mux::Muxer)) {
        let mut core = self.core();
        if core.end.is_none() {
            change(&mut core.mux);
            let pump = core.mux.has_transmit();
            drop(core);
            if pump {
                self.pump();
            }
        }
    }

    /// Ends our direction of `stream` after the bytes that were sent.
    pub fn finish(&self, stream: StreamId) {
        self.with_mux(|mux| mux.finish(stream));
    }

    /// Ends both directions of `stream` at once and forgets its sink.
    pub fn reset(&self, stream: StreamId, code: Code) {
        self.with_mux(|mux| mux.reset(stream, code));
        self.release(stream);
    }

    /// Ends both directions of `stream` with FIN and then RST, so that every peer notices
    /// (protocol 2.6). Forgets its sink.
    pub fn cancel(&self, stream: StreamId, code: Code) {
        self.abort(stream, code);
        self.release(stream);
    }

    /// Ends both directions of `stream` like [`Self::cancel`]. Its sink stays, and
    /// [`Sink::ready`] continues until [`Self::release`].
    pub fn abort(&self, stream: StreamId, code: Code) {
        self.with_mux(|mux| mux.cancel(stream, code));
        // A thread that waits for the stream's window must return.
        self.core().wake_window_waiters(stream);
    }

    /// Returns `n` bytes of the stream's window to the peer.
    pub fn consumed(&self, stream: StreamId, n: usize) {
        if n > 0 {
            self.with_mux(|mux| mux.consumed_at(stream, n, sys::clock()));
        }
    }

    /// Forgets the sink of `stream`. The stream has ended, or its bytes are not needed: present
    /// and future ones are consumed unread.
    pub fn release(&self, stream: StreamId) {
        let mut core = self.core();
        let removed = core.take_sink(stream);
        if core.end.is_none() {
            core.mux.consumed(stream, usize::MAX);
        }
        drop(core);
        // Dropped outside the lock: the sink may own the last handle of other objects.
        drop(removed);
    }

    /// Starts the heartbeat of the requesting side (protocol 4).
    pub fn start_heartbeat(&self, interval: Duration, tolerance: Duration) {
        let now = sys::clock();
        self.with_mux(|mux| {
            // Reason: it fails only if the session is ending, which is reported elsewhere.
            let _ = mux.start_heartbeat(interval, tolerance, now);
        });
        // The reactor sleeps until the deadlines that it knows; this one is new.
        self.wake_reactor();
    }

    /// Sets the limit of simultaneous streams.
    pub fn set_max_streams(&self, max_streams: usize) {
        self.with_mux(|mux| mux.set_max_streams(max_streams));
    }

    /// Requests an echo within `patience`, because the network path is in doubt. Without an
    /// echo the session ends.
    pub fn probe(&self, patience: Duration) {
        self.with_mux(|mux| mux.probe(patience, sys::clock()));
        self.wake_reactor();
    }

    /// Makes the reactor do one turn, to check that it still can.
    pub fn wake_reactor(&self) {
        // The reactor reads the new state in its next turn, which may be late. A failed wakeup
        // is repeated.
        if self.0.waker.wake().is_err() {
            let _ = self.0.waker.wake();
        }
    }

    /// Returns the number of the reactor's turns. It wraps around.
    pub fn turns(&self) -> u32 {
        self.0.turns.load(Ordering::Relaxed)
    }

    pub(super) fn count_turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Resets a stream that reached a limit. Its sink is notified and stays until it calls
    /// [`Self::release`]. On the reactor thread.
    pub(super) fn evict(&self, stream: StreamId, code: Code) {
        let sink = self.core().sink(stream);
        self.with_mux(|mux| match mux.role() {
            // Our direction carries responses: a FIN would mark this one as complete.
            Role::Agent => mux.reset(stream, code),
            Role::Edge => mux.cancel(stream, code),
        });
        if let Some(sink) = sink {
            sink.reset(Reset::Local(code));
        }
    }

    /// Ends the session with a GOAWAY. Queued bytes are still sent.
    pub fn close(&self, code: Code, text: &str) {
        let mut core = self.core();
        if core.end.is_some() {
            return;
        }
        core.mux.go_away(code, text);
        drop(core);
        self.pump();
        self.fail(match code {
            Code::NO_ERROR => End::Closed,
            _ => End::Failed(code, text.to_owned()),
        });
    }

    /// Ends the session for all senders. The first reason counts. The caller must hold neither
    /// lock.
    pub(super) fn fail(&self, end: End) {
        self.core().fail(end);
        for thread in self.out().turns.drain(..) {
            thread.unpark();
        }
        self.wake_reactor();
    }

    /// Returns whether the session has ended or is about to end.
    pub fn is_over(&self) -> bool {
        self.core().end.is_some()
    }

    /// Returns whether the peer has answered the last [`Session::probe`].
    pub fn has_answered(&self) -> bool {
        let core = self.core();
        core.end.is_none() && !core.mux.awaits_echo()
    }

    /// Returns the round trip time of the last heartbeat.
    pub fn latency(&self) -> Option<Duration> {
        self.core().mux.latency()
    }

    /// Returns the number of open streams, heartbeats included.
    pub fn streams(&self) -> usize {
        self.core().mux.streams()
    }

    /// Registers `fd` with the reactor for the sink of `stream`. [`Sink::ready`] is called soon
    /// if the descriptor is ready, and at each later change. `again`: `fd` is registered
    /// already, for other events.
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

    /// Removes the registration of [`Self::watch`].
    pub fn unwatch(&self, fd: RawFd) {
        let _ = self.0.registry.deregister(&mut SourceFd(&fd));
    }
}

impl Core {
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

    fn take_sink(&mut self, stream: StreamId) -> Option<Arc<dyn Sink>> {
        let at = self.find(stream).ok()?;
        let (_, sink) = self.sinks.remove(at);
        if self.sinks.is_empty() {
            // Releases the memory of a burst.
            self.sinks.shrink_to(16);
        }
        Some(sink)
    }

    pub(super) fn take_sinks(&mut self) -> Vec<(StreamId, Arc<dyn Sink>)> {
        std::mem::take(&mut self.sinks)
    }

    /// Wakes the threads that wait for `stream`'s window.
    pub(super) fn wake_window_waiters(&mut self, stream: StreamId) {
        for (_, thread) in self.windows.iter().filter(|(s, _)| *s == stream) {
            thread.unpark();
        }
    }

    pub(super) fn fail(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
        }
        for (_, thread) in self.windows.drain(..) {
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

/// Token of the link in the poll of its reactor. Streams use their own numbers, which begin at
/// 2.
pub(super) const LINK: Token = Token(0);
