//! One stream of an agent's session that carries a visitor's requests and responses. The
//! session's reactor delivers the response to the visitor's socket. If rules of the response may
//! block, another thread runs them and delivers what comes in the meantime. The visitor's thread
//! sends the requests and waits here for the end of the response. The state of the two directions is
//! in [`super::exchange_state`], HTTP is parsed in [`super::response`].
//!
//! Rank of locks: an exchange's, then the session's or the connection's.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::conn::VisitorConn;
pub use super::exchange_state::ExchangeStatus;
use super::exchange_state::{Effects, ExchangeState, LentFeed, Owner, RequestStart, StreamEffect};
use super::failover::{Failover, reports_unreachable};
use super::pages::ErrorPage;
use super::response::ResponseFilter;
use super::stream_target::StreamTarget;
use super::visitor::{self, VisitorWork};
use crate::edge::places::{Holder, Place, Places};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{Code, MAX_FIRST, StreamId, StreamType};
use crate::session::{
    Forwarded, HalfCloseTimer, HeldBytes, ProcessBuffers, Reset, SendError, Session, Sink, Watch,
};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::{self, poll};
use crate::time::{Deadline, Instant};

/// Time that a visitor may take no byte of a response whose session has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Log lines about sockets that the kernel did not watch.
static UNWATCHED_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(1));

/// Log lines about responses that are not valid.
static FAULT_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(10));

/// Attempts to open a stream after another one gave way: other visitors want it, too.
const MAX_OPEN_ATTEMPTS: usize = 8;

/// A stream that carries one visitor's bytes.
pub struct VisitorExchange {
    this: Weak<VisitorExchange>,
    conn: Arc<VisitorConn>,
    session: Session,
    streams: Arc<Places>,
    stream: StreamId,
    buffers: Arc<ProcessBuffers>,
    /// For an exchange that is a pipe.
    half_close: HalfCloseTimer,
    shared: Mutex<Shared>,
    /// Notified of the end of a response, and of each change of the owner.
    changed: Condvar,
}

struct Shared {
    state: ExchangeState,
    /// Place among the visitors' streams of the session. `None` once the stream was given
    /// back.
    place: Option<Place>,
    /// Events that the session watches the visitor's socket for.
    watched: Option<Watch>,
    /// The visitor has ended its direction of a pipe: only a reset can follow.
    visitor_ended: bool,
    /// The exchange that took over the request.
    successor: Option<Arc<VisitorExchange>>,
    /// For another member of the pool, until the response is known to be the upstream's.
    failover: Option<Failover>,
    /// Bytes of a response that may report that the upstream got nothing.
    undecided: Vec<u8>,
    /// What the agent has sent while another thread runs the rules for the response.
    deferred: Option<Deferred>,
    /// Share of the process's limit for bytes whose session has ended.
    held: Option<HeldBytes>,
    /// Counts deliveries, for threads that wait for progress.
    progress_count: u32,
    waiters: u32,
    /// State of which the waiting threads were notified last.
    notified: (ExchangeStatus, Owner),
}

/// Bytes of the agent that wait for the thread of the rules, and those that follow while it has
/// the filter. The window of the stream bounds them.
struct Deferred {
    bytes: Vec<u8>,
    end: DeferredEnd,
}

/// End of the agent's direction, behind its deferred bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeferredEnd {
    Open,
    Finished,
    Reset(Reset),
    /// The bytes before the reset are complete.
    FinishedThenReset(Reset),
}

impl DeferredEnd {
    /// Returns the end after an orderly one.
    fn with_finish(self) -> Self {
        match self {
            DeferredEnd::Open => DeferredEnd::Finished,
            end => end,
        }
    }

    /// Returns the end after a reset. The first one counts.
    fn with_reset(self, reset: Reset) -> Self {
        match self {
            DeferredEnd::Open => DeferredEnd::Reset(reset),
            DeferredEnd::Finished => DeferredEnd::FinishedThenReset(reset),
            end => end,
        }
    }

