//! The sink for a connection: a stream's bytes on their way to a socket.
//!
//! Until a socket is there the bytes wait here and a worker may read them; then
//! the reactor writes them to it as they come, and only what does not fit waits.
//! The window goes back to the peer as bytes leave, so a slow socket slows its
//! own stream and nothing else. No HTTP here, and no dialling.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::{Session, Sink, Watch};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{Code, StreamId};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Deadline;

/// Sockets that the kernel did not watch.
static WATCH_FAILURES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(1));

/// The memory of bytes that wait grows by this, once it is as large.
const GROWTH_BYTES: usize = 32 * 1024;

/// The least of it; and what may have left before the rest is moved together.
const MIN_CAPACITY_BYTES: usize = 2 * 1024;

/// How long what came before a reset may take to leave.
const RESET_LINGER: Duration = Duration::from_secs(30);

/// Where a [`Pipe`] writes: a socket, or something in front of one. Nothing in
/// it may block.
pub trait Outlet: Send {
    /// Takes a prefix of `bytes`; `WouldBlock` when it can take none now.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Pushes out what the outlet itself holds; `WouldBlock` when some is left.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Ends this direction after what was written.
    fn finish(&mut self);
    /// Breaks the connection off: the thread that reads the socket wakes up, and the
    /// other side sees a reset, since what it got so far is not all.
    fn abort(&mut self);
    /// The socket, to be watched for room.
    fn fd(&self) -> RawFd;
}

/// A plain socket as an outlet.
pub struct PlainOutlet(pub Arc<TcpStream>);

