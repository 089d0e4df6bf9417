//! One proxied connection: its target, its upstream, and its current owner, which is the queue,
//! a worker, or the reactor (parked).

use std::fmt::Display;
use std::io::{self, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::copy::{self, CopyOutcome};
use super::files::{self, path::Root};
use super::pages::{self, Unreachable};
use super::pool::{Pool, PoolTask};
use super::refusals::RefusalReason;
use super::target::ProxyTarget;
use super::upstream::UpstreamConn;
use super::visitor_tls::VisitorTls;
use crate::event;
use crate::features;
use crate::http1::head::{self, HeadReader, MAX_AGENT_HEAD_BYTES};
use crate::inspect::Tap;
use crate::mux::{Code, StreamId};
use crate::proto::proxy_header::ProxyHeader;
use crate::proto::proxy_protocol::{self, Prefix};
use crate::session::{Forwarded, HalfCloseTimer, Pipe, Reset, SendError, Session, Sink};
use crate::sys;
use crate::time::{Deadline, Instant};

/// Time that a new connection may wait for a worker.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to wait for a visitor's request head, to answer it with a page.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to wait for a PROXY header that the edge announced.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a connection may be silent in both directions after one of them has ended. Longer
/// than that of most edges: it is for edges without one.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Time that a visitor of a directory may be silent, or may read nothing of the response.
const FILES_IDLE_TIMEOUT: Duration = Duration::from_secs(5);
const FILES_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection. Its sink, a worker and the pool's queue share it. Only one thread at a time
/// runs `Conn::serve`.
pub struct Conn {
    me: Weak<Conn>,
    target: Arc<ProxyTarget>,
    /// Time at which it began.
    since: Instant,
    pipe: Pipe,
    pool: Arc<Pool>,
    client_addr: String,
    /// The visitor's own TLS is passed through (protocol 6.4).
    passthrough: bool,
    /// It may be answered with a page. Labels also get visitors of other protocols.
    pages: bool,
    upstream: OnceLock<UpstreamConn>,
    /// Observes the bytes of both directions.
    tap: Option<Tap>,
    /// Parked until the peer grants window.
    waits_for_window: AtomicBool,
    half_close: HalfCloseTimer,
}

/// Bytes and TLS of a visitor before the connection to the upstream.
#[derive(Default)]
struct Preamble {
    /// PROXY header to forward before all other bytes.
    header: Vec<u8>,
    /// The visitor's TLS, if the agent terminates it.
    tls: Option<Arc<VisitorTls>>,
}

impl Conn {
    pub(super) fn new(
        session: &Session,
        stream: StreamId,
        target: Arc<ProxyTarget>,
        header: &ProxyHeader,
        pool: &Arc<Pool>,
    ) -> Arc<Self> {
        pool.count_connection(true);
        let since = sys::clock();
        target.metrics.connection_began(since);
        let pages = target.pages && !matches!(header.proto.as_str(), "tcp" | "tls");
        Arc::new_cyclic(|me| Conn {
            me: Weak::clone(me),
            tap: target.source.as_ref().map(|source| source.tap(&header.client_addr)),
            pages,
            target,
            since,
            pipe: Pipe::new(session, stream),
            pool: Arc::clone(pool),
            client_addr: header.client_addr.clone(),
            passthrough: header.passthrough_tls,
            upstream: OnceLock::new(),
            waits_for_window: AtomicBool::new(false),
            half_close: HalfCloseTimer::default(),
        })
    }

    /// Refuses a visitor because descriptors or memory for the connection are missing.
    fn refuse_exhausted(&self, error: &io::Error) {
        self.log_refusal(RefusalReason::Exhausted, error);
        self.pool.count_refused();
        self.refuse_busy();
    }

    /// Ends or parks the connection after a worker or the reactor has stopped copying.
    fn handle_outcome(&self, outcome: CopyOutcome) {
        let session = self.pipe.session();
        let stream = self.pipe.stream();
        match outcome {
            CopyOutcome::Finished => {
                if let Some(tap) = &self.tap {
                    tap.finish();
                }
                session.finish(stream);
                self.pipe.outbound_done();
                self.half_closed();
            }
            CopyOutcome::Broken(e) => {
                // Not bounded: a connection has one line of its end.
                event!(
                    info,
                    obj = "join",
                    "upstream connection broken",
                    id = stream,
                    l = self.target.upstream,
                    err = e
                );
                // Not an orderly end: the visitor's bytes are incomplete.
                session.reset(stream, Code::STREAM_CANCELLED);
                self.abort();
            }
            CopyOutcome::Gone => {
                // The peer knows it, unless the stream ended because of this side.
                session.reset(stream, Code::STREAM_CANCELLED);
                self.abort();
            }
            CopyOutcome::Idle => self.park(),
            CopyOutcome::NoWindow => self.park_for_window(),
        }
    }

    // Functions with large stack frames are not inlined into `serve`: a worker would touch the
    // whole frame for each connection, and keep it.

    /// Reads what precedes the visitor's bytes: the PROXY header, unless bytes pass through,
    /// and the handshake, if the agent terminates TLS.
    #[inline(never)]
    fn accept_visitor(&self) -> io::Result<Preamble> {
        let ProxyTarget { tls, visitor_tls, proxy_protocol, .. } = &*self.target;
        let ends_here = visitor_tls.as_ref().filter(|_| self.passthrough);
        let with_tls = tls.is_some() && !self.passthrough;
        let mut visitor = Preamble::default();
        if *proxy_protocol > 0 && (with_tls || ends_here.is_some()) {
            visitor.header = self.proxy_header()?;
        }
        if let Some(config) = ends_here {
            visitor.tls = Some(VisitorTls::accept(&self.pipe, config, &self.pool)?);
        }
        Ok(visitor)
    }

    /// Handles a visitor that failed before the connection to the upstream.
    fn refuse_handshake(&self, error: &io::Error) {
        // Not bounded: a connection has one line of its start.
        event!(
            info,
            obj = "join",
            "visitor TLS handshake failed",
            id = self.pipe.stream(),
            r = self.client_addr,
            err = error
        );
        if error.kind() == io::ErrorKind::InvalidData {
            // An alert was sent. A reset could overtake it.
            return self.end_answer(true);
        }
        self.pipe.session().cancel(self.pipe.stream(), Code::STREAM_CANCELLED);
        self.abort();
    }

    #[inline(never)]
    fn connect(&self, visitor: Preamble) -> io::Result<UpstreamConn> {
        // The agent makes TLS to the upstream unless the visitor's own TLS passes through.
        let with_tls = !self.passthrough || visitor.tls.is_some();
        let upstream = UpstreamConn::open(&self.target, with_tls, &visitor.header)?;
        // Not bounded: a connection has one line of its start, which programs read.
        event!(
            info,
            obj = "join",
            "join connections",
            id = self.pipe.stream(),
            l = self.target.upstream,
            r = self.client_addr
        );
        let upstream = match visitor.tls {
            Some(tls) => UpstreamConn::Inside(tls, Box::new(upstream)),
            None => upstream,
        };
        self.pipe.attach(upstream.outlet());
        Ok(upstream)
    }

    /// Reads the PROXY header in front of the visitor's bytes. Empty without one.
    fn proxy_header(&self) -> io::Result<Vec<u8>> {
        let deadline = Deadline::At(sys::clock() + PROXY_HEADER_TIMEOUT);
        let header = self.pipe.wait(deadline, |bytes| match proxy_protocol::detect(bytes) {
            Prefix::Undecided => None,
            Prefix::Absent => Some((0, Vec::new())),
            Prefix::Header { len } => bytes.get(..len).map(|header| (len, header.to_vec())),
        })?;
        Ok(header.unwrap_or_default())
    }

    /// Answers with a page for HTTP, else ends the stream, because the upstream cannot be
    /// reached (protocol 6.5).
    fn unreachable(&self, error: &io::Error) {
        let ProxyTarget { url, upstream, .. } = &*self.target;
        let text = error.to_string();
        self.log_refusal(RefusalReason::Unreachable, &text);
        if !self.pages {
            self.pipe.session().cancel(self.pipe.stream(), Code::STREAM_CANCELLED);
            return self.abort();
        }
        let deadline = Deadline::At(sys::clock() + REQUEST_HEAD_TIMEOUT);
        let mut reader = HeadReader::new(MAX_AGENT_HEAD_BYTES);
        let mut seen = 0;
        // Without a valid head in time the page is plain text.
        let _ = self.pipe.wait(deadline, |bytes| {
            if head::end(bytes, seen).is_none() && bytes.len() < MAX_AGENT_HEAD_BYTES {
                seen = bytes.len();
                return None;
            }
            let _ = reader.feed(bytes);
            Some((0, ()))
        });
        let page = pages::bad_gateway(
            reader.request().as_ref(),
            &Unreachable {
                url,
                upstream: &upstream.to_string(),
                error: &text,
                is_listening: error.kind() == io::ErrorKind::InvalidData,
            },
        );
        self.tap_response(&page);
        let sent = self.pipe.session().send(
            self.pipe.stream(),
            &page,
            Deadline::At(sys::clock() + REQUEST_HEAD_TIMEOUT),
        );
        self.end_answer(sent.is_ok());
    }

    /// Refuses a visitor because a worker or its resources are missing. On the reactor's or a
    /// worker's thread; does not wait.
    pub(super) fn refuse_busy(&self) {
        let session = self.pipe.session();
        let stream = self.pipe.stream();
        if !self.pages {
            session.cancel(stream, Code::ACCEPT_QUEUE_FULL);
            return self.abort();
        }
        let mut reader = HeadReader::new(MAX_AGENT_HEAD_BYTES);
        let _ = self.pipe.wait(Deadline::At(Instant::ZERO), |bytes| {
            let _ = reader.feed(bytes);
            Some((0, ()))
        });
        let page = pages::overloaded(reader.request().as_ref());
        self.tap_response(&page);
        let sent = session.try_send(stream, &page);
        self.end_answer(sent == Ok(page.len()));
    }

    /// Counts bytes for the visitor.
    fn sent(&self, bytes: usize) {
        self.target.metrics.sent(bytes);
        self.moved();
    }

    /// Records that bytes moved.
    fn moved(&self) {
        if self.half_close.is_half_closed() {
            self.half_close.record_bytes(sys::clock());
        }
    }

    /// Records the orderly end of one direction.
    fn half_closed(&self) {
        self.half_close.record_end(sys::clock());
        self.pool.watch_half_closed(self.me.clone());
    }

    /// Passes the bytes for the visitor to the tap.
    fn tap_response(&self, bytes: &[u8]) {
        if let Some(tap) = &self.tap {
            tap.response(bytes);
        }
    }

    /// Ends the stream after a response of the agent. Further bytes of the visitor are
    /// discarded.
    fn end_answer(&self, whole: bool) {
        let session = self.pipe.session();
        if whole {
            session.finish(self.pipe.stream());
        } else {
            session.reset(self.pipe.stream(), Code::STREAM_CANCELLED);
        }
        self.pipe.discard();
        self.pipe.outbound_done();
        if !whole {
            self.abort();
        }
    }

    #[inline(never)]
    fn serve_files(&self, root: &Root) {
        // The handshake needs one descriptor at a time.
        if let Err(e) = sys::fd_budget::place() {
            return self.refuse_exhausted(&e);
        }
        let session = self.pipe.session();
        let stream = self.pipe.stream();
        let mut on_stack = [0; copy::SMALL_READ_BYTES];
        let mut borrowed = self.pool.take_buffer();
        let buffer = borrowed.as_deref_mut().unwrap_or(&mut on_stack);
        let served =
            files::serve(root, &mut RequestReader(self), &mut ResponseWriter(self), buffer);
        if let Some(buffer) = borrowed {
            self.pool.return_buffer(buffer);
        }
        match served {
            Ok(()) => self.end_answer(true),
            Err(e) => {
                event!(debug, obj = "join", "directory response ended early", id = stream, err = e);
                session.reset(stream, Code::STREAM_CANCELLED);
                self.abort();
            }
        }
    }

    /// Resets the stream and releases everything.
    fn abort(&self) {
        self.pipe.abort(Code::STREAM_CANCELLED);
        if let Some(tap) = &self.tap {
            tap.abort();
        }
    }

    /// Leaves the upstream to the reactor until it sends bytes.
    fn park(&self) {
        match self.pipe.park() {
            // Another worker may resume it at once: nothing may follow here.
            Ok(true) => {}
            Ok(false) => self.abort(),
            Err(e) => {
                self.log_refusal(RefusalReason::ParkFailed, &e);
                self.abandon();
            }
        }
    }

    /// Continues a parked connection on the reactor's thread. It forwards small reads itself,
    /// without waking a thread. Large ones are left to a worker.
    fn forward_small(&self, socket: &TcpStream, closed: bool) {
        let session = self.pipe.session();
        let fd = socket.as_raw_fd();
        let outcome = loop {
            let relayed = session.forward_small(self.pipe.stream(), |room| {
                let n = sys::recv_now(fd, room)?;
                self.sent(n);
                if let Some(tap) = &self.tap {
                    tap.response(room.get(..n).unwrap_or_default());
                }
                Ok(n)
            });
            match relayed {
                // All bytes or the end were forwarded.
                Ok(Forwarded::Sent { full: false }) if closed => {}
                Ok(Forwarded::Sent { full: false }) => return,
                Ok(Forwarded::Sent { full: true } | Forwarded::NoRoom) => {
                    if self.pipe.unpark() {
                        self.resume();
                    }
                    return;
                }
                Ok(Forwarded::NoWindow) => break CopyOutcome::NoWindow,
                Ok(Forwarded::Nothing(Some(e))) if e.kind() == io::ErrorKind::WouldBlock => return,
                _ if self.pipe.is_reset() => break CopyOutcome::Gone,
                Ok(Forwarded::Nothing(None)) => break copy::end(&self.pipe),
                Ok(Forwarded::Nothing(Some(e))) => break CopyOutcome::Broken(e),
                Err(_) => break CopyOutcome::Gone,
            }
        };
        if self.pipe.unpark() {
            self.handle_outcome(outcome);
        }
    }

    /// Leaves the connection to the reactor until the peer grants window.
    fn park_for_window(&self) {
        self.waits_for_window.store(true, Ordering::SeqCst);
        // Window may have been granted between the last check and the mark.
        let now = Deadline::At(Instant::ZERO);
        if self.pipe.session().window(self.pipe.stream(), now).is_ok() || self.pipe.is_reset() {
            self.window();
        }
    }

    fn resume(&self) {
        if let Some(me) = self.me.upgrade() {
            self.pool.resume(me);
        }
    }
}

impl PoolTask for Conn {
    fn serve(&self, since: Option<Instant>) {
        if since.is_some_and(|since| sys::clock().since(since) > QUEUE_TIMEOUT) {
            self.log_refusal(RefusalReason::QueueTimeout, &"");
            self.pool.count_refused();
            return self.refuse_busy();
        }
        if let Some(root) = self.target.root.as_ref().filter(|_| features::FILES) {
            return self.serve_files(root);
        }
        let upstream = match self.upstream.get() {
            Some(upstream) => upstream,
            None => {
                let visitor = match self.accept_visitor() {
                    Ok(visitor) => visitor,
                    Err(e) => return self.refuse_handshake(&e),
                };
                match self.connect(visitor) {
                    Ok(upstream) => self.upstream.get_or_init(|| upstream),
                    Err(e) if sys::fd_budget::is_exhausted(&e) => return self.refuse_exhausted(&e),
                    Err(e) => return self.unreachable(&e),
                }
            }
        };
        let outcome =
            copy::to_edge(&self.pipe, upstream, &self.pool, &|n| self.sent(n), self.tap.as_ref());
        self.handle_outcome(outcome);
    }

    fn log_refusal(&self, reason: RefusalReason, error: &dyn Display) {
        let upstream = &self.target.upstream;
        let visitor = (self.pipe.stream(), upstream as &dyn Display, &*self.client_addr);
        self.pool.refusals.report(reason, sys::clock(), visitor, error);
    }

    fn abandon(&self) {
        self.pipe.session().reset(self.pipe.stream(), Code::INTERNAL_ERROR);
        self.abort();
    }

    fn check_silence(&self, now: Instant) -> bool {
        let left = self.half_close.left(now, Some(HALF_CLOSED_TIMEOUT));
        let is_open = left.is_none_or(|left| !left.is_zero());
        if !is_open {
            self.pipe.session().reset(self.pipe.stream(), Code::STREAM_CANCELLED);
            self.reset(Reset::Local(Code::STREAM_CANCELLED));
        }
        is_open
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.pool.count_connection(false);
        self.target.metrics.connection_ended(self.since, sys::clock());
    }
}

impl Sink for Conn {
    fn data(&self, bytes: &[u8]) -> usize {
        self.data_parts(&[IoSlice::new(bytes)])
    }

    fn data_parts(&self, parts: &[IoSlice<'_>]) -> usize {
        self.moved();
        for part in parts {
            self.target.metrics.received(part.len());
            // Before the upstream can respond.
            if let Some(tap) = &self.tap {
                tap.request(part);
            }
        }
        self.pipe.data_parts(parts)
    }

    fn finished(&self) {
        self.pipe.finished();
        self.half_closed();
    }

    fn reset(&self, reset: Reset) {
        self.pipe.reset(reset);
        // A parked connection must not wait any longer. Its resources are released with the
        // last handle.
        self.pipe.unpark();
        self.waits_for_window.store(false, Ordering::SeqCst);
    }

    fn cancelled(&self, code: Code) {
        self.reset(Reset::Peer(code));
    }

    fn window(&self) {
        if self.waits_for_window.swap(false, Ordering::SeqCst) {
            self.resume();
        }
    }

    fn ready(&self, readable: bool, writable: bool, closed: bool) {
        if writable {
            self.pipe.push();
        }
        if readable && self.pipe.is_parked() {
            match self.upstream.get() {
                Some(UpstreamConn::Plain(socket)) => self.forward_small(socket, closed),
                _ if self.pipe.unpark() => self.resume(),
                _ => {}
            }
        }
    }
}

/// The visitor's bytes, for the file server. A timeout looks like the visitor's end.
struct RequestReader<'a>(&'a Conn);

impl Read for RequestReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let until = sys::clock() + FILES_IDLE_TIMEOUT;
        loop {
            // In short steps: a worker must not idle here while connections wait for one.
            let step = (sys::clock() + Duration::from_millis(100)).min(until);
            match self.0.pipe.read(buf, Deadline::At(step)) {
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    if sys::clock() >= until || self.0.pool.has_waiting() {
                        return Ok(0);
                    }
                }
                other => return other,
            }
        }
    }
}

