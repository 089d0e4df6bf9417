//! Observes the HTTP/1.1 of one connection in both directions, as its bytes pass.
//!
//! Sans-IO: slices are passed in as they arrive, and [`ExchangeSink`] is notified which of them
//! belong to which exchange. Bytes are never delayed or changed. Bodies are not copied or
//! searched: a body with a length is skipped at once. A connection is not observed any longer
//! when it is not HTTP/1, or when two parsers could read it differently. The memory of a
//! connection is limited by `MAX_LINE_BYTES` for each direction, used only while a line is
//! incomplete, and by [`MAX_PIPELINED`]. Sockets, clock and store do not belong here.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::http1::chunked::ChunkedDecoder;
use crate::http1::error::HttpError;
use crate::http1::framing::{BodyFraming, FramingFields, MessageKind, RequestMethod};
use crate::http1::line::{
    self, HttpVersion, LenientFields, LenientLine, RequestLine, StatusLine, Strictness,
};
use crate::http1::status;
use crate::proto::proxy_protocol::{self, Prefix};
use crate::sys::sync::Mutex;

/// Maximum size of a head.
pub const MAX_HEAD_BYTES: usize = 32 * 1024;

/// Most bytes of an incomplete line that are stored, and most bytes of a line that frames a
/// body.
const MAX_LINE_BYTES: usize = 512;

/// Bytes at the end of a longer line that are stored too: a request's version is there.
const LINE_TAIL_BYTES: usize = 16;

/// Longest method.
const MAX_METHOD_BYTES: usize = 32;

/// Maximum number of requests that wait for their responses on one connection.
pub const MAX_PIPELINED: usize = 32;

/// Direction of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the visitor.
    Request,
    /// From the upstream.
    Response,
}

/// Event of one side of an exchange. Each side of an exchange ends with exactly one `Complete`
/// or `Incomplete`, unless it was not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageEvent {
    /// Its head is complete. With the status; 0 for a request.
    Head(u16),
    /// The bytes so far were an interim response: to be deleted.
    Interim,
    /// It is complete. With its number of bytes.
    Complete(u64),
    /// It was truncated, or could not be followed. With the number of observed bytes.
    Incomplete(u64),
    /// It is not a request: the exchange is to be deleted.
    NotARequest,
}

/// Receiver of the observer's results.
pub trait ExchangeSink {
    /// A request begins. Returns the number of its exchange.
    fn begin(&mut self) -> u64;
    /// The next bytes of one side of an exchange. Returns false if further bytes are not
    /// needed.
    fn bytes(&mut self, exchange: u64, side: Side, bytes: &[u8]) -> bool;
    /// An event of one side of an exchange.
    fn event(&mut self, exchange: u64, side: Side, event: MessageEvent);
    /// The connection carries another protocol after this exchange, or no longer does.
    fn tunnel(&mut self, _exchange: u64, _bytes: &Arc<TunnelBytes>, _is_open: bool) {}
}

/// Bytes of an upgraded connection after its handshake, shared with the store.
#[derive(Debug, Default)]
pub struct TunnelBytes(Mutex<[u64; 2]>);

impl TunnelBytes {
    fn add(&self, side: Side, bytes: usize) {
        self.0.lock()[side as usize] += bytes as u64;
    }

    /// Returns the bytes from the visitor, and those from the upstream.
    pub fn sums(&self) -> [u64; 2] {
        *self.0.lock()
    }
}

/// Observer of one connection.
#[derive(Debug)]
pub struct HttpObserver {
    request: MessageParser,
    response: MessageParser,
    /// Oldest first. Responses are in the order of the requests.
    exchanges: VecDeque<OpenExchange>,
    /// Exchange after which the connection carries another protocol.
    tunnel: Option<(u64, Arc<TunnelBytes>)>,
}

#[derive(Debug)]
struct OpenExchange {
    id: u64,
    method: RequestMethod,
    /// The request has ended.
    request_done: bool,
    /// The response has ended.
    response_done: bool,
}

impl HttpObserver {
    /// Creates the observer of a new connection. `prefix`: a PROXY header comes first.
    pub fn new(prefix: bool) -> Self {
        let first = if prefix { HttpParseState::Prefix } else { HttpParseState::Start };
        HttpObserver {
            request: MessageParser::new(first),
            response: MessageParser::new(HttpParseState::Start),
            exchanges: VecDeque::new(),
            tunnel: None,
        }
    }

    /// Returns whether every exchange has ended on both sides.
    pub fn is_idle(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Returns its memory on the heap, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let lines = self.request.line.capacity() + self.response.line.capacity();
        lines + self.exchanges.capacity() * size_of::<OpenExchange>()
    }

