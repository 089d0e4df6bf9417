//! Start of a proxied stream. Its header is read on the reactor thread, so that a slow header
//! does not occupy a worker. After that its [`Conn`] receives the bytes.

use std::io::IoSlice;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::conn::Conn;
use super::pool::Pool;
use super::refusals::RefusalReason;
use super::target::ProxyTarget;
use crate::mux::{Code, StreamId};
use crate::proto::proxy_header::Decoder;
use crate::session::{Reset, Session, Sink};
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::{Deadline, Instant};

/// Time for a stream's header to arrive.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Lookup of endpoints. Implemented by the agent.
pub trait Routes: Send + Sync {
    /// Returns the target of the endpoint with this bind id.
    fn target(&self, id: &str) -> Option<Arc<ProxyTarget>>;
}

/// Sink of a stream of type Proxy (protocol 6.1).
pub struct Incoming {
    session: Session,
    stream: StreamId,
    routes: Arc<dyn Routes>,
    pool: Arc<Pool>,
    header: Mutex<PendingHeader>,
    /// Set after a valid header.
    conn: OnceLock<Arc<Conn>>,
}

/// A header of which a part has arrived.
struct PendingHeader {
    decoder: Decoder,
    /// Number of its bytes so far. They are consumed when it is complete, so that they count
    /// for the buffer limit of the session.
    held: usize,
    until: Instant,
}

impl Incoming {
    /// Returns the sink of a new stream.
    pub fn new(
        session: &Session,
        stream: StreamId,
        routes: Arc<dyn Routes>,
        pool: Arc<Pool>,
    ) -> Self {
        Incoming {
            session: session.clone(),
            stream,
            routes,
            pool,
            header: Mutex::new(PendingHeader {
                decoder: Decoder::new(),
                held: 0,
                until: sys::clock() + HEADER_TIMEOUT,
            }),
            conn: OnceLock::new(),
        }
    }

    /// Refuses the stream if the deadline of its header has passed. Returns the deadline while
    /// the header is incomplete.
    pub fn expire(&self, now: Instant) -> Deadline {
        if self.conn.get().is_some() {
            return Deadline::Never;
        }
        let until = Deadline::At(self.header().until);
        if until.due(now) {
            self.log_refusal(RefusalReason::BadHeader, now, "", &"it did not come in time");
            self.refuse(Code::PROTOCOL_ERROR);
            return Deadline::Never;
        }
        until
    }

    fn header(&self) -> MutexGuard<'_, PendingHeader> {
        self.header.lock()
    }

    fn log_refusal(
        &self,
        reason: RefusalReason,
        now: Instant,
        visitor: &str,
        error: &dyn std::fmt::Display,
    ) {
        self.pool.refusals.report(reason, now, (self.stream, &"", visitor), error);
    }

    fn refuse(&self, code: Code) {
        // FIN first: one implementation does not wake up on a reset alone.
        self.session.cancel(self.stream, code);
    }
}

impl Sink for Incoming {
    fn data_parts(&self, parts: &[IoSlice<'_>]) -> usize {
        match self.conn.get() {
            Some(conn) => conn.data_parts(parts),
            // The first of them have the header.
            None => parts.iter().map(|part| self.data(part)).sum(),
        }
    }

    fn data(&self, bytes: &[u8]) -> usize {
        if let Some(conn) = self.conn.get() {
            return conn.data(bytes);
        }
        let mut pending = self.header();
        let fed = pending.decoder.feed(bytes);
        let held = match fed {
            Ok((used, None)) => {
                pending.held += used;
                return 0;
            }
            _ => std::mem::take(&mut pending.held),
        };
        // Releases its memory, which the rest of the connection does not need.
        pending.decoder = Decoder::new();
        drop(pending);
        let (used, header) = match fed {
            Ok((used, header)) => (used, header.unwrap_or_default()),
            Err(e) => {
                self.log_refusal(RefusalReason::BadHeader, sys::clock(), "", &e);
                self.refuse(Code::PROTOCOL_ERROR);
                return held + bytes.len();
            }
        };
        let Some(target) = self.routes.target(&header.id) else {
            self.log_refusal(
                RefusalReason::UnknownEndpoint,
                sys::clock(),
                &header.client_addr,
                &header.id,
            );
            self.refuse(Code::STREAM_REFUSED);
            return held + bytes.len();
        };
        let conn = Conn::new(&self.session, self.stream, target, &header, &self.pool);
        let consumed = held + used + conn.data(&bytes[used..]);
        let conn = self.conn.get_or_init(|| conn);
        if !self.pool.submit(Arc::<Conn>::clone(conn), sys::clock()) {
            conn.refuse_busy();
        }
        consumed
    }

    fn finished(&self) {
        match self.conn.get() {
            Some(conn) => conn.finished(),
            // The stream ended before its header was complete.
            None => self.refuse(Code::PROTOCOL_ERROR),
        }
    }

    fn reset(&self, reset: Reset) {
        match self.conn.get() {
            Some(conn) => conn.reset(reset),
            None => self.session.release(self.stream),
        }
    }

    fn cancelled(&self, code: Code) {
        self.reset(Reset::Peer(code));
    }

    fn window(&self) {
        if let Some(conn) = self.conn.get() {
            conn.window();
        }
    }

    fn ready(&self, readable: bool, writable: bool, closed: bool) {
        if let Some(conn) = self.conn.get() {
            conn.ready(readable, writable, closed);
        }
    }
}
