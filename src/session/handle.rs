//! The session as every thread sees it: two locks, one over the muxer and one
//! over the write half (sealer, send buffer, socket).
//!
//! Rank of locks: a sink's own lock, then the write half, then the muxer; never
//! the other way round, and no sink is called under either. The muxer's is held
//! for some bookkeeping only, so that the reactor never waits for a send; the
//! other one for sealing and a non-blocking send at most.
//!
//! A thread that queues bytes also flushes them: it waits for the socket itself while it
//! has the turn. The reactor sends only bytes that no thread waits for. So bulk in one
//! direction wakes no second thread.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use super::send_buffer::SendBuffer;
use super::{End, Reset, Sink};
use crate::mux::frame::HEADER_BYTES;
use crate::mux::{self, Code, Role, StreamId, StreamType};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{self, poll};
use crate::time::{Deadline, Instant};
use crate::tls::key_update::KeySchedule;
use crate::tls::records::{ContentType, Sealer};

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
    core: Mutex<Core>,
    out: Mutex<WriteHalf>,
    registry: Registry,
    waker: Waker,
    turns: AtomicU32,
}

/// The muxer, and the sinks and waiting threads of its streams.
pub(super) struct Core {
    pub(super) mux: mux::Muxer,
    /// Sorted by stream: ids of one side rise, so an insertion is near an end.
    sinks: Vec<(StreamId, Arc<dyn Sink>)>,
    /// Threads that wait for a stream's window.
    windows: Vec<(StreamId, Thread)>,
    /// Set once: no more sending. The reactor finishes the rest.
    pub(super) end: Option<End>,
}

/// The sending half of the session: what it takes to seal records and to send them.
pub(super) struct WriteHalf {
    pub(super) sealer: Sealer,
    pub(super) kernel: KeySchedule,
    pub(super) send_buffer: SendBuffer,
    pub(super) socket: TcpStream,
    /// Threads that wait for their turn to send, first come, first served. The
    /// first one has the turn and waits for the socket.
    turns: VecDeque<Thread>,
    /// The reactor watches the socket for room.
    armed: bool,
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
    /// the muxer's lock and may not use the session.
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

