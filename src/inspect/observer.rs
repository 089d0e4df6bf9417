//! Watches the HTTP/1.1 of one connection in both directions, as its bytes pass.
//!
//! Sans-IO: slices come in as they are on their way, and [`Notes`] is told which
//! of them belong to which exchange. Nothing here delays or changes a byte, and no
//! body is copied or searched: whatever its length says is skipped at once. What
//! stops being HTTP/1, or could be read in two ways, is given up on quietly. The
//! memory of a connection is bounded by `LINE` for each direction, used only
//! while a line is cut, and by [`PIPELINED`]. No sockets, no clock, no store.

use std::collections::VecDeque;

use crate::proto::proxy_protocol::{self, Prefix};

/// Most bytes of a head, of the lines between chunks, or of trailers.
pub const MAX_HEAD: usize = 32 * 1024;

/// Most bytes that are kept of a line that came in pieces, and most bytes of a line
/// that says how long a body is.
const LINE: usize = 512;

/// Of a longer line the end is kept too: a request's version stands there.
const TAIL: usize = 16;

/// Longest method.
const MAX_METHOD: usize = 32;

/// Requests that may wait for their responses on one connection.
pub const PIPELINED: usize = 32;

/// A direction of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the visitor.
    Request,
    /// From the upstream.
    Response,
}

/// What is known of one side of an exchange. Each side of an exchange that was
/// begun ends with exactly one `Whole` or `Part`, unless it was no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Its head is whole. The status is 0 for a request.
    Head(u16),
    /// What was told of it so far was an interim response: to be forgotten.
    Interim,
    /// It came to its end; so many bytes in all.
    Whole(u64),
    /// No more of it will be told, though it was not all; so many bytes were seen.
    Part(u64),
    /// It was no request after all: the exchange is to be forgotten.
    NoRequest,
}

/// Who is told.
pub trait Notes {
    /// A request begins. Returns what the exchange is called from now on.
    fn begin(&mut self) -> u64;
    /// The next bytes of one side of an exchange. `false`: no more of them are
    /// wanted.
    fn bytes(&mut self, exchange: u64, side: Side, bytes: &[u8]) -> bool;
    /// What came of it.
    fn note(&mut self, exchange: u64, side: Side, note: Note);
}

/// The watch over one connection.
#[derive(Debug)]
pub struct Watch {
    request: Half,
    response: Half,
    /// Oldest first. Responses come in the order of the requests.
    open: VecDeque<Exchange>,
}

#[derive(Debug)]
struct Exchange {
    name: u64,
    method: Method,
    /// The request has ended.
    asked: bool,
    /// The response has ended.
    answered: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Method {
    Head,
    Connect,
    #[default]
    Other,
}

impl Watch {
    /// A watch over a new connection. `prefix`: a PROXY header comes first.
    pub fn new(prefix: bool) -> Self {
        let first = if prefix { State::Prefix } else { State::Start };
        Watch {
            request: Half::new(first),
            response: Half::new(State::Start),
            open: VecDeque::new(),
        }
    }

    /// Whether every exchange that began is over on both sides.
    pub fn is_quiet(&self) -> bool {
        self.open.is_empty()
    }

    /// Bytes that it holds on the heap.
    pub fn held(&self) -> usize {
        let lines = self.request.line.capacity() + self.response.line.capacity();
        lines + self.open.capacity() * size_of::<Exchange>()
    }

    /// The next bytes of one direction.
    pub fn feed(&mut self, side: Side, bytes: &[u8], notes: &mut dyn Notes) {
        match side {
            Side::Request => self.requests(bytes, notes),
            Side::Response => self.responses(bytes, notes),
        }
    }

