//! One visitor of the HTTP listeners: reads requests, finds their endpoints and
//! sends them into streams. The answers go back without this thread, see
//! [`super::exchange`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::chunked::Chunked;
use super::conn::Conn;
use super::exchange::{Exchange, Standing};
use super::head;
use super::pages::{Form, Page};
use super::passthrough;
use super::request::{Body, Request, Visitor};
use super::response::{Asked, Filter};
use super::slots::Slot;
use crate::edge::Edge;
use crate::edge::agents::registry::{Endpoint, Found};
use crate::event;
use crate::mux::MAX_FIRST;
use crate::session::SendError;
use crate::sys;
use crate::time::Deadline;

/// Bytes read at once for heads.
const HEAD: usize = 8 * 1024;

/// Bytes read at once for bodies.
const BODY: usize = 64 * 1024;

/// How long a stream may have been idle for a request that must not be sent
/// twice: shorter than any server's own patience.
const FRESH: Duration = Duration::from_secs(1);

/// How long an answer may stand still when its visitor has ended his side.
const AFTERMATH: Duration = Duration::from_secs(30);

/// How long what a visitor still says is thrown away before closing.
const LINGER: Duration = Duration::from_secs(2);

/// Serves a visitor until he goes.
pub fn serve(edge: &Edge, conn: &Arc<Conn>, slot: &Slot) {
    let mut visit = Visit {
        edge,
        conn,
        slot,
        input: Vec::new(),
        start: 0,
        request: Request::default(),
        out: Vec::new(),
        stream: None,
    };
    while visit.turn() == Next::Request {}
    if let Some(stream) = visit.stream.take() {
        stream.exchange.latest().let_go();
    }
}

struct Visit<'a> {
    edge: &'a Edge,
    conn: &'a Arc<Conn>,
    slot: &'a Slot,
    /// What the visitor said, from `start` on.
    input: Vec<u8>,
    start: usize,
    request: Request,
    out: Vec<u8>,
    stream: Option<Stream>,
}

/// The stream that carries the visitor's requests, as long as they are for one
/// endpoint.
struct Stream {
    exchange: Arc<Exchange>,
    endpoint: Arc<Endpoint>,
    /// What stands in front of the first request.
    prefix: Vec<u8>,
}

/// What comes after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