    /// Processes the next bytes of one direction.
    pub fn feed(&mut self, side: Side, bytes: &[u8], sink: &mut dyn ExchangeSink) {
        if let Some((_, passed)) = &self.tunnel {
            return passed.add(side, bytes.len());
        }
        match side {
            Side::Request => self.requests(bytes, sink),
            Side::Response => self.responses(bytes, sink),
        }
    }

    fn requests(&mut self, bytes: &[u8], sink: &mut dyn ExchangeSink) {
        // Parsed bytes, and those of them that were reported.
        let (mut at, mut reported) = (0, 0);
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
            && self.request.state != HttpParseState::Off
        {
            let (n, step) = self.request.step(rest, Side::Request);
            at += n;
            let done = match step {
                ParseStep::More => continue,
                ParseStep::Begins => {
                    if !self.begin_exchange(sink) {
                        return;
                    }
                    reported = at;
                    continue;
                }
                ParseStep::Head => match self.request.head.request_body() {
                    Ok(body) => {
                        let Some(newest) = self.exchanges.back_mut() else { return };
                        newest.method = self.request.head.method;
                        let id = newest.id;
                        self.request.report(id, Side::Request, bytes, &mut reported, at, sink);
                        sink.event(id, Side::Request, MessageEvent::Head(0));
                        self.request.begin_body(body)
                    }
                    Err(_) => return self.stop_requests(bytes, reported, at, sink),
                },
                ParseStep::Done => true,
                ParseStep::Failed => return self.stop_requests(bytes, reported, at, sink),
            };
            if done {
                let Some(newest) = self.exchanges.back_mut() else { return };
                newest.request_done = true;
                let (id, method) = (newest.id, newest.method);
                self.request.report(id, Side::Request, bytes, &mut reported, at, sink);
                sink.event(id, Side::Request, MessageEvent::Complete(self.request.total));
                self.request.reset();
                if method == RequestMethod::Connect {
                    // The following bytes are HTTP only if the upgrade is refused.
                    self.request.stop();
                }
                self.remove_finished();
            }
        }
        if self.request.in_message()
            && let Some(newest) = self.exchanges.back()
        {
            let id = newest.id;
            self.request.report(id, Side::Request, bytes, &mut reported, bytes.len(), sink);
        }
    }

    /// Begins an exchange. Returns false if the limit is reached; then no further requests are
    /// observed.
    fn begin_exchange(&mut self, sink: &mut dyn ExchangeSink) -> bool {
        if self.exchanges.len() >= MAX_PIPELINED {
            // Open requests still get their responses.
            self.request.stop();
            return false;
        }
        let (id, method) = (sink.begin(), RequestMethod::Other);
        self.exchanges.push_back(OpenExchange {
            id,
            method,
            request_done: false,
            response_done: false,
        });
        true
    }

    /// Stops observing requests, because the visitor does not speak HTTP or no longer does.
    /// Open responses are still observed.
    fn stop_requests(
        &mut self,
        bytes: &[u8],
        mut reported: usize,
        at: usize,
        sink: &mut dyn ExchangeSink,
    ) {
        if self.request.in_message()
            && let Some(newest) = self.exchanges.back_mut()
        {
            let id = newest.id;
            if self.request.in_head() && !newest.response_done {
                sink.event(id, Side::Request, MessageEvent::NotARequest);
                self.exchanges.pop_back();
            } else {
                newest.request_done = true;
                self.request.report(id, Side::Request, bytes, &mut reported, at, sink);
                sink.event(id, Side::Request, MessageEvent::Incomplete(self.request.total));
                self.remove_finished();
            }
        }
        self.request.stop();
        if self.exchanges.is_empty() {
            self.response.stop();
        }
    }