    fn requests(&mut self, bytes: &[u8], notes: &mut dyn Notes) {
        // Bytes that are parsed, and those of them that are told already.
        let (mut at, mut told) = (0, 0);
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
            && self.request.state != State::Off
        {
            let (n, step) = self.request.step(rest, Side::Request);
            at += n;
            let done = match step {
                Step::More => continue,
                Step::Begins => {
                    if self.open.len() >= PIPELINED {
                        // The requests under way still get their responses.
                        self.request.stop();
                        return;
                    }
                    let name = notes.begin();
                    let method = Method::Other;
                    self.open.push_back(Exchange { name, method, asked: false, answered: false });
                    told = at;
                    continue;
                }
                Step::Head => match self.request.head.request_body() {
                    Some(body) => {
                        let Some(newest) = self.open.back_mut() else { return };
                        newest.method = self.request.head.method;
                        let name = newest.name;
                        self.request.tell(name, Side::Request, bytes, &mut told, at, notes);
                        notes.note(name, Side::Request, Note::Head(0));
                        self.request.enter(body)
                    }
                    None => return self.no_request(bytes, told, at, notes),
                },
                Step::Done => true,
                Step::Failed => return self.no_request(bytes, told, at, notes),
            };
            if done {
                let Some(newest) = self.open.back_mut() else { return };
                newest.asked = true;
                let (name, method) = (newest.name, newest.method);
                self.request.tell(name, Side::Request, bytes, &mut told, at, notes);
                notes.note(name, Side::Request, Note::Whole(self.request.total));
                self.request.rest();
                if method == Method::Connect {
                    // What follows is HTTP only if it is refused.
                    self.request.stop();
                }
                self.settle();
            }
        }
        if self.request.within()
            && let Some(newest) = self.open.back()
        {
            let name = newest.name;
            self.request.tell(name, Side::Request, bytes, &mut told, bytes.len(), notes);
        }
    }

    /// The visitor does not speak HTTP, or not any more: the responses under way are
    /// still watched.
    fn no_request(&mut self, bytes: &[u8], mut told: usize, at: usize, notes: &mut dyn Notes) {
        if self.request.within()
            && let Some(newest) = self.open.back_mut()
        {
            let name = newest.name;
            if self.request.in_head() && !newest.answered {
                notes.note(name, Side::Request, Note::NoRequest);
                self.open.pop_back();
            } else {
                newest.asked = true;
                self.request.tell(name, Side::Request, bytes, &mut told, at, notes);
                notes.note(name, Side::Request, Note::Part(self.request.total));
                self.settle();
            }
        }
        self.request.stop();
        if self.open.is_empty() {
            self.response.stop();
        }
    }

    fn responses(&mut self, bytes: &[u8], notes: &mut dyn Notes) {
        let (mut at, mut told) = (0, 0);
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
            && self.response.state != State::Off
        {
            // Nobody asked, or the last one asked and has not finished.
            let Some(oldest) = self.open.front().filter(|oldest| !oldest.answered) else {
                return self.abort(notes);
            };
            let (name, method) = (oldest.name, oldest.method);
            let (n, step) = self.response.step(rest, Side::Response);
            at += n;
            let done = match step {
                Step::More => continue,
                Step::Begins => {
                    told = at;
                    continue;
                }
                Step::Head => {
                    let status = self.response.head.status;
                    if (100..200).contains(&status) && status != 101 {
                        if self.response.total > 0 {
                            notes.note(name, Side::Response, Note::Interim);
                        }
                        self.response.rest();
                        continue;
                    }
                    self.response.tell(name, Side::Response, bytes, &mut told, at, notes);
                    notes.note(name, Side::Response, Note::Head(status));
                    if status == 101 || (method == Method::Connect && status / 100 == 2) {
                        // Something else is spoken from now on.
                        self.answered(name, notes);
                        return self.abort(notes);
                    }
                    let body = self.response.head.response_body(method);
                    self.response.enter(body)
                }
                Step::Done => true,
                Step::Failed => {
                    self.response.tell(name, Side::Response, bytes, &mut told, at, notes);
                    return self.abort(notes);
                }
            };
            if done {
                self.response.tell(name, Side::Response, bytes, &mut told, at, notes);
                self.answered(name, notes);
            }
        }
        if self.response.within()
            && let Some(oldest) = self.open.front()
        {
            let name = oldest.name;
            self.response.tell(name, Side::Response, bytes, &mut told, bytes.len(), notes);
        }
    }

    /// The oldest response came to its end.
    fn answered(&mut self, name: u64, notes: &mut dyn Notes) {
        notes.note(name, Side::Response, Note::Whole(self.response.total));
        self.response.rest();
        if let Some(oldest) = self.open.front_mut() {
            oldest.answered = true;
        }
        self.settle();
        if self.open.is_empty() && self.request.state == State::Off {
            self.response.stop();
        }
    }

