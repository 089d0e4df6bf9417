//! One stream of an agent's session that carries a visitor's requests and responses. The
//! session's reactor feeds it and writes to the visitor's socket. The visitor's thread sends
//! the requests and waits here for the end of the response. HTTP is parsed in
//! [`super::response`].
//!
//! Rank of locks: an exchange's, then the session's or the connection's.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::conn::VisitorConn;
use super::pages::{ErrorPage, PageFormat, UpstreamFault};
use super::response::{FilterProgress, RequestContext, ResponseEnd, ResponseFilter};
use crate::event;
use crate::mux::{Code, StreamId, StreamType};
use crate::session::{Forwarded, Reset, SendError, Session, Sink, Watch};
use crate::sys::sync::{Condvar, Mutex};
use crate::sys::{self, threads};
use crate::time::Instant;

/// A stream that carries one visitor's bytes.
pub struct VisitorExchange {
    weak_self: Weak<VisitorExchange>,
    conn: Arc<VisitorConn>,
    session: Session,
    stream: StreamId,
    state: Mutex<ExchangeState>,
    changed: Condvar,
    /// Told when a parked visitor's thread has something to do.
    unparked: Condvar,
}

#[derive(Default)]
struct ExchangeState {
    filter: ResponseFilter,
    format: PageFormat,
    /// Bytes that the visitor's socket did not take, from `start` on.
    pending: Vec<u8>,
    pending_start: usize,
    /// How many of the stream's bytes they are, not given back yet.
    unconsumed: usize,
    /// What the session watches the visitor's socket for.
    watched: Option<Watch>,
    /// The socket was full: the session reports when it is writable.
    wants_writable: bool,
    /// The visitor's thread has left reading to the reactor.
    parked: bool,
    /// Reading failed while it was parked.
    read_failed: bool,
    /// The request was sent to its end.
    request_done: bool,
    /// The stream is over in the agent's direction.
    ended: bool,
    /// The session has forgotten the stream: it tells nothing any more.
    released: bool,
    /// What to do with the visitor's connection when nothing waits any more.
    after_flush: AfterFlush,
    /// The visitor's connection is broken, or was.
    broken: bool,
    /// The visitor's thread does not use the stream any more.
    detached: bool,
    /// A thread of its own writes what waited when the session ended.
    draining: bool,
    /// Bytes of an answer have come.
    has_received: bool,
    /// The stream was reset: nobody takes what the visitor says.
    was_reset: bool,
    /// The stream served a request before.
    reused: bool,
    /// First frame of a stream that sends the request again: proxy header, PROXY header,
    /// request. Empty: the request must not be sent twice.
    retry_frame: Vec<u8>,
    /// The stream that took over the request.
    successor: Option<Arc<VisitorExchange>>,
    /// When the last answer was complete.
    idle_since: Instant,
    /// Counts deliveries, for threads that wait for progress.
    progress_count: u32,
    waiters: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AfterFlush {
    #[default]
    KeepOpen,
    Finish,
    Abort,
    Done,
}

/// State of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeStatus {
    /// The response is not complete.
    InProgress,
    /// The connection is a byte pipe (after 101).
    Tunnel,
    /// Complete; the visitor may send another request.
    Idle,
    /// Complete or broken; the visitor's connection ends.
    Closed,
}

