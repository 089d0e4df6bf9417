//! A stream's answer on its way to the visitor. Fed by the reactor of the
//! agent's session, which writes to the visitor's socket itself; the visitor's
//! own thread sends requests and asks here how the answer goes.
//!
//! Rank of locks: an exchange's, then the session's or the connection's.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::conn::Conn;
use super::pages::{Form, Page};
use super::response::{Asked, End, Filter, Progress};
use crate::event;
use crate::mux::{Code, StreamId, StreamType};
use crate::session::{Relay, SendError, Session, Sink, Watch};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::{self, threads};
use crate::time::Instant;

/// A stream that carries one visitor's bytes.
pub struct Exchange {
    me: Weak<Exchange>,
    conn: Arc<Conn>,
    session: Session,
    stream: StreamId,
    state: Mutex<State>,
    changed: Condvar,
    /// Told when a parked visitor's thread has something to do.
    unparked: Condvar,
}

/// What is needed to send a request again on a new stream.
#[derive(Default)]
pub struct Again {
    /// The whole first frame: proxy header, PROXY header, request. Empty: once only.
    pub frame: Vec<u8>,
}

struct State {
    filter: Filter,
    form: Form,
    /// Bytes that the visitor's socket did not take, from `start` on.
    waiting: Vec<u8>,
    start: usize,
    /// How many of the stream's bytes they are, not given back yet.
    owed: usize,
    /// What the session watches the visitor's socket for.
    watched: Option<Watch>,
    /// The socket was full at least once: it is told when there is room.
    wants_room: bool,
    /// The visitor's thread has left reading to the reactor.
    parked: bool,
    /// Reading failed while it was parked.
    failed: bool,
    /// The request was sent to its end.
    request_done: bool,
    /// The stream is over in the agent's direction.
    ended: bool,
    /// The session has forgotten the stream: it tells nothing any more.
    released: bool,
    /// What to do with the visitor's connection when nothing waits any more.
    then: Then,
    /// The visitor's connection is broken, or was.
    broken: bool,
    /// The visitor's thread has let go: the connection is none of ours any more.
    gone: bool,
    /// A thread of its own writes what waited when the session ended.
    draining: bool,
    /// Bytes of an answer have come.
    spoken: bool,
    /// The stream was reset: nobody takes what the visitor says.
    cut: bool,
    /// The stream served a request before.
    reused: bool,
    again: Again,
    /// The stream that took over the request.
    next: Option<Arc<Exchange>>,
    /// When the last answer was complete.
    idle_since: Instant,
    /// Counts deliveries, for who waits for progress.
    moved: u32,
    waiters: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stay,
    Finish,
    Abort,
    Over,
}

/// How an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The answer is under way.
    Going,
    /// The answer is a byte pipe now.
    Tunnel,
    /// Complete; the visitor may send another request.
    Settled,
    /// Complete or broken; the visitor's connection ends.
    Over,
}

