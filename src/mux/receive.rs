//! Bytes of the peer: the effect of each frame on the session (protocol 2.2 to 2.7).
//!
//! Frames are read piece by piece. A payload is never stored. Only headers and the fixed parts
//! of control frames are collected, in eight bytes.

use super::fault_injection::{self, Bug};
use super::flood::Flood;
use super::frame::{FrameHeader, FrameType, HEADER_BYTES};
use super::heartbeat::Echo;
use super::lifecycle::Linger;
use super::muxer::Muxer;
use super::stream::{HalfState, Purpose, StreamState};
use super::table::StreamSlot;
use super::typed::PartialU32;
use super::{Code, Event, Reason, StreamId, StreamType};
use crate::time::Instant;

/// Most bytes of a GOAWAY's text that are stored.
const MAX_TEXT: usize = 256;

/// Shorter payloads of DATA without FIN count as tiny.
const TINY_PAYLOAD_BYTES: u32 = 16;

/// Position of the next byte in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FramePosition {
    /// In a header.
    #[default]
    FrameHeader,
    /// In the fixed part of RST, WNDINC or GOAWAY.
    Fixed(FrameHeader),
    /// In the payload of DATA, with `left` bytes to come. With 0 the FIN is handled next.
    Data { slot: StreamSlot, left: u32, fin: bool },
    /// In bytes that are dropped.
    Skip { left: u32 },
    /// In the text of a GOAWAY.
    Text { last: u32, left: u32 },
    /// Between frames: our streams above `last` are reset because of a GOAWAY.
    Failing { last: u32 },
}

/// Position in the peer's bytes.
#[derive(Debug, Default)]
pub(super) struct FrameReader {
    reading: FramePosition,
    part: [u8; HEADER_BYTES],
    got: usize,
    text: Vec<u8>,
    /// The stream whose direction the frame before ended by its FIN. An RST directly after it
    /// means that the FIN was not an orderly end. The stream may be gone by then: this side may
    /// have ended its direction before or between the two.
    just_finished: Option<StreamId>,
}

impl FrameReader {
    /// Records that this side has reset `stream`: a reset by the peer is not reported.
    pub(super) fn forget_finished(&mut self, stream: StreamId) {
        self.just_finished = self.just_finished.filter(|finished| *finished != stream);
    }

    /// Collects `need` bytes from the front of `rest`. Returns `None` until all have arrived.
    /// Bytes beyond `need` are zero.
    fn collect(&mut self, need: usize, rest: &mut &[u8]) -> Option<[u8; HEADER_BYTES]> {
        if self.got == 0
            && need == HEADER_BYTES
            && let Some((whole, after)) = rest.split_first_chunk::<HEADER_BYTES>()
        {
            *rest = after;
            return Some(*whole);
        }
        while self.got < need {
            let (&byte, after) = rest.split_first()?;
            *self.part.get_mut(self.got)? = byte;
            self.got += 1;
            *rest = after;
        }
        self.got = 0;
        Some(std::mem::take(&mut self.part))
    }

    /// Returns its memory on the heap, in bytes.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.text.capacity()
    }

    fn read_data(&mut self, slot: StreamSlot, left: u32, fin: bool) {
        self.reading = if left > 0 || fin {
            FramePosition::Data { slot, left, fin }
        } else {
            FramePosition::FrameHeader
        };
    }

    fn skip(&mut self, left: u32) {
        self.reading =
            if left > 0 { FramePosition::Skip { left } } else { FramePosition::FrameHeader };
    }
}

