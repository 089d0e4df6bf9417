//! One end of a session: the calls of its owner, and time. Bytes of the peer are handled in
//! `receive`.

use std::collections::VecDeque;
use std::time::Duration;

use super::control_queue::ControlQueue;
use super::fault_injection::{self, Bug};
use super::flood::{Budgets, Flood};
use super::frame::{self, FrameHeader};
use super::heartbeat::{Action, Heartbeat};
use super::lifecycle::Linger;
use super::receive::FrameReader;
use super::reset_streams::ResetStreams;
use super::stream::{HalfState, Purpose, StreamState};
use super::table::StreamTable;
use super::xorshift::Xorshift;
use super::{
    Code, Config, Event, Grant, GrantError, MAX_FIRST, MAX_PAYLOAD, MIN_WINDOW_SHARE, OpenError,
    Reason, Role, StreamId, StreamType,
};
use crate::time::{Deadline, Instant};

/// One end of a multiplexed session. See the documentation of the module.
///
/// The owner of a stream either consumes every byte of [`Event::Data`] or releases the stream
/// with [`Muxer::reset`] or [`Muxer::cancel`], which may also be called for an ended stream.
/// Until then the bytes count in [`Muxer::unconsumed`], and the stream in [`Muxer::streams`].
#[derive(Debug)]
pub struct Muxer {
    pub(super) config: Config,
    pub(super) table: StreamTable,
    pub(super) control_queue: ControlQueue,
    pub(super) reset_streams: ResetStreams,
    pub(super) budgets: Budgets,
    pub(super) reader: FrameReader,
    pub(super) heartbeat: Option<Heartbeat>,
    /// Number of heartbeat streams of the peer.
    pub(super) responders: usize,
    /// Number of streams with an incomplete type.
    pub(super) untyped: usize,
    /// Deadlines of incomplete types, in order. Streams that have a type or have ended may be
    /// in it, but never at the front.
    pub(super) type_deadlines: VecDeque<(StreamId, Instant)>,
    /// Newest stream of the peer, for our GOAWAY.
    pub(super) last_peer_stream: u32,
    /// The sum over all streams.
    pub(super) unconsumed: usize,
    /// Number of streams with unconsumed bytes.
    pub(super) holders: usize,
    /// Time of the last call that had one.
    pub(super) now: Instant,
    pub(super) latency: Option<Duration>,
    /// The peer's GOAWAY: its code, and the time until which this side continues.
    pub(super) goaway_received: Option<(Code, Instant)>,
    pub(super) over: bool,
    /// A fault of this program. The next event reports it.
    pub(super) internal_error: Option<&'static str>,
    pub(super) next_id: u32,
    pub(super) rng: Xorshift,
}

impl Muxer {
    /// Creates a new session.
    pub fn new(config: Config, now: Instant) -> Self {
        let first_id = config.role.first_id();
        Muxer {
            table: StreamTable::default(),
            control_queue: ControlQueue::default(),
            reset_streams: ResetStreams::default(),
            budgets: Budgets::new(now),
            reader: FrameReader::default(),
            heartbeat: None,
            responders: 0,
            untyped: 0,
            type_deadlines: VecDeque::new(),
            last_peer_stream: 0,
            unconsumed: 0,
            holders: 0,
            now,
            latency: None,
            goaway_received: None,
            over: false,
            internal_error: None,
            next_id: if fault_injection::is(Bug::ParityMixed) { first_id ^ 1 } else { first_id },
            rng: Xorshift::new(config.seed),
            config,
        }
    }

    /// Sets [`Config::max_streams`], for a peer that carries more than those of other families.
    pub fn set_max_streams(&mut self, max_streams: usize) {
        self.config.max_streams = max_streams;
    }

