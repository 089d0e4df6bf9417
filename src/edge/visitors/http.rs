//! One HTTP connection of a visitor: reads requests, finds their endpoints and sends them into
//! streams. Responses are written by [`super::exchange`], not here.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::body::{self, BODY_READ_BYTES, BodyTracker, RequestBody, body_too_slow, is_timeout};
use super::conn::VisitorConn;
use super::exchange::{ExchangeStatus, VisitorExchange};
use super::exchange_state::{MAX_DISCARDED_BODY_BYTES, RequestDirection, RequestStart};
use super::failover::{Failover, MAX_MEMBERS, PoolMember};
use super::feed;
use super::forwarded::VisitorInfo;
use super::internal;
use super::linger;
use super::pages::{ErrorPage, PageFormat};
use super::passthrough;
use super::request::RequestHead;
use super::response::{RequestContext, ResponseFilter};
use super::websocket_pipe;
use crate::edge::Edge;
use crate::edge::actions::edits::HeaderEdits;
use crate::edge::actions::response::ResponsePlan;
use crate::edge::actions::{Decision, ForwardPlan, RequestVisit};
use crate::edge::agents::address::Protocol;
use crate::edge::agents::registry::{Lookup, OnlineEndpoint};
use crate::edge::parking::Parked;
use crate::edge::policy::phases::{ConnectionInfo, NoBody, PolicyHops};
use crate::edge::policy::visit::PolicyVisit;
use crate::event;
use crate::http1::error::HttpError;
use crate::http1::framing::BodyFraming;
use crate::http1::head::{self, MAX_HEAD_BYTES};
use crate::mux::MAX_FIRST;
use crate::session::{HeldBytes, SendError};
use crate::sys;

/// Bytes read at once for heads.
const HEAD_READ_BYTES: usize = 8 * 1024;

/// Time that a thread waits for the next request before it leaves the connection. Most clients
/// send a series of requests without a pause.
const PARK_DELAY: Duration = Duration::from_millis(100);

/// The same while visitors wait for a thread.
const NO_PAUSE: Duration = Duration::from_millis(1);

/// Idle time of a stream after which a request that must not be sent twice gets a new one:
/// shorter than the keep-alive time of any server.
const UNSAFE_REUSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause of a response that ends the wait when the upstream refused the rest of a request.
const EARLY_RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that the last bytes of a response may pause before the visitor's thread leaves.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a visitor until it waits for a further request, or its connection ends. `stream` is
/// that of the requests before, `first` was read already.
pub fn serve(
    edge: &Arc<Edge>,
    conn: Arc<VisitorConn>,
    stream: Option<CurrentStream>,
    first: Vec<u8>,
) {
    let mut visitor = HttpVisitor {
        edge,
        conn: &conn,
        input: first,
        start: 0,
        visitor: VisitorInfo::of_connection(conn.origin(), conn.is_tls()),
        is_idempotent: false,
        request: RequestHead::default(),
        out: Vec::new(),
        stream,
        held_body: None,
        received_body: None,
    };
    let next = loop {
        match visitor.serve_request() {
            AfterRequest::NextRequest => {}
            next => break next,
        }
    };
    let stream = visitor.stream;
    let waiting = WaitingVisitor { edge: Arc::clone(edge), conn, stream };
    match next {
        AfterRequest::Park => waiting.park(),
        AfterRequest::Linger => waiting.linger(),
        AfterRequest::NextRequest | AfterRequest::Close => waiting.close(),
    }
}

/// A visitor that waits for the first byte of a request, without a thread.
struct WaitingVisitor {
    edge: Arc<Edge>,
    conn: Arc<VisitorConn>,
    stream: Option<CurrentStream>,
}

impl WaitingVisitor {
    /// Leaves the connection to the parking.
    fn park(self) {
        self.conn.shrink();
        let (edge, limits) = (Arc::clone(&self.edge), self.edge.config().limits);
        let timeout = if self.stream.is_some() { limits.idle } else { limits.head };
        let exchange = self.stream.as_ref().map(|stream| Arc::clone(&stream.exchange));
        if let Err(e) = edge.parking.park(Box::new(self), sys::clock() + timeout) {
            edge.warn_park_failed(&e);
            if let Some(exchange) = exchange {
                exchange.latest().detach();
            }
        }
    }

    fn close(self) {
        if let Some(stream) = self.stream {
            stream.exchange.latest().detach();
        }
    }

    /// Closes the connection after the page or response that was sent last.
    fn linger(self) {
        let (edge, conn) = (Arc::clone(&self.edge), Arc::clone(&self.conn));
        self.close();
        linger::close(&edge, conn);
    }
}