impl Muxer {
    /// Processes bytes of the peer. Returns how many were read from the front of `input`, and
    /// at most one event. It must be called with the rest until all bytes are read **and** no
    /// event is returned.
    pub fn receive<'b>(&mut self, input: &'b [u8], now: Instant) -> (usize, Option<Event<'b>>) {
        self.now = now;
        let mut rest = input;
        let event = loop {
            if let Some(over) = self.take_internal_error() {
                rest = &[];
                break Some(over);
            }
            if self.over {
                rest = &[];
                break None;
            }
            let event = match self.reader.reading {
                FramePosition::FrameHeader => match self.reader.collect(HEADER_BYTES, &mut rest) {
                    Some(header) => self.header(FrameHeader::decode(header), now),
                    None => break None,
                },
                FramePosition::Fixed(header) => {
                    let need = if header.kind == FrameType::GoAway { 8 } else { 4 };
                    match self.reader.collect(need, &mut rest) {
                        Some(fixed) => self.fixed(header, fixed, now),
                        None => break None,
                    }
                }
                FramePosition::Data { slot, left: 0, fin } => {
                    self.reader.reading = FramePosition::FrameHeader;
                    if fin { self.finished(slot, now) } else { None }
                }
                FramePosition::Failing { last } => self.reset_above(last),
                _ if rest.is_empty() => break None,
                FramePosition::Data { slot, left, fin } => {
                    self.data(slot, left, fin, &mut rest, now)
                }
                FramePosition::Skip { left } => {
                    let n = piece(rest, left);
                    rest = rest.get(n as usize..).unwrap_or_default();
                    self.reader.skip(left.saturating_sub(n));
                    None
                }
                FramePosition::Text { last, left } => {
                    let n = piece(rest, left);
                    let (text, after) = rest.split_at_checked(n as usize).unwrap_or((rest, &[]));
                    rest = after;
                    self.text(last, left.saturating_sub(n), text)
                }
            };
            if event.is_some() {
                break event;
            }
        };
        if self.over {
            rest = &[];
        }
        (input.len() - rest.len(), event)
    }

    fn header(&mut self, header: FrameHeader, now: Instant) -> Option<Event<'static>> {
        if header.kind != FrameType::Rst {
            self.reader.just_finished = None;
        }
        let unreadable = match header.kind {
            FrameType::Unknown(_) | FrameType::GoAway => true,
            FrameType::Data => header.length > self.config.window || header.syn(),
            FrameType::Rst | FrameType::WndInc => false,
        };
        let checked = header.check();
        // After a GOAWAY, whose length may have been wrong, an invalid frame is the end
        // (protocol 2.7).
        if self.goaway_received.is_some() && (unreadable || checked.is_err()) {
            return Some(self.end_after_goaway());
        }
        if let Err((code, reason)) = checked {
            return Some(self.session_error(code, reason));
        }
        match header.kind {
            FrameType::Rst | FrameType::WndInc | FrameType::GoAway => {
                self.reader.reading = FramePosition::Fixed(header);
                None
            }
            FrameType::Data => self.data_header(header, now),
            FrameType::Unknown(_) => {
                self.reader.skip(header.length);
                self.spend(Flood::Useless, now)
            }
        }
    }

    fn data_header(&mut self, header: FrameHeader, now: Instant) -> Option<Event<'static>> {
        let id = StreamId(header.stream);
        let found = self.table.find(id);
        if header.syn() {
            return self.syn(header, found.is_some(), now);
        }
        let Some((slot, stream)) = found
            .and_then(|slot| self.table.get(slot).map(|s| (slot, s)))
            .filter(|(_, s)| !s.lingers)
        else {
            self.reader.skip(header.length);
            return self.data_on_unknown_stream(id, header.length, now);
        };
        if header.length == 0 {
            self.reader.read_data(slot, 0, header.fin());
            return if header.fin() { None } else { self.spend(Flood::Empty, now) };
        }
        if stream.receive == HalfState::Finished {
            self.reader.skip(header.length);
            return self.stream_error(id, Code::STREAM_CLOSED, now);
        }
        if !stream.receive_window.announce(header.length) {
            self.reader.skip(header.length);
            return self.stream_error(id, Code::FLOW_CONTROL_ERROR, now);
        }
        self.reader.read_data(slot, header.length, header.fin());
        if header.length < TINY_PAYLOAD_BYTES && !header.fin() {
            self.spend(Flood::Tiny, now)
        } else {
            None
        }
    }

    /// Handles a SYN of the peer.
    fn syn(&mut self, header: FrameHeader, in_use: bool, now: Instant) -> Option<Event<'static>> {
        let stream = StreamId(header.stream);
        if self.config.role.owns(stream) {
            return Some(self.session_error(Code::PROTOCOL_ERROR, Reason::WrongParity { stream }));
        }
        if in_use {
            return Some(self.session_error(Code::PROTOCOL_ERROR, Reason::DuplicateSyn { stream }));
        }
        self.last_peer_stream = self.last_peer_stream.max(stream.0);
        self.reset_streams.remove(stream);
        let full = self.table.len() >= self.config.max_streams
            || self.untyped >= self.config.accept_backlog;
        let mut new =
            StreamState::new(stream, Purpose::Untyped(PartialU32::default()), self.config.window);
        let code = if full {
            Code::ACCEPT_QUEUE_FULL
        } else if new.receive_window.announce(header.length) {
            let Some(slot) = self.table.insert(new) else {
                self.internal_error("a stream that is not in use is in use");
                return None;
            };
            self.untyped += 1;
            self.type_deadlines.push_back((stream, now + self.config.type_deadline));
            self.reader.read_data(slot, header.length, header.fin());
            return None;
        } else {
            Code::FLOW_CONTROL_ERROR
        };
        self.reader.skip(header.length);
        self.control_queue.rst(stream, code);
        self.reset_streams.add(stream);
        self.spend(Flood::Refusals, now)
    }

    /// Handles a DATA frame for an unknown or ended stream.
    fn data_on_unknown_stream(
        &mut self,
        stream: StreamId,
        length: u32,
        now: Instant,
    ) -> Option<Event<'static>> {
        if length == 0 {
            return self.spend(Flood::Useless, now);
        }
        let answered = self.reset_streams.contains(stream);
        if !answered || fault_injection::is(Bug::DoubleRst) {
            self.control_queue.rst(stream, Code::STREAM_CLOSED);
            self.reset_streams.add(stream);
        }
        // Frames that were in flight when this side reset the stream are valid.
        let existed = match self.config.role.owns(stream) {
            true => stream.0 < self.next_id,
            false => stream.0 <= self.last_peer_stream,
        };
        self.spend(if existed || answered { Flood::Useless } else { Flood::Resets }, now)
    }

    /// Ends one stream because the peer broke a rule on it.
    fn stream_error(
        &mut self,
        stream: StreamId,
        code: Code,
        now: Instant,
    ) -> Option<Event<'static>> {
        let known = self.table.by_id(stream).is_some_and(|s| s.is_application());
        self.reset_stream(stream, code);
        let flooded = self.spend(Flood::Resets, now);
        flooded.or(known.then_some(Event::Reset { stream, code }))
    }

    /// Handles a piece of a DATA payload. `rest` is not empty, `left` is not 0.
    fn data<'b>(
        &mut self,
        slot: StreamSlot,
        left: u32,
        fin: bool,
        rest: &mut &'b [u8],
        now: Instant,
    ) -> Option<Event<'b>> {
        let n = piece(rest, left);
        let (bytes, after) = rest.split_at_checked(n as usize).unwrap_or((rest, &[]));
        let Some(stream) = self.table.get(slot).filter(|s| !s.lingers) else {
            // The application reset it in the middle of the frame.
            self.reader.skip(left);
            return None;
        };
        if stream.is_application() {
            *rest = after;
            if stream.receive_window.unconsumed() == 0 {
                stream.progress = now;
                self.holders += 1;
            }
            stream.receive_window.arrived(n);
            self.unconsumed = self.unconsumed.saturating_add(bytes.len());
            let id = stream.id;
            self.reader.read_data(slot, left.saturating_sub(n), fin);
            return Some(Event::Data { stream: id, bytes });
        }
        let (taken, event) = self.internal_data(slot, bytes, now);
        *rest = rest.get(taken..).unwrap_or_default();
        self.reader.read_data(slot, left.saturating_sub(taken as u32), fin);
        event
    }

    /// Handles bytes for the session itself: a stream's type, a heartbeat or an echo. Returns
    /// how many were read.
    fn internal_data(
        &mut self,
        slot: StreamSlot,
        bytes: &[u8],
        now: Instant,
    ) -> (usize, Option<Event<'static>>) {
        let Some(stream) = self.table.get(slot) else { return (0, None) };
        let id = stream.id;
        match &mut stream.purpose {
            Purpose::Untyped(four) => {
                let (taken, kind) = four.take(bytes);
                stream.receive_window.swallowed(taken as u32);
                (taken, kind.and_then(|kind| self.type_complete(id, StreamType(kind), now)))
            }
            Purpose::Responder(four) => {
                let (taken, beat) = four.take(bytes);
                stream.receive_window.swallowed(taken as u32);
                if let Some(number) = beat
                    && stream.send_window.left() >= 4
                {
                    stream.send_window.take(4, 4);
                    let swap = fault_injection::is(Bug::EchoSwapped);
                    self.control_queue.beat(id, if swap { number.swap_bytes() } else { number });
                }
                self.queue_window_update(slot);
                (taken, beat.and_then(|_| self.spend(Flood::Beats, now)))
            }
            Purpose::Requester => {
                let Some(heartbeat) = &mut self.heartbeat else {
                    self.internal_error("a heartbeat stream without a heartbeat");
                    return (0, None);
                };
                let (taken, echo) = heartbeat.echo(bytes, now);
                stream.receive_window.swallowed(taken as u32);
                self.queue_window_update(slot);
                let event = match echo {
                    Echo::Incomplete => None,
                    Echo::Good(latency) => {
                        self.latency = Some(latency);
                        Some(Event::Latency(latency))
                    }
                    Echo::Wrong => {
                        Some(self.session_error(Code::PROTOCOL_ERROR, Reason::WrongEcho))
                    }
                };
                (taken, event)
            }
            Purpose::Application => {
                self.internal_error("the application's bytes are read by the session");
                (0, None)
            }
        }
    }

    /// Handles the complete type of a stream.
    fn type_complete(
        &mut self,
        id: StreamId,
        kind: StreamType,
        now: Instant,
    ) -> Option<Event<'static>> {
        let heartbeat = kind == StreamType::HEARTBEAT;
        if heartbeat && self.responders >= self.config.max_heartbeats {
            self.reset_stream(id, Code::STREAM_REFUSED);
            return self.spend(Flood::Refusals, now);
        }
        let stream = self.table.by_id(id)?;
        stream.purpose = match heartbeat {
            true => Purpose::Responder(PartialU32::default()),
            false => Purpose::Application,
        };
        self.responders += usize::from(heartbeat);
        self.untyped = self.untyped.saturating_sub(1);
        self.prune_type_deadlines();
        (!heartbeat).then_some(Event::Opened { stream: id, kind })
    }

    /// Handles FIN, after the payload of its frame.
    fn finished(&mut self, slot: StreamSlot, now: Instant) -> Option<Event<'static>> {
        let stream = self.table.get(slot).filter(|s| !s.lingers)?;
        let id = stream.id;
        if stream.receive == HalfState::Finished {
            return self.spend(Flood::Useless, now);
        }
        stream.receive = HalfState::Finished;
        match stream.purpose {
            Purpose::Application => {
                if stream.send == HalfState::Finished {
                    self.remove_stream(id, Linger::WhileUnconsumed);
                }
                self.reader.just_finished = Some(id);
                Some(Event::Finished { stream: id })
            }
            // Closed before its type was complete, or no further heartbeats: this side closes
            // it too.
            Purpose::Untyped(_) | Purpose::Responder(_) => {
                self.control_queue.fin(id);
                self.remove_stream(id, Linger::No);
                self.spend(Flood::Churn, now)
            }
            // No echo can arrive any longer. The deadline of the heartbeat handles that.
            Purpose::Requester => None,
        }
    }

    /// Handles RST, WNDINC or the fixed part of GOAWAY.
    fn fixed(
        &mut self,
        header: FrameHeader,
        [a, b, c, d, e, f, g, h]: [u8; HEADER_BYTES],
        now: Instant,
    ) -> Option<Event<'static>> {
        self.reader.reading = FramePosition::FrameHeader;
        let first = u32::from_be_bytes([a, b, c, d]);
        let stream = StreamId(header.stream);
        match header.kind {
            FrameType::Rst => self.rst(stream, Code(first), now),
            FrameType::WndInc => self.wndinc(stream, first & super::frame::ID_MASK, now),
            FrameType::GoAway => {
                let code = Code(u32::from_be_bytes([e, f, g, h]));
                // The grace period begins now, even if the text never arrives.
                self.goaway_received = Some((code, now + self.config.leave_grace));
                let last = first & super::frame::ID_MASK;
                self.reader.reading =
                    FramePosition::Text { last, left: header.length.saturating_sub(8) };
                if header.length == 8 { self.text(last, 0, &[]) } else { None }
            }
            FrameType::Data | FrameType::Unknown(_) => {
                self.internal_error("a frame without a fixed part has one");
                None
            }
        }
    }

    fn rst(&mut self, stream: StreamId, code: Code, now: Instant) -> Option<Event<'static>> {
        let Some(s) = self.table.by_id(stream).filter(|s| !s.lingers) else {
            if self.reader.just_finished.take() == Some(stream) && code != Code::STREAM_CLOSED {
                return Some(Event::Reset { stream, code });
            }
            if fault_injection::is(Bug::RstAnswered) {
                self.control_queue.rst(stream, Code::STREAM_CLOSED);
            }
            return self.spend(Flood::Useless, now);
        };
        let application = s.is_application();
        self.remove_stream(stream, Linger::WhileUnconsumed);
        let flooded = match self.config.role.owns(stream) {
            true => None,
            false => self.spend(Flood::Churn, now),
        };
        flooded.or(application.then_some(Event::Reset { stream, code }))
    }

    fn wndinc(&mut self, stream: StreamId, increment: u32, now: Instant) -> Option<Event<'static>> {
        if increment == 0 {
            return Some(
                self.session_error(Code::PROTOCOL_ERROR, Reason::ZeroIncrement { stream }),
            );
        }
        let Some(s) = self.table.by_id(stream).filter(|s| !s.lingers) else {
            return self.spend(Flood::Useless, now);
        };
        let fits = s.send_window.add(increment);
        let unblocked = s.blocked && s.send_window.left() > 0;
        if unblocked {
            s.blocked = false;
            return (!fault_injection::is(Bug::WritableLost)).then_some(Event::Writable { stream });
        }
        if fits { None } else { self.spend(Flood::Useless, now) }
    }

    /// Handles a piece of a GOAWAY's text, `left` bytes before its end.
    fn text(&mut self, last: u32, left: u32, text: &[u8]) -> Option<Event<'static>> {
        let room = MAX_TEXT.saturating_sub(self.reader.text.len());
        self.reader.text.extend(text.iter().take(room));
        if left > 0 {
            self.reader.reading = FramePosition::Text { last, left };
            return None;
        }
        self.reader.reading = FramePosition::Failing { last };
        let text = std::mem::take(&mut self.reader.text);
        let text = String::from_utf8_lossy(&text).replace(char::is_control, "?");
        let (code, _) = self.goaway_received?;
        Some(Event::GoAway { code, text: text.trim_end().into() })
    }

    /// Ends our streams above `last`, which the peer never received, one in each call.
    fn reset_above(&mut self, last: u32) -> Option<Event<'static>> {
        let role = self.config.role;
        let lost =
            |s: &&StreamState| s.id.0 > last && role.owns(s.id) && s.is_application() && !s.lingers;
        let next = self.table.iter().find(lost).map(|s| s.id);
        match next {
            Some(stream) => {
                self.remove_stream(stream, Linger::WhileUnconsumed);
                Some(Event::Reset { stream, code: Code::REMOTE_GONE_AWAY })
            }
            None => {
                self.reader.reading = FramePosition::FrameHeader;
                None
            }
        }
    }

    /// Spends one unit of a budget. Returns the end of the session if it is exhausted.
    fn spend(&mut self, flood: Flood, now: Instant) -> Option<Event<'static>> {
        if self.budgets.spend(flood, now) { None } else { Some(self.flood_error(flood)) }
    }
}

/// Returns how many bytes of `rest` belong to a payload with `left` bytes to come.
fn piece(rest: &[u8], left: u32) -> u32 {
    u32::try_from(rest.len()).unwrap_or(u32::MAX).min(left)
}