    fn responses(&mut self, bytes: &[u8], sink: &mut dyn ExchangeSink) {
        let (mut at, mut reported) = (0, 0);
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
            && self.response.state != HttpParseState::Off
        {
            // A response without a request, or before its request is complete.
            let Some(oldest) = self.exchanges.front().filter(|oldest| !oldest.response_done) else {
                return self.abort(sink);
            };
            let (id, method) = (oldest.id, oldest.method);
            let (n, step) = self.response.step(rest, Side::Response);
            at += n;
            let done = match step {
                ParseStep::More => continue,
                ParseStep::Begins => {
                    reported = at;
                    continue;
                }
                ParseStep::Head => {
                    let status = self.response.head.status;
                    if status::is_interim(status) {
                        if self.response.total > 0 {
                            sink.event(id, Side::Response, MessageEvent::Interim);
                        }
                        self.response.reset();
                        continue;
                    }
                    self.response.report(id, Side::Response, bytes, &mut reported, at, sink);
                    sink.event(id, Side::Response, MessageEvent::Head(status));
                    match self.response.head.response_body(method) {
                        // The connection carries another protocol after this head.
                        Ok(BodyFraming::Tunnel) => {
                            self.finish_response(id, sink);
                            self.abort(sink);
                            let passed = Arc::new(TunnelBytes::default());
                            passed.add(Side::Response, bytes.len() - at);
                            sink.tunnel(id, &passed, true);
                            self.tunnel = Some((id, passed));
                            return;
                        }
                        Ok(body) => self.response.begin_body(body),
                        Err(_) => return self.abort(sink),
                    }
                }
                ParseStep::Done => true,
                ParseStep::Failed => {
                    self.response.report(id, Side::Response, bytes, &mut reported, at, sink);
                    return self.abort(sink);
                }
            };
            if done {
                self.response.report(id, Side::Response, bytes, &mut reported, at, sink);
                self.finish_response(id, sink);
            }
        }
        if self.response.in_message()
            && let Some(oldest) = self.exchanges.front()
        {
            let id = oldest.id;
            self.response.report(id, Side::Response, bytes, &mut reported, bytes.len(), sink);
        }
    }

    /// Completes the oldest response.
    fn finish_response(&mut self, id: u64, sink: &mut dyn ExchangeSink) {
        sink.event(id, Side::Response, MessageEvent::Complete(self.response.total));
        self.response.reset();
        if let Some(oldest) = self.exchanges.front_mut() {
            oldest.response_done = true;
        }
        self.remove_finished();
        if self.exchanges.is_empty() && self.request.state == HttpParseState::Off {
            self.response.stop();
        }
    }

    /// Removes an exchange that has ended on both sides.
    fn remove_finished(&mut self) {
        while self
            .exchanges
            .front()
            .is_some_and(|oldest| oldest.request_done && oldest.response_done)
        {
            self.exchanges.pop_front();
        }
    }

    /// Processes the orderly end of one direction.
    pub fn finish(&mut self, side: Side, sink: &mut dyn ExchangeSink) {
        match side {
            // It ends with its connection.
            _ if self.tunnel.is_some() => {}
            Side::Request => {
                if self.request.state != HttpParseState::Off {
                    self.stop_requests(&[], 0, 0, sink);
                }
            }
            Side::Response => {
                if self.response.state == HttpParseState::UntilClose
                    && let Some(oldest) = self.exchanges.front()
                {
                    self.finish_response(oldest.id, sink);
                }
                self.abort(sink);
            }
        }
    }

    /// Stops observing. Open exchanges stay as they are.
    pub fn abort(&mut self, sink: &mut dyn ExchangeSink) {
        if let Some((id, passed)) = self.tunnel.take() {
            sink.tunnel(id, &passed, false);
        }
        let asking = self.request.in_message();
        let mut answering = self.response.in_message();
        while let Some(exchange) = self.exchanges.pop_front() {
            if !exchange.request_done {
                if asking && self.request.in_head() && !exchange.response_done {
                    sink.event(exchange.id, Side::Request, MessageEvent::NotARequest);
                    continue;
                }
                sink.event(
                    exchange.id,
                    Side::Request,
                    MessageEvent::Incomplete(self.request.total),
                );
            }
            if !exchange.response_done {
                let total = if answering { self.response.total } else { 0 };
                answering = false;
                sink.event(exchange.id, Side::Response, MessageEvent::Incomplete(total));
            }
        }
        self.exchanges = VecDeque::new();
        self.request.stop();
        self.response.stop();
    }
}

/// Parser of one direction.
#[derive(Debug)]
struct MessageParser {
    state: HttpParseState,
    /// Bytes of an incomplete line.
    line: Vec<u8>,
    /// Bytes of the current head, trailers, or line between two chunks.
    lines: usize,
    head: HeadSummary,
    /// Bytes of the message so far.
    total: u64,
    /// Whether the sink still needs them.
    is_wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HttpParseState {
    /// Before a PROXY header.
    Prefix,
    /// In the PROXY header.
    Skip(usize),
    /// Between two messages.
    Start,
    /// In the first line.
    First,
    /// In the fields.
    Fields,
    /// In a body, with the remaining length.
    Length(u64),
    /// In a chunked body.
    Chunked(ChunkedDecoder),
    /// In a body that ends with the connection.
    UntilClose,
    /// No longer observing.
    Off,
}

enum ParseStep {
    /// All bytes were parsed.
    More,
    /// A message begins at this position.
    Begins,
    /// The head is complete.
    Head,
    /// The message is complete.
    Done,
    /// The bytes are not HTTP/1.
    Failed,
}

impl MessageParser {
    fn new(state: HttpParseState) -> Self {
        MessageParser {
            state,
            line: Vec::new(),
            lines: 0,
            head: HeadSummary::default(),
            total: 0,
            is_wanted: true,
        }
    }