impl Parked for WaitingVisitor {
    fn fd(&self) -> RawFd {
        self.conn.fd()
    }

    fn resume(self: Box<Self>) {
        if !self.conn.visitor().set_busy() && !self.conn.has_input() {
            // Another visitor needs the place.
            return self.close();
        }
        let WaitingVisitor { edge, conn, stream } = *self;
        let exchange = stream.as_ref().map(|stream| Arc::clone(&stream.exchange));
        let (shared, visitor) = (Arc::clone(&edge), Arc::clone(&conn));
        let job = Box::new(move || serve(&shared, conn, stream, Vec::new()));
        if !edge.run_visitor(visitor.visitor(), job) {
            let _ = visitor.write_now(&ErrorPage::edge_full().render(PageFormat::CLOSE));
            visitor.finish();
            if let Some(exchange) = exchange {
                exchange.latest().detach();
            }
            linger::close(&edge, visitor);
        }
    }

    fn expire(mut self: Box<Self>) {
        if is_in_progress(&mut self.stream) {
            self.park();
        } else {
            self.conn.finish();
            self.close();
        }
    }
}

/// Returns whether a response is under way.
fn is_in_progress(stream: &mut Option<CurrentStream>) -> bool {
    let Some(mut current) = stream.take() else { return false };
    current.exchange = current.exchange.latest();
    let in_progress = current.exchange.status() == ExchangeStatus::InProgress;
    *stream = Some(current);
    in_progress
}

struct HttpVisitor<'a> {
    edge: &'a Edge,
    conn: &'a Arc<VisitorConn>,
    /// Received bytes, from `start` on.
    input: Vec<u8>,
    start: usize,
    /// Client of the current request.
    visitor: VisitorInfo,
    /// Whether the current request may be sent twice.
    is_idempotent: bool,
    request: RequestHead,
    out: Vec<u8>,
    stream: Option<CurrentStream>,
    /// Memory of a body that was read before its request went on. `input` and `out` keep it
    /// until the thread leaves the connection.
    held_body: Option<HeldBytes>,
    /// Bytes of the current body that were read before its request went on, all of it.
    received_body: Option<usize>,
}

/// A request that goes on.
struct RoutedRequest {
    endpoint: Arc<OnlineEndpoint>,
    plan: ForwardPlan,
}

/// A request that ends at the edge.
enum RequestEnd {
    /// With this response.
    Page(ErrorPage),
    /// With this response, after which the connection ends: the end of the request is not known.
    LastPage(ErrorPage),
    /// With the connection.
    Close,
}

impl From<ErrorPage> for RequestEnd {
    fn from(page: ErrorPage) -> Self {
        RequestEnd::Page(page)
    }
}

/// Result of reading a head.
enum HeadRead {
    /// A head of this length is complete.
    Complete(usize),
    /// The visitor's direction has ended.
    Ended,
    /// No byte came for a moment.
    Silent,
}

/// The stream that carries the visitor's requests, as long as they are for one
/// endpoint.
pub struct CurrentStream {
    exchange: Arc<VisitorExchange>,
    endpoint: Arc<OnlineEndpoint>,
    visitor: VisitorInfo,
    /// Bytes in front of the first request.
    prefix: Vec<u8>,
}

/// Next step after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterRequest {
    NextRequest,
    /// The next one may take its time.
    Park,
    /// The edge has ended its direction; the rest that the visitor sends is discarded.
    Linger,
    Close,
}