    /// Opens a stream of type `kind`. Its SYN frame with the type and `first` is queued for
    /// [`Muxer::transmit`].
    ///
    /// # Errors
    /// The session accepts no new stream. Nothing is sent then.
    pub fn open(&mut self, kind: StreamType, first: &[u8]) -> Result<StreamId, OpenError> {
        if self.table.len() >= self.config.max_streams {
            return Err(OpenError::TooMany);
        }
        self.open_as(Purpose::Application, kind, first)
    }

    fn open_as(
        &mut self,
        purpose: Purpose,
        kind: StreamType,
        first: &[u8],
    ) -> Result<StreamId, OpenError> {
        let payload = first.len().saturating_add(4);
        let window = usize::try_from(self.config.window).unwrap_or(usize::MAX);
        if self.is_over() {
            return Err(OpenError::Over);
        } else if self.goaway_received.is_some() {
            return Err(OpenError::PeerLeft);
        } else if self.next_id > frame::ID_MASK {
            return Err(OpenError::Exhausted);
        } else if first.len() > MAX_FIRST || payload > window {
            return Err(OpenError::TooLong);
        } else if self.control_queue.is_full()
            || self.control_queue.len() >= self.config.max_pending.saturating_mul(4)
        {
            return Err(OpenError::Busy);
        }
        let id = StreamId(self.next_id);
        let mut stream = StreamState::new(id, purpose, self.config.window);
        stream.syn_waits = true;
        stream.send_window.take(payload, payload);
        if self.table.insert(stream).is_none() {
            self.internal_error("an id of our own is in use");
            return Err(OpenError::Over);
        }
        self.next_id = self.next_id.saturating_add(2);
        // A peer may have sent data for it before it was opened.
        self.reset_streams.remove(id);
        self.control_queue.syn(id, kind, first);
        Ok(id)
    }

    /// Returns the permission to send up to `wanted` bytes on `stream`, at most one frame. The
    /// caller must write header and payload next, before anything else.
    ///
    /// # Errors
    /// See [`GrantError`].
    pub fn grant(&mut self, stream: StreamId, wanted: usize) -> Result<Grant, GrantError> {
        if self.is_over() {
            return Err(GrantError::Closed(Code::SESSION_CLOSED));
        }
        let Some(s) = self.application(stream).filter(|s| !s.lingers && s.send == HalfState::Open)
        else {
            return Err(GrantError::Closed(Code::STREAM_CLOSED));
        };
        if s.syn_waits {
            return Err(GrantError::ControlPending);
        }
        let len = s.send_window.take(wanted, MAX_PAYLOAD);
        if len == 0 && wanted > 0 {
            s.blocked = true;
            return Err(GrantError::NoWindow);
        }
        let header = FrameHeader::data(stream, len, 0).encode();
        Ok(Grant { header, len: usize::try_from(len).unwrap_or(MAX_PAYLOAD) })
    }

    /// Returns how many bytes `stream` may send now, at least 1. Like [`Self::grant`], but
    /// spends nothing.
    ///
    /// # Errors
    /// As [`Self::grant`]. After `NoWindow` an [`Event::Writable`] follows.
    pub fn window(&mut self, stream: StreamId) -> Result<usize, GrantError> {
        if self.is_over() {
            return Err(GrantError::Closed(Code::SESSION_CLOSED));
        }
        let Some(s) = self.application(stream).filter(|s| !s.lingers && s.send == HalfState::Open)
        else {
            return Err(GrantError::Closed(Code::STREAM_CLOSED));
        };
        match s.send_window.left() {
            0 => {
                s.blocked = true;
                Err(GrantError::NoWindow)
            }
            n => Ok(usize::try_from(n).unwrap_or(MAX_PAYLOAD)),
        }
    }

    /// Ends our direction of `stream`: queues FIN, once.
    pub fn finish(&mut self, stream: StreamId) {
        let Some(s) = self.application(stream).filter(|s| !s.lingers && s.send == HalfState::Open)
        else {
            return;
        };
        s.send = HalfState::Finished;
        s.blocked = false;
        let lost = fault_injection::is(Bug::FinLost) && s.syn_waits;
        let over = s.receive == HalfState::Finished;
        if !lost {
            self.control_queue.fin(stream);
        }
        if over {
            self.remove_stream(stream, Linger::WhileUnconsumed);
        }
    }

