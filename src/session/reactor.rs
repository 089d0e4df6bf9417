//! The reactor: one thread for each session. It reads, opens, parses, delivers and handles
//! deadlines. It blocks in its poll only, and never waits for a worker.

use std::io;
use std::iter;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::gathered::Gathered;
use super::handle::{LINK, Session};
use super::held_finish::{Finish, HeldFinish};
use super::input_limit::{BufferLimits, Input, InputLimit};
use super::record_reader::RecordReader;
use super::{End, Handler, Reset, Sink};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{self, Code, Event, StreamId};
use crate::sys::{self, poll, threads};
use crate::time::{Deadline, Instant};
use crate::tls::Established;
use crate::tls::records::Opener;

const WAKE: Token = Token(1);

/// Unsent bytes that the kernel may hold. More would delay the heartbeat.
const MAX_UNSENT_BYTES: i32 = 256 * 1024;

/// Bytes that the streams of an agent's session may hold, without a lower limit for memory:
/// sixteen windows.
pub const BUFFERED: usize = 4 * 1024 * 1024;

/// Time after which a paused read is tried again.
const INPUT_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Time to send the send buffer when this side closes the session. It is shorter than the
/// program's own wait.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 800 });

/// Longest wait for another thread's sending at the end.
const SENDER_TIMEOUT: Duration = Duration::from_millis(250);

/// Starts the session on an established connection: spawns its reactor thread.
pub fn start(
    link: Established,
    mut mux: mux::Config,
    buffers: BufferLimits,
    handler: Box<dyn Handler>,
) -> io::Result<Session> {
    let Established { socket, sealer, opener, kernel, early, leftover } = link;
    socket.set_nonblocking(true)?;
    // Behind a proxy it may be a local socket, which does not support this option.
    let _ = socket.set_nodelay(true);
    let fd = socket.as_raw_fd();
    sys::limit_unsent(fd, MAX_UNSENT_BYTES);
    let poll = Poll::new()?;
    // For room only while bytes wait for it: else each read would report room too.
    poll.registry().register(&mut SourceFd(&fd), LINK, Interest::READABLE)?;
    let waker = Waker::new(poll.registry(), WAKE)?;
    let registry = poll.registry().try_clone()?;
    let now = sys::clock();
    mux.buffer_target = buffers.session;
    let session = Session::new(mux::Muxer::new(mux, now), sealer, kernel, socket, registry, waker);
    let reactor = Reactor {
        session: session.clone(),
        input_limit: InputLimit::new(buffers),
        fd,
        poll,
        handler,
        eviction_lines: LineQuota::per_minute(10),
        closing: false,
        goaway: None,
        tick: Deadline::At(now),
        now,
    };
    threads::REACTOR
        .spawn(Box::new(move || reactor.run(opener, &leftover, &early)))
        .map_err(|e| io::Error::new(e.kind(), threads::NO_THREAD))?;
    Ok(session)
}

struct Reactor {
    session: Session,
    input_limit: InputLimit,
    /// The session's socket.
    fd: RawFd,
    poll: Poll,
    handler: Box<dyn Handler>,
    /// Log lines about streams that were reset because of a limit.
    eviction_lines: LineQuota,
    /// The poll has reported the link's end. It does not report it again.
    closing: bool,
    /// The peer's GOAWAY.
    goaway: Option<(Code, String)>,
    tick: Deadline,
    /// Time when the poll of this turn returned. The clock is read once a turn, because it is a
    /// system call on some machines.
    now: Instant,
}

impl Reactor {
    fn run(mut self, opener: Opener, leftover: &[u8], early: &[u8]) {
        let end = match RecordReader::new(opener, leftover) {
            Some(reader) => self.serve(reader, early),
            None => End::Lost("out of memory for received data".into()),
        };
        self.session.fail(end.clone());
        self.send_last(matches!(end, End::Closed));
        loop {
            // In rounds: a sink may add another one while it is notified.
            let sinks = self.session.core().take_sinks();
            if sinks.is_empty() {
                break;
            }
            for (_, sink) in sinks {
                sink.reset(Reset::SessionClosed);
            }
        }
        self.handler.ended(&end);
    }