    fn is_finished(self) -> bool {
        matches!(self, DeferredEnd::Finished | DeferredEnd::FinishedThenReset(_))
    }

    fn reset(self) -> Option<Reset> {
        match self {
            DeferredEnd::Reset(reset) | DeferredEnd::FinishedThenReset(reset) => Some(reset),
            DeferredEnd::Open | DeferredEnd::Finished => None,
        }
    }
}

impl VisitorExchange {
    /// Opens a stream for a visitor; `first` goes into its first frame. If the session has as
    /// many streams as it may, the one of another visitor gives way.
    pub fn open(
        target: &StreamTarget,
        conn: &Arc<VisitorConn>,
        buffers: &Arc<ProcessBuffers>,
        first: &[u8],
        filter: &dyn Fn() -> ResponseFilter,
        start: &RequestStart,
        failover: Option<Failover>,
    ) -> Result<Arc<Self>, SendError> {
        let owner = visitor::owner(conn.visitor().client());
        for _ in 0..MAX_OPEN_ATTEMPTS {
            let failover = failover.clone();
            match VisitorExchange::try_open(target, conn, buffers, first, filter(), start, failover)
            {
                Err(SendError::Refused(Code::STREAMS_EXHAUSTED))
                    if target.streams.make_room(owner, target.session.streams()) => {}
                result => return result,
            }
        }
        Err(SendError::Refused(Code::STREAMS_EXHAUSTED))
    }

    fn try_open(
        target: &StreamTarget,
        conn: &Arc<VisitorConn>,
        buffers: &Arc<ProcessBuffers>,
        first: &[u8],
        filter: ResponseFilter,
        start: &RequestStart,
        failover: Option<Failover>,
    ) -> Result<Arc<Self>, SendError> {
        let StreamTarget { session, streams } = target;
        let state = ExchangeState::new(filter, start);
        let place = streams.insert(visitor::owner(conn.visitor().client()));
        let mut made = None;
        session.open_with(StreamType::PROXY, first, |stream| {
            let shared = Shared {
                state,
                place: Some(place),
                watched: None,
                visitor_ended: false,
                successor: None,
                failover,
                undecided: Vec::new(),
                deferred: None,
                held: None,
                progress_count: 0,
                waiters: 0,
                notified: (ExchangeStatus::InProgress, Owner::Attached),
            };
            let exchange = Arc::new_cyclic(|this| VisitorExchange {
                this: Weak::clone(this),
                conn: Arc::clone(conn),
                session: session.clone(),
                streams: Arc::clone(streams),
                stream,
                buffers: Arc::clone(buffers),
                half_close: HalfCloseTimer::default(),
                shared: Mutex::new(shared),
                changed: Condvar::new(),
            });
            made = Some(Arc::clone(&exchange));
            exchange
        })?;
        // `open_with` has called the closure whenever it succeeds.
        let made = made.ok_or(SendError::Over)?;
        made.register();
        Ok(made)
    }

    /// Registers the exchange with the places that may end it for a newcomer.
    fn register(self: &Arc<Self>) {
        let work: Weak<dyn VisitorWork> = Arc::<Self>::downgrade(self);
        self.conn.visitor().set_work(work);
        let holder: Arc<dyn Holder> = Arc::<Self>::clone(self);
        let shared = self.shared.lock();
        let leaves = shared.place.as_ref().is_some_and(|place| !place.set_holder(&holder));
        drop(shared);
        if leaves {
            holder.give_way(false);
        }
    }

    /// Takes another request, if this stream can carry it: the response before is complete,
    /// and `timeout` has not passed since then.
    pub fn begin_request(
        &self,
        start: &mut RequestStart,
        timeout: Duration,
        failover: Option<Failover>,
    ) -> bool {
        let mut shared = self.shared.lock();
        // A stream that gives way is about to end.
        let begun = shared.place.as_ref().is_some_and(Place::set_busy)
            && shared.state.begin(start, sys::clock(), timeout);
        if begun {
            shared.failover = failover;
        }
        self.notify(&mut shared);
        begun
    }