    fn stop(&mut self) {
        self.state = HttpParseState::Off;
        self.line = Vec::new();
    }

    /// Prepares for the next message.
    fn reset(&mut self) {
        self.state = HttpParseState::Start;
        self.head = HeadSummary::default();
        self.lines = 0;
        self.total = 0;
        self.is_wanted = true;
    }

    fn in_message(&self) -> bool {
        !matches!(
            self.state,
            HttpParseState::Prefix
                | HttpParseState::Skip(_)
                | HttpParseState::Start
                | HttpParseState::Off
        )
    }

    fn in_head(&self) -> bool {
        matches!(self.state, HttpParseState::First | HttpParseState::Fields)
    }

    /// Begins the body after a head. Returns whether the message has none.
    fn begin_body(&mut self, body: BodyFraming) -> bool {
        self.lines = 0;
        self.state = match body {
            BodyFraming::None | BodyFraming::Tunnel => return true,
            BodyFraming::Length(n) => HttpParseState::Length(n),
            BodyFraming::Chunked => {
                HttpParseState::Chunked(ChunkedDecoder::new(Strictness::Lenient))
            }
            BodyFraming::UntilClose => HttpParseState::UntilClose,
        };
        false
    }

    /// Reports the bytes from `reported` to `end`.
    fn report(
        &mut self,
        id: u64,
        side: Side,
        bytes: &[u8],
        reported: &mut usize,
        end: usize,
        sink: &mut dyn ExchangeSink,
    ) {
        let Some(new) = bytes.get(*reported..end) else { return };
        *reported = end;
        self.total = self.total.saturating_add(new.len() as u64);
        if self.is_wanted && !new.is_empty() {
            self.is_wanted = sink.bytes(id, side, new);
        }
    }