impl VisitorExchange {
    /// Opens a stream for a visitor; `first` goes into its first frame.
    pub fn open(
        session: &Session,
        conn: &Arc<VisitorConn>,
        first: &[u8],
        filter: ResponseFilter,
        format: PageFormat,
        request_done: bool,
    ) -> Result<Arc<Self>, SendError> {
        let mut made = None;
        session.open_with(StreamType::PROXY, first, |stream| {
            let state = ExchangeState { filter, format, request_done, ..Default::default() };
            let exchange = Arc::new_cyclic(|me| VisitorExchange {
                weak_self: Weak::clone(me),
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

    /// The session of the stream.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The stream.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Takes another request, if this stream can carry it: the answer before is
    /// complete, and `timeout` has not passed since then.
    pub fn begin_request(
        &self,
        context: RequestContext,
        format: PageFormat,
        request_done: bool,
        retry_frame: impl FnOnce(&mut Vec<u8>),
        timeout: Duration,
    ) -> bool {
        let mut state = self.state.lock();
        let fit = !state.ended
            && !state.broken
            && state.after_flush == AfterFlush::KeepOpen
            && state.request_done
            && state.filter.is_reusable()
            && sys::clock().since(state.idle_since) <= timeout;
        if fit {
            state.filter.begin(context);
            state.format = format;
            state.request_done = request_done;
            state.reused = true;
            state.has_received = false;
            state.retry_frame.clear();
            retry_frame(&mut state.retry_frame);
        }
        fit
    }

    /// The rest of the request is about to be sent.
    pub fn request_done(&self) {
        self.state.lock().request_done = true;
    }

    /// Returns the state.
    pub fn status(&self) -> ExchangeStatus {
        status(&self.state.lock())
    }

    /// Returns the exchange that carries the request after all retries.
    pub fn latest(self: Arc<Self>) -> Arc<Self> {
        let mut this = self;
        loop {
            let next = this.state.lock().successor.clone();
            match next {
                Some(next) => this = next,
                None => return this,
            }
        }
    }

    /// Waits until the answer is complete or a pipe, or `timeout` passes without a byte.
    pub fn wait(self: Arc<Self>, timeout: Duration) -> (Arc<Self>, ExchangeStatus) {
        let mut this = self;
        loop {
            this = this.latest();
            let mut state = this.state.lock();
            let progress_count = state.progress_count;
            let status = status(&state);
            if status != ExchangeStatus::InProgress {
                drop(state);
                return (this, status);
            }
            if state.successor.is_some() {
                continue;
            }
            state.waiters += 1;
            let (mut state, out) = this.changed.wait_timeout(state, timeout);
            state.waiters -= 1;
            let stuck = out.timed_out()
                && state.progress_count == progress_count
                && state.successor.is_none();
            let now = self::status(&state);
            drop(state);
            if stuck && now == ExchangeStatus::InProgress {
                return (this, now);
            }
        }
    }

    /// Returns the time that a response may pause after its visitor half-closed the connection.
    /// A visitor that waits and one that has left look the same. It is short when all received
    /// bytes are delivered.
    pub fn half_close_timeout(&self) -> Duration {
        let state = self.state.lock();
        let all_delivered = state.pending.is_empty() && state.has_received;
        Duration::from_secs(if all_delivered { 2 } else { 30 })
    }

    /// Waits until the agent's direction of a pipe has ended and everything has
    /// left. Gives up when the visitor takes nothing for `timeout`, or, with
    /// `any_stall`, when nothing happens for that time.
    pub fn wait_end(&self, timeout: Duration, any_stall: bool) {
        let mut state = self.state.lock();
        loop {
            if state.after_flush == AfterFlush::Done || state.broken {
                return;
            }
            let progress_count = state.progress_count;
            state.waiters += 1;
            let (s, out) = self.changed.wait_timeout(state, timeout);
            state = s;
            state.waiters -= 1;
            let stuck = out.timed_out() && state.progress_count == progress_count;
            if stuck && (any_stall || !state.pending.is_empty()) {
                return;
            }
        }
    }

    /// Ends the stream for the visitor's thread: with FIN if it is idle, else with a reset.
    pub fn detach(&self) {
        let mut state = self.state.lock();
        let idle = state.filter.is_done() && state.request_done;
        let ended = state.ended;
        let tunnel = state.filter.is_tunnel();
        state.broken = true;
        state.detached = true;
        state.pending = Vec::new();
        state.pending_start = 0;
        let unconsumed = std::mem::take(&mut state.unconsumed);
        self.unwatch(&mut state);
        drop(state);
        self.session.consumed(self.stream, unconsumed);
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
        let mut state = self.state.lock();
        if state.broken || state.released || state.after_flush == AfterFlush::Done {
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
        !std::mem::take(&mut state.read_failed)
    }

    fn unpark(&self, state: &mut ExchangeState) {
        if std::mem::take(&mut state.parked) {
            self.unparked.notify_all();
        }
    }

    /// The reactor's turn with a parked visitor.
    fn forward_parked(&self, state: &mut ExchangeState, closed: bool) {
        let fd = self.conn.fd();
        loop {
            match self.session.forward_small(self.stream, |room| sys::recv_now(fd, room)) {
                // Nothing is left, or its end.
                Ok(Forwarded::Sent { full: false }) if closed => {}
                Ok(Forwarded::Sent { full: false }) => return,
                Ok(Forwarded::Nothing(Some(e))) if e.kind() == io::ErrorKind::WouldBlock => return,
                Ok(Forwarded::Nothing(Some(_))) => {
                    state.read_failed = true;
                    break;
                }
                // Much, the end, or nowhere to put it: the thread's business.
                _ => break,
            }
        }
        self.unpark(state);
    }

    /// Has the session watch the socket for what is wanted now.
    fn watch(&self, state: &mut ExchangeState) -> io::Result<()> {
        if state.released {
            return Ok(());
        }
        let want = Watch { readable: state.parked, writable: state.wants_writable };
        if !want.readable && !want.writable {
            self.unwatch(state);
        } else if state.watched != Some(want) {
            self.session.watch(self.stream, self.conn.fd(), want, state.watched.is_some())?;
            state.watched = Some(want);
        }
        Ok(())
    }

    fn unwatch(&self, state: &mut ExchangeState) {
        if state.watched.take().is_some() {
            self.session.unwatch(self.conn.fd());
        }
    }

    /// Wakes the waiting threads.
    fn notify_waiters(&self, state: &mut ExchangeState) {
        state.progress_count = state.progress_count.wrapping_add(1);
        if state.waiters > 0 {
            self.changed.notify_all();
        }
    }

    /// Writes a page in place of the answer.
    fn send_page(&self, state: &mut ExchangeState, page: &ErrorPage) {
        let format =
            PageFormat { close: state.format.close || !state.request_done, ..state.format };
        let bytes = page.render(format);
        self.deliver(state, &bytes);
        // The answer is the page: nothing more comes.
        state.filter = ResponseFilter::http();
        state.ended = true;
        state.after_flush = if format.close { AfterFlush::Finish } else { state.after_flush };
        self.advance(state);
    }

    /// Gives bytes to the visitor, or keeps what he does not take now.
    fn deliver(&self, state: &mut ExchangeState, bytes: &[u8]) {
        let ExchangeState { pending, broken, .. } = state;
        write_or_queue(&self.conn, pending, broken, bytes);
    }

    /// Writes what waits. Gives the window back for what left.
    fn drain(&self, state: &mut ExchangeState) {
        while state.pending_start < state.pending.len() && !state.broken {
            match self.conn.write_now(&state.pending[state.pending_start..]) {
                Ok(n) => {
                    state.pending_start += n;
                    let back = n.min(state.unconsumed);
                    state.unconsumed -= back;
                    self.session.consumed(self.stream, back);
                    state.progress_count = state.progress_count.wrapping_add(1);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => state.broken = true,
            }
        }
        if state.pending_start == state.pending.len() {
            // Idle connections hold no buffer.
            state.pending = Vec::new();
            state.pending_start = 0;
            let rest = std::mem::take(&mut state.unconsumed);
            self.session.consumed(self.stream, rest);
        } else if state.pending_start > 64 * 1024 {
            state.pending.drain(..state.pending_start);
            state.pending_start = 0;
        }
    }

    /// After each change: watches for room, ends what is to end, tells who waits.
    fn advance(&self, state: &mut ExchangeState) {
        if state.draining {
            return;
        }
        if state.broken {
            self.abandon(state);
            return;
        }
        let flushed = match self.conn.flush_now() {
            Ok(flushed) => flushed,
            Err(_) => {
                state.broken = true;
                self.abandon(state);
                return;
            }
        };
        if !state.pending.is_empty() || !flushed {
            if state.released {
                self.drain_on_thread(state);
            } else {
                state.wants_writable = true;
                if let Err(e) = self.watch(state) {
                    event!(error, obj = "edge", "cannot watch a visitor's socket", err = e);
                    state.broken = true;
                    self.abandon(state);
                }
            }
            return;
        }
        match state.after_flush {
            AfterFlush::Finish => {
                self.conn.finish();
                if state.was_reset || (state.request_done && !state.filter.is_tunnel()) {
                    self.conn.stop_reading();
                }
                state.after_flush = AfterFlush::Done;
            }
            AfterFlush::Abort => {
                self.conn.abort();
                state.broken = true;
                state.after_flush = AfterFlush::Done;
            }
            AfterFlush::KeepOpen | AfterFlush::Done => {}
        }
        if state.filter.is_done()
            || state.filter.is_tunnel()
            || state.after_flush == AfterFlush::Done
        {
            self.notify_waiters(state);
        }
    }

    /// The stream is gone and nobody tells of room in the visitor's socket any more:
    /// a thread of its own writes what the agent said before.
    fn drain_on_thread(&self, state: &mut ExchangeState) {
        self.unwatch(state);
        let mut bytes = std::mem::take(&mut state.pending);
        bytes.drain(..std::mem::take(&mut state.pending_start));
        state.draining = true;
        let abort = state.after_flush == AfterFlush::Abort;
        let (me, conn) = (Weak::clone(&self.weak_self), Arc::clone(&self.conn));
        let spawned = threads::DRAIN.spawn(Box::new(move || {
            let written = conn.write_all(&bytes);
            if abort {
                // Also if the visitor's thread has let go: never a clean end.
                conn.abort();
            }
            if let Some(exchange) = me.upgrade() {
                let mut state = exchange.state.lock();
                state.draining = false;
                state.broken |= written.is_err();
                if !state.detached {
                    exchange.advance(&mut state);
                    exchange.notify_waiters(&mut state);
                }
            }
        }));
        if spawned.is_err() {
            state.draining = false;
            state.broken = true;
            self.abandon(state);
        }
    }

    /// The visitor is gone: the rest is for nobody.
    fn abandon(&self, state: &mut ExchangeState) {
        state.pending = Vec::new();
        state.pending_start = 0;
        let rest = std::mem::take(&mut state.unconsumed);
        self.session.consumed(self.stream, rest);
        state.after_flush = AfterFlush::Done;
        self.unwatch(state);
        self.conn.abort();
        if !state.ended {
            state.ended = true;
            self.cancel(state);
        }
        self.unpark(state);
        self.notify_waiters(state);
    }

    /// Ends both directions of the stream.
    fn cancel(&self, state: &mut ExchangeState) {
        self.unwatch(state);
        state.released = true;
        self.unpark(state);
        self.session.cancel(self.stream, Code::STREAM_CANCELLED);
    }

    /// Sends the request again on a new stream, if that is safe: the stream had
    /// served before and died with nothing of an answer.
    fn retry(&self, state: &mut ExchangeState) -> bool {
        if !state.reused || state.retry_frame.is_empty() || !state.filter.has_no_bytes() {
            return false;
        }
        let mut filter = ResponseFilter::http();
        filter.begin(state.filter.context());
        let frame = std::mem::take(&mut state.retry_frame);
        match VisitorExchange::open(&self.session, &self.conn, &frame, filter, state.format, true) {
            Ok(next) => {
                self.unwatch(state);
                state.successor = Some(next);
                state.ended = true;
                self.notify_waiters(state);
                self.session.finish(self.stream);
                self.session.release(self.stream);
                true
            }
            Err(_) => false,
        }
    }
}

fn status(state: &ExchangeState) -> ExchangeStatus {
    if state.broken || state.after_flush == AfterFlush::Done {
        ExchangeStatus::Closed
    } else if !state.pending.is_empty()
        || state.draining
        || state.after_flush != AfterFlush::KeepOpen
        || state.successor.is_some()
    {
        ExchangeStatus::InProgress
    } else if state.filter.is_tunnel() {
        ExchangeStatus::Tunnel
    } else if state.filter.is_done() {
        ExchangeStatus::Idle
    } else {
        ExchangeStatus::InProgress
    }
}

fn write_or_queue(conn: &VisitorConn, pending: &mut Vec<u8>, broken: &mut bool, mut bytes: &[u8]) {
    if *broken {
        return;
    }
    while pending.is_empty() && !bytes.is_empty() {
        match conn.write_now(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => {
                *broken = true;
                return;
            }
        }
    }
    pending.extend_from_slice(bytes);
}

impl Sink for VisitorExchange {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.detached || state.broken || state.ended {
            return bytes.len();
        }
        state.has_received = true;
        let before = state.pending.len();
        let ExchangeState { filter, pending, broken, .. } = state;
        let conn = &self.conn;
        let progress =
            filter.feed(bytes, &mut |piece| write_or_queue(conn, pending, broken, piece));
        let held = state.pending.len().saturating_sub(before).min(bytes.len());
        state.unconsumed += held;
        match progress {
            FilterProgress::InProgress => {
                if state.waiters > 0 {
                    state.progress_count = state.progress_count.wrapping_add(1);
                }
            }
            FilterProgress::Done => {
                state.idle_since = sys::clock();
                if !state.filter.keeps_visitor() || !state.request_done {
                    state.after_flush = AfterFlush::Finish;
                }
            }
            FilterProgress::Invalid(error) => {
                event!(warn, obj = "edge", "invalid answer", id = self.stream, err = error);
                self.cancel(state);
                self.send_page(state, &ErrorPage::bad_answer(UpstreamFault::Invalid(error)));
                return bytes.len();
            }
            FilterProgress::Broken(error) => {
                event!(warn, obj = "edge", "broken answer", id = self.stream, err = error);
                state.after_flush = AfterFlush::Abort;
                state.ended = true;
                self.cancel(state);
            }
        }
        self.advance(state);
        bytes.len() - held
    }

    fn finished(&self) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.detached || state.ended {
            return;
        }
        if self.retry(state) {
            return;
        }
        let tunnel = state.filter.is_tunnel();
        let idle = state.filter.is_done();
        state.ended = true;
        match state.filter.end() {
            ResponseEnd::Complete if idle => {}
            ResponseEnd::Complete => state.after_flush = AfterFlush::Finish,
            ResponseEnd::NotStarted => {
                self.cancel(state);
                self.send_page(state, &ErrorPage::bad_answer(UpstreamFault::Closed));
                return;
            }
            ResponseEnd::Truncated => {
                state.after_flush = AfterFlush::Abort;
                self.cancel(state);
            }
        }
        if !tunnel && state.request_done {
            // Nothing more goes the other way either.
            self.session.finish(self.stream);
        }
        self.advance(state);
    }

    fn reset(&self, reset: Reset) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.detached {
            return;
        }
        let code = reset.code();
        if let Reset::Local(_) = reset {
            // A limit was reached: the memory is needed at once.
            state.ended = true;
            self.abandon(state);
            self.session.release(self.stream);
            return;
        }
        // After the peer's reset the session still tells of room; after its own end not.
        state.released |= code == Code::SESSION_CLOSED;
        self.unpark(state);
        if state.ended && !state.filter.is_tunnel() {
            self.advance(state);
            return;
        }
        if code != Code::SESSION_CLOSED && self.retry(state) {
            return;
        }
        state.ended = true;
        match state.filter.cut() {
            ResponseEnd::Complete => {}
            ResponseEnd::NotStarted if code == Code::ACCEPT_QUEUE_FULL => {
                self.send_page(state, &ErrorPage::agent_full());
                return;
            }
            // The agent reached the service, which then broke off.
            ResponseEnd::NotStarted if code == Code::STREAM_CANCELLED => {
                self.send_page(state, &ErrorPage::bad_answer(UpstreamFault::BrokeOff));
                return;
            }
            ResponseEnd::NotStarted => {
                self.send_page(state, &ErrorPage::no_stream());
                return;
            }
            ResponseEnd::Truncated if state.after_flush == AfterFlush::Done => {
                self.conn.stop_reading()
            }
            // The agent's direction had ended before: nothing is lost.
            ResponseEnd::Truncated if state.after_flush == AfterFlush::Finish => {
                state.was_reset = true
            }
            // Nothing was ever said: refused rather than broken.
            ResponseEnd::Truncated if state.filter.is_tunnel() && !state.has_received => {
                state.after_flush = AfterFlush::Finish;
                state.was_reset = true;
            }
            ResponseEnd::Truncated => state.after_flush = AfterFlush::Abort,
        }
        self.advance(state);
    }

    fn ready(&self, readable: bool, writable: bool, closed: bool) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.detached {
            return;
        }
        if writable && state.wants_writable {
            self.drain(state);
            self.advance(state);
        }
        if readable && state.parked {
            self.forward_parked(state, closed);
        }
    }
}
