//! One end of a session: the calls of its owner, and time. What the peer's
//! bytes do is in `receive`.

use std::collections::VecDeque;
use std::time::Duration;

use super::fault_injection::{self, Bug};
use super::flood::{Budgets, Flood};
use super::frame::{self, Header};
use super::heartbeat::{Action, Requester};
use super::lifecycle::Linger;
use super::outbox::Outbox;
use super::receive::Reader;
use super::reset_streams::Tombs;
use super::rng::Rng;
use super::stream::{Half, Purpose, Stream};
use super::table::Table;
use super::{
    Code, Config, Event, Grant, MAX_FIRST, MAX_PAYLOAD, OpenError, Reason, SendError, StreamId,
    StreamType,
};
use crate::time::{Deadline, Instant};

/// One end of a multiplexed session. See the module's documentation.
///
/// The owner of a stream either consumes every byte that [`Event::Data`] gave
/// it, or lets go of the stream by [`Session::reset`] or [`Session::cancel`],
/// which is right for a stream that is already over too. Until then the bytes
/// count in [`Session::unconsumed`], and the stream in [`Session::streams`].
#[derive(Debug)]
pub struct Session {
    pub(super) config: Config,
    pub(super) table: Table,
    pub(super) outbox: Outbox,
    pub(super) tombs: Tombs,
    pub(super) budgets: Budgets,
    pub(super) reader: Reader,
    pub(super) requester: Option<Requester>,
    /// Heartbeat streams that the peer opened.
    pub(super) responders: usize,
    /// Streams whose type is incomplete.
    pub(super) untyped: usize,
    /// When each of them is given up, in order; may name some that are typed
    /// or gone, but never at the front.
    pub(super) untyped_until: VecDeque<(StreamId, Instant)>,
    /// The newest stream that the peer opened, for our GOAWAY.
    pub(super) newest_peer: u32,
    /// The sum over all streams.
    pub(super) unconsumed: usize,
    pub(super) latency: Option<Duration>,
    /// The peer said GOAWAY: its code, and how long we go on.
    pub(super) peer_left: Option<(Code, Instant)>,
    pub(super) over: bool,
    /// A fault of ours that the next event will tell.
    pub(super) broken: Option<&'static str>,
    pub(super) next_id: u32,
    pub(super) rng: Rng,
}

impl Session {
    /// A fresh session, nothing sent or received.
    pub fn new(config: Config, now: Instant) -> Self {
        let first_id = config.role.first_id();
        Session {
            table: Table::default(),
            outbox: Outbox::default(),
            tombs: Tombs::default(),
            budgets: Budgets::new(now),
            reader: Reader::default(),
            requester: None,
            responders: 0,
            untyped: 0,
            untyped_until: VecDeque::new(),
            newest_peer: 0,
            unconsumed: 0,
            latency: None,
            peer_left: None,
            over: false,
            broken: None,
            next_id: if fault_injection::is(Bug::ParityMixed) { first_id ^ 1 } else { first_id },
            rng: Rng::new(config.seed),
            config,
        }
    }