    /// Sends bytes of the request. Fails when the agent takes none of them for `stall`.
    pub fn send(&self, mut bytes: &[u8], stall: Duration) -> Result<(), SendError> {
        while !bytes.is_empty() {
            let deadline = Deadline::At(sys::clock() + stall);
            let window = self.session.window(self.stream, deadline)?;
            let (part, rest) = bytes.split_at(window.min(bytes.len()));
            self.session.send(self.stream, part, deadline)?;
            self.record_bytes();
            bytes = rest;
        }
        Ok(())
    }

    /// Sends bytes of the request from the visitor's socket without a copy, as many as fit one
    /// system call. Returns their number; 0 is the visitor's end. Does not wait for the visitor.
    /// The connection is not encrypted, and the stream has sent bytes before. Fails when the
    /// agent takes none of them for `stall`.
    pub fn forward(&self, stall: Duration) -> Result<io::Result<usize>, SendError> {
        let window = self.session.window(self.stream, Deadline::At(sys::clock() + stall))?;
        let fd = self.conn.fd();
        let read =
            self.session.forward_bulk(self.stream, window, |places| sys::recv_into(fd, places))?;
        if read.is_ok() {
            self.record_bytes();
        }
        Ok(read)
    }

    /// Ends the direction to the agent after what was sent.
    pub fn finish_request(&self) {
        let shared = self.shared.lock();
        // The kernel reports a reset once. If a write got it, the end that was read is not
        // an orderly one, and the stream is cut.
        if !shared.state.is_cut() {
            self.session.finish(self.stream);
        }
        self.half_close.record_end(sys::clock());
        self.change(shared, |state, out| state.request_done(out));
    }

    /// Marks the body of the request as complete, before its last bytes are sent.
    pub fn body_done(&self) {
        let shared = self.shared.lock();
        self.change(shared, |state, out| state.body_done(out));
    }

    /// Resets the stream after a reset of the visitor's connection.
    pub fn cancel(&self) {
        let shared = self.shared.lock();
        self.change(shared, |state, out| state.fail(Code::STREAM_CANCELLED, out));
    }

    /// Ends a response that takes too long: `page` replaces it if nothing of it was passed on,
    /// else the visitor's connection is reset.
    pub fn give_up(&self, page: &ErrorPage) {
        let shared = self.shared.lock();
        self.change(shared, |state, out| state.give_up(page, out));
    }