    /// Parses until there is an event. Returns the number of parsed bytes.
    fn step(&mut self, bytes: &[u8], side: Side) -> (usize, ParseStep) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            let (n, step) = match self.state {
                HttpParseState::Off | HttpParseState::UntilClose => {
                    (rest.len(), Some(ParseStep::More))
                }
                HttpParseState::Prefix => self.proxy_header(rest),
                HttpParseState::Skip(left) => {
                    let n = left.min(rest.len());
                    self.state = if n == left {
                        HttpParseState::Start
                    } else {
                        HttpParseState::Skip(left - n)
                    };
                    (n, None)
                }
                HttpParseState::Start => self.between_messages(rest, side),
                HttpParseState::Length(left) => self.body(rest, left),
                HttpParseState::Chunked(decoder) => self.chunks(rest, decoder),
                HttpParseState::First | HttpParseState::Fields => self.line_piece(rest, side),
            };
            at += n;
            if let Some(step) = step {
                return (at, step);
            }
        }
        (at, ParseStep::More)
    }

    /// Parses a piece of the announced PROXY header.
    fn proxy_header(&mut self, piece: &[u8]) -> (usize, Option<ParseStep>) {
        let before = self.line.len();
        self.line.extend(piece.iter().take(MAX_LINE_BYTES - before.min(MAX_LINE_BYTES)));
        match proxy_protocol::detect(&self.line) {
            Prefix::Absent => (0, Some(ParseStep::Failed)),
            Prefix::Undecided if self.line.len() >= MAX_LINE_BYTES => (0, Some(ParseStep::Failed)),
            Prefix::Undecided => (piece.len(), Some(ParseStep::More)),
            Prefix::Header { len } => {
                self.line = Vec::new();
                self.state = HttpParseState::Skip(len.saturating_sub(before));
                (0, None)
            }
        }
    }

    /// Skips empty lines before a request (RFC 9112 2.2).
    fn between_messages(&mut self, piece: &[u8], side: Side) -> (usize, Option<ParseStep>) {
        let skip = match side {
            Side::Request => {
                let blank = |b: &&u8| matches!(**b, b'\r' | b'\n');
                piece.iter().take_while(blank).count()
            }
            Side::Response => 0,
        };
        if skip == piece.len() {
            return (skip, None);
        }
        self.state = HttpParseState::First;
        (skip, Some(ParseStep::Begins))
    }

    /// Skips a piece of a body with `left` bytes to come.
    fn body(&mut self, piece: &[u8], left: u64) -> (usize, Option<ParseStep>) {
        let here = piece.len() as u64;
        if here < left {
            self.state = HttpParseState::Length(left - here);
            return (piece.len(), Some(ParseStep::More));
        }
        // At most the length of `piece`.
        (usize::try_from(left).unwrap_or(piece.len()), Some(ParseStep::Done))
    }

    /// Parses a piece of a chunked body.
    fn chunks(&mut self, piece: &[u8], mut decoder: ChunkedDecoder) -> (usize, Option<ParseStep>) {
        let (used, error) = decoder.advance(piece, &mut |_| {});
        self.state = HttpParseState::Chunked(decoder);
        let step = match error {
            Some(_) => Some(ParseStep::Failed),
            None => decoder.is_done().then_some(ParseStep::Done),
        };
        (used, step)
    }

    /// Parses a piece of a head.
    fn line_piece(&mut self, piece: &[u8], side: Side) -> (usize, Option<ParseStep>) {
        let room = MAX_HEAD_BYTES.saturating_sub(self.lines).min(piece.len());
        let (near, far) = piece.split_at(room);
        let end = near.iter().position(|b| *b == b'\n');
        let (piece, _) = near.split_at(end.map_or(room, |end| end + 1));
        self.lines += piece.len();
        if end.is_none() {
            if !far.is_empty() {
                return (piece.len(), Some(ParseStep::Failed));
            }
            self.buffer_line(piece);
            return (piece.len(), Some(ParseStep::More));
        }
        let step = if self.line.is_empty() {
            self.line(piece, side)
        } else {
            self.buffer_line(piece);
            let line = std::mem::take(&mut self.line);
            self.line(&line, side)
        };
        (piece.len(), step)
    }

    /// Stores a piece of a line: of a long line its beginning and its end.
    fn buffer_line(&mut self, piece: &[u8]) {
        let room = MAX_LINE_BYTES.saturating_sub(self.line.len()).min(piece.len());
        let (first, rest) = piece.split_at(room);
        self.line.extend_from_slice(first);
        let last = rest.get(rest.len().saturating_sub(LINE_TAIL_BYTES)..).unwrap_or_default();
        self.line.extend_from_slice(last);
        if self.line.len() > MAX_LINE_BYTES + LINE_TAIL_BYTES {
            self.line.drain(MAX_LINE_BYTES..self.line.len() - LINE_TAIL_BYTES);
        }
    }

    /// Parses a complete line with its end.
    fn line(&mut self, line: &[u8], side: Side) -> Option<ParseStep> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            HttpParseState::First => {
                let read = match side {
                    Side::Request => self.head.request_line(line),
                    Side::Response => self.head.status_line(line),
                };
                if read.is_err() {
                    return Some(ParseStep::Failed);
                }
                self.state = HttpParseState::Fields;
                None
            }
            HttpParseState::Fields if line.is_empty() => Some(ParseStep::Head),
            _ => self.head.field(line).is_err().then_some(ParseStep::Failed),
        }
    }
}

/// Properties of a head, collected line by line.
#[derive(Debug, Default)]
struct HeadSummary {
    method: RequestMethod,
    status: u16,
    version: HttpVersion,
    fields: LenientFields,
    framing: FramingFields,
}

impl HeadSummary {
    /// Parses a request line. The middle of a long line may be missing.
    fn request_line(&mut self, line: &[u8]) -> Result<(), HttpError> {
        let request = RequestLine::parse(line, Strictness::Lenient)?;
        if request.method.len() > MAX_METHOD_BYTES {
            return Err(HttpError::Method);
        }
        self.method = RequestMethod::of(request.method);
        self.version = request.version;
        Ok(())
    }

    fn status_line(&mut self, line: &[u8]) -> Result<(), HttpError> {
        self.status = StatusLine::parse(line)?.status;
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), HttpError> {
        let LenientLine::Field(name, value) = self.fields.line(line)? else { return Ok(()) };
        // In a line of this length the middle may be missing.
        if line.len() > MAX_LINE_BYTES && line::is_framing(name) {
            return Err(HttpError::HiddenFraming);
        }
        self.framing.field(name, value)
    }

    fn request_body(&self) -> Result<BodyFraming, HttpError> {
        self.framing.body(MessageKind::Request(self.version))
    }

    fn response_body(&self, method: RequestMethod) -> Result<BodyFraming, HttpError> {
        self.framing.body(MessageKind::Response { status: self.status, method })
    }
}

#[cfg(test)]
mod test_recorder;
#[cfg(test)]
mod tests;