    /// Ends `stream` at once: queues RST if it has not ended, and drops its bytes.
    pub fn reset(&mut self, stream: StreamId, code: Code) {
        let Some(s) = self.application(stream) else { return };
        if !s.lingers {
            self.reset_stream(stream, code);
        } else {
            self.remove_stream(stream, Linger::No);
        }
    }

    /// Aborts `stream`: FIN if none was sent, then RST. One family of peers wakes its readers
    /// only for a FIN (protocol 2.6).
    pub fn cancel(&mut self, stream: StreamId, code: Code) {
        let Some(s) = self.application(stream) else { return };
        if s.lingers || s.send != HalfState::Open {
            return self.reset(stream, code);
        }
        match fault_injection::is(Bug::RstLost) {
            true => self.control_queue.fin(stream),
            false => self.control_queue.fin_rst(stream, code),
        }
        self.remove_reset(stream);
    }

    /// Records that the owner of `stream` has consumed `n` bytes of [`Event::Data`]. Window is
    /// returned to the peer in batches, never more than was received. A forgotten stream is
    /// ignored.
    pub fn consumed(&mut self, stream: StreamId, n: usize) {
        self.consumed_at(stream, n, self.now);
    }

    /// Records consumed bytes like [`Self::consumed`], with a current time.
    pub fn consumed_at(&mut self, stream: StreamId, n: usize, now: Instant) {
        let Some(slot) = self.table.find(stream) else { return };
        let Some(s) = self.table.get(slot).filter(|s| s.is_application()) else { return };
        let n = s.receive_window.consumed(n);
        let empty = s.receive_window.unconsumed() == 0;
        let done = s.lingers && empty;
        if n > 0 {
            s.progress = now;
            self.holders = self.holders.saturating_sub(usize::from(empty));
        }
        self.count_consumed(n);
        if done {
            self.remove_stream(stream, Linger::No);
        } else {
            self.queue_window_update(slot);
        }
    }

    /// Writes whole control frames to `out`, as many as fit. `out` should have room for
    /// [`super::MAX_CONTROL`] bytes. Returns the number of bytes.
    pub fn transmit(&mut self, out: &mut [u8]) -> usize {
        self.control_queue.write(out, &mut self.table)
    }

    /// Returns whether [`Muxer::transmit`] has frames.
    pub fn has_transmit(&self) -> bool {
        !self.control_queue.is_empty()
    }