    /// Writes bytes of the edge's own to the visitor, between those of the agent.
    pub fn reply(&self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let shared = self.shared.lock();
            self.change(shared, |state, out| state.reply(bytes, out));
        }
    }

    /// Returns the status.
    pub fn status(&self) -> ExchangeStatus {
        self.shared.lock().state.status()
    }

    /// Returns whether the agent accepts no further bytes of the request.
    pub fn is_cut(&self) -> bool {
        self.shared.lock().state.is_cut()
    }

    /// Returns whether the visitor's bytes are not needed any more.
    pub fn is_over(&self) -> bool {
        let shared = self.shared.lock();
        shared.state.is_cut() || shared.state.status() == ExchangeStatus::Closed
    }

    /// Returns the exchange that carries the request after all retries.
    pub fn latest(self: Arc<Self>) -> Arc<Self> {
        let mut this = self;
        loop {
            let next = this.shared.lock().successor.clone();
            match next {
                Some(next) => this = next,
                None => return this,
            }
        }
    }

    /// Waits until the response is complete or a pipe, or `timeout` passes without a byte.
    pub fn wait(self: Arc<Self>, timeout: Duration) -> (Arc<Self>, ExchangeStatus) {
        let mut this = self;
        loop {
            this = this.latest();
            let shared = this.drain(this.shared.lock());
            let status = shared.state.status();
            if status != ExchangeStatus::InProgress {
                drop(shared);
                return (this, status);
            }
            if shared.successor.is_some() {
                continue;
            }
            let (shared, stuck) = this.wait_change(shared, timeout);
            let now = shared.state.status();
            let stuck = stuck && shared.successor.is_none();
            drop(shared);
            if stuck && now == ExchangeStatus::InProgress {
                return (this, now);
            }
        }
    }

    /// Waits until the visitor's connection is finished or broken. Gives up when nothing happens
    /// for `timeout`.
    pub fn wait_end(&self, timeout: Duration) {
        let mut shared = self.shared.lock();
        loop {
            shared = self.drain(shared);
            if shared.state.status() == ExchangeStatus::Closed {
                return;
            }
            let stuck;
            (shared, stuck) = self.wait_change(shared, timeout);
            if stuck {
                return;
            }
        }
    }

    /// Waits for the end of a pipe whose visitor has ended its direction. Gives up when the
    /// visitor takes nothing for `stall` while bytes wait for it, or when nothing moves for
    /// `half_closed`. A reset by the visitor ends the wait. Returns whether the pipe has ended.
    pub fn wait_pipe_end(&self, stall: Duration, half_closed: Option<Duration>) -> bool {
        let mut shared = self.shared.lock();
        shared.visitor_ended = true;
        // Best effort: without it the limits apply.
        let _ = self.watch(&mut shared);
        loop {
            shared = self.drain(shared);
            if shared.state.status() == ExchangeStatus::Closed {
                return true;
            }
            let limit = half_closed.filter(|_| !shared.state.is_blocked());
            let left = self.half_close.left(sys::clock(), limit);
            if left.is_some_and(|left| left.is_zero()) {
                return false;
            }
            let stuck;
            (shared, stuck) = self.wait_change(shared, left.unwrap_or(stall));
            if stuck && left.is_none() && shared.state.is_blocked() {
                return false;
            }
        }
    }

    /// Returns the time that a pipe may still stay silent, once one of its directions has
    /// ended and nothing waits for the visitor. `None`: without a limit.
    pub fn half_close_left(&self, limit: Option<Duration>) -> Option<Duration> {
        self.half_close.left(sys::clock(), limit)
    }

    /// Records for the half-close limit that bytes moved. Both directions are open for most of
    /// the time, and then it costs no call of the clock.
    fn record_bytes(&self) {
        if self.half_close.is_half_closed() {
            self.half_close.record_bytes(sys::clock());
        }
    }

    /// Waits for a change. Returns whether `timeout` passed without progress.
    fn wait_change<'a>(
        &self,
        mut shared: MutexGuard<'a, Shared>,
        timeout: Duration,
    ) -> (MutexGuard<'a, Shared>, bool) {
        let before = shared.progress_count;
        shared.waiters += 1;
        let (mut shared, out) = self.changed.wait_timeout(shared, timeout);
        shared.waiters -= 1;
        let stuck = out.timed_out() && shared.progress_count == before;
        (shared, stuck)
    }

    /// Writes the bytes that wait if the session has ended, because no event of the socket is
    /// reported after that. Runs on the visitor's thread.
    fn drain<'a>(&'a self, mut shared: MutexGuard<'a, Shared>) -> MutexGuard<'a, Shared> {
        while shared.state.owner() == Owner::Draining {
            drop(shared);
            let writable = self.wait_writable(sys::clock() + DRAIN_TIMEOUT);
            shared = self.shared.lock();
            match writable {
                true => self.change(shared, |state, out| state.room(out)),
                false => self.change(shared, |state, out| state.fail(Code::STREAM_CANCELLED, out)),
            }
            shared = self.shared.lock();
        }
        shared
    }

    /// Waits for room in the visitor's socket. Returns whether there is some.
    fn wait_writable(&self, until: Instant) -> bool {
        loop {
            let left = until.since(sys::clock());
            match poll::writable(&self.conn.fd(), Some(left)) {
                Ok(true) => return true,
                // A signal ended the wait early.
                Ok(false) if !left.is_zero() => {}
                Ok(false) | Err(_) => return false,
            }
        }
    }

    /// Returns the time that a response may pause after its visitor half-closed the connection.
    /// A visitor that waits and one that has left look the same. It is short when all received
    /// bytes are delivered.
    pub fn half_close_timeout(&self) -> Duration {
        let delivered = self.shared.lock().state.is_delivered();
        Duration::from_secs(if delivered { 2 } else { 30 })
    }

    /// Ends the stream for the visitor's thread: with FIN if the exchange is complete, else
    /// with a reset. The session forgets the stream.
    pub fn detach(&self) {
        let mut shared = self.shared.lock();
        shared.place = None;
        self.change(shared, |state, out| state.detach(out));
        self.session.release(self.stream);
    }

    /// Gives the stream back between two requests. The visitor's next request opens another
    /// one.
    fn reclaim(&self) {
        let mut shared = self.shared.lock();
        shared.place = None;
        if shared.state.status() == ExchangeStatus::Idle {
            self.change(shared, |state, _| state.reclaim());
            self.session.release(self.stream);
        }
    }

    /// Lets the reactor read the visitor's socket. The reactor forwards small reads without
    /// waking a thread. Returns when the thread is needed again, or when the pipe was silent for
    /// `half_closed` after the agent's end. For a pipe without TLS whose only sender is the
    /// caller.
    pub fn park(&self, half_closed: Option<Duration>) {
        let mut shared = self.shared.lock();
        if !shared.state.park() {
            return;
        }
        self.notify(&mut shared);
        if self.watch(&mut shared).is_err() {
            shared.state.unpark();
        }
        while shared.state.owner() == Owner::Parked {
            let left = self.half_close.left(sys::clock(), half_closed);
            if left.is_some_and(|left| left.is_zero()) {
                shared.state.unpark();
                break;
            }
            shared.waiters += 1;
            shared = match left.or(half_closed) {
                Some(time) => self.changed.wait_timeout(shared, time).0,
                None => self.changed.wait(shared),
            };
            shared.waiters -= 1;
        }
        // A socket that stays watched wakes the reactor for nothing.
        let _ = self.watch(&mut shared);
    }

    /// Forwards the bytes of a parked visitor, on the reactor's thread.
    fn forward_parked(&self, mut shared: MutexGuard<'_, Shared>, closed: bool) {
        let fd = self.conn.fd();
        self.record_bytes();
        loop {
            match self.session.forward_small(self.stream, |room| sys::recv_now(fd, room)) {
                // All bytes or the end were forwarded.
                Ok(Forwarded::Sent { full: false }) if closed => {}
                Ok(Forwarded::Sent { full: false }) => return,
                Ok(Forwarded::Nothing(Some(e))) if e.kind() == io::ErrorKind::WouldBlock => return,
                // Reset by the visitor.
                Ok(Forwarded::Nothing(Some(_))) => {
                    self.change(shared, |state, out| state.fail(Code::STREAM_CANCELLED, out));
                    return;
                }
                // A large read, the end, or a full link: the visitor's thread continues.
                _ => break,
            }
        }
        shared.state.unpark();
        self.notify(&mut shared);
    }

    /// Registers the events of the socket that are needed now.
    fn watch(&self, shared: &mut Shared) -> io::Result<()> {
        let readable = match shared.state.owner() {
            Owner::Parked => true,
            Owner::Attached => shared.visitor_ended,
            Owner::Draining | Owner::Detached => false,
        };
        let want = Watch { readable, writable: shared.state.wants_room() };
        if !want.readable && !want.writable {
            if shared.watched.take().is_some() {
                self.session.unwatch(self.conn.fd());
            }
        } else if shared.watched != Some(want) {
            self.session.watch(self.stream, self.conn.fd(), want, shared.watched.is_some())?;
            shared.watched = Some(want);
        }
        Ok(())
    }

    /// Wakes the waiting threads if there is something to do for them.
    fn notify(&self, shared: &mut Shared) {
        let now = (shared.state.status(), shared.state.owner());
        let before = std::mem::replace(&mut shared.notified, now);
        if now.0 == ExchangeStatus::Idle && before.0 != ExchangeStatus::Idle {
            self.conn.visitor().set_idle();
            if let Some(place) = &shared.place {
                place.set_idle(sys::clock());
            }
        }
        if shared.waiters > 0 && (now != before || shared.successor.is_some()) {
            self.changed.notify_all();
        }
    }

    /// Changes the state and carries out the effects.
    fn change(
        &self,
        mut shared: MutexGuard<'_, Shared>,
        change: impl FnOnce(&mut ExchangeState, &mut &VisitorConn) -> Effects,
    ) {
        let effects = change(&mut shared.state, &mut &*self.conn);
        let consumed = self.apply(&mut shared, effects);
        drop(shared);
        self.session.consumed(self.stream, consumed);
    }

    /// Carries out the effects. Returns the bytes that are consumed.
    fn apply(&self, shared: &mut Shared, mut effects: Effects) -> usize {
        let mut consumed = effects.consumed;
        if shared.state.owner() != Owner::Draining
            && let Err(e) = self.watch(shared)
        {
            if let Some(count) = UNWATCHED_LINES.lock().record(sys::clock()) {
                event!(error, obj = "edge", "cannot watch visitor socket", count = count, err = e);
            }
            effects = shared.state.fail(Code::INTERNAL_ERROR, &mut &*self.conn);
            consumed += effects.consumed;
        }
        self.hold(shared, &mut effects);
        if let Some(reason) = effects.fault
            && let Some(count) = FAULT_LINES.lock().record(sys::clock())
        {
            let stream = self.stream;
            event!(
                warn,
                obj = "edge",
                "invalid response",
                id = stream,
                count = count,
                err = reason
            );
        }
        match effects.stream {
            StreamEffect::None => {}
            StreamEffect::Finish => self.session.finish(self.stream),
            StreamEffect::Cancel(code) => self.session.abort(self.stream, code),
        }
        if effects.wake_reader {
            self.conn.stop_reading();
        }
        shared.progress_count = shared.progress_count.wrapping_add(1);
        self.record_bytes();
        self.notify(shared);
        consumed
    }

    /// Counts the bytes of an ended session for the process until they are written.
    fn hold(&self, shared: &mut Shared, effects: &mut Effects) {
        if shared.state.owner() != Owner::Draining {
            shared.held = None;
        } else if shared.held.is_none() {
            shared.held = self.buffers.hold(shared.state.waiting());
            if shared.held.is_none() {
                *effects = shared.state.fail(Code::STREAM_CANCELLED, &mut &*self.conn);
            }
        }
    }

    /// Sends the request again on a new stream, if that is safe: the stream had served a
    /// request before and ended without a byte of a response. Returns whether it was sent.
    fn retry(&self, shared: &mut Shared) -> bool {
        let Some((filter, mut start)) = shared.state.take_retry() else { return false };
        let frame = std::mem::take(&mut start.retry_frame);
        let (session, streams) = (self.session.clone(), Arc::clone(&self.streams));
        let target = StreamTarget { session, streams };
        let (conn, buffers) = (&self.conn, &self.buffers);
        let failover = shared.failover.clone();
        match VisitorExchange::try_open(&target, conn, buffers, &frame, filter, &start, failover) {
            Ok(next) => {
                self.hand_over(shared, next);
                true
            }
            Err(_) => false,
        }
    }

    /// Sends the request to the next member of the pool that takes it. Returns whether one did.
    fn fail_over(&self, shared: &mut Shared) -> bool {
        let Some(mut failover) = shared.failover.take() else { return false };
        while let Some(member) = failover.members.pop() {
            let (target, mut frame) = member();
            if frame.len() + failover.request.len() > MAX_FIRST {
                return false;
            }
            let Some(start) = shared.state.failover_start() else { return false };
            frame.extend_from_slice(&failover.request);
            let (conn, buffers, filter) = (&self.conn, &self.buffers, ResponseFilter::http_once());
            let left = Some(failover.clone());
            if let Ok(next) =
                VisitorExchange::try_open(&target, conn, buffers, &frame, filter, &start, left)
            {
                shared.undecided = Vec::new();
                self.hand_over(shared, next);
                return true;
            }
        }
        false
    }

    /// Lets another exchange take over the request.
    fn hand_over(&self, shared: &mut Shared, next: Arc<VisitorExchange>) {
        shared.place = None;
        shared.successor = Some(next);
        let effects = shared.state.moved();
        self.apply(shared, effects);
        self.session.release(self.stream);
    }

    /// Gives bytes that were held for a decision to the visitor.
    fn decide(&self, shared: &mut Shared) {
        shared.failover = None;
        let bytes = std::mem::take(&mut shared.undecided);
        if !bytes.is_empty() {
            let consumed = self.deliver(shared, &bytes);
            self.session.consumed(self.stream, consumed);
        }
    }

    /// Gives bytes of the agent to the filter. Returns those that are consumed. Rules that may
    /// block run on another thread, because this one is the session's.
    fn deliver(&self, shared: &mut Shared, bytes: &[u8]) -> usize {
        if let Some(deferred) = &mut shared.deferred {
            deferred.bytes.extend_from_slice(bytes);
            return 0;
        }
        if !shared.state.may_block() {
            let effects = shared.state.data(bytes, sys::clock(), &mut &*self.conn);
            return self.apply(shared, effects);
        }
        shared.deferred = Some(Deferred { bytes: bytes.to_vec(), end: DeferredEnd::Open });
        let this = Weak::clone(&self.this);
        let work = Box::new(move || {
            if let Some(this) = this.upgrade() {
                this.run_rules();
            }
        });
        if shared.state.offload(work) {
            return 0;
        }
        shared.deferred = None;
        let effects = shared.state.refuse(&ErrorPage::edge_full(), &mut &*self.conn);
        self.apply(shared, effects) + bytes.len()
    }

    /// Gives the deferred bytes to the filter, and then the end. Rules run without the lock. On a
    /// thread that may block.
    fn run_rules(&self) {
        let mut shared = self.shared.lock();
        // Dropped if the session has reset the stream.
        while let Some(deferred) = &mut shared.deferred {
            let bytes = std::mem::take(&mut deferred.bytes);
            if bytes.is_empty() {
                let end = deferred.end;
                shared.deferred = None;
                self.end_deferred(&mut shared, end);
                return;
            }
            let effects = if shared.state.may_block() {
                let mut filter = shared.state.lend_filter();
                drop(shared);
                let mut emitted = Vec::new();
                let progress = filter.feed(&bytes, &mut |piece| emitted.extend_from_slice(piece));
                shared = self.shared.lock();
                let fed = LentFeed { received: bytes.len(), emitted: &emitted, progress };
                shared.state.give_back(filter, fed, sys::clock(), &mut &*self.conn)
            } else {
                shared.state.data(&bytes, sys::clock(), &mut &*self.conn)
            };
            // Before the next rules, which may take long: the socket is watched, and the window
            // goes back.
            let consumed = self.apply(&mut shared, effects);
            self.session.consumed(self.stream, consumed);
        }
    }

    /// Processes the deferred end of the agent's direction.
    fn end_deferred(&self, shared: &mut Shared, end: DeferredEnd) {
        let mut consumed = 0;
        if end.is_finished() {
            let effects = shared.state.finished(&mut &*self.conn);
            consumed += self.apply(shared, effects);
        }
        if let Some(reset) = end.reset() {
            let effects = shared.state.reset(reset, &mut &*self.conn);
            consumed += self.apply(shared, effects);
        }
        self.session.consumed(self.stream, consumed);
    }

    /// Defers an orderly end behind the deferred bytes. Returns whether it is deferred.
    fn defer_finish(&self, shared: &mut Shared) -> bool {
        let Some(deferred) = &mut shared.deferred else { return false };
        deferred.end = deferred.end.with_finish();
        true
    }

    /// Defers a reset behind the deferred bytes. Returns whether it is deferred.
    fn defer_reset(&self, shared: &mut Shared, reset: Reset) -> bool {
        if let Reset::Local(_) = reset {
            // The memory is needed at once.
            shared.deferred = None;
        }
        let Some(deferred) = &mut shared.deferred else { return false };
        deferred.end = deferred.end.with_reset(reset);
        true
    }

    /// Repeats the request of a stream that ended. Returns whether another stream has it.
    fn sent_again(&self, shared: &mut Shared, got_nothing: bool) -> bool {
        if !shared.undecided.is_empty() {
            self.decide(shared);
        }
        let may_repeat = |failover: &Failover| got_nothing || failover.idempotent;
        let fails_over = shared.failover.as_ref().is_some_and(may_repeat);
        self.retry(shared) || fails_over && shared.state.has_no_response() && self.fail_over(shared)
    }
}