impl Visit<'_> {
    /// One request.
    fn turn(&mut self) -> Next {
        let len = match self.read_head() {
            Ok(Some(len)) => len,
            Ok(None) => return self.farewell(),
            Err(page) => {
                let next = self.settled();
                if next == Next::Request {
                    self.refuse(&page, Form { close: true, ..Form::default() });
                }
                return Next::Close;
            }
        };
        // Answers go out in the order of the requests.
        if self.settled() == Next::Close {
            return Next::Close;
        }
        let bytes = &self.input[self.start..self.start + len];
        if let Err(refusal) = self.request.parse(bytes) {
            event!(debug, obj = "edge", "request refused", err = refusal, r = self.conn.peer());
            let page = Page::new(refusal.status, 0, format!("The request has {}.", refusal.reason));
            self.refuse(&page, Form { close: true, ..Form::default() });
            return Next::Close;
        }
        self.pass_on(len)
    }

    /// Waits until the answer before is complete.
    fn settled(&mut self) -> Next {
        let Some(mut stream) = self.stream.take() else { return Next::Request };
        let (exchange, standing) = stream.exchange.wait(self.edge.limits().idle);
        stream.exchange = exchange;
        self.stream = Some(stream);
        if standing == Standing::Settled { Next::Request } else { Next::Close }
    }

    /// The visitor has ended his side: what is under way may still come to its end.
    fn farewell(&mut self) -> Next {
        if let Some(stream) = self.stream.take() {
            let exchange = stream.exchange.latest();
            let patience = exchange.aftermath();
            let (exchange, _) = exchange.wait(patience);
            exchange.let_go();
        }
        Next::Close
    }

    /// Reads until a head is complete; its length. `None`: the visitor has gone.
    fn read_head(&mut self) -> Result<Option<usize>, Page> {
        let limits = self.edge.limits();
        let mut seen = 0;
        // The first request must begin soon; later ones may take their time.
        let mut deadline = self.stream.is_none().then(|| sys::clock() + limits.head);
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
        }
        self.conn.set_read_timeout(if deadline.is_some() { limits.head } else { limits.idle });
        loop {
            // Empty lines in front of a request are forgiven (RFC 9112, 2.2).
            while seen == 0 && self.input[self.start..].starts_with(b"\r\n") {
                self.start += 2;
            }
            let waiting = &self.input[self.start..];
            if let Some(len) = head::end(waiting, seen) {
                if len > head::MAX_HEAD {
                    return Err(too_large());
                }
                return Ok(Some(len));
            }
            seen = waiting.len();
            if seen >= head::MAX_HEAD {
                return Err(too_large());
            }
            if seen > 0 && deadline.is_none() {
                deadline = Some(sys::clock() + limits.head);
            }
            if let Some(at) = deadline {
                let left = at.since(sys::clock());
                if left.is_zero() {
                    return if seen > 0 { Err(too_slow()) } else { Ok(None) };
                }
                self.conn.set_read_timeout(left);
            }
            self.slot.reads_head(seen == 0);
            let got = self.read_more(HEAD);
            self.slot.reads_head(false);
            match got {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) if is_timeout(&e) => {
                    if seen > 0 {
                        return Err(too_slow());
                    }
                    let under_way = self.stream.take().is_some_and(|s| {
                        let exchange = s.exchange.latest();
                        let going = exchange.standing() == Standing::Going;
                        self.stream = Some(Stream { exchange, ..s });
                        going
                    });
                    if !under_way {
                        return Ok(None);
                    }
                }
                Err(_) => {
                    // Reset: nobody waits for an answer.
                    if let Some(stream) = self.stream.take() {
                        stream.exchange.latest().let_go();
                    }
                    return Ok(None);
                }
            }
        }
    }

    /// Reads at most `most` bytes behind those that wait.
    fn read_more(&mut self, most: usize) -> io::Result<usize> {
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        let used = self.input.len();
        self.input.resize(used + most, 0);
        let got = self.conn.read(&mut self.input[used..]);
        self.input.truncate(used + *got.as_ref().unwrap_or(&0));
        got
    }

    /// An answer of the edge's own.
    fn refuse(&mut self, page: &Page, form: Form) {
        let _ = self.conn.write_all(&page.render(form));
        if form.close {
            self.conn.finish();
            self.conn.linger(LINGER);
        }
    }

    /// A page in place of an answer; the connection goes on if the whole request
    /// was read.
    fn page(&mut self, page: &Page, mut form: Form, len: usize) -> Next {
        self.start += len;
        form.close |= self.request.body() != Body::None;
        self.refuse(page, form);
        if form.close { Next::Close } else { Next::Request }
    }

    fn pass_on(&mut self, len: usize) -> Next {
        let bytes = &self.input[self.start..self.start + len];
        let (method, path) = self.request.line(bytes);
        let (host, from) = (self.request.host(), self.conn.peer());
        event!(debug, obj = "edge", "request", method = method, url = host, path = path, r = from);
        let head_only = self.request.is_head(bytes);
        let form = Form {
            html: self.request.accepts_html(bytes),
            head_only,
            close: self.request.closes() || self.edge.is_draining(),
        };
        let found =
            self.edge.routes().find_http(self.request.host(), self.conn.is_tls(), sys::clock());
        let endpoint = match found {
            Found::Endpoint(endpoint) => endpoint,
            Found::Away => {
                let page = Page::agent_away(self.request.host());
                return self.page(&page, form, len);
            }
            Found::Unknown => {
                let page = Page::unknown_host(self.request.host());
                return self.page(&page, form, len);
            }
        };
        if !endpoint.admits(self.conn.peer().ip()) {
            return self.page(&Page::forbidden(), form, len);
        }

        let visitor = Visitor { ip: self.conn.peer().ip(), tls: self.conn.is_tls() };
        self.out.clear();
        self.request.rewrite(bytes, visitor, &mut self.out);
        let idempotent = self.request.is_idempotent(bytes);
        let asked = Asked {
            head_only,
            upgrade: self.request.upgrades(),
            close: form.close,
            old: self.request.is_old(),
        };
        self.start += len;

        // What of the body came with the head goes with it.
        let mut body = Following::new(self.request.body());
        let taken = match body.take(&self.input[self.start..]) {
            Ok(n) => n,
            Err(reason) => {
                let page = Page::new(400, 0, format!("The request has {reason}."));
                self.refuse(&page, Form { close: true, ..form });
                return Next::Close;
            }
        };
        self.out.extend_from_slice(&self.input[self.start..self.start + taken]);
        self.start += taken;

        let safe_twice = idempotent && self.request.body() == Body::None;
        if let Err(page) = self.send_first(endpoint, asked, form, body.is_done(), safe_twice) {
            let close = form.close || !body.is_done();
            self.refuse(&page, Form { close, ..form });
            return if close { Next::Close } else { Next::Request };
        }
        if asked.upgrade {
            return self.upgraded();
        }
        if !body.is_done() && self.send_body(&mut body) == Next::Close {
            return Next::Close;
        }
        // After the last answer the reactor ends the connection; until then
        // reading tells whether the visitor is still there.
        Next::Request
    }

    /// Sends the head and what is there of the body: on the stream of the request
    /// before if it fits, else on a new one.
    fn send_first(
        &mut self,
        endpoint: Arc<Endpoint>,
        asked: Asked,
        form: Form,
        done: bool,
        safe_twice: bool,
    ) -> Result<(), Page> {
        if let Some(mut stream) = self.stream.take() {
            stream.exchange = stream.exchange.latest();
            let patience = if safe_twice { self.edge.limits().idle } else { FRESH };
            let room = MAX_FIRST.saturating_sub(stream.prefix.len());
            let again = |frame: &mut Vec<u8>| {
                if safe_twice && done && self.out.len() <= room {
                    frame.extend_from_slice(&stream.prefix);
                    frame.extend_from_slice(&self.out);
                }
            };
            if Arc::ptr_eq(&stream.endpoint, &endpoint)
                && stream.exchange.begin(asked, form, done, again, patience)
            {
                let deadline = self.send_deadline();
                let exchange = Arc::clone(&stream.exchange);
                self.stream = Some(stream);
                let sent = exchange.session().send(exchange.stream(), &self.out, deadline);
                self.watch_late(sent, &exchange);
                return Ok(());
            }
            stream.exchange.let_go();
        }
        let mut endpoint = endpoint;
        for _ in 0..4 {
            match self.open(&endpoint, asked, form, done) {
                Ok(()) => return Ok(()),
                Err(SendError::Over | SendError::Refused(_)) => {}
                Err(_) => return Err(Page::no_stream()),
            }
            // Nothing was sent: another member of the pool may take it.
            match self.edge.routes().find_http(
                self.request.host(),
                self.conn.is_tls(),
                sys::clock(),
            ) {
                Found::Endpoint(next) if !Arc::ptr_eq(&next, &endpoint) => endpoint = next,
                Found::Endpoint(_) => break,
                _ => return Err(Page::agent_away(self.request.host())),
            }
        }
        if endpoint.session().is_over() {
            return Err(Page::no_stream());
        }
        self.edge.warn_full("streams to one agent");
        Err(Page::agent_full())
    }

    fn open(
        &mut self,
        endpoint: &Arc<Endpoint>,
        asked: Asked,
        form: Form,
        done: bool,
    ) -> Result<(), SendError> {
        let prefix = endpoint.prefix(self.conn);
        let mut frame = Vec::with_capacity(MAX_FIRST);
        frame.extend_from_slice(&prefix);
        let room = MAX_FIRST.saturating_sub(prefix.len()).min(self.out.len());
        frame.extend_from_slice(&self.out[..room]);
        let mut filter = Filter::http();
        filter.begin(asked);
        let exchange = Exchange::open(endpoint.session(), self.conn, &frame, filter, form, done)?;
        if room < self.out.len() {
            let deadline = self.send_deadline();
            let sent = exchange.session().send(exchange.stream(), &self.out[room..], deadline);
            self.watch_late(sent, &exchange);
        }
        self.slot.carries(&exchange);
        self.stream = Some(Stream { exchange, endpoint: Arc::clone(endpoint), prefix });
        Ok(())
    }

    /// What a failed send means: most errors are told to the exchange too, which
    /// answers or tries again. An agent that takes nothing is not.
    fn watch_late(&self, sent: Result<(), SendError>, exchange: &Exchange) {
        if sent == Err(SendError::Late) {
            exchange.let_go();
            self.conn.abort();
        }
    }

    fn send_deadline(&self) -> Deadline {
        Deadline::At(sys::clock() + self.edge.limits().idle)
    }

    /// Sends the rest of a body as it comes.
    fn send_body(&mut self, body: &mut Following) -> Next {
        let Some(stream) = &self.stream else { return Next::Close };
        let exchange = Arc::clone(&stream.exchange);
        self.conn.set_read_timeout(self.edge.limits().idle);
        // Not the buffer for heads: that one stays small.
        let mut buf = vec![0; BODY];
        while !body.is_done() {
            let n = match self.conn.read(&mut buf) {
                Ok(n) if n > 0 => n,
                // Cut short: the upstream must not take it for whole.
                _ => {
                    exchange.let_go();
                    return Next::Close;
                }
            };
            let taken = match body.take(&buf[..n]) {
                Ok(taken) => taken,
                Err(reason) => {
                    event!(debug, obj = "edge", "request refused", err = reason);
                    exchange.let_go();
                    self.conn.abort();
                    return Next::Close;
                }
            };
            if body.is_done() {
                exchange.request_done();
                self.input.clear();
                self.input.extend_from_slice(&buf[taken..n]);
                self.start = 0;
            }
            let sent =
                exchange.session().send(exchange.stream(), &buf[..taken], self.send_deadline());
            if sent.is_err() {
                // The upstream wants no more of it; its answer may be on the way.
                return self.cut_off();
            }
        }
        Next::Request
    }

    /// The request's rest is wanted by nobody: the answer still goes out.
    fn cut_off(&mut self) -> Next {
        if let Some(stream) = self.stream.take() {
            let (exchange, _) = stream.exchange.wait(AFTERMATH);
            self.conn.finish();
            self.conn.linger(LINGER);
            exchange.let_go();
        }
        Next::Close
    }

    /// After a request for another protocol: a pipe, if the answer says so.
    fn upgraded(&mut self) -> Next {
        let Some(mut stream) = self.stream.take() else { return Next::Close };
        let (exchange, standing) = stream.exchange.wait(self.edge.limits().idle);
        match standing {
            Standing::Tunnel => {
                let early = self.input.split_off(self.start);
                passthrough::pipe(self.conn, &exchange, &early);
                Next::Close
            }
            Standing::Settled => {
                stream.exchange = exchange;
                self.stream = Some(stream);
                Next::Request
            }
            Standing::Going | Standing::Over => {
                exchange.let_go();
                Next::Close
            }
        }
    }
}

/// Follows a request's body to its end.
enum Following {
    Length(u64),
    Chunked(Chunked),
}

impl Following {
    fn new(body: Body) -> Self {
        match body {
            Body::None => Following::Length(0),
            Body::Length(n) => Following::Length(n),
            Body::Chunked => Following::Chunked(Chunked::new()),
        }
    }

    /// How many of `bytes` belong to it.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        match self {
            Following::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                // Widening; n is at most `left`.
                *left -= n as u64;
                Ok(n)
            }
            Following::Chunked(chunked) => chunked.feed(bytes),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Following::Length(left) => *left == 0,
            Following::Chunked(chunked) => chunked.is_done(),
        }
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn too_large() -> Page {
    Page::new(431, 0, "The head of the request is larger than 64 KiB.")
}

fn too_slow() -> Page {
    Page::new(408, 0, "The head of the request took too long.")
}