    /// Opens a stream of type `kind`. Its SYN frame, which carries the type and
    /// `first`, is queued for [`Session::transmit`].
    ///
    /// # Errors
    /// When the session takes no new stream; nothing is sent then.
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
        } else if self.peer_left.is_some() {
            return Err(OpenError::PeerLeft);
        } else if self.next_id > frame::ID_MASK {
            return Err(OpenError::Exhausted);
        } else if first.len() > MAX_FIRST || payload > window {
            return Err(OpenError::TooLong);
        } else if self.outbox.is_full()
            || self.outbox.len() >= self.config.max_pending.saturating_mul(4)
        {
            return Err(OpenError::Busy);
        }
        let id = StreamId(self.next_id);
        let mut stream = Stream::new(id, purpose, self.config.window);
        stream.syn_waits = true;
        stream.send_window.take(payload, payload);
        if self.table.insert(stream).is_none() {
            self.bug("an id of our own is in use");
            return Err(OpenError::Over);
        }
        self.next_id = self.next_id.saturating_add(2);
        // A peer may have sent data for it before it was opened.
        self.tombs.remove(id);
        self.outbox.syn(id, kind, first);
        Ok(id)
    }

    /// Leave to send up to `wanted` bytes on `stream`: at most one frame. The
    /// caller must write header and payload at once, before anything else.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn grant(&mut self, stream: StreamId, wanted: usize) -> Result<Grant, SendError> {
        if self.is_over() {
            return Err(SendError::Closed(Code::SESSION_CLOSED));
        }
        let Some(s) = self.application(stream).filter(|s| !s.lingers && s.send == Half::Open)
        else {
            return Err(SendError::Closed(Code::STREAM_CLOSED));
        };
        if s.syn_waits {
            return Err(SendError::ControlPending);
        }
        let len = s.send_window.take(wanted, MAX_PAYLOAD);
        if len == 0 && wanted > 0 {
            s.blocked = true;
            return Err(SendError::NoWindow);
        }
        let header = Header::data(stream, len, 0).encode();
        Ok(Grant { header, len: usize::try_from(len).unwrap_or(MAX_PAYLOAD) })
    }

    /// How many bytes `stream` may send now, at least 1. Like [`Self::grant`]
    /// without taking anything.
    ///
    /// # Errors
    /// As [`Self::grant`]; after `NoWindow` [`Event::Writable`] comes later.
    pub fn window(&mut self, stream: StreamId) -> Result<usize, SendError> {
        if self.is_over() {
            return Err(SendError::Closed(Code::SESSION_CLOSED));
        }
        let Some(s) = self.application(stream).filter(|s| !s.lingers && s.send == Half::Open)
        else {
            return Err(SendError::Closed(Code::STREAM_CLOSED));
        };
        match s.send_window.left() {
            0 => {
                s.blocked = true;
                Err(SendError::NoWindow)
            }
            n => Ok(usize::try_from(n).unwrap_or(MAX_PAYLOAD)),
        }
    }

    /// Ends our direction of `stream`: queues FIN, once.
    pub fn finish(&mut self, stream: StreamId) {
        let Some(s) = self.application(stream).filter(|s| !s.lingers && s.send == Half::Open)
        else {
            return;
        };
        s.send = Half::Finished;
        s.blocked = false;
        let lost = fault_injection::is(Bug::FinLost) && s.syn_waits;
        let over = s.receive == Half::Finished;
        if !lost {
            self.outbox.fin(stream);
        }
        if over {
            self.forget(stream, Linger::WhileUnconsumed);
        }
    }

    /// Ends `stream` at once: queues RST if it is not over, and lets go of its
    /// bytes.
    pub fn reset(&mut self, stream: StreamId, code: Code) {
        let Some(s) = self.application(stream) else { return };
        if !s.lingers {
            self.kill(stream, code);
        } else {
            self.forget(stream, Linger::No);
        }
    }

    /// Aborts `stream`: FIN if none was sent, then RST. One family of peers
    /// wakes its readers for a FIN only (protocol 2.6).
    pub fn cancel(&mut self, stream: StreamId, code: Code) {
        let Some(s) = self.application(stream) else { return };
        if !s.lingers && s.send == Half::Open {
            self.outbox.fin(stream);
        }
        self.reset(stream, code);
    }

    /// The owner of `stream` is done with `n` bytes that [`Event::Data`] gave
    /// it. Window goes back to the peer in batches. Never more than was
    /// received; nothing for a stream that is forgotten.
    pub fn consumed(&mut self, stream: StreamId, n: usize) {
        let Some(s) = self.application(stream) else { return };
        let n = s.receive_window.consumed(n);
        let done = s.lingers && s.receive_window.unconsumed() == 0;
        self.count_consumed(n);
        if done {
            self.forget(stream, Linger::No);
        } else {
            self.offer_window(stream);
        }
    }

    /// Writes whole control frames to `out`, as many as fit; `out` should have
    /// room for [`super::MAX_CONTROL`] bytes. Returns the number of bytes.
    pub fn transmit(&mut self, out: &mut [u8]) -> usize {
        self.outbox.write(out, &mut self.table)
    }

    /// Whether [`Session::transmit`] has something.
    pub fn has_transmit(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Starts our own heartbeat, or changes its times. The first beat goes out
    /// at once, the next after `interval`; `interval + tolerance` after the
    /// last good echo the session is over (protocol 4).
    ///
    /// # Errors
    /// As for [`Session::open`], but the limit on streams does not apply.
    pub fn start_heartbeat(
        &mut self,
        interval: Duration,
        tolerance: Duration,
        now: Instant,
    ) -> Result<(), OpenError> {
        if let Some(requester) = &mut self.requester {
            requester.set(interval, tolerance, now);
            return Ok(());
        }
        let stream = self.open_as(Purpose::Requester, StreamType::HEARTBEAT, &[])?;
        self.requester = Some(Requester::new(stream, interval, tolerance, now));
        self.beat(now);
        Ok(())
    }

    /// Asks for an echo within `patience`, because the way is in doubt.
    pub fn probe(&mut self, patience: Duration, now: Instant) {
        if let Some(requester) = &mut self.requester {
            requester.probe(patience, now);
        }
    }

    /// Ends the session: queues GOAWAY as its last frame.
    pub fn go_away(&mut self, code: Code, text: &str) {
        if !self.is_over() {
            self.outbox.goaway(self.newest_peer, code, text);
            self.over = true;
        }
    }

    /// When [`Session::tick`] has something to do.
    pub fn deadline(&self) -> Deadline {
        if self.broken.is_some() {
            return Deadline::At(Instant::ZERO);
        } else if self.over {
            return Deadline::Never;
        }
        let mut earliest = Deadline::Never;
        if let Some((_, until)) = self.untyped_until.front() {
            earliest = earliest.min(Deadline::At(*until));
        }
        if let Some(requester) = &self.requester {
            earliest = earliest.min(requester.deadline());
        }
        if let Some((_, until)) = self.peer_left {
            let runs = self.table.iter().any(|s| s.is_application() && !s.lingers);
            earliest = earliest.min(Deadline::At(if runs { until } else { Instant::ZERO }));
        }
        earliest
    }

    /// Does what is due. To be called until it returns `None`.
    pub fn tick(&mut self, now: Instant) -> Option<Event<'static>> {
        if let Some(over) = self.take_broken() {
            return Some(over);
        }
        if self.over || !self.deadline().due(now) {
            return None;
        }
        if self.peer_left.is_some() && self.leaving_is_done(now) {
            return Some(self.leave());
        }
        match self.requester.as_ref().map(|r| r.due(now)) {
            Some(Action::Dead) => {
                return Some(self.fail(Code::NO_ERROR, Reason::HeartbeatTimeout));
            }
            Some(Action::Beat) => self.beat(now),
            Some(Action::Nothing) | None => {}
        }
        while let Some(&(stream, until)) = self.untyped_until.front()
            && until <= now
            && !fault_injection::is(Bug::TypeWaitsForEver)
        {
            self.outbox.fin(stream);
            self.kill(stream, Code::STREAM_REFUSED);
            if !self.budgets.spend(Flood::Resets, now) {
                return Some(self.flooded(Flood::Resets));
            }
        }
        self.take_broken()
    }

    /// Whether the peer's bytes are welcome. False while too many control
    /// frames wait for the link: do not read from it then, only write.
    pub fn wants_input(&self) -> bool {
        !self.is_over() && self.outbox.len() < self.config.max_pending
    }

    /// The bytes that were handed out and not consumed, of all streams.
    pub fn unconsumed(&self) -> usize {
        self.unconsumed
    }

    /// The stream with the most unconsumed bytes, and how many, if any has some.
    pub fn hoarder(&self) -> Option<(StreamId, usize)> {
        let held = |s: &Stream| usize::try_from(s.receive_window.unconsumed()).unwrap_or(0);
        self.table.iter().map(|s| (s.id, held(s))).filter(|(_, n)| *n > 0).max_by_key(|(_, n)| *n)
    }

    /// The streams that count against [`Config::max_streams`].
    pub fn streams(&self) -> usize {
        self.table.len()
    }

    /// Whether the session is over; there may be something left to transmit.
    pub fn is_over(&self) -> bool {
        self.over || self.broken.is_some()
    }

    /// The time that the last heartbeat took.
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }
}
