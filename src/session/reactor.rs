//! The reactor: one thread a session, which reads, opens, parses, delivers and
//! keeps the time. It never blocks but in its poll, and never waits for a worker.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::handle::{LINK, Session};
use super::held_finish::{Finish, HeldFinish};
use super::input_limit::{BufferLimits, Input, InputLimit};
use super::{End, Handler, Reset, Sink};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{self, Code, Event, StreamId};
use crate::sys::{self, poll, threads};
use crate::time::{Deadline, Instant};
use crate::tls::Established;
use crate::tls::key_update::KeySchedule;
use crate::tls::records::{ContentType, HEADER, MAX_RECORD_BYTES, Opener};

const WAKE: Token = Token(1);

/// Bytes read at once: four full records, as the peer seals them.
const RECEIVE_BUFFER_BYTES: usize = 4 * MAX_RECORD_BYTES;

/// Unsent bytes that the kernel may hold: more would stand in front of the heartbeat.
const MAX_UNSENT_BYTES: i32 = 256 * 1024;

/// Bytes that the streams of an agent's session may hold: sixteen windows, where memory
/// is not short.
pub const BUFFERED: usize = 4 * 1024 * 1024;

/// Time after which a read that had to wait is tried again.
const INPUT_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// How long what is in the send buffer may take to leave when we close the session. Less
/// than the program waits for it.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 800 });

/// How long at most another thread's sending is waited for at the end.
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
    // Behind a proxy it may be a local socket, which has no delay.
    let _ = socket.set_nodelay(true);
    let fd = socket.as_raw_fd();
    sys::limit_unsent(fd, MAX_UNSENT_BYTES);
    let poll = Poll::new()?;
    poll.registry().register(&mut SourceFd(&fd), LINK, Interest::READABLE | Interest::WRITABLE)?;
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
        opener,
        receive_buffer: leftover,
        messages: Vec::new(),
        eviction_lines: LineQuota::per_minute(10),
        closing: false,
        goaway: None,
        tick: Deadline::At(now),
    };
    threads::REACTOR
        .spawn(Box::new(move || reactor.run(&early)))
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
    opener: Opener,
    /// Records received and not opened yet; the last one may be incomplete.
    receive_buffer: Vec<u8>,
    /// A handshake message that came in pieces (tickets, key updates).
    messages: Vec<u8>,
    /// Log lines about streams that were reset for a limit.
    eviction_lines: LineQuota,
    /// The poll has told of the link's end: it will not tell again.
    closing: bool,
    /// The peer's goodbye.
    goaway: Option<(Code, String)>,
    tick: Deadline,
}