    /// Lets an exchange go that is over on both sides.
    fn settle(&mut self) {
        while self.open.front().is_some_and(|oldest| oldest.asked && oldest.answered) {
            self.open.pop_front();
        }
    }

    /// One direction came to its orderly end.
    pub fn finish(&mut self, side: Side, notes: &mut dyn Notes) {
        match side {
            Side::Request => {
                if self.request.state != State::Off {
                    self.no_request(&[], 0, 0, notes);
                }
            }
            Side::Response => {
                if self.response.state == State::UntilClose
                    && let Some(oldest) = self.open.front()
                {
                    self.answered(oldest.name, notes);
                }
                self.abort(notes);
            }
        }
    }

    /// Watches no more: what is under way stays as far as it was seen.
    pub fn abort(&mut self, notes: &mut dyn Notes) {
        let asking = self.request.within();
        let mut answering = self.response.within();
        while let Some(exchange) = self.open.pop_front() {
            if !exchange.asked {
                if asking && self.request.in_head() && !exchange.answered {
                    notes.note(exchange.name, Side::Request, Note::NoRequest);
                    continue;
                }
                notes.note(exchange.name, Side::Request, Note::Part(self.request.total));
            }
            if !exchange.answered {
                let total = if answering { self.response.total } else { 0 };
                answering = false;
                notes.note(exchange.name, Side::Response, Note::Part(total));
            }
        }
        self.open = VecDeque::new();
        self.request.stop();
        self.response.stop();
    }
}

/// One direction.
#[derive(Debug)]
struct Half {
    state: State,
    /// What is here of a line whose end is not.
    line: Vec<u8>,
    /// Bytes of the head, the trailers or the line between two chunks so far.
    lines: usize,
    head: Head,
    /// Bytes of the message that were told, or would have been.
    total: u64,
    /// They still are.
    wanted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In front of everything: a PROXY header.
    Prefix,
    /// In it.
    Skip(usize),
    /// Between two messages.
    Start,
    /// In the first line.
    First,
    /// In the fields.
    Fields,
    /// In a body of which so much is left.
    Length(u64),
    /// In the line that says how long a chunk is.
    Size,
    /// In a chunk of which so much is left.
    Chunk(u64),
    /// In the line end behind a chunk.
    ChunkEnd,
    /// Behind the last chunk.
    Trailers,
    /// In a body that ends with the connection.
    UntilClose,
    /// Nothing is watched any more.
    Off,
}

enum Step {
    /// All bytes were used.
    More,
    /// A message begins behind those that were.
    Begins,
    /// The head is whole.
    Head,
    /// The message is whole.
    Done,
    /// This is not HTTP/1.
    Failed,
}

enum Body {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Half {
    fn new(state: State) -> Self {
        Half { state, line: Vec::new(), lines: 0, head: Head::default(), total: 0, wanted: true }
    }

    fn stop(&mut self) {
        self.state = State::Off;
        self.line = Vec::new();
    }

    /// Ready for the next message.
    fn rest(&mut self) {
        self.state = State::Start;
        self.head = Head::default();
        self.lines = 0;
        self.total = 0;
        self.wanted = true;
    }

    fn within(&self) -> bool {
        !matches!(self.state, State::Prefix | State::Skip(_) | State::Start | State::Off)
    }

    fn in_head(&self) -> bool {
        matches!(self.state, State::First | State::Fields)
    }

    /// Behind the head. Whether the message ends with it.
    fn enter(&mut self, body: Body) -> bool {
        self.lines = 0;
        self.state = match body {
            Body::None => return true,
            Body::Length(n) => State::Length(n),
            Body::Chunked => State::Size,
            Body::UntilClose => State::UntilClose,
        };
        false
    }

    /// Tells the bytes from `told` to `end`.
    fn tell(
        &mut self,
        name: u64,
        side: Side,
        bytes: &[u8],
        told: &mut usize,
        end: usize,
        notes: &mut dyn Notes,
    ) {
        let Some(new) = bytes.get(*told..end) else { return };
        *told = end;
        self.total = self.total.saturating_add(new.len() as u64);
        if self.wanted && !new.is_empty() {
            self.wanted = notes.bytes(name, side, new);
        }
    }

