//! The beginning of a proxied stream: its header is read on the reactor thread,
//! so that a slow header holds no worker; then its connection takes over.

use std::sync::{Arc, Mutex, OnceLock};

use super::conn::{Conn, Target};
use super::pool::Pool;
use crate::event;
use crate::mux::{Code, StreamId};
use crate::proto::proxy::Decoder;
use crate::sys;
use crate::tunnel::{Session, Sink};

/// Who knows the endpoints: the agent.
pub trait Routes: Send + Sync {
    /// The target of the endpoint with this bind id.
    fn target(&self, id: &str) -> Option<Arc<Target>>;
}

/// The sink of a stream of type Proxy (protocol 6.1).
pub struct Incoming {
    session: Session,
    stream: StreamId,
    routes: Arc<dyn Routes>,
    pool: Arc<Pool>,
    header: Mutex<Decoder>,
    /// Set when the header was good.
    conn: OnceLock<Arc<Conn>>,
}

impl Incoming {
    /// The sink of a stream that was just opened.
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
            header: Mutex::new(Decoder::new()),
            conn: OnceLock::new(),
        }
    }

    fn refuse(&self, code: Code) {
        // FIN first: one implementation does not wake up by a reset alone.
        self.session.cancel(self.stream, code);
    }
}

impl Sink for Incoming {
    fn data(&self, bytes: &[u8]) -> usize {
        if let Some(conn) = self.conn.get() {
            return conn.data(bytes);
        }
        let fed = self.header.lock().unwrap_or_else(|p| p.into_inner()).feed(bytes);
        let (used, header) = match fed {
            Ok((used, Some(header))) => (used, header),
            Ok((used, None)) => return used,
            Err(e) => {
                event!(
                    warn,
                    obj = "join",
                    "bad proxy header from the edge",
                    id = self.stream,
                    err = e
                );
                self.refuse(Code::PROTOCOL_ERROR);
                return bytes.len();
            }
        };
        let Some(target) = self.routes.target(&header.id) else {
            event!(warn, obj = "join", "a visitor for an unknown endpoint", id = header.id);
            self.refuse(Code::STREAM_REFUSED);
            return bytes.len();
        };
        let conn = Conn::new(&self.session, self.stream, target, &header, &self.pool);
        let consumed = used + conn.data(&bytes[used..]);
        let conn = self.conn.get_or_init(|| conn);
        if !self.pool.submit(conn, sys::clock()) {
            event!(
                warn,
                obj = "join",
                "all workers are busy, visitor refused",
                r = header.client_addr
            );
            conn.refuse_busy();
        }
        consumed
    }

    fn finished(&self) {
        match self.conn.get() {
            Some(conn) => conn.finished(),
            // It ended before its header did.
            None => self.refuse(Code::PROTOCOL_ERROR),
        }
    }

    fn reset(&self, code: Code) {
        match self.conn.get() {
            Some(conn) => conn.reset(code),
            None => self.session.release(self.stream),
        }
    }

    fn cancelled(&self, code: Code) {
        self.reset(code);
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