impl Reactor {
    fn run(mut self, early: &[u8]) {
        let end = self.serve(early);
        self.session.fail(end.clone());
        self.send_last(matches!(end, End::Closed));
        loop {
            // In rounds: a sink may add another while it is told.
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

    /// What was queued last goes if the socket takes it, ends of streams and a GOAWAY
    /// perhaps. A thread that is sending gets a moment to send that too, and in a
    /// session that we close for no fault the socket gets one to take it.
    fn send_last(&self, patient: bool) {
        let now = sys::clock();
        let (soon, late) = (now + SENDER_TIMEOUT, now + CLOSE_TIMEOUT);
        loop {
            let (out, _) = self.session.push_out(self.session.out());
            let (lent, empty) = (out.send_buffer.is_lent(), out.send_buffer.is_empty());
            let until = if patient && !empty { late } else { soon };
            if !lent && (empty || !patient) || sys::clock() >= until {
                let _ = out.socket.shutdown(std::net::Shutdown::Both);
                return;
            }
            drop(out);
            if !lent {
                let _ = poll::writable(&self.fd, Some(Duration::from_millis(50)));
            }
            // In steps: a dead socket is always writable.
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn serve(&mut self, early: &[u8]) -> End {
        let mut events = Events::with_capacity(64);
        let mut input = Vec::new();
        let held = self.receive_buffer.len();
        let size = held.max(RECEIVE_BUFFER_BYTES);
        if input.try_reserve_exact(size).is_err() {
            return End::Lost("no memory for what is received".into());
        }
        input.resize(size, 0);
        input[..held].copy_from_slice(&self.receive_buffer);
        self.receive_buffer = Vec::new();
        let mut receive_buffer = ReceiveBuffer { buf: input, start: 0, end: held };
        if let Err(end) = self.frames(early).and_then(|()| self.records(&mut receive_buffer)) {
            return end;
        }
        let mut readable = true;
        loop {
            match self.turn(&mut events, &mut receive_buffer, &mut readable) {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
    }

    /// One turn: sleep, read, deliver, send, keep the time.
    fn turn(
        &mut self,
        events: &mut Events,
        receive_buffer: &mut ReceiveBuffer,
        readable: &mut bool,
    ) -> Result<(), End> {
        let timeout = self.timeout(*readable);
        if let Err(e) = self.poll.poll(events, timeout)
            && e.kind() != io::ErrorKind::Interrupted
        {
            return Err(End::Lost(e.to_string()));
        }
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
            // What all of them had to say goes out together.
            self.session.flush();
        }
        if *readable && self.takes_input() {
            *readable = self.receive(receive_buffer)?;
        }
        // Before sending: a beat that is due now is not to wait for the next event.
        self.keep_time()?;
        self.send_control()
    }

    fn timeout(&self, readable: bool) -> Option<Duration> {
        if readable {
            // There is more to read: at once, or while it has to wait in small steps.
            let waits = self.input_limit.is_waiting();
            return Some(if waits { INPUT_RETRY_INTERVAL } else { Duration::ZERO });
        }
        let mut due = self.session.core().deadline().min(self.tick);
        if let Some(look) = self.input_limit.next_look() {
            due = due.min(Deadline::At(look));
        }
        due.left(sys::clock())
    }

    /// Whether the peer is read now: not while buffers or control output are over their
    /// limit (protocol 2.5: the only back pressure below a window).
    fn takes_input(&mut self) -> bool {
        let now = sys::clock();
        loop {
            let next = self.input_limit.next(&self.session.core().mux, now);
            match next {
                Input::Read => return true,
                Input::Wait => return false,
                Input::Reset(stream, bytes) => self.evict(stream, bytes, now),
            }
        }
    }

    /// Resets a stream whose receiver does not take what it was sent.
    fn evict(&mut self, stream: StreamId, bytes: usize, now: Instant) {
        if let Some(count) = self.eviction_lines.record(now) {
            event!(
                warn,
                obj = "tunnel",
                "stream reset, its receiver does not take what it was sent",
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
    fn receive(&mut self, receive_buffer: &mut ReceiveBuffer) -> Result<bool, End> {
        let fd = self.fd;
        let space = receive_buffer.space();
        match sys::recv_now(fd, space) {
            Ok(0) => Err(self.lost("the peer closed the connection")),
            Ok(n) => {
                // A short read means that the socket is empty: the next byte is
                // a new event. But an end that came with these bytes is not.
                let more = n == space.len() || self.closing;
                receive_buffer.end += n;
                self.records(receive_buffer)?;
                Ok(more)
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

    /// Opens the whole records of the receive buffer.
    fn records(&mut self, receive_buffer: &mut ReceiveBuffer) -> Result<(), End> {
        loop {
            let waiting = receive_buffer.waiting();
            let broken = |e: &dyn std::fmt::Display| End::Lost(e.to_string());
            let Some(len) = Opener::record_len(waiting).map_err(|e| broken(&e))? else { break };
            let Some(record) = waiting.get_mut(..len) else { break };
            let (content, n) = self.opener.open(record).map_err(|e| broken(&e))?;
            let plain = &record[HEADER..HEADER + n];
            match content {
                ContentType::Data => self.frames(plain)?,
                ContentType::Handshake => self.handshake_message(plain)?,
                ContentType::Alert => {
                    // close_notify is the orderly end; every other one is an end too.
                    let why = match plain {
                        [_, 0] => "the peer closed the connection".to_owned(),
                        [_, code] => format!("the peer broke TLS off with alert {code}"),
                        _ => "the peer sent a malformed TLS alert".to_owned(),
                    };
                    return Err(self.lost(&why));
                }
            }
            receive_buffer.start += len;
        }
        receive_buffer.compact();
        Ok(())
    }

    /// Tickets and key updates (RFC 8446 section 4.6). A message may be split
    /// over records.
    fn handshake_message(&mut self, plain: &[u8]) -> Result<(), End> {
        const MOST: usize = 64 * 1024;
        const MISPLACED: &str = "a TLS key update in the middle of a record";
        let broken = |e: rustls::Error| End::Lost(e.to_string());
        self.messages.extend_from_slice(plain);
        while let Some(&[kind, a, b, c]) = self.messages.first_chunk() {
            let len = 4 + (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
            if len > MOST {
                return Err(End::Lost("a TLS message too large".into()));
            }
            let Some(message) = self.messages.get(4..len) else { break };
            let mut out = self.session.out();
            match (kind, message) {
                (4, ticket) => {
                    if matches!(out.kernel, KeySchedule::Client(_)) {
                        out.kernel.ticket(ticket).map_err(broken)?;
                    }
                }
                (24, [request]) => {
                    // What came behind it in the record would have had the old key.
                    if self.messages.len() > len {
                        return Err(End::Lost(MISPLACED.into()));
                    }
                    self.opener = out.kernel.next_opener().map_err(broken)?;
                    if *request == 1 && out.send_buffer.has_reserve() {
                        out.renew_key().map_err(End::Lost)?;
                    }
                }
                _ => return Err(End::Lost(format!("an unexpected TLS message of type {kind}"))),
            }
            drop(out);
            self.messages.drain(..len);
        }
        if self.messages.is_empty() {
            self.messages = Vec::new();
        }
        Ok(())
    }

    /// Parses frames and delivers what they carry.
    fn frames(&mut self, mut plain: &[u8]) -> Result<(), End> {
        let now = sys::clock();
        // What the last delivery consumed: told to the muxer at the next lock.
        let mut consumed: Option<(StreamId, usize)> = None;
        let mut held = HeldFinish::default();
        loop {
            let (event, sink, finish) = {
                let mut state = self.session.core();
                if let Some((stream, n)) = consumed.take() {
                    state.mux.consumed(stream, n);
                }
                let (n, event) = state.mux.receive(plain, now);
                plain = &plain[n..];
                if event.is_none() && !plain.is_empty() {
                    continue;
                }
                let sink = match &event {
                    Some(Event::Data { stream, .. }) => state.sink(*stream),
                    // A thread that waits for a window that never comes should not wait on.
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
                (event, sink, finish)
            };
            match finish {
                Some((Finish::Orderly(_), sink)) => sink.finished(),
                Some((Finish::Cancelled(_, code), sink)) => {
                    sink.cancelled(code);
                    continue;
                }
                None => {}
            }
            match event {
                None => return Ok(()),
                Some(Event::Finished { .. }) => {}
                Some(event) => consumed = self.deliver(event, sink)?,
            }
        }
    }

    fn deliver(
        &mut self,
        event: Event<'_>,
        sink: Option<Arc<dyn Sink>>,
    ) -> Result<Option<(StreamId, usize)>, End> {
        match event {
            Event::Data { stream, bytes } => {
                // Nobody's bytes are consumed: the stream's owner let it go.
                let n = sink.map_or(bytes.len(), |sink| sink.data(bytes));
                return Ok((n > 0).then_some((stream, n)));
            }
            // Reported once it is known what follows it.
            Event::Finished { .. } => {}
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
                // It may have something to wait for now.
                self.tick = Deadline::At(Instant::ZERO);
            }
            Event::Latency(latency) => {
                self.handler.latency(latency);
                self.tick = Deadline::At(Instant::ZERO);
            }
            Event::GoAway { code, text } => {
                self.handler.going_away(code, &text);
                self.goaway = Some((code, text.to_string()));
                // Streams that run may finish; the muxer ends the session when they
                // have, or after a few seconds (protocol 2.7).
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
        Ok(None)
    }

    /// Sends control frames; tells whether the session goes on.
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
        let now = sys::clock();
        while self.session.core().deadline().due(now) {
            let event = self.session.core().tick(now);
            let Some(event) = event else { break };
            let sink = match &event {
                Event::Reset { stream, .. } => self.session.core().sink(*stream),
                _ => None,
            };
            self.deliver(event, sink)?;
        }
        loop {
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

/// Received bytes that wait to be opened.
struct ReceiveBuffer {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    fn waiting(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.end]
    }

    /// Where to receive to. Never empty after [`Self::compact`]: a record is
    /// smaller than the buffer.
    fn space(&mut self) -> &mut [u8] {
        &mut self.buf[self.end..]
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}