impl HttpVisitor<'_> {
    /// Serves one request.
    fn serve_request(&mut self) -> AfterRequest {
        let len = match self.read_head() {
            Ok(HeadRead::Complete(len)) => len,
            Ok(HeadRead::Ended) => return self.finish_after_half_close(),
            Ok(HeadRead::Silent) => return AfterRequest::Park,
            Err(page) => {
                return match self.wait_for_response() {
                    AfterRequest::NextRequest => self.send_page(&page, PageFormat::CLOSE),
                    next => next,
                };
            }
        };
        // Responses are sent in the order of the requests.
        if self.wait_for_response() == AfterRequest::Close {
            return AfterRequest::Close;
        }
        let bytes = &self.input[self.start..self.start + len];
        if let Err(refusal) = self.request.parse(bytes) {
            event!(debug, obj = "edge", "request refused", err = refusal, r = self.conn.peer());
            return self.send_page(&ErrorPage::bad_request(refusal), PageFormat::CLOSE);
        }
        self.forward(len)
    }

    /// Waits until the response before is complete.
    fn wait_for_response(&mut self) -> AfterRequest {
        let Some(mut stream) = self.stream.take() else { return AfterRequest::NextRequest };
        let (exchange, status) = stream.exchange.wait(self.edge.config().limits.idle);
        if status == ExchangeStatus::InProgress {
            exchange.give_up(&upstream_too_slow());
            exchange.wait_end(FLUSH_TIMEOUT);
        }
        stream.exchange = exchange;
        self.stream = Some(stream);
        if status == ExchangeStatus::Idle { AfterRequest::NextRequest } else { AfterRequest::Close }
    }

    /// Waits for the response under way after the visitor half-closed the connection.
    fn finish_after_half_close(&mut self) -> AfterRequest {
        if let Some(stream) = self.stream.take() {
            let exchange = stream.exchange.latest();
            let timeout = exchange.half_close_timeout();
            let (exchange, status) = exchange.wait(timeout);
            if status == ExchangeStatus::InProgress {
                exchange.give_up(&upstream_too_slow());
                exchange.wait_end(FLUSH_TIMEOUT);
            }
            exchange.detach();
        }
        AfterRequest::Close
    }

    /// Reads until a head is complete.
    fn read_head(&mut self) -> Result<HeadRead, ErrorPage> {
        let limits = self.edge.config().limits;
        let mut seen = 0;
        let mut deadline = None;
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
        }
        loop {
            // Empty lines in front of a request are accepted (RFC 9112, 2.2).
            while seen == 0 && self.input[self.start..].starts_with(b"\r\n") {
                self.start += 2;
            }
            let waiting = &self.input[self.start..];
            if !self.conn.is_tls()
                && let Err(error) = head::check_start(waiting)
            {
                self.log_wrong_protocol(error);
                return Err(ErrorPage::bad_request(error));
            }
            if let Some(len) = head::end(waiting, seen) {
                if len > MAX_HEAD_BYTES {
                    return Err(ErrorPage::bad_request(HttpError::HeadTooLarge));
                }
                return Ok(HeadRead::Complete(len));
            }
            seen = waiting.len();
            if seen >= MAX_HEAD_BYTES {
                return Err(ErrorPage::bad_request(HttpError::HeadTooLarge));
            }
            if seen == 0 {
                if !is_in_progress(&mut self.stream) {
                    self.conn.visitor().set_idle();
                }
                let pause = if self.edge.workers.is_short() { NO_PAUSE } else { PARK_DELAY };
                self.conn.set_read_timeout(pause);
            } else {
                // The head has its time from the first byte on.
                let at = *deadline.get_or_insert_with(|| sys::clock() + limits.head);
                let left = at.since(sys::clock());
                if left.is_zero() {
                    return Err(too_slow());
                }
                self.conn.visitor().set_busy();
                self.conn.set_read_timeout(left);
            }
            match self.read_more(HEAD_READ_BYTES) {
                Ok(0) => return Ok(HeadRead::Ended),
                Ok(_) => {}
                Err(e) if is_timeout(&e) && seen > 0 => return Err(too_slow()),
                Err(e) if is_timeout(&e) => return Ok(HeadRead::Silent),
                Err(_) => {
                    // Reset by the visitor: the response has no receiver.
                    self.detach();
                    return Ok(HeadRead::Ended);
                }
            }
        }
    }

    fn log_wrong_protocol(&self, error: HttpError) {
        if let Some(count) = self.edge.count_warning("TLS on the HTTP port", 1) {
            let peer = self.conn.peer();
            event!(info, obj = "edge", "request refused", err = error, r = peer, count = count);
        }
    }

    /// Detaches the stream of the earlier requests.
    fn detach(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.exchange.latest().detach();
        }
    }

    /// Reads at most `most` bytes and appends them to the waiting bytes.
    fn read_more(&mut self, most: usize) -> io::Result<usize> {
        body::read_more(self.conn, &mut self.input, &mut self.start, most)
    }

    /// Sends an error page.
    fn send_page(&mut self, page: &ErrorPage, format: PageFormat) -> AfterRequest {
        let _ = self.conn.write_all(&page.render(format));
        if !format.close {
            return AfterRequest::NextRequest;
        }
        self.conn.finish();
        AfterRequest::Linger
    }

    /// Sends a page in place of a response. The connection stays open if the whole request was
    /// read.
    fn reject(&mut self, page: &ErrorPage, mut format: PageFormat, len: usize) -> AfterRequest {
        self.start += len;
        format.close |= self.request.body() != BodyFraming::None;
        self.send_page(page, format)
    }

    /// Returns the endpoint of the request. The error is the page for an unknown endpoint.
    fn find_endpoint(&self) -> Result<Arc<OnlineEndpoint>, ErrorPage> {
        let host = self.request.host();
        match self.edge.registry.find_http(host, self.visitor.tls, sys::clock()) {
            Lookup::Online(endpoint) if !self.is_for(&endpoint) => {
                Err(ErrorPage::misdirected(host))
            }
            Lookup::Online(endpoint)
                if self.edge.admits_visitor(&endpoint, self.visitor.client) =>
            {
                Ok(endpoint)
            }
            Lookup::Online(_) => Err(ErrorPage::forbidden()),
            Lookup::AgentAway(_) => Err(ErrorPage::agent_away(host)),
            Lookup::Unknown => Err(ErrorPage::unknown_host(host)),
        }
    }

    /// Returns whether the TLS connection was made for the endpoint. Another one could have
    /// other rules for its visitors. A trusted proxy sends the requests of many visitors.
    fn is_for(&self, endpoint: &OnlineEndpoint) -> bool {
        let version = || self.conn.handshake_details().map(|details| details.version);
        if !endpoint.options.actions.admits_handshake(self.conn.tls_options(), version) {
            return false;
        }
        let name = self.conn.server_name().filter(|_| !self.visitor.trusted);
        name.is_none_or(|name| self.edge.serves_together(name, self.request.host(), endpoint))
    }

    /// Decides about a request, whose head has `len` bytes: runs the actions of its endpoint,
    /// and of the internal endpoints that the policies forward it to. `len` becomes the length
    /// of the changed head, also for a request that ends here.
    fn route(&mut self, len: &mut usize) -> Result<RoutedRequest, RequestEnd> {
        let mut endpoint = self.find_endpoint()?;
        self.connect(&endpoint)?;
        let mut outer = None;
        for _ in 0..internal::MAX_CHAIN {
            let (url, plan) = match self.decide(&endpoint, *len, outer)? {
                Decision::Forward(mut plan) => {
                    if plan.edits().body().is_some() {
                        self.apply_edits(len, &plan.take_edits())?;
                    }
                    return Ok(RoutedRequest { endpoint, plan });
                }
                Decision::Respond(reply) => return Err(RequestEnd::Page(reply.into())),
                Decision::Close => return Err(RequestEnd::Close),
                Decision::Internal(url, plan) => (url, plan),
            };
            let next = internal::find(self.edge, &endpoint.account, Protocol::Http, &url)
                .map_err(|fault| ErrorPage::from(fault.into_reply()))?;
            if !self.edge.admits_visitor(&next, self.visitor.client) {
                return Err(RequestEnd::Page(ErrorPage::forbidden()));
            }
            self.apply_edits(len, plan.edits())?;
            outer = plan.response().cloned();
            endpoint = next;
        }
        Err(RequestEnd::Page(ErrorPage::too_many_forwards(internal::MAX_CHAIN)))
    }

    /// Runs the rules for connections, once for each connection and endpoint.
    fn connect(&self, endpoint: &Arc<OnlineEndpoint>) -> Result<(), RequestEnd> {
        let known = self.stream.as_ref().is_some_and(|stream| {
            Arc::ptr_eq(&stream.endpoint, endpoint) && stream.visitor == self.visitor
        });
        if known || !endpoint.options.actions.has_connect_rules() {
            return Ok(());
        }
        let server_name = self.conn.server_name();
        let handshake = self.conn.handshake_details();
        let handshake = handshake.as_ref();
        let connection = ConnectionInfo { server_name, handshake, ..self.connection() };
        match internal::connect(self.edge, endpoint, connection) {
            Some(served) if Arc::ptr_eq(&served, endpoint) => Ok(()),
            _ => Err(RequestEnd::Close),
        }
    }

    /// Returns the connection, as policies see it, without the server name.
    fn connection(&self) -> ConnectionInfo<'static> {
        let VisitorInfo { client, tls, .. } = self.visitor;
        let server = self.conn.origin().local;
        ConnectionInfo { client, server, tls, server_name: None, handshake: None }
    }

    /// Runs the actions of an endpoint on a request, whose head has `len` bytes. `outer` is the
    /// plan of the endpoint that forwarded it.
    fn decide(
        &mut self,
        endpoint: &OnlineEndpoint,
        len: usize,
        outer: Option<Arc<ResponsePlan>>,
    ) -> Result<Decision, ErrorPage> {
        let actions = &endpoint.options.actions;
        if let Some(plan) = actions.unconditional(outer.as_ref()) {
            return Ok(Decision::Forward(plan));
        }
        let (start, now) = (self.start, (sys::clock(), internal::unix_seconds()));
        // A copy: the bytes that follow are read while the rules look at the head.
        let head = actions.has_policy().then(|| self.input[start..start + len].to_vec());
        let server_name = head.is_some().then(|| self.conn.server_name()).flatten();
        let handshake = head.is_some().then(|| self.conn.handshake_details()).flatten();
        let handshake = handshake.as_ref();
        let visit = PolicyVisit {
            connection: ConnectionInfo { server_name, handshake, ..self.connection() },
            endpoint: endpoint.info(),
            now: now.0,
            unix_seconds: now.1,
            hops: PolicyHops::default(),
        };
        let mut source = RequestBody {
            edge: self.edge,
            conn: self.conn,
            invites: self.request.expects_continue(&self.input[start..start + len]),
            input: &mut self.input,
            start: &mut self.start,
            held: &mut self.held_body,
            received: &mut self.received_body,
            head: len,
            framing: self.request.body(),
        };
        let body = match actions.body_limit() {
            Some(limit) => source.read_whole(limit, webhook_too_long)?,
            None => Vec::new(),
        };
        Ok(match &head {
            Some(head) => {
                let info = self.request.info(head, &body, self.visitor, now);
                actions.request(&info, RequestVisit { visit, body: &mut source }, outer)
            }
            None => {
                let head = &self.input[self.start..self.start + len];
                let info = self.request.info(head, &body, self.visitor, now);
                actions.request(&info, RequestVisit { visit, body: &mut NoBody }, outer)
            }
        })
    }

    /// Writes the changes of a request, whose head has `len` bytes, into the received bytes.
    /// `len` becomes the length of the new head, also if that is not valid.
    fn apply_edits(&mut self, len: &mut usize, edits: &HeaderEdits) -> Result<(), RequestEnd> {
        let mut head = Vec::with_capacity(*len + 256);
        let end = self.start + *len;
        self.request.edit(&self.input[self.start..end], edits, &mut head);
        if let Some(body) = edits.body() {
            let received = self.received_body.unwrap_or_default();
            self.input.splice(end..end + received, body.iter().copied());
            self.received_body = Some(body.len());
        }
        *len = head.len();
        self.input.splice(self.start..end, head);
        let bytes = &self.input[self.start..self.start + *len];
        let error = match self.request.parse(bytes) {
            Ok(()) if *len <= MAX_HEAD_BYTES => return Ok(()),
            Ok(()) => HttpError::HeadTooLarge,
            Err(error) => error,
        };
        Err(RequestEnd::LastPage(ErrorPage::bad_request(error)))
    }

    /// Sends a request, whose head has `len` bytes, into a stream of its endpoint.
    fn forward(&mut self, len: usize) -> AfterRequest {
        let visitor = self.conn.visitor();
        visitor.set_busy();
        let bytes = &self.input[self.start..self.start + len];
        let (method, path) = self.request.line(bytes);
        let (conn, config) = (self.conn, self.edge.config());
        let origin = conn.origin();
        self.visitor = self.request.visitor(bytes, origin, conn.is_tls(), &config.trusted_proxies);
        if origin.trusted {
            visitor.set_client(self.visitor.client.ip());
        }
        let (host, from) = (self.request.host(), self.visitor.client);
        event!(debug, obj = "edge", "request", method = method, url = host, path = path, r = from);
        let head_only = self.request.is_head(bytes);
        let format = PageFormat {
            html: self.request.accepts_html(bytes),
            head_only,
            close: self.request.closes() || self.edge.is_draining() || visitor.leaves(),
        };
        if let Some(dir) = &config.updates
            && let Some(name) = feed::name(host, &config.domain, path)
        {
            let found = feed::open(dir, name).filter(|_| method == "GET" || head_only);
            return self.serve_feed(found, format, len);
        }
        self.received_body = None;
        let mut len = len;
        let RoutedRequest { endpoint, plan } = match self.route(&mut len) {
            Ok(routed) => routed,
            Err(RequestEnd::Page(page)) => return self.reject(&page, format, len),
            Err(RequestEnd::LastPage(page)) => {
                return self.reject(&page, PageFormat { close: true, ..format }, len);
            }
            Err(RequestEnd::Close) => {
                self.conn.abort();
                return AfterRequest::Close;
            }
        };

        if plan.websocket_to_bytes() {
            return self.serve_websocket(&endpoint, format, len);
        }
        let bytes = &self.input[self.start..self.start + len];
        self.out.clear();
        self.request.rewrite(bytes, self.visitor, plan.edits(), &mut self.out);
        let idempotent = self.request.is_idempotent(bytes);
        self.is_idempotent = idempotent;
        let context = RequestContext {
            head_only,
            upgrade: self.request.upgrades(),
            close: format.close,
            is_http10: self.request.is_http10(),
            plan: plan.response().cloned(),
        };
        let upgrade = context.upgrade;
        self.start += len;

        // Bytes of the body that arrived with the head are sent with it.
        let mut body = BodyTracker::new(self.request.body());
        let taken = match body.take(&self.input[self.start..]) {
            Ok(n) => n,
            Err(error) => {
                let page = ErrorPage::bad_request(error);
                return self.send_page(&page, PageFormat { close: true, ..format });
            }
        };
        self.out.extend_from_slice(&self.input[self.start..self.start + taken]);
        self.start += taken;

        let retryable = idempotent && self.request.body() == BodyFraming::None;
        let start =
            RequestStart { context, format, request: body.direction(), retry_frame: Vec::new() };
        if let Err(page) = self.send_first(endpoint, start, retryable) {
            let close = format.close || !body.is_done();
            return self.send_page(&page, PageFormat { close, ..format });
        }
        if !body.is_done() {
            match self.send_body(&mut body) {
                AfterRequest::NextRequest => {}
                next => return next,
            }
        }
        if upgrade {
            return self.serve_upgrade();
        }
        // After the last response the reactor ends the connection. Until then the read detects
        // whether the visitor is still connected.
        AfterRequest::NextRequest
    }

    /// Sends a file of the update feed. The request has a head of `len` bytes.
    fn serve_feed(
        &mut self,
        found: Option<(File, u64)>,
        mut format: PageFormat,
        len: usize,
    ) -> AfterRequest {
        let Some((mut file, length)) = found else {
            return self.reject(&ErrorPage::new(404, 0, "The feed has no such file."), format, len);
        };
        self.start += len;
        format.close |= self.request.body() != BodyFraming::None;
        let head = feed::head(length, format.close);
        let mut sent = self.conn.write_all(head.as_bytes());
        if sent.is_ok() && !format.head_only {
            sent = feed::copy(&mut file, length, &mut |piece| self.conn.write_all(piece));
        }
        if sent.is_ok() && !format.close {
            return AfterRequest::NextRequest;
        }
        self.conn.finish();
        AfterRequest::Linger
    }

    /// Accepts a WebSocket, whose request has a head of `len` bytes, in place of the upstream.
    fn serve_websocket(
        &mut self,
        endpoint: &OnlineEndpoint,
        format: PageFormat,
        len: usize,
    ) -> AfterRequest {
        let bytes = &self.input[self.start..self.start + len];
        let Some(head) = self.request.accept_websocket(bytes) else {
            let text = "This endpoint accepts WebSocket connections only.";
            return self.reject(&ErrorPage::new(400, 3206, text), format, len);
        };
        self.detach();
        let VisitorInfo { client, tls, .. } = self.visitor;
        let prefix = endpoint.prefix(client, self.conn.origin().local, tls);
        let early = self.input.split_off(self.start + len);
        if self.conn.write_all(&head).is_ok() {
            websocket_pipe::serve(self.edge, self.conn, endpoint, &prefix, &early);
        }
        AfterRequest::Close
    }

    /// Sends the head and the received part of the body: on the stream of the request before if
    /// possible, else on a new one.
    fn send_first(
        &mut self,
        endpoint: Arc<OnlineEndpoint>,
        mut start: RequestStart,
        retryable: bool,
    ) -> Result<(), ErrorPage> {
        let failover = self.failover(&endpoint, &start);
        if let Some(mut stream) = self.stream.take() {
            stream.exchange = stream.exchange.latest();
            let timeout =
                if retryable { self.edge.config().limits.idle } else { UNSAFE_REUSE_TIMEOUT };
            // A stream names one client. A proxy sends requests of several.
            if Arc::ptr_eq(&stream.endpoint, &endpoint) && stream.visitor == self.visitor {
                if retryable && stream.prefix.len() + self.out.len() <= MAX_FIRST {
                    start.retry_frame = [&stream.prefix[..], &self.out].concat();
                }
                let failover = failover.clone();
                if stream.exchange.begin_request(&mut start, timeout, failover) {
                    let exchange = Arc::clone(&stream.exchange);
                    self.stream = Some(stream);
                    self.check_send(exchange.send(&self.out, self.stall()), &exchange);
                    return Ok(());
                }
            }
            stream.exchange.detach();
        }
        let mut endpoint = endpoint;
        for _ in 0..4 {
            match self.open(&endpoint, &start, failover.clone()) {
                Ok(()) => return Ok(()),
                Err(SendError::Over | SendError::Refused(_)) => {}
                Err(_) => return Err(ErrorPage::no_stream()),
            }
            // Nothing was sent: another member of the pool can serve it.
            match self.find_again(&endpoint) {
                // The request was decided about with the options of the first one.
                Lookup::Online(next)
                    if !Arc::ptr_eq(&next, &endpoint) && next.decides_as(&endpoint) =>
                {
                    endpoint = next;
                }
                Lookup::Online(_) => break,
                _ => return Err(ErrorPage::agent_away(self.request.host())),
            }
        }
        if endpoint.session().is_over() {
            return Err(ErrorPage::no_stream());
        }
        self.edge.warn_full("streams to one agent");
        Err(ErrorPage::agent_full())
    }

    /// Finds the endpoint, or another member of its pool.
    fn find_again(&self, endpoint: &OnlineEndpoint) -> Lookup {
        let (registry, now) = (&self.edge.registry, sys::clock());
        match endpoint.internal {
            Some(port) => registry.find_internal(&endpoint.account, &endpoint.host, port, now),
            None => registry.find_http(self.request.host(), self.visitor.tls, now),
        }
    }

    /// Returns the other members of the endpoint's pool for a request that is complete and small
    /// enough to be sent again.
    fn failover(&self, endpoint: &Arc<OnlineEndpoint>, start: &RequestStart) -> Option<Failover> {
        let fits = start.request == RequestDirection::Done && self.out.len() < MAX_FIRST;
        if !fits || !endpoint.pooling {
            return None;
        }
        let VisitorInfo { client, tls, .. } = self.visitor;
        let local = self.conn.origin().local;
        let others = self.edge.registry.pool_members(endpoint, MAX_MEMBERS);
        let member = |other: Arc<OnlineEndpoint>| -> PoolMember {
            Arc::new(move || (other.target(), other.prefix(client, local, tls)))
        };
        let idempotent = self.is_idempotent;
        let members: Vec<_> = others.into_iter().map(member).collect();
        let request = || Arc::from(self.out.as_slice());
        (!members.is_empty()).then(|| Failover { request: request(), members, idempotent })
    }

    fn open(
        &mut self,
        endpoint: &Arc<OnlineEndpoint>,
        start: &RequestStart,
        failover: Option<Failover>,
    ) -> Result<(), SendError> {
        let VisitorInfo { client, tls, .. } = self.visitor;
        let prefix = endpoint.prefix(client, self.conn.origin().local, tls);
        let mut frame = Vec::with_capacity(MAX_FIRST);
        frame.extend_from_slice(&prefix);
        let room = MAX_FIRST.saturating_sub(prefix.len()).min(self.out.len());
        frame.extend_from_slice(&self.out[..room]);
        let (target, buffers) = (endpoint.wait_for_target(), &self.edge.buffers);
        let filter = &ResponseFilter::http;
        let exchange =
            VisitorExchange::open(&target, self.conn, buffers, &frame, filter, start, failover)?;
        self.check_send(exchange.send(&self.out[room..], self.stall()), &exchange);
        let (endpoint, visitor) = (Arc::clone(endpoint), self.visitor);
        self.stream = Some(CurrentStream { exchange, endpoint, visitor, prefix });
        Ok(())
    }

    /// Handles a failed send. The exchange detects most errors itself and sends a page or
    /// retries. It does not detect a timeout of the agent.
    fn check_send(&self, sent: Result<(), SendError>, exchange: &VisitorExchange) {
        if sent == Err(SendError::Late) {
            exchange.give_up(&upstream_too_slow());
        }
    }

    /// Returns the time that an agent may take no byte of a request.
    fn stall(&self) -> Duration {
        self.edge.config().limits.stall
    }

    /// Sends the rest of a body as it arrives.
    fn send_body(&mut self, body: &mut BodyTracker) -> AfterRequest {
        let Some(stream) = &self.stream else { return AfterRequest::Close };
        let exchange = Arc::clone(&stream.exchange);
        self.conn.set_read_timeout(self.edge.config().limits.idle);
        // A separate buffer: the one for heads stays small.
        let mut buf = vec![0; BODY_READ_BYTES];
        while !body.is_done() {
            let (taken, len) = match self.read_body(body, &mut buf, &exchange) {
                Some(read) => read,
                None => return AfterRequest::Close,
            };
            if body.is_done() {
                exchange.body_done();
                self.keep_input(&buf[taken..len]);
            }
            let sent = exchange.send(&buf[..taken], self.stall());
            self.check_send(sent, &exchange);
            if sent.is_err() {
                return self.finish_early_response(body, &mut buf);
            }
        }
        AfterRequest::NextRequest
    }

    /// Reads a part of a body. Returns how many bytes belong to it and how many were read.
    /// `None`: the body broke off, and the exchange was ended.
    fn read_body(
        &self,
        body: &mut BodyTracker,
        buf: &mut [u8],
        exchange: &Arc<VisitorExchange>,
    ) -> Option<(usize, usize)> {
        let len = match self.conn.read(buf) {
            Ok(n) if n > 0 => n,
            Err(e) if is_timeout(&e) => {
                exchange.give_up(&body_too_slow());
                exchange.wait_end(FLUSH_TIMEOUT);
                exchange.detach();
                return None;
            }
            _ => {
                if exchange.is_cut() {
                    // The visitor did not end: the received part of the response is still
                    // delivered.
                    exchange.wait_end(FLUSH_TIMEOUT);
                }
                // Truncated: the upstream must not accept the body as complete.
                exchange.detach();
                return None;
            }
        };
        match body.take(&buf[..len]) {
            Ok(taken) => Some((taken, len)),
            Err(reason) => {
                event!(debug, obj = "edge", "request refused", err = reason);
                exchange.detach();
                self.conn.abort();
                None
            }
        }
    }

    /// Keeps bytes that were read after a body.
    fn keep_input(&mut self, bytes: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(bytes);
        self.start = 0;
    }

    /// Handles a request whose rest the upstream refuses. Its response is still delivered. The
    /// connection stays open if the response did not announce its end; the rest is discarded.
    fn finish_early_response(&mut self, body: &mut BodyTracker, buf: &mut [u8]) -> AfterRequest {
        let Some(stream) = self.stream.take() else { return AfterRequest::Close };
        let (exchange, status) = stream.exchange.wait(EARLY_RESPONSE_TIMEOUT);
        match status {
            ExchangeStatus::Idle => {
                exchange.detach();
                return self.discard_body(body, buf);
            }
            ExchangeStatus::InProgress => {
                exchange.give_up(&upstream_too_slow());
                exchange.wait_end(FLUSH_TIMEOUT);
            }
            ExchangeStatus::Tunnel | ExchangeStatus::Closed => {}
        }
        exchange.detach();
        AfterRequest::Linger
    }

    /// Reads the rest of a body that the upstream did not accept.
    fn discard_body(&mut self, body: &mut BodyTracker, buf: &mut [u8]) -> AfterRequest {
        let mut left = MAX_DISCARDED_BODY_BYTES;
        while !body.is_done() {
            let len = match self.conn.read(buf) {
                Ok(n) if n > 0 => n,
                _ => return AfterRequest::Close,
            };
            let Ok(taken) = body.take(&buf[..len]) else { return AfterRequest::Close };
            // Widening: a length of memory.
            left = left.saturating_sub(taken as u64);
            if left == 0 && !body.is_done() {
                return AfterRequest::Close;
            }
            self.keep_input(&buf[taken..len]);
        }
        AfterRequest::NextRequest
    }

    /// Continues as a pipe after a request for another protocol, if the response accepts it.
    fn serve_upgrade(&mut self) -> AfterRequest {
        let Some(mut stream) = self.stream.take() else { return AfterRequest::Close };
        let (exchange, status) = stream.exchange.wait(self.edge.config().limits.idle);
        match status {
            ExchangeStatus::Tunnel => {
                let early = self.input.split_off(self.start);
                passthrough::pipe(self.conn, &exchange, &early, self.edge.config().limits);
                AfterRequest::Close
            }
            ExchangeStatus::Idle => {
                stream.exchange = exchange;
                self.stream = Some(stream);
                AfterRequest::NextRequest
            }
            ExchangeStatus::InProgress | ExchangeStatus::Closed => {
                exchange.give_up(&upstream_too_slow());
                exchange.wait_end(FLUSH_TIMEOUT);
                exchange.detach();
                AfterRequest::Close
            }
        }
    }
}

/// Returns the page for a body that is too long for the options of the endpoint.
fn webhook_too_long(_: usize) -> ErrorPage {
    ErrorPage::new(403, 3204, "The body of the request is too long to check its signature.")
}

fn too_slow() -> ErrorPage {
    ErrorPage::new(408, 0, "The head of the request took too long.")
}

fn upstream_too_slow() -> ErrorPage {
    ErrorPage::new(504, 0, "The service behind this address did not respond in time.")
}