impl Exchange {
    /// Opens a stream for a visitor; `first` goes into its first frame.
    pub fn open(
        session: &Session,
        conn: &Arc<Conn>,
        first: &[u8],
        filter: Filter,
        form: Form,
        request_done: bool,
    ) -> Result<Arc<Self>, SendError> {
        let mut made = None;
        session.open_with(StreamType::PROXY, first, |stream| {
            let state = State {
                filter,
                form,
                waiting: Vec::new(),
                start: 0,
                owed: 0,
                watched: None,
                wants_room: false,
                parked: false,
                failed: false,
                request_done,
                ended: false,
                released: false,
                then: Then::Stay,
                broken: false,
                gone: false,
                draining: false,
                spoken: false,
                cut: false,
                reused: false,
                again: Again::default(),
                next: None,
                idle_since: Instant::ZERO,
                moved: 0,
                waiters: 0,
            };
            let exchange = Arc::new_cyclic(|me| Exchange {
                me: Weak::clone(me),
                conn: Arc::clone(conn),
                session: session.clone(),
                stream,
                state: Mutex::new(state),
                changed: Condvar::new(),
                unparked: Condvar::new(),
            });
            made = Some(Arc::clone(&exchange));
            exchange
        })?;
        // `open_with` has called the closure whenever it succeeds.
        made.ok_or(SendError::Over)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The session of the stream.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Takes another request, if this stream can carry it: the answer before is
    /// complete, and `patience` has not passed since then.
    pub fn begin(
        &self,
        asked: Asked,
        form: Form,
        request_done: bool,
        again: impl FnOnce(&mut Vec<u8>),
        patience: Duration,
    ) -> bool {
        let mut state = self.lock();
        let fit = !state.ended
            && !state.broken
            && state.then == Then::Stay
            && state.request_done
            && state.filter.is_reusable()
            && sys::clock().since(state.idle_since) <= patience;
        if fit {
            state.filter.begin(asked);
            state.form = form;
            state.request_done = request_done;
            state.reused = true;
            state.spoken = false;
            state.again.frame.clear();
            again(&mut state.again.frame);
        }
        fit
    }

    /// The rest of the request is about to be sent.
    pub fn request_done(&self) {
        self.lock().request_done = true;
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        standing(&self.lock())
    }

    /// The exchange that the request went on in.
    pub fn latest(self: Arc<Self>) -> Arc<Self> {
        let mut this = self;
        loop {
            let next = this.lock().next.clone();
            match next {
                Some(next) => this = next,
                None => return this,
            }
        }
    }

    /// Waits until the answer is complete or a pipe, or `patience` passes without a byte.
    pub fn wait(self: Arc<Self>, patience: Duration) -> (Arc<Self>, Standing) {
        let mut this = self;
        loop {
            this = this.latest();
            let mut state = this.lock();
            let moved = state.moved;
            let standing = standing(&state);
            if standing != Standing::Going {
                drop(state);
                return (this, standing);
            }
            if state.next.is_some() {
                continue;
            }
            state.waiters += 1;
            let (mut state, out) = this.changed.wait_timeout(state, patience);
            state.waiters -= 1;
            let stuck = out.timed_out() && state.moved == moved && state.next.is_none();
            let now = self::standing(&state);
            drop(state);
            if stuck && now == Standing::Going {
                return (this, now);
            }
        }
    }

    /// How long an answer may stand still whose visitor has ended his side. He may
    /// be waiting for it, or he may have gone: that looks the same. A begun answer
    /// for which the upstream has nothing to say is not worth waiting for.
    pub fn aftermath(&self) -> Duration {
        let state = self.lock();
        let said_all = state.waiting.is_empty() && state.spoken;
        Duration::from_secs(if said_all { 2 } else { 30 })
    }

    /// Waits until the agent's direction of a pipe has ended and everything has
    /// left. Gives up when the visitor takes nothing for `patience`, or, with
    /// `soon`, when nothing happens for that time.
    pub fn wait_end(&self, patience: Duration, soon: bool) {
        let mut state = self.lock();
        loop {
            if state.then == Then::Over || state.broken {
                return;
            }
            let moved = state.moved;
            state.waiters += 1;
            let (s, out) = self.changed.wait_timeout(state, patience);
            state = s;
            state.waiters -= 1;
            let stuck = out.timed_out() && state.moved == moved;
            if stuck && (soon || !state.waiting.is_empty()) {
                return;
            }
        }
    }

    /// The visitor's thread lets go: the stream ends, in an orderly way if nothing
    /// is under way on it.
    pub fn let_go(&self) {
        let mut state = self.lock();
        let idle = state.filter.is_done() && state.request_done;
        let ended = state.ended;
        let tunnel = state.filter.is_tunnel();
        state.broken = true;
        state.gone = true;
        state.waiting = Vec::new();
        state.start = 0;
        let owed = std::mem::take(&mut state.owed);
        self.unwatch(&mut state);
        drop(state);
        self.session.consumed(self.stream, owed);
        if idle || (tunnel && ended) {
            self.session.finish(self.stream);
            self.session.release(self.stream);
        } else {
            self.session.cancel(self.stream, Code::STREAM_CANCELLED);
        }
    }

    /// Leaves reading the visitor's socket to the reactor, which passes on what is
    /// little without waking a thread, and returns when there is more to do: `false`
    /// if reading failed. For a pipe in clear, whose only sender is the caller.
    pub fn park(&self) -> bool {
        let mut state = self.lock();
        if state.broken || state.released || state.then == Then::Over {
            return true;
        }
        state.parked = true;
        if self.watch(&mut state).is_err() {
            state.parked = false;
            return true;
        }
        while state.parked {
            state = self.unparked.wait(state);
        }
        let _ = self.watch(&mut state);
        !std::mem::take(&mut state.failed)
    }

    fn unpark(&self, state: &mut State) {
        if std::mem::take(&mut state.parked) {
            self.unparked.notify_all();
        }
    }

    /// The reactor's turn with a parked visitor.
    fn relay(&self, state: &mut State, closed: bool) {
        let fd = self.conn.fd();
        loop {
            match self.session.relay(self.stream, |room| sys::recv_now(fd, room)) {
                // Nothing is left, or its end.
                Ok(Relay::Sent { full: false }) if closed => {}
                Ok(Relay::Sent { full: false }) => return,
                Ok(Relay::Nothing(Some(e))) if e.kind() == io::ErrorKind::WouldBlock => return,
                Ok(Relay::Nothing(Some(_))) => {
                    state.failed = true;
                    break;
                }
                // Much, the end, or nowhere to put it: the thread's business.
                _ => break,
            }
        }
        self.unpark(state);
    }

    /// Has the session watch the socket for what is wanted now.
    fn watch(&self, state: &mut State) -> io::Result<()> {
        if state.released {
            return Ok(());
        }
        let want = Watch { readable: state.parked, writable: state.wants_room };
        if !want.readable && !want.writable {
            self.unwatch(state);
        } else if state.watched != Some(want) {
            self.session.watch(self.stream, self.conn.fd(), want, state.watched.is_some())?;
            state.watched = Some(want);
        }
        Ok(())
    }

    fn unwatch(&self, state: &mut State) {
        if state.watched.take().is_some() {
            self.session.unwatch(self.conn.fd());
        }
    }

    /// Tells who waits.
    fn tell(&self, state: &mut State) {
        state.moved = state.moved.wrapping_add(1);
        if state.waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// Writes a page in place of the answer.
    fn answer(&self, state: &mut State, page: &Page) {
        let form = Form { close: state.form.close || !state.request_done, ..state.form };
        let bytes = page.render(form);
        self.deliver(state, &bytes);
        // The answer is the page: nothing more comes.
        state.filter = Filter::http();
        state.ended = true;
        state.then = if form.close { Then::Finish } else { state.then };
        self.settle(state);
    }

    /// Gives bytes to the visitor, or keeps what he does not take now.
    fn deliver(&self, state: &mut State, bytes: &[u8]) {
        let State { waiting, broken, .. } = state;
        push(&self.conn, waiting, broken, bytes);
    }

    /// Writes what waits. Gives the window back for what left.
    fn drain(&self, state: &mut State) {
        while state.start < state.waiting.len() && !state.broken {
            match self.conn.write_now(&state.waiting[state.start..]) {
                Ok(n) => {
                    state.start += n;
                    let back = n.min(state.owed);
                    state.owed -= back;
                    self.session.consumed(self.stream, back);
                    state.moved = state.moved.wrapping_add(1);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => state.broken = true,
            }
        }
        if state.start == state.waiting.len() {
            // Idle connections hold no buffer.
            state.waiting = Vec::new();
            state.start = 0;
            let rest = std::mem::take(&mut state.owed);
            self.session.consumed(self.stream, rest);
        } else if state.start > 64 * 1024 {
            state.waiting.drain(..state.start);
            state.start = 0;
        }
    }

    /// After each change: watches for room, ends what is to end, tells who waits.
    fn settle(&self, state: &mut State) {
        if state.draining {
            return;
        }
        if state.broken {
            self.give_up(state);
            return;
        }
        let flushed = match self.conn.flush_now() {
            Ok(flushed) => flushed,
            Err(_) => {
                state.broken = true;
                self.give_up(state);
                return;
            }
        };
        if !state.waiting.is_empty() || !flushed {
            if state.released {
                self.drain_alone(state);
            } else {
                state.wants_room = true;
                if let Err(e) = self.watch(state) {
                    event!(error, obj = "edge", "cannot watch a visitor's socket", err = e);
                    state.broken = true;
                    self.give_up(state);
                }
            }
            return;
        }
        match state.then {
            Then::Finish => {
                self.conn.finish();
                if state.cut || (state.request_done && !state.filter.is_tunnel()) {
                    self.conn.stop_reading();
                }
                state.then = Then::Over;
            }
            Then::Abort => {
                self.conn.abort();
                state.broken = true;
                state.then = Then::Over;
            }
            Then::Stay | Then::Over => {}
        }
        if state.filter.is_done() || state.filter.is_tunnel() || state.then == Then::Over {
            self.tell(state);
        }
    }

    /// The stream is gone and nobody tells of room in the visitor's socket any more:
    /// a thread of its own writes what the agent said before.
    fn drain_alone(&self, state: &mut State) {
        self.unwatch(state);
        let mut bytes = std::mem::take(&mut state.waiting);
        bytes.drain(..std::mem::take(&mut state.start));
        state.draining = true;
        let abort = state.then == Then::Abort;
        let (me, conn) = (Weak::clone(&self.me), Arc::clone(&self.conn));
        let spawned = threads::DRAIN.spawn(Box::new(move || {
            let written = conn.write_all(&bytes);
            if abort {
                // Also if the visitor's thread has let go: never a clean end.
                conn.abort();
            }
            if let Some(exchange) = me.upgrade() {
                let mut state = exchange.lock();
                state.draining = false;
                state.broken |= written.is_err();
                if !state.gone {
                    exchange.settle(&mut state);
                    exchange.tell(&mut state);
                }
            }
        }));
        if spawned.is_err() {
            state.draining = false;
            state.broken = true;
            self.give_up(state);
        }
    }

    /// The visitor is gone: the rest is for nobody.
    fn give_up(&self, state: &mut State) {
        state.waiting = Vec::new();
        state.start = 0;
        let rest = std::mem::take(&mut state.owed);
        self.session.consumed(self.stream, rest);
        state.then = Then::Over;
        self.unwatch(state);
        self.conn.abort();
        if !state.ended {
            state.ended = true;
            self.cancel(state);
        }
        self.unpark(state);
        self.tell(state);
    }

    /// Ends both directions of the stream.
    fn cancel(&self, state: &mut State) {
        self.unwatch(state);
        state.released = true;
        self.unpark(state);
        self.session.cancel(self.stream, Code::STREAM_CANCELLED);
    }

    /// Sends the request again on a new stream, if that is safe: the stream had
    /// served before and died with nothing of an answer.
    fn retry(&self, state: &mut State) -> bool {
        if !state.reused || state.again.frame.is_empty() || !state.filter.is_untouched() {
            return false;
        }
        let mut filter = Filter::http();
        filter.begin(state.filter.asked());
        let frame = std::mem::take(&mut state.again.frame);
        match Exchange::open(&self.session, &self.conn, &frame, filter, state.form, true) {
            Ok(next) => {
                self.unwatch(state);
                state.next = Some(next);
                state.ended = true;
                self.tell(state);
                self.session.finish(self.stream);
                self.session.release(self.stream);
                true
            }
            Err(_) => false,
        }
    }
}

fn standing(state: &State) -> Standing {
    if state.broken || state.then == Then::Over {
        Standing::Over
    } else if !state.waiting.is_empty()
        || state.draining
        || state.then != Then::Stay
        || state.next.is_some()
    {
        Standing::Going
    } else if state.filter.is_tunnel() {
        Standing::Tunnel
    } else if state.filter.is_done() {
        Standing::Settled
    } else {
        Standing::Going
    }
}

fn push(conn: &Conn, waiting: &mut Vec<u8>, broken: &mut bool, mut bytes: &[u8]) {
    if *broken {
        return;
    }
    while waiting.is_empty() && !bytes.is_empty() {
        match conn.write_now(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => {
                *broken = true;
                return;
            }
        }
    }
    waiting.extend_from_slice(bytes);
}

/// What an answer did that was broken off before its first byte.
const BROKEN: &str = "broke off before it began. If that service speaks HTTPS, its agent must be \
     told so, with https:// in front of the address";

impl Sink for Exchange {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.gone || state.broken || state.ended {
            return bytes.len();
        }
        state.spoken = true;
        let before = state.waiting.len();
        let State { filter, waiting, broken, .. } = state;
        let conn = &self.conn;
        let progress = filter.feed(bytes, &mut |piece| push(conn, waiting, broken, piece));
        let held = state.waiting.len().saturating_sub(before).min(bytes.len());
        state.owed += held;
        match progress {
            Progress::Going => {
                if state.waiters > 0 {
                    state.moved = state.moved.wrapping_add(1);
                }
            }
            Progress::Done => {
                state.idle_since = sys::clock();
                if !state.filter.keeps_visitor() || !state.request_done {
                    state.then = Then::Finish;
                }
            }
            Progress::Invalid(reason) => {
                event!(warn, obj = "edge", "invalid answer", id = self.stream, err = reason);
                self.cancel(state);
                self.answer(state, &Page::bad_answer(reason));
                return bytes.len();
            }
            Progress::Broken(reason) => {
                event!(warn, obj = "edge", "broken answer", id = self.stream, err = reason);
                state.then = Then::Abort;
                state.ended = true;
                self.cancel(state);
            }
        }
        self.settle(state);
        bytes.len() - held
    }

    fn finished(&self) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.gone || state.ended {
            return;
        }
        if self.retry(state) {
            return;
        }
        let tunnel = state.filter.is_tunnel();
        let idle = state.filter.is_done();
        state.ended = true;
        match state.filter.end() {
            End::Whole if idle => {}
            End::Whole => state.then = Then::Finish,
            End::Nothing => {
                self.cancel(state);
                self.answer(state, &Page::bad_answer("ended before it began"));
                return;
            }
            End::Short => {
                state.then = Then::Abort;
                self.cancel(state);
            }
        }
        if !tunnel && state.request_done {
            // Nothing more goes the other way either.
            self.session.finish(self.stream);
        }
        self.settle(state);
    }

    fn reset(&self, code: Code) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.gone {
            return;
        }
        // After the peer's reset the session still tells of room; after its own end not.
        state.released |= code == Code::SESSION_CLOSED;
        self.unpark(state);
        if state.ended && !state.filter.is_tunnel() {
            self.settle(state);
            return;
        }
        if code != Code::SESSION_CLOSED && self.retry(state) {
            return;
        }
        state.ended = true;
        match state.filter.cut() {
            End::Whole => {}
            End::Nothing if code == Code::ACCEPT_QUEUE_FULL => {
                self.answer(state, &Page::agent_full());
                return;
            }
            // The agent reached the service, which then broke off.
            End::Nothing if code == Code::STREAM_CANCELLED => {
                self.answer(state, &Page::bad_answer(BROKEN));
                return;
            }
            End::Nothing => {
                self.answer(state, &Page::no_stream());
                return;
            }
            End::Short if state.then == Then::Over => self.conn.stop_reading(),
            // The agent's direction had ended before: nothing is lost.
            End::Short if state.then == Then::Finish => state.cut = true,
            // Nothing was ever said: refused rather than broken.
            End::Short if state.filter.is_tunnel() && !state.spoken => {
                state.then = Then::Finish;
                state.cut = true;
            }
            End::Short => state.then = Then::Abort,
        }
        self.settle(state);
    }

    fn ready(&self, readable: bool, writable: bool, closed: bool) {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.gone {
            return;
        }
        if writable && state.wants_room {
            self.drain(state);
            self.settle(state);
        }
        if readable && state.parked {
            self.relay(state, closed);
        }
    }
}