    /// Sends all of `bytes`, waiting for window and link as long as it takes, at
    /// most until `deadline`. Not on the reactor thread.
    pub fn send(
        &self,
        stream: StreamId,
        mut bytes: &[u8],
        deadline: Deadline,
    ) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let mut sent = 0;
            let stop = self.take_turn(deadline, |out| {
                while sent < bytes.len() && out.send_buffer.has_room() {
                    match self.seal_data(out, stream, &bytes[sent..]) {
                        Ok(n) => sent += n,
                        Err(stop) => return Some(stop),
                    }
                }
                None
            });
            bytes = &bytes[sent..];
            match stop {
                None => {}
                Some(Stop::Failed(e)) => return Err(e),
                Some(Stop::NoWindow) => _ = self.window(stream, deadline)?,
            }
        }
        Ok(())
    }

    /// Forwards what one `read` finds, at most `most` bytes of it, which the caller
    /// knows to fit the stream's window; waits for the link. `read` must not block; it
    /// fills the places it gets from the first on. On a stream that the peer opened,
    /// whose only sender the caller is. Not on the reactor thread.
    pub fn forward_bulk(
        &self,
        stream: StreamId,
        most: usize,
        read: impl Fn(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Result<io::Result<usize>, SendError> {
        let mut passed = None;
        let stop = self.take_turn(Deadline::Never, |out| {
            if passed.is_some() || !out.send_buffer.has_room() {
                return None;
            }
            let WriteHalf { sealer, send_buffer, .. } = out;
            let mut over = None;
            let sealed = send_buffer.records(sealer, most, &read, |len| {
                let mut core = self.core();
                if core.end.is_some() {
                    over = Some(SendError::Over);
                    return None;
                }
                match core.mux.grant(stream, len) {
                    Ok(grant) => Some(grant.header),
                    Err(mux::GrantError::Closed(code)) => {
                        over = Some(SendError::Closed(code));
                        None
                    }
                    Err(_) => {
                        over = Some(SendError::Closed(Code::INTERNAL_ERROR));
                        None
                    }
                }
            });
            match sealed {
                Ok(read) => passed = Some(read),
                Err(e) => {
                    self.break_off(&e);
                    over = Some(SendError::Over);
                }
            }
            over.map(Stop::Failed)
        });
        match (stop, passed) {
            (Some(Stop::Failed(e)), _) => Err(e),
            (_, Some(passed)) => Ok(passed),
            // Room was found, or it would have failed; nothing was there to read.
            (_, None) => Ok(Err(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// One turn at the write half: what `fill` puts into the send buffer is flushed. It is
    /// called again when some of it has left, until it says why it stops.
    fn take_turn(
        &self,
        deadline: Deadline,
        mut fill: impl FnMut(&mut WriteHalf) -> Option<Stop>,
    ) -> Option<Stop> {
        let mut out = self.out();
        let me = thread::current();
        let mut queued = false;
        loop {
            let first = match out.turns.front() {
                Some(front) => queued && front.id() == me.id(),
                None => !queued,
            };
            // The end of the session empties the queue.
            if queued && out.turns.is_empty() {
                return Some(Stop::Failed(SendError::Over));
            }
            if first && out.send_buffer.has_room() {
                break;
            }
            if !queued {
                out.turns.push_back(me.clone());
                queued = true;
                continue;
            }
            if first && !out.send_buffer.is_lent() {
                // Nobody is at the socket: what is in the way leaves first.
                let sent;
                (out, sent) = self.drain(out, Some(deadline));
                if let Err(e) = sent {
                    drop(out);
                    self.leave_queue();
                    return Some(Stop::Failed(e));
                }
                continue;
            }
            drop(out);
            if let Err(e) = pause(deadline) {
                self.leave_queue();
                return Some(Stop::Failed(e));
            }
            out = self.out();
        }
        let mut stop = fill(&mut out);
        if queued {
            out.turns.pop_front();
            out.wake_next();
        }
        // What is sealed leaves without us if we may not wait for it.
        let wait = stop.is_none().then_some(deadline);
        let (out, sent) = self.drain(out, wait);
        drop(out);
        if let Err(e) = sent {
            stop.get_or_insert(Stop::Failed(e));
        }
        // Control that others queued while this thread held the write half.
        self.pump_control();
        stop
    }

    /// Sends what is in the send buffer, without holding the lock meanwhile. Another
    /// thread that is at it sends this too. What the socket does not take is waited
    /// for until `wait`, or else left to the reactor.
    fn drain<'a>(
        &'a self,
        mut out: MutexGuard<'a, WriteHalf>,
        wait: Option<Deadline>,
    ) -> (MutexGuard<'a, WriteHalf>, Result<(), SendError>) {
        while let Some(mut batch) = out.send_buffer.lend() {
            // The other buffer is free now.
            out.wake_next();
            let fd = out.fd();
            drop(out);
            let result = loop {
                match (batch.send(fd), wait) {
                    (Ok(true), _) => break Ok(true),
                    (Ok(false), None) => break Ok(false),
                    (Ok(false), Some(deadline)) => {
                        if let Err(e) = wait_for_room(fd, deadline) {
                            break Err(e);
                        }
                        if self.is_over() {
                            break Err(SendError::Over);
                        }
                    }
                    (Err(e), _) => {
                        self.break_off(&e);
                        break Err(SendError::Over);
                    }
                }
            };
            out = self.out();
            out.send_buffer.give_back(batch);
            match result {
                Ok(true) => {}
                Ok(false) => {
                    self.arm(&mut out);
                    return (out, Ok(()));
                }
                Err(e) => {
                    self.arm(&mut out);
                    return (out, Err(e));
                }
            }
        }
        out.wake_next();
        (out, Ok(()))
    }

    /// Ends the session for a reason met on the write half, whose lock may be held: the
    /// reactor wakes up and tells the rest.
    fn break_off(&self, why: &dyn fmt::Display) {
        self.core().fail(End::Lost(why.to_string()));
        self.wake_reactor();
    }

    /// Flushes the control frames that wait, if any.
    fn pump_control(&self) {
        let waiting = self.core().mux.has_transmit();
        if waiting {
            self.pump();
        }
    }

    fn leave_queue(&self) {
        let me = thread::current().id();
        let mut out = self.out();
        out.turns.retain(|t| t.id() != me);
        out.wake_next();
        drop(out);
        // Control that others queued while this thread held the write half.
        self.pump_control();
    }

    /// How many bytes `stream` may send now, at least 1: waits for the peer to take
    /// some, at most until `deadline`. Who reads no more than that from elsewhere
    /// never holds bytes that cannot leave. After [`SendError::Late`] the sink's
    /// [`Sink::window`] is called when there is room again.
    pub fn window(&self, stream: StreamId, deadline: Deadline) -> Result<usize, SendError> {
        loop {
            let mut core = self.core();
            if core.end.is_some() {
                return Err(SendError::Over);
            }
            match core.mux.window(stream) {
                Ok(n) => return Ok(n),
                Err(mux::GrantError::Closed(code)) => return Err(SendError::Closed(code)),
                Err(_) => {}
            }
            if deadline.due(sys::clock()) {
                return Err(SendError::Late);
            }
            core.windows.push((stream, thread::current()));
            drop(core);
            // Late or not: one more look, so that room that came is not lost.
            let _ = pause(deadline);
            let me = thread::current().id();
            self.core().windows.retain(|(_, t)| t.id() != me);
        }
    }

    /// Sends what can be sent at once: from the reactor thread, or where losing
    /// the rest is better than waiting. Returns how many bytes went. Small answers
    /// fit also while others wait for the socket.
    pub fn try_send(&self, stream: StreamId, bytes: &[u8]) -> Result<usize, SendError> {
        let mut sent = Ok(0);
        let mut out = self.out();
        while let Ok(n) = sent
            && n < bytes.len()
            && out.send_buffer.has_reserve()
        {
            match self.seal_data(&mut out, stream, &bytes[n..]) {
                Ok(more) => sent = Ok(n + more),
                Err(Stop::NoWindow) => break,
                Err(Stop::Failed(e)) => sent = Err(e),
            }
        }
        drop(out);
        // Also when nothing was sent: control that waited may be in the send buffer now.
        self.flush();
        self.pump();
        sent
    }

    /// Forwards what `read` finds, if it is little: for the reactor thread. `read`
    /// must not block, and gets room for what may leave at once. What it returns
    /// is sealed and goes out at the end of the reactor's turn, with what other
    /// streams had to say: one system call for all of them.
    pub fn forward_small(
        &self,
        stream: StreamId,
        read: impl Fn(&mut [u8]) -> io::Result<usize>,
    ) -> Result<Forwarded, SendError> {
        let mut out = self.out();
        loop {
            if !out.send_buffer.has_reserve() {
                return Ok(Forwarded::NoRoom);
            }
            let mut outcome = Ok(None);
            let WriteHalf { sealer, send_buffer, .. } = &mut *out;
            let sealed =
                send_buffer.record(sealer, ContentType::Data, SMALL_RECORD_BYTES, |content| {
                    let mut core = self.core();
                    if core.end.is_some() {
                        outcome = Err(SendError::Over);
                        return 0;
                    }
                    let control =
                        if core.mux.has_transmit() { core.mux.transmit(content) } else { 0 };
                    let frame = &mut content[control..];
                    if core.mux.has_transmit() || frame.len() < SMALL_RECORD_BYTES / 2 {
                        return control;
                    }
                    let most = match core.mux.window(stream) {
                        Ok(window) => window.min(frame.len() - HEADER_BYTES),
                        Err(mux::GrantError::Closed(code)) => {
                            outcome = Err(SendError::Closed(code));
                            return control;
                        }
                        Err(_) => {
                            outcome = Ok(Some(Forwarded::NoWindow));
                            return control;
                        }
                    };
                    let n = match read(&mut frame[HEADER_BYTES..HEADER_BYTES + most]) {
                        Ok(n) if n > 0 => n,
                        end => {
                            outcome = Ok(Some(Forwarded::Nothing(end.err())));
                            return control;
                        }
                    };
                    match core.mux.grant(stream, n) {
                        Ok(grant) => {
                            // All of it: the window was asked for under this lock.
                            frame[..HEADER_BYTES].copy_from_slice(&grant.header);
                            outcome = Ok(Some(Forwarded::Sent { full: n == most }));
                            control + HEADER_BYTES + grant.len
                        }
                        Err(_) => {
                            outcome = Err(SendError::Closed(Code::INTERNAL_ERROR));
                            control
                        }
                    }
                });
            if let Err(e) = sealed {
                drop(out);
                self.fail(End::Lost(e.to_string()));
                return Err(SendError::Over);
            }
            // More control than fits beside data went first, alone.
            if let Some(done) = outcome? {
                return Ok(done);
            }
        }
    }

    /// Sends what [`Self::forward_small`] sealed.
    pub(super) fn flush(&self) {
        // A failure has ended the session.
        let _ = self.drain(self.out(), None);
    }

    /// One record: the control frames that wait, then one DATA frame. Returns how
    /// many of `bytes` went into it. The send buffer has room.
    fn seal_data(
        &self,
        out: &mut WriteHalf,
        stream: StreamId,
        bytes: &[u8],
    ) -> Result<usize, Stop> {
        loop {
            let mut outcome = Ok(0);
            let most = bytes.len().saturating_add(CONTROL_RECORD_BYTES);
            let WriteHalf { sealer, send_buffer, .. } = out;
            let sealed = send_buffer.record(sealer, ContentType::Data, most, |content| {
                let mut core = self.core();
                if core.end.is_some() {
                    outcome = Err(Stop::Failed(SendError::Over));
                    return 0;
                }
                let control = if core.mux.has_transmit() { core.mux.transmit(content) } else { 0 };
                let room = content.len() - control;
                if room <= HEADER_BYTES {
                    return control;
                }
                match core.mux.grant(stream, bytes.len().min(room - HEADER_BYTES)) {
                    Ok(grant) => {
                        drop(core);
                        let frame = &mut content[control..];
                        frame[..HEADER_BYTES].copy_from_slice(&grant.header);
                        frame[HEADER_BYTES..HEADER_BYTES + grant.len]
                            .copy_from_slice(&bytes[..grant.len]);
                        outcome = Ok(grant.len);
                        control + HEADER_BYTES + grant.len
                    }
                    Err(e) => {
                        outcome = match e {
                            mux::GrantError::ControlPending => Ok(0),
                            mux::GrantError::NoWindow => Err(Stop::NoWindow),
                            mux::GrantError::Closed(code) => {
                                Err(Stop::Failed(SendError::Closed(code)))
                            }
                        };
                        control
                    }
                }
            });
            if let Err(e) = sealed {
                self.break_off(&e);
                return Err(Stop::Failed(SendError::Over));
            }
            match outcome {
                // More control than fits beside data: it went first, alone.
                Ok(0) if out.send_buffer.has_reserve() => continue,
                other => return other,
            }
        }
    }

    /// Flushes the control frames that wait, unless another thread holds the write half; it
    /// then flushes them. Never blocks for long; errors end the session.
    pub(super) fn pump(&self) {
        loop {
            let Some(out) = self.0.out.try_lock() else { return };
            let (out, all) = self.push_out(out);
            drop(out);
            // Somebody may have queued more and found the write half taken.
            if !all || !self.core().mux.has_transmit() {
                return;
            }
        }
    }

    /// Seals the control frames that wait as far as there is room, and sends.
    /// Whether there was room for all of them.
    pub(super) fn push_out<'a>(
        &'a self,
        mut out: MutexGuard<'a, WriteHalf>,
    ) -> (MutexGuard<'a, WriteHalf>, bool) {
        loop {
            let mut more = true;
            let sealed = self.seal_control(&mut out, &mut more);
            if let Err(why) = sealed {
                self.core().fail(End::Lost(why));
                self.wake_reactor();
                return (out, false);
            }
            let sent;
            (out, sent) = self.drain(out, None);
            if sent.is_err() || !more || !out.send_buffer.has_reserve() {
                return (out, sent.is_ok() && !more);
            }
        }
    }

    fn seal_control(&self, out: &mut WriteHalf, more: &mut bool) -> Result<(), String> {
        if out.sealer.needs_key_update() && out.send_buffer.has_reserve() {
            out.renew_key()?;
        }
        while *more && out.send_buffer.has_reserve() {
            let WriteHalf { sealer, send_buffer, .. } = out;
            send_buffer
                .record(sealer, ContentType::Data, CONTROL_RECORD_BYTES, |content| {
                    let mut core = self.core();
                    let n = core.mux.transmit(content);
                    *more = core.mux.has_transmit();
                    n
                })
                .map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Queues a fatal TLS alert, behind what is sealed already.
    pub(super) fn send_alert(&self, description: u8) {
        const FATAL: u8 = 2;
        let mut out = self.out();
        let WriteHalf { sealer, send_buffer, .. } = &mut *out;
        if send_buffer.has_reserve() {
            // The session ends for the fault itself; the alert is for the peer's log.
            let _ = send_buffer.record(sealer, ContentType::Alert, 2, |content| {
                content.copy_from_slice(&[FATAL, description]);
                2
            });
        }
    }

    /// Leaves what is in the send buffer to the reactor.
    fn arm(&self, out: &mut WriteHalf) {
        // Even if it watches already: its event may have come while another thread had
        // the bytes, and then it is spent. Asking anew brings it again.
        out.armed = self.listen(out, Interest::READABLE | Interest::WRITABLE);
    }

    /// The reactor saw room on the socket: what waits goes, and the next turn begins.
    pub(super) fn room(&self) {
        self.pump();
        let mut out = self.out();
        if out.armed && out.send_buffer.is_empty() {
            out.armed = !self.listen(&mut out, Interest::READABLE);
        }
    }

    fn listen(&self, out: &mut WriteHalf, interest: Interest) -> bool {
        self.0.registry.reregister(&mut SourceFd(&out.fd()), LINK, interest).is_ok()
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
            self.with_mux(|mux| mux.consumed_at(stream, n, sys::clock()));
        }
    }

    /// Forgets the sink of `stream`. The stream itself is over, or its bytes are
    /// not wanted: those that came and those to come are consumed unread.
    pub fn release(&self, stream: StreamId) {
        let mut core = self.core();
        let removed = core.take_sink(stream);
        if core.end.is_none() {
            core.mux.consumed(stream, usize::MAX);
        }
        drop(core);
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
        self.wake_reactor();
    }

    /// Asks for an echo within `patience`, because the way is in doubt. The session
    /// ends without it.
    pub fn probe(&self, patience: Duration) {
        self.with_mux(|mux| mux.probe(patience, sys::clock()));
        self.wake_reactor();
    }

    /// Has the reactor make a turn: to see whether it still does.
    pub fn wake_reactor(&self) {
        // What it is to see it sees at its next turn, which may be far away: a call that
        // failed is made again.
        if self.0.waker.wake().is_err() {
            let _ = self.0.waker.wake();
        }
    }

    /// How many turns the reactor has made. Wraps.
    pub fn turns(&self) -> u32 {
        self.0.turns.load(Ordering::Relaxed)
    }

    pub(super) fn count_turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Resets a stream for a limit that it reached. Its sink is notified, and keeps its
    /// place until it calls [`Self::release`]. On the reactor thread.
    pub(super) fn evict(&self, stream: StreamId, code: Code) {
        let sink = self.core().sink(stream);
        self.with_mux(|mux| match mux.role() {
            // Our direction carries answers: FIN would say that this one is complete.
            Role::Agent => mux.reset(stream, code),
            Role::Edge => mux.cancel(stream, code),
        });
        if let Some(sink) = sink {
            sink.reset(Reset::Local(code));
        }
    }

    /// Says goodbye (GOAWAY) and ends the session: what is queued is still sent.
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

    /// Ends the session for every sender. The first reason counts. Holding neither lock.
    pub(super) fn fail(&self, end: End) {
        self.core().fail(end);
        for thread in self.out().turns.drain(..) {
            thread.unpark();
        }
        self.wake_reactor();
    }

    /// Whether the session is over, or about to be.
    pub fn is_over(&self) -> bool {
        self.core().end.is_some()
    }

    /// The time of the last heartbeat's way there and back.
    pub fn latency(&self) -> Option<Duration> {
        self.core().mux.latency()
    }

    /// Streams that are open, heartbeats included.
    pub fn streams(&self) -> usize {
        self.core().mux.streams()
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

/// What [`Session::forward_small`] did.
#[derive(Debug)]
pub enum Forwarded {
    /// Passed something on; `full`: all that there was room for, so there may be more.
    Sent {
        /// The room was filled.
        full: bool,
    },
    /// The stream's window is used up: [`Sink::window`] is called when it is not.
    NoWindow,
    /// The link takes nothing more at the moment.
    NoRoom,
    /// Nothing was read: the end, or why.
    Nothing(Option<io::Error>),
}

/// Why a turn ended before all bytes were sent.
enum Stop {
    NoWindow,
    Failed(SendError),
}

/// Waits to be called, at most a second: then the caller looks for itself.
fn pause(deadline: Deadline) -> Result<(), SendError> {
    thread::park_timeout(step(deadline)?);
    Ok(())
}

/// Waits until the socket takes bytes, or is dead; at most a second.
fn wait_for_room(fd: RawFd, deadline: Deadline) -> Result<(), SendError> {
    // An error is the next flush's to report.
    let _ = poll::writable(&fd, Some(step(deadline)?));
    Ok(())
}

fn step(deadline: Deadline) -> Result<Duration, SendError> {
    let most = Duration::from_secs(1);
    let left = deadline.left(sys::clock()).unwrap_or(most);
    if left.is_zero() { Err(SendError::Late) } else { Ok(left.min(most)) }
}

impl WriteHalf {
    /// Calls the thread whose turn it is, if there is room for it.
    fn wake_next(&self) {
        if let Some(next) = self.turns.front()
            && self.send_buffer.has_room()
        {
            next.unpark();
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Tells the peer of a new key and changes to it (RFC 8446 section 4.6.3).
    pub(super) fn renew_key(&mut self) -> Result<(), String> {
        const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
        let WriteHalf { sealer, send_buffer, kernel, .. } = self;
        send_buffer
            .record(sealer, ContentType::Handshake, KEY_UPDATE.len(), |content| {
                content.copy_from_slice(&KEY_UPDATE);
                KEY_UPDATE.len()
            })
            .map_err(|e| e.to_string())?;
        *sealer = kernel.next_sealer().map_err(|e| e.to_string())?;
        Ok(())
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
            // A burst's table goes back.
            self.sinks.shrink_to(16);
        }
        Some(sink)
    }

    pub(super) fn take_sinks(&mut self) -> Vec<(StreamId, Arc<dyn Sink>)> {
        std::mem::take(&mut self.sinks)
    }

    /// Calls the threads that wait for `stream`'s window.
    pub(super) fn wake_window_waiters(&mut self, stream: StreamId) {
        for (_, thread) in self.windows.iter().filter(|(s, _)| *s == stream) {
            thread.unpark();
        }
    }

    fn fail(&mut self, end: End) {
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

/// The link's token in the poll of its reactor; streams have their own numbers,
/// which begin at 2.
pub(super) const LINK: Token = Token(0);

/// Most bytes of a record that holds control frames alone: a small session
/// should touch little memory. The largest control frame fits.
const CONTROL_RECORD_BYTES: usize = 8_192;
const _: () = assert!(CONTROL_RECORD_BYTES >= mux::MAX_CONTROL);

/// Bytes of a record that [`Session::forward_small`] makes at most. What fills it is bulk,
/// and a worker's business.
const SMALL_RECORD_BYTES: usize = 8_192;