impl VisitorWork for VisitorExchange {
    fn cut_off(self: Arc<Self>) {
        self.latest().cancel();
    }
}

impl Holder for VisitorExchange {
    fn give_way(self: Arc<Self>, was_idle: bool) {
        match was_idle {
            true => self.reclaim(),
            false => self.give_up(&ErrorPage::agent_full()),
        }
    }

    fn last_progress(&self) -> Instant {
        self.conn.visitor().last_progress()
    }
}

impl Sink for VisitorExchange {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut shared = self.shared.lock();
        let Some(idempotent) = shared.failover.as_ref().map(|failover| failover.idempotent) else {
            return self.deliver(&mut shared, bytes);
        };
        shared.undecided.extend_from_slice(bytes);
        match reports_unreachable(&shared.undecided, idempotent) {
            None => {}
            Some(true) if self.fail_over(&mut shared) => {}
            Some(_) => self.decide(&mut shared),
        }
        // The bytes that were held are consumed with the decision.
        0
    }

    fn finished(&self) {
        self.half_close.record_end(sys::clock());
        let mut shared = self.shared.lock();
        if self.defer_finish(&mut shared) || self.sent_again(&mut shared, false) {
            return;
        }
        // The bytes of `sent_again` may have begun rules.
        if !self.defer_finish(&mut shared) {
            self.change(shared, |state, out| state.finished(out));
        }
    }

    fn reset(&self, reset: Reset) {
        let mut shared = self.shared.lock();
        if self.defer_reset(&mut shared, reset) {
            return;
        }
        let got_nothing = matches!(reset.code(), Code::STREAM_REFUSED | Code::ACCEPT_QUEUE_FULL);
        let sent_again =
            matches!(reset, Reset::Peer(_)) && self.sent_again(&mut shared, got_nothing);
        if sent_again {
            return;
        }
        self.decide(&mut shared);
        // The bytes of the decision may have begun rules.
        if !self.defer_reset(&mut shared, reset) {
            self.change(shared, |state, out| state.reset(reset, out));
        }
    }

    fn cancelled(&self, code: Code) {
        // The end before the reset is not an orderly one.
        self.reset(Reset::Peer(code));
    }

    fn ready(&self, readable: bool, writable: bool, closed: bool) {
        let mut shared = self.shared.lock();
        if writable && shared.state.wants_room() {
            self.change(shared, |state, out| state.room(out));
            shared = self.shared.lock();
        }
        if readable && shared.state.owner() == Owner::Parked {
            self.forward_parked(shared, closed);
        } else if readable && shared.visitor_ended {
            // The end was read already: only an error can follow.
            if self.conn.has_failed() {
                self.change(shared, |state, out| state.fail(Code::STREAM_CANCELLED, out));
            }
        }
    }
}