/// Writer for responses of the file server.
struct ResponseWriter<'a>(&'a Conn);

impl Write for ResponseWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pipe = &self.0.pipe;
        let (session, stream) = (pipe.session(), pipe.stream());
        let began = sys::clock();
        let window = loop {
            let step = Deadline::At(sys::clock() + Duration::from_millis(200));
            match session.window(stream, step) {
                Ok(window) => break window,
                // A visitor that reads nothing occupies a worker: for long only while no
                // connection waits for one.
                Err(SendError::Late) => {
                    let patience = match self.0.pool.has_waiting() {
                        true => FILES_IDLE_TIMEOUT,
                        false => FILES_STALL_TIMEOUT,
                    };
                    if sys::clock().since(began) > patience {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        };
        let n = bytes.len().min(window);
        self.0.tap_response(&bytes[..n]);
        session
            .send(stream, &bytes[..n], Deadline::At(began + FILES_STALL_TIMEOUT))
            .map_err(io::Error::other)?;
        self.0.target.metrics.sent(n);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::{EndpointKind, Upstream};
    use crate::proxy::{Incoming, Routes};
    use crate::session::tests::{open, pair, until};

    struct OneRoute(Arc<ProxyTarget>);

    impl Routes for OneRoute {
        fn target(&self, _: &str) -> Option<Arc<ProxyTarget>> {
            Some(Arc::clone(&self.0))
        }
    }

    #[test]
    fn a_half_closed_connection_stays_silent_for_ever() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Arc::new(ProxyTarget {
            name: "a".into(),
            url: String::new(),
            upstream: Upstream::parse(EndpointKind::Tcp, &address).unwrap(),
            pages: false,
            tls: None,
            visitor_tls: None,
            root: None,
            proxy_protocol: 0,
            source: None,
            metrics: Arc::default(),
        });
        let pool = Pool::new(1, 1).unwrap();
        let of_agent = Arc::clone(&pool);
        let sessions = pair(Box::new(move |session, stream, _| {
            let routes = Arc::new(OneRoute(Arc::clone(&target)));
            Some(Arc::new(Incoming::new(session, stream, routes, Arc::clone(&of_agent))))
        }));
        let header = ProxyHeader { id: "e".into(), proto: "tcp".into(), ..Default::default() };
        let visitor = open(&sessions.edge, &header.encode());
        let (mut upstream, _) = listener.accept().unwrap();
        sessions.edge.finish(visitor.stream());
        assert_eq!(upstream.read(&mut [0]).unwrap(), 0, "the visitor's end");
        // In time, and with a byte in the meantime, it stays.
        let early = sys::clock() + (HALF_CLOSED_TIMEOUT - Duration::from_secs(60));
        pool.check_half_closed(early);
        upstream.write_all(b"x").unwrap();
        let deadline = Deadline::At(sys::clock() + Duration::from_secs(20));
        assert_eq!(visitor.read(&mut [0], deadline).unwrap(), 1);
        let late = sys::clock() + HALF_CLOSED_TIMEOUT * 2;
        until("the end of the connection", || {
            pool.check_half_closed(late);
            pool.live() == 0
        });
        until("the upstream's reset", || upstream.write_all(b"y").is_err());
        until("the visitor's reset", || visitor.is_reset());
    }
}