    /// Parses as far as something is to be said. How many bytes that took.
    fn step(&mut self, bytes: &[u8], side: Side) -> (usize, Step) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            match self.state {
                State::Off | State::UntilClose => return (bytes.len(), Step::More),
                State::Prefix => {
                    let before = self.line.len();
                    self.line.extend(rest.iter().take(LINE - before.min(LINE)));
                    match proxy_protocol::detect(&self.line) {
                        // It was announced.
                        Prefix::Absent => return (at, Step::Failed),
                        Prefix::Undecided if self.line.len() >= LINE => return (at, Step::Failed),
                        Prefix::Undecided => return (bytes.len(), Step::More),
                        Prefix::Header { len } => {
                            self.line = Vec::new();
                            self.state = State::Skip(len.saturating_sub(before));
                        }
                    }
                }
                State::Skip(left) => {
                    let n = left.min(rest.len());
                    at += n;
                    self.state = if n == left { State::Start } else { State::Skip(left - n) };
                }
                State::Start => {
                    // Empty lines before a request are skipped (RFC 9112 2.2).
                    let skip = match side {
                        Side::Request => {
                            let blank = |b: &&u8| matches!(**b, b'\r' | b'\n');
                            rest.iter().take_while(blank).count()
                        }
                        Side::Response => 0,
                    };
                    at += skip;
                    if skip < rest.len() {
                        self.state = State::First;
                        return (at, Step::Begins);
                    }
                }
                State::Length(left) | State::Chunk(left) => {
                    let here = rest.len() as u64;
                    let chunked = matches!(self.state, State::Chunk(_));
                    if here < left {
                        let left = left - here;
                        self.state = if chunked { State::Chunk(left) } else { State::Length(left) };
                        return (bytes.len(), Step::More);
                    }
                    // No more than `rest` holds.
                    at += usize::try_from(left).unwrap_or(rest.len());
                    if !chunked {
                        return (at, Step::Done);
                    }
                    self.state = State::ChunkEnd;
                }
                State::First | State::Fields | State::Size | State::ChunkEnd | State::Trailers => {
                    let room = MAX_HEAD.saturating_sub(self.lines).min(rest.len());
                    let (near, far) = rest.split_at(room);
                    let end = near.iter().position(|b| *b == b'\n');
                    let (piece, _) = near.split_at(end.map_or(room, |end| end + 1));
                    at += piece.len();
                    self.lines += piece.len();
                    if end.is_none() {
                        if !far.is_empty() {
                            return (at, Step::Failed);
                        }
                        self.keep(piece);
                        return (at, Step::More);
                    }
                    let step = if self.line.is_empty() {
                        self.take(piece, side)
                    } else {
                        self.keep(piece);
                        let line = std::mem::take(&mut self.line);
                        self.take(&line, side)
                    };
                    if let Some(step) = step {
                        return (at, step);
                    }
                }
            }
        }
        (at, Step::More)
    }

    /// Keeps a piece of a line: of a long one its beginning and its end.
    fn keep(&mut self, piece: &[u8]) {
        let room = LINE.saturating_sub(self.line.len()).min(piece.len());
        let (first, rest) = piece.split_at(room);
        self.line.extend_from_slice(first);
        let last = rest.get(rest.len().saturating_sub(TAIL)..).unwrap_or_default();
        self.line.extend_from_slice(last);
        if self.line.len() > LINE + TAIL {
            self.line.drain(LINE..self.line.len() - TAIL);
        }
    }

    /// A whole line, with its end.
    fn take(&mut self, line: &[u8], side: Side) -> Option<Step> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            State::First => {
                let good = match side {
                    Side::Request => self.head.request_line(line),
                    Side::Response => self.head.status_line(line),
                };
                if good.is_none() {
                    return Some(Step::Failed);
                }
                self.state = State::Fields;
            }
            State::Fields if line.is_empty() => return Some(Step::Head),
            State::Fields => return self.head.field(line).is_none().then_some(Step::Failed),
            State::Size => match chunk_size(line) {
                None => return Some(Step::Failed),
                Some(0) => {
                    self.lines = 0;
                    self.state = State::Trailers;
                }
                Some(n) => {
                    self.lines = 0;
                    self.state = State::Chunk(n);
                }
            },
            State::ChunkEnd => {
                if !line.is_empty() {
                    return Some(Step::Failed);
                }
                self.lines = 0;
                self.state = State::Size;
            }
            State::Trailers if line.is_empty() => return Some(Step::Done),
            _ => {}
        }
        None
    }
}