    /// Starts our own heartbeat, or changes its times. The first one is sent at once, the next
    /// after `interval`. The session ends `interval + tolerance` after the last good echo
    /// (protocol 4).
    ///
    /// # Errors
    /// As for [`Muxer::open`], but the limit on streams does not apply.
    pub fn start_heartbeat(
        &mut self,
        interval: Duration,
        tolerance: Duration,
        now: Instant,
    ) -> Result<(), OpenError> {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.set(interval, tolerance, now);
            return Ok(());
        }
        let stream = self.open_as(Purpose::Requester, StreamType::HEARTBEAT, &[])?;
        self.heartbeat = Some(Heartbeat::new(stream, interval, tolerance, now));
        self.beat(now);
        Ok(())
    }

    /// Requests an echo within `patience`, because the network path is in doubt.
    pub fn probe(&mut self, patience: Duration, now: Instant) {
        if let Some(heartbeat) = &mut self.heartbeat {
            heartbeat.probe(patience, now);
        }
    }

    /// Ends the session: queues GOAWAY as its last frame.
    pub fn go_away(&mut self, code: Code, text: &str) {
        if !self.is_over() {
            self.control_queue.goaway(self.last_peer_stream, code, text);
            self.over = true;
        }
    }

    /// Returns the time of the next [`Muxer::tick`].
    pub fn deadline(&self) -> Deadline {
        if self.internal_error.is_some() {
            return Deadline::At(Instant::ZERO);
        } else if self.over {
            return Deadline::Never;
        }
        let mut earliest = Deadline::Never;
        if let Some((_, until)) = self.type_deadlines.front() {
            earliest = earliest.min(Deadline::At(*until));
        }
        if let Some(heartbeat) = &self.heartbeat {
            earliest = earliest.min(heartbeat.deadline());
        }
        if let Some((_, until)) = self.goaway_received {
            let runs = self.table.iter().any(|s| s.is_application() && !s.lingers);
            earliest = earliest.min(Deadline::At(if runs { until } else { Instant::ZERO }));
        }
        earliest
    }

    /// Handles deadlines that have passed. Called until it returns `None`.
    pub fn tick(&mut self, now: Instant) -> Option<Event<'static>> {
        self.now = now;
        if let Some(over) = self.take_internal_error() {
            return Some(over);
        }
        if self.over || !self.deadline().due(now) {
            return None;
        }
        if self.goaway_received.is_some() && self.is_drained(now) {
            return Some(self.end_after_goaway());
        }
        match self.heartbeat.as_ref().map(|r| r.due(now)) {
            Some(Action::Dead) => {
                return Some(self.session_error(Code::NO_ERROR, Reason::HeartbeatTimeout));
            }
            Some(Action::Beat) => self.beat(now),
            Some(Action::Nothing) | None => {}
        }
        while let Some(&(stream, until)) = self.type_deadlines.front()
            && until <= now
            && !fault_injection::is(Bug::TypeWaitsForEver)
        {
            self.control_queue.fin(stream);
            self.reset_stream(stream, Code::STREAM_REFUSED);
            if !self.budgets.spend(Flood::Resets, now) {
                return Some(self.flood_error(Flood::Resets));
            }
        }
        self.take_internal_error()
    }

    /// Returns whether bytes of the peer may be read. False while too many control frames wait
    /// for the link: then only write to the link.
    pub fn wants_input(&self) -> bool {
        !self.is_over() && self.control_queue.len() < self.config.max_pending
    }

    /// Returns the number of bytes of all streams that were passed on and not consumed.
    pub fn unconsumed(&self) -> usize {
        self.unconsumed
    }

    /// Returns the stream with the most unconsumed bytes, and their number, among the streams
    /// that have consumed none since `since`.
    pub fn largest_buffered(&self, since: Instant) -> Option<(StreamId, usize)> {
        let held = |s: &StreamState| usize::try_from(s.receive_window.unconsumed()).unwrap_or(0);
        let stalled = self.table.iter().filter(|s| s.progress <= since);
        stalled.map(|s| (s.id, held(s))).filter(|(_, n)| *n > 0).max_by_key(|(_, n)| *n)
    }

    /// Returns the largest window that a stream with unconsumed bytes gets back: the whole
    /// window while the streams hold less than half of [`Config::buffer_target`], then an equal
    /// share. So slow readers slow their senders down before a limit is reached.
    pub(super) fn window_share(&self) -> u32 {
        let target = self.config.buffer_target;
        if self.unconsumed <= target / 2 {
            return self.config.window;
        }
        let share = target / 2 / self.holders.max(1);
        u32::try_from(share).unwrap_or(u32::MAX).max(MIN_WINDOW_SHARE).min(self.config.window)
    }

    /// Returns this end of the session.
    pub fn role(&self) -> Role {
        self.config.role
    }

    /// Returns the number of streams that count for [`Config::max_streams`].
    pub fn streams(&self) -> usize {
        self.table.len()
    }

    /// Returns whether the session has ended. Frames may still wait for transmission.
    pub fn is_over(&self) -> bool {
        self.over || self.internal_error.is_some()
    }

    /// Returns whether a heartbeat is under way or was requested by [`Muxer::probe`].
    pub fn awaits_echo(&self) -> bool {
        self.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.awaits_echo())
    }

    /// Returns the round trip time of the last heartbeat.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }
}