impl Outlet for PlainOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::send_now(self.0.as_raw_fd(), bytes)
    }

    fn finish(&mut self) {
        // It fails where the connection is dead: what was received is there to be read.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn abort(&mut self) {
        // No FIN: the close says it all.
        sys::reset_on_close(self.0.as_raw_fd());
        let _ = self.0.shutdown(Shutdown::Read);
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The incoming half of a proxied stream.
pub struct Pipe {
    session: Session,
    stream: StreamId,
    state: Mutex<PipeState>,
    /// Told of each change while somebody may read.
    changed: Condvar,
}

#[derive(Default)]
struct PipeState {
    /// Bytes that wait, from `head` on.
    waiting: Vec<u8>,
    head: usize,
    outlet: Option<Box<dyn Outlet>>,
    /// What the reactor watches the outlet's descriptor for; `None`: not registered.
    watched: Option<Watch>,
    /// The connection is parked: nobody reads the socket, the reactor watches it.
    parked: bool,
    /// The peer has sent its last byte.
    finished: bool,
    /// The stream is over by reset.
    reset: Option<Code>,
    /// No more bytes are wanted: they are consumed unread.
    discard: bool,
    /// Our own direction has ended too: the pipe may go once it is empty.
    sender_done: bool,
    /// The outlet has been told of the peer's end.
    ended: bool,
    /// The outlet has been told of the reset.
    aborted: bool,
    /// A write failed, so nobody takes the bytes that come.
    failed: bool,
    /// It failed by a reset. The kernel tells of that once: who reads the socket
    /// sees what looks like an orderly end.
    broken: Option<io::ErrorKind>,
}

impl PipeState {
    fn len(&self) -> usize {
        self.waiting.len() - self.head
    }

    fn take(&mut self, n: usize) {
        self.head += n;
        if self.head == self.waiting.len() {
            // Idle connections hold no buffer.
            self.waiting = Vec::new();
            self.head = 0;
        } else if self.head >= MIN_CAPACITY_BYTES && self.len() <= self.head / 2 {
            // A stream that stands still holds little more than what waits: the
            // bound of a session counts those bytes alone.
            self.waiting.drain(..self.head);
            self.head = 0;
            self.waiting.shrink_to(room_for(self.waiting.len()));
        }
    }

    /// Keeps `bytes` behind those that wait, in no more memory than it takes. `false`:
    /// there is none.
    fn keep(&mut self, bytes: &[u8]) -> bool {
        let needed = self.waiting.len() + bytes.len();
        if needed > self.waiting.capacity() {
            if self.head > 0 {
                self.waiting.drain(..self.head);
                self.head = 0;
            }
            // In steps, not doubled: a window is the most that ever waits.
            let needed = room_for(self.waiting.len() + bytes.len());
            if self.waiting.try_reserve_exact(needed - self.waiting.len()).is_err() {
                return false;
            }
        }
        self.waiting.extend_from_slice(bytes);
        true
    }

    fn over(&self) -> bool {
        self.len() == 0 && (self.reset.is_some() || (self.finished && self.sender_done))
    }
}

/// The memory to take for `n` bytes: never more than twice as much, nor in small steps.
fn room_for(n: usize) -> usize {
    if n <= GROWTH_BYTES {
        n.next_power_of_two().max(MIN_CAPACITY_BYTES)
    } else {
        n.next_multiple_of(GROWTH_BYTES)
    }
}

impl Pipe {
    /// The pipe of `stream`. It must be the stream's sink.
    pub fn new(session: &Session, stream: StreamId) -> Self {
        Pipe {
            session: session.clone(),
            stream,
            state: Mutex::new(PipeState::default()),
            changed: Condvar::new(),
        }
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

    /// Reads bytes that wait, blocking for them until `deadline`. 0 is the end. For a worker,
    /// before [`Self::attach`].
    pub fn read(&self, buf: &mut [u8], deadline: Deadline) -> io::Result<usize> {
        let n = self.wait(deadline, |bytes| {
            let n = bytes.len().min(buf.len());
            buf[..n].copy_from_slice(&bytes[..n]);
            (n > 0).then_some((n, n))
        })?;
        Ok(n.unwrap_or(0))
    }

    /// Shows the bytes that wait to `look`, again with more each time, until it has
    /// seen enough: it returns how many of them it takes, and its result. `None` at
    /// the end of the stream.
    pub fn wait<T>(
        &self,
        deadline: Deadline,
        mut look: impl FnMut(&[u8]) -> Option<(usize, T)>,
    ) -> io::Result<Option<T>> {
        let mut state = self.lock();
        loop {
            let bytes = &state.waiting[state.head..];
            if !bytes.is_empty()
                && let Some((taken, result)) = look(bytes)
            {
                state.take(taken);
                drop(state);
                self.session.consumed(self.stream, taken);
                return Ok(Some(result));
            }
            if state.finished {
                return Ok(None);
            }
            if let Some(code) = state.reset {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionReset,
                    format!("the stream was reset: {code}"),
                ));
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

    /// How many bytes wait.
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Whether the stream was reset.
    pub fn is_reset(&self) -> bool {
        self.lock().reset.is_some()
    }

    /// How a write of the outlet broke off, if it did: then an end that is read from
    /// the same socket is not an orderly one.
    pub fn broken(&self) -> Option<io::ErrorKind> {
        self.lock().broken
    }

    /// Connects the pipe to a socket: what waits is written, and the reactor
    /// writes what comes from now on.
    pub fn attach(&self, outlet: Box<dyn Outlet>) {
        let mut state = self.lock();
        state.outlet = Some(outlet);
        let done = self.drain(&mut state);
        self.settle(state, done);
    }

    /// Wants no more bytes: those that wait and those that come are consumed unread.
    pub fn discard(&self) {
        let mut state = self.lock();
        let done = self.give_up(&mut state);
        self.settle(state, done);
    }

    /// Our own direction has ended: the pipe lets the stream go when the peer's has too.
    pub fn sender_done(&self) {
        let mut state = self.lock();
        state.sender_done = true;
        self.settle(state, 0);
    }

    /// Runs `f` on the outlet, under the pipe's lock. `None` without one.
    pub fn with_outlet<T>(&self, f: impl FnOnce(&mut dyn Outlet) -> T) -> Option<T> {
        self.lock().outlet.as_mut().map(|outlet| f(outlet.as_mut()))
    }

    /// Pushes the outlet again after something outside the pipe changed what it can take.
    pub fn push(&self) {
        let mut state = self.lock();
        let done = self.drain(&mut state);
        self.settle(state, done);
    }

    /// Writes what waits as far as the outlet takes it. Returns how many bytes left.
    fn drain(&self, state: &mut PipeState) -> usize {
        let PipeState { waiting, head, outlet: Some(outlet), .. } = state else { return 0 };
        let mut done = 0;
        let blocked = loop {
            let bytes = &waiting[*head + done..];
            if bytes.is_empty() {
                break outlet.flush();
            }
            match outlet.write(bytes) {
                Ok(0) => break Err(io::ErrorKind::WouldBlock.into()),
                Ok(n) => done += n,
                Err(e) => break Err(e),
            }
        };
        state.take(done);
        match blocked {
            Ok(()) => self.end_outlet(state),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.watch_room(state),
            // Nobody listens at the other end: what comes further is for nobody.
            // Whoever reads the socket sees its end and tells the peer.
            Err(e) => done += self.fail(state, &e),
        }
        done
    }

    /// The outlet takes nothing any more.
    fn fail(&self, state: &mut PipeState, error: &io::Error) -> usize {
        state.failed = true;
        // EPIPE says that the socket's other direction had come to its end before.
        if error.kind() != io::ErrorKind::BrokenPipe {
            state.broken.get_or_insert(error.kind());
        }
        // One that lives all the same, because it was the kernel that was short of
        // something, would wait for the rest for ever.
        if let Some(outlet) = state.outlet.as_mut()
            && !std::mem::replace(&mut state.ended, true)
        {
            outlet.finish();
        }
        self.give_up(state)
    }

    fn give_up(&self, state: &mut PipeState) -> usize {
        let n = state.len();
        state.take(n);
        state.discard = true;
        n
    }

    /// There is no memory for what came: the stream is over, the others go on.
    fn deny(&self, mut state: MutexGuard<'_, PipeState>) {
        event!(error, obj = "tunnel", "no memory for what a stream was sent", id = self.stream);
        state.reset.get_or_insert(Code::INTERNAL_ERROR);
        let done = self.give_up(&mut state);
        self.end_outlet(&mut state);
        self.settle(state, done);
        self.changed.notify_all();
    }

    /// Passes the end on, once all bytes have left.
    fn end_outlet(&self, state: &mut PipeState) {
        if state.len() > 0 {
            return;
        }
        let Some(outlet) = state.outlet.as_mut() else { return };
        if state.reset.is_some() {
            if !std::mem::replace(&mut state.aborted, true) {
                outlet.abort();
            }
        } else if state.finished && !std::mem::replace(&mut state.ended, true) {
            outlet.finish();
        }
    }

    /// Has the reactor tell when there is room again.
    fn watch_room(&self, state: &mut PipeState) {
        let parked = state.parked;
        if let Err(e) = self.watch(state, Watch { readable: parked, writable: true }) {
            let mut told = WATCH_FAILURES.lock();
            if let Some(count) = told.record(sys::clock()) {
                event!(error, obj = "tunnel", "cannot watch a socket", count = count, err = e);
            }
            drop(told);
            state.reset.get_or_insert(Code::INTERNAL_ERROR);
            let _ = self.give_up(state);
            self.end_outlet(state);
        }
    }

    fn watch(&self, state: &mut PipeState, what: Watch) -> io::Result<()> {
        let Some(outlet) = state.outlet.as_ref() else { return Ok(()) };
        // Edge-triggered: what is watched already needs no second word.
        if state.watched != Some(what) {
            self.session.watch(self.stream, outlet.fd(), what, state.watched.is_some())?;
            state.watched = Some(what);
        }
        Ok(())
    }

    /// Nobody reads the socket from now on: when there is something to read, or its
    /// end, the sink is told by [`Sink::ready`], once. `false`: too late to park,
    /// the stream is over.
    pub fn park(&self) -> io::Result<bool> {
        let mut state = self.lock();
        if state.reset.is_some() || state.outlet.is_none() {
            return Ok(false);
        }
        let writable = state.watched.is_some_and(|w| w.writable);
        state.parked = true;
        let watching = self.watch(&mut state, Watch { readable: true, writable });
        if watching.is_err() {
            state.parked = false;
        }
        watching.map(|()| true)
    }

    /// Whether the connection is parked.
    pub fn is_parked(&self) -> bool {
        self.lock().parked
    }

    /// Takes a parked connection back, if the reactor saw its socket readable: `true`
    /// for exactly one caller.
    pub fn unpark(&self) -> bool {
        let mut state = self.lock();
        if !std::mem::take(&mut state.parked) {
            return false;
        }
        match state.watched {
            Some(Watch { writable: true, .. }) => {
                let _ = self.watch(&mut state, Watch { readable: false, writable: true });
            }
            Some(_) => {
                if let Some(outlet) = &state.outlet {
                    self.session.unwatch(outlet.fd());
                }
                state.watched = None;
            }
            None => {}
        }
        true
    }

    /// Unlocks, then gives the window back and lets a finished stream go.
    fn settle(&self, mut state: MutexGuard<'_, PipeState>, done: usize) {
        // The socket takes no more and says no more: the peer should know that what
        // it sends is for nobody.
        let refused = state.failed && state.sender_done && !state.finished;
        if refused {
            state.reset.get_or_insert(Code::STREAM_CLOSED);
        }
        let over = state.over();
        let mut outlet = if over { state.outlet.take() } else { None };
        if let Some(outlet) = &mut outlet {
            if state.watched.take().is_some() {
                self.session.unwatch(outlet.fd());
            }
            if state.reset.is_some() && !std::mem::replace(&mut state.aborted, true) {
                outlet.abort();
            }
        }
        drop(state);
        drop(outlet);
        self.session.consumed(self.stream, done);
        if refused {
            self.session.reset(self.stream, Code::STREAM_CLOSED);
        } else if over {
            self.session.release(self.stream);
        }
    }
}

impl Sink for Pipe {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        if state.discard || state.reset.is_some() {
            return bytes.len();
        }
        let mut done = 0;
        if state.len() == 0
            && let Some(outlet) = state.outlet.as_mut()
        {
            let blocked = loop {
                if done == bytes.len() {
                    break outlet.flush();
                }
                match outlet.write(&bytes[done..]) {
                    Ok(0) => break Err(io::ErrorKind::WouldBlock.into()),
                    Ok(n) => done += n,
                    Err(e) => break Err(e),
                }
            };
            match blocked {
                Ok(()) => return done,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !state.keep(&bytes[done..]) {
                        self.deny(state);
                        return bytes.len();
                    }
                    self.watch_room(&mut state);
                    return done;
                }
                Err(e) => {
                    self.fail(&mut state, &e);
                    self.settle(state, 0);
                    return bytes.len();
                }
            }
        }
        if !state.keep(&bytes[done..]) {
            self.deny(state);
            return bytes.len();
        }
        if state.outlet.is_none() {
            drop(state);
            self.changed.notify_all();
        }
        done
    }

    fn finished(&self) {
        let mut state = self.lock();
        state.finished = true;
        let done = if state.len() == 0 { self.drain(&mut state) } else { 0 };
        self.settle(state, done);
        self.changed.notify_all();
    }

    fn reset(&self, code: Code) {
        let mut state = self.lock();
        state.reset.get_or_insert(code);
        // What came before the reset still leaves; over a dead session there is
        // nobody to tell of room, so what does not fit now is lost.
        let mut done = self.drain(&mut state);
        if code == Code::SESSION_CLOSED {
            done += self.give_up(&mut state);
            self.end_outlet(&mut state);
        } else if state.len() > 0
            && let Some(outlet) = state.outlet.as_ref()
        {
            // A socket that takes nothing must not keep a dead stream for ever.
            sys::keep_alive(outlet.fd(), RESET_LINGER);
        }
        self.settle(state, done);
        self.changed.notify_all();
    }

    fn cancelled(&self, code: Code) {
        self.reset(code);
    }

    fn ready(&self, _readable: bool, writable: bool, _closed: bool) {
        if writable {
            self.push();
        }
    }
}