/// What a head says of its message's length.
#[derive(Debug, Default)]
struct Head {
    method: Method,
    status: u16,
    old: bool,
    length: Option<u64>,
    coded: bool,
    chunked: bool,
    /// The last field is one of those that count, so that it may not be continued.
    counts: bool,
}

impl Head {
    /// `METHOD TARGET HTTP/1.x`; of a long one the middle may be missing.
    fn request_line(&mut self, line: &[u8]) -> Option<()> {
        let (method, rest) = line.split_at(line.iter().position(|b| *b == b' ')?);
        if method.len() > MAX_METHOD || !is_token(method) {
            return None;
        }
        self.method = match method {
            b"HEAD" => Method::Head,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        };
        let target = match rest.strip_suffix(b" HTTP/1.1") {
            Some(target) => target,
            None => {
                self.old = true;
                rest.strip_suffix(b" HTTP/1.0")?
            }
        };
        // More than the blank in front of it.
        (target.len() > 1).then_some(())
    }

    /// `HTTP/1.x 200 …`
    fn status_line(&mut self, line: &[u8]) -> Option<()> {
        let rest = line.strip_prefix(b"HTTP/1.")?;
        let (&[b'0' | b'1', b' ', a, b, c], None | Some(b' ')) =
            rest.split_first_chunk::<5>().map(|(first, rest)| (first, rest.first()))?
        else {
            return None;
        };
        self.status = u16::try_from(decimal(&[a, b, c])?).ok().filter(|n| *n >= 100)?;
        Some(())
    }

    fn field(&mut self, line: &[u8]) -> Option<()> {
        if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
            // A folded line: harmless where nothing depends on it.
            return (!self.counts).then_some(());
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let known = name.trim_ascii_end();
        let length = known.eq_ignore_ascii_case(b"content-length");
        let coding = known.eq_ignore_ascii_case(b"transfer-encoding");
        self.counts = length || coding;
        if !self.counts {
            return Some(());
        }
        // A blank before the colon is read in two ways, and so is a line of this length.
        if known.len() != name.len() || line.len() > LINE {
            return None;
        }
        let value = value.strip_prefix(b":")?.trim_ascii();
        if length {
            let n = decimal(value)?;
            return (*self.length.get_or_insert(n) == n).then_some(());
        }
        self.coded = true;
        for coding in value.split(|b| *b == b',') {
            // Nothing may follow it.
            if self.chunked {
                return None;
            }
            self.chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
        Some(())
    }

    /// `None`: it could be read in two ways.
    fn request_body(&self) -> Option<Body> {
        match (self.coded, self.length) {
            (true, None) if self.chunked && !self.old => Some(Body::Chunked),
            (true, _) => None,
            (false, None | Some(0)) => Some(Body::None),
            (false, Some(n)) => Some(Body::Length(n)),
        }
    }

    /// RFC 9112 6.3.
    fn response_body(&self, method: Method) -> Body {
        if method == Method::Head || matches!(self.status, 204 | 304) {
            return Body::None;
        }
        match (self.coded, self.length) {
            (true, _) if self.chunked => Body::Chunked,
            (true, _) | (false, None) => Body::UntilClose,
            (false, Some(0)) => Body::None,
            (false, Some(n)) => Body::Length(n),
        }
    }
}

/// Hexadecimal digits, perhaps with extensions behind them.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let mut size: Option<u64> = None;
    for (at, byte) in line.iter().enumerate() {
        match char::from(*byte).to_digit(16) {
            Some(_) if at >= 16 => return None,
            Some(digit) => size = Some(size.unwrap_or(0) << 4 | u64::from(digit)),
            None if matches!(byte, b';' | b' ' | b'\t') => break,
            None => return None,
        }
    }
    size
}

/// Digits alone: no sign, no blank, no overflow.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// RFC 9110 5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

#[cfg(test)]
mod test_recorder;
#[cfg(test)]
mod tests;