    /// Sends the queued bytes as far as the socket accepts them, for example ends of streams
    /// and a GOAWAY. A thread that is sending gets a moment to finish. `patient`: so does the
    /// socket, if this side closes the session without an error.
    fn send_last(&self, patient: bool) {
        let now = sys::clock();
        let (soon, late) = (now + SENDER_TIMEOUT, now + CLOSE_TIMEOUT);
        loop {
            let (out, _) = self.session.push_out(self.session.out());
            let (lent, empty) = (out.send_buffer.is_lent(), out.send_buffer.is_empty());
            let until = if patient && !empty { late } else { soon };
            if !lent && (empty || !patient) || sys::clock() >= until {
                let _ = out.socket.shutdown(Shutdown::Write);
                drop(out);
                return self.drain_input(if empty { until } else { soon });
            }
            drop(out);
            if !lent {
                let _ = poll::writable(&self.fd, Some(Duration::from_millis(50)));
            }
            // In steps: a dead socket is always writable.
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Reads to the peer's end, for a moment. A close of a socket with unread bytes sends a
    /// reset, and the peer would lose the last bytes.
    ///
    /// Not inlined: its buffer would be in the stack frame that the reactor has while it waits.
    #[inline(never)]
    fn drain_input(&self, until: Instant) {
        let mut scratch = [0; 4_096];
        loop {
            match sys::recv_now(self.fd, &mut scratch) {
                Ok(1..) if sys::clock() < until => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let left = Deadline::At(until).left(sys::clock()).unwrap_or_default();
                    if left.is_zero() {
                        break;
                    }
                    let _ = poll::readable(&self.fd, Some(left));
                }
                _ => break,
            }
        }
        let _ = self.session.out().socket.shutdown(Shutdown::Both);
    }

    fn serve(&mut self, mut reader: RecordReader, early: &[u8]) -> End {
        let mut events = Events::with_capacity(64);
        let early = self.frames(&mut iter::once(early));
        if let Err(end) = early.and_then(|()| self.records(&mut reader)) {
            return end;
        }
        let mut readable = true;
        loop {
            match self.turn(&mut events, &mut reader, &mut readable) {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// Does one turn: sleep, read, deliver, send, handle deadlines.
    fn turn(
        &mut self,
        events: &mut Events,
        reader: &mut RecordReader,
        readable: &mut bool,
    ) -> Result<(), End> {
        let timeout = self.timeout(*readable);
        if let Err(e) = self.poll.poll(events, timeout)
            && e.kind() != io::ErrorKind::Interrupted
        {
            return Err(End::Lost(e.to_string()));
        }
        self.now = sys::clock();
        self.session.count_turn();
        let mut relayed = false;
        for event in events.iter() {
            match event.token() {
                LINK => {
                    self.closing |= event.is_read_closed() || event.is_error();
                    *readable |= event.is_readable() || self.closing;
                    if event.is_writable() {
                        self.session.room();
                    }
                }
                WAKE => {}
                Token(id) => {
                    let closed = event.is_error() || event.is_read_closed();
                    let writable =
                        event.is_writable() || event.is_error() || event.is_write_closed();
                    self.dispatch_ready(id, event.is_readable() || closed, writable, closed);
                    relayed = true;
                }
            }
        }
        if relayed {
            // The frames of all streams are sent together.
            self.session.flush();
        }
        if *readable && self.takes_input() {
            *readable = self.receive(reader)?;
        }
        // Before sending: a heartbeat that is due must not wait for the next event.
        self.keep_time()?;
        self.send_control()
    }

    fn timeout(&self, readable: bool) -> Option<Duration> {
        if readable {
            // The socket has more bytes: read at once, or in small steps while reading is
            // paused.
            let waits = self.input_limit.is_waiting();
            return Some(if waits { INPUT_RETRY_INTERVAL } else { Duration::ZERO });
        }
        let mut due = self.session.core().deadline().min(self.tick);
        if let Some(look) = self.input_limit.next_look() {
            due = due.min(Deadline::At(look));
        }
        due.left(self.now)
    }

    /// Returns whether the peer is read now: not while buffers or control output exceed their
    /// limit (protocol 2.5: the only back pressure below a window).
    fn takes_input(&mut self) -> bool {
        let now = self.now;
        loop {
            let next = self.input_limit.next(&self.session.core().mux, now);
            match next {
                Input::Read => return true,
                Input::Wait => return false,
                Input::Reset(stream, bytes) => self.evict(stream, bytes, now),
            }
        }
    }

    /// Resets a stream whose receiver does not accept its bytes.
    fn evict(&mut self, stream: StreamId, bytes: usize, now: Instant) {
        if let Some(count) = self.eviction_lines.record(now) {
            event!(
                warn,
                obj = "tunnel",
                "stream reset: receiver is stalled",
                id = stream,
                bytes = bytes,
                count = count
            );
        }
        self.session.evict(stream, Code::STREAM_CANCELLED);
    }

    fn dispatch_ready(&self, id: usize, readable: bool, writable: bool, closed: bool) {
        let Some(stream) = u32::try_from(id).ok().and_then(StreamId::from_number) else { return };
        let sink = self.session.core().sink(stream);
        if let Some(sink) = sink {
            sink.ready(readable, writable, closed);
        }
    }

    /// Reads once and delivers. Returns whether there may be more.
    fn receive(&mut self, reader: &mut RecordReader) -> Result<bool, End> {
        let space = reader.space();
        let most = space.len();
        match sys::recv_now(self.fd, space) {
            Ok(0) => Err(self.lost("the peer closed the connection")),
            Ok(n) => {
                reader.received(n);
                self.records(reader)?;
                // A short read means that the socket is empty, and the next byte is a new
                // event. An end that arrived with these bytes is not a new event.
                Ok(n == most || self.closing)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(self.lost(&e.to_string())),
        }
    }

    fn lost(&mut self, why: &str) -> End {
        match self.goaway.take() {
            Some((code, text)) => End::GoneAway(code, text),
            None => End::Lost(why.to_owned()),
        }
    }

    /// Delivers the content of the received whole records.
    fn records(&mut self, reader: &mut RecordReader) -> Result<(), End> {
        loop {
            let more = match reader.open(&self.session) {
                Ok(more) => more,
                Err(why) => return Err(self.lost(&why)),
            };
            self.frames(&mut reader.opened())?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Parses the frames of `records` and delivers their content.
    fn frames(&mut self, records: &mut dyn Iterator<Item = &[u8]>) -> Result<(), End> {
        let now = self.now;
        // Bytes that the last delivery consumed, for the muxer at the next lock.
        let mut consumed: Option<(StreamId, usize)> = None;
        let mut held = HeldFinish::default();
        let mut gathered = Gathered::new();
        let mut plain = records.next().unwrap_or_default();
        loop {
            let (event, sink, finish, over) = {
                let mut state = self.session.core();
                if let Some((stream, n)) = consumed.take() {
                    state.mux.consumed(stream, n);
                }
                let mut over = false;
                let event = loop {
                    let (n, event) = state.mux.receive(plain, now);
                    plain = &plain[n..];
                    match event {
                        Some(Event::Data { stream, bytes })
                            if held.is_empty()
                                && gathered.add(stream, bytes, || state.sink(stream)) => {}
                        Some(_) => break event,
                        None if !plain.is_empty() => {}
                        // A FIN is held to the end of its record.
                        None if !held.is_empty() => break None,
                        None => match records.next() {
                            Some(record) => plain = record,
                            None => {
                                over = true;
                                break None;
                            }
                        },
                    }
                };
                let sink = match &event {
                    Some(Event::Data { stream, .. }) => state.sink(*stream),
                    // Waiting threads wake up for room, and for a reset, after which no room
                    // follows.
                    Some(Event::Reset { stream, .. } | Event::Writable { stream }) => {
                        state.wake_window_waiters(*stream);
                        state.sink(*stream)
                    }
                    _ => None,
                };
                let finish = held.next(event.as_ref()).and_then(|finish| {
                    let (Finish::Orderly(stream) | Finish::Cancelled(stream, _)) = finish;
                    Some((finish, state.sink(stream)?))
                });
                (event, sink, finish, over)
            };
            // They came before the event, and before a FIN that was held.
            if let Some(delivered) = gathered.deliver() {
                consumed = Some(delivered);
            }
            match finish {
                Some((Finish::Orderly(_), sink)) => sink.finished(),
                Some((Finish::Cancelled(_, code), sink)) => {
                    sink.cancelled(code);
                    continue;
                }
                None => {}
            }
            match event {
                None if over => {
                    if let Some((stream, n)) = consumed {
                        self.session.core().mux.consumed(stream, n);
                    }
                    return Ok(());
                }
                None | Some(Event::Finished { .. }) => {}
                Some(Event::Data { stream, bytes }) => {
                    gathered.add(stream, bytes, || sink);
                }
                Some(event) => self.deliver(event, sink)?,
            }
        }
    }

    /// Delivers an event that carries no bytes of a stream.
    fn deliver(&mut self, event: Event<'_>, sink: Option<Arc<dyn Sink>>) -> Result<(), End> {
        match event {
            // Gathered, or reported with the next event.
            Event::Data { .. } | Event::Finished { .. } => {}
            Event::Reset { code, .. } => {
                if let Some(sink) = sink {
                    sink.reset(Reset::Peer(code));
                }
            }
            Event::Opened { stream, kind } => {
                match self.handler.opened(&self.session, stream, kind) {
                    Some(sink) => self.session.core().add_sink(stream, sink),
                    None => self.session.cancel(stream, Code::STREAM_REFUSED),
                }
                // The handler may have a new deadline.
                self.tick = Deadline::At(Instant::ZERO);
            }
            Event::Latency(latency) => {
                self.handler.latency(latency);
                self.tick = Deadline::At(Instant::ZERO);
            }
            Event::GoAway { code, text } => {
                self.handler.going_away(code, &text);
                self.goaway = Some((code, text.to_string()));
                // Open streams may finish. The muxer ends the session after them, or after a
                // few seconds (protocol 2.7).
            }
            Event::Over { code, reason } => {
                return Err(if reason == mux::Reason::PeerLeft {
                    self.lost("")
                } else {
                    End::Failed(code, reason.to_string())
                });
            }
            Event::Writable { .. } => {
                if let Some(sink) = sink {
                    sink.window();
                }
            }
        }
        Ok(())
    }

    /// Sends control frames. An error ends the session.
    fn send_control(&mut self) -> Result<(), End> {
        let (end, pump) = {
            let core = self.session.core();
            (core.end.clone(), core.mux.has_transmit())
        };
        if let Some(end) = end {
            return Err(end);
        }
        if pump {
            self.session.pump();
        }
        Ok(())
    }

    fn keep_time(&mut self) -> Result<(), End> {
        let now = self.now;
        let (mut due, held) = {
            let core = self.session.core();
            (core.deadline().due(now), core.mux.unconsumed())
        };
        while due {
            let event = self.session.core().tick(now);
            let Some(event) = event else { break };
            let sink = match &event {
                Event::Reset { stream, .. } => self.session.core().sink(*stream),
                _ => None,
            };
            self.deliver(event, sink)?;
            due = self.session.core().deadline().due(now);
        }
        self.input_limit.report(held);
        while self.input_limit.is_look_due(now) {
            let stalled = self.input_limit.stalled(&self.session.core().mux, now);
            let Some((stream, bytes)) = stalled else { break };
            self.evict(stream, bytes, now);
        }
        if self.tick.due(now) {
            self.tick = self.handler.tick(now);
        }
        Ok(())
    }
}
