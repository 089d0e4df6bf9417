//! One call of an agent (protocol 5.1): collects the request, passes it to the
//! [`RpcHandler`] when it is complete, sends the response and then FIN. It does not know
//! what the calls mean.

use std::sync::Arc;
use std::time::Duration;

use super::encoded_reply::EncodedReply;
use super::late_replies::{LateReply, MakeReply};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{StreamId, StreamType};
use crate::proto::codes::Refusal;
use crate::proto::json::{MAX_MESSAGE_BYTES, Scanner};
use crate::proto::messages::CommandResponse;
use crate::session::{Reset, Session, Sink};
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// Log lines about calls that are not valid.
static MALFORMED_CALL_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(10));

/// Longest request before Auth: an Auth request with all its fields.
const MAX_UNAUTHENTICATED_BYTES: usize = 64 * 1024;

/// Response to a call.
pub enum RpcReply {
    /// The response.
    Ready(EncodedReply),
    /// Makes the response later.
    Deferred(MakeReply),
}

/// Handler of complete requests.
pub trait RpcHandler: Send + Sync {
    /// Handles one request. Does not block.
    fn handle(self: Arc<Self>, session: &Session, kind: StreamType, request: &[u8]) -> RpcReply;

    /// Sends a response when that is possible. Does not block.
    fn reply_later(&self, reply: LateReply);
}

/// A call under way.
pub struct AgentCall {
    handler: Arc<dyn RpcHandler>,
    session: Session,
    stream: StreamId,
    kind: StreamType,
    started: Instant,
    state: Mutex<PartialRequest>,
    /// Ends with the call.
    alive: Arc<()>,
}

struct PartialRequest {
    scanner: Scanner,
    request: Vec<u8>,
    done: bool,
}

impl AgentCall {
    /// Creates a call without a byte of its request. Before Auth a request may be
    /// 64 KiB long.
    pub fn new(
        handler: Arc<dyn RpcHandler>,
        session: &Session,
        stream: StreamId,
        kind: StreamType,
        authenticated: bool,
    ) -> Self {
        let max = if authenticated { MAX_MESSAGE_BYTES } else { MAX_UNAUTHENTICATED_BYTES };
        let state = PartialRequest { scanner: Scanner::new(max), request: Vec::new(), done: false };
        AgentCall {
            handler,
            session: session.clone(),
            stream,
            kind,
            started: sys::clock(),
            state: Mutex::new(state),
            alive: Arc::new(()),
        }
    }

    /// Fails a call whose request is not complete after `limit`.
    pub fn expire(&self, now: Instant, limit: Duration) {
        if now.since(self.started) >= limit && !std::mem::replace(&mut self.state.lock().done, true)
        {
            self.fail("The request took too long.");
        }
    }

    fn fail(&self, text: &str) {
        if let Some(count) = MALFORMED_CALL_LINES.lock().record(sys::clock()) {
            event!(
                warn,
                obj = "edge",
                "malformed call",
                id = self.stream,
                kind = self.kind,
                count = count,
                err = text
            );
        }
        self.reply(CommandResponse::refused(Refusal::new(301, text)).encode().into());
    }

    /// Sends a response and FIN, in separate frames.
    fn reply(&self, mut response: EncodedReply) {
        match self.session.try_send(self.stream, &response.bytes) {
            Ok(n) if n == response.bytes.len() => {
                self.session.finish(self.stream);
                self.session.release(self.stream);
            }
            // The link is full and the reactor must not wait.
            Ok(n) => {
                response.bytes.drain(..n);
                let call = Arc::downgrade(&self.alive);
                let late = LateReply::unsent(&self.session, self.stream, call, response);
                self.handler.reply_later(late);
            }
            Err(_) => self.session.release(self.stream),
        }
    }

    fn reply_later(&self, make: MakeReply) {
        let call = Arc::downgrade(&self.alive);
        self.handler.reply_later(LateReply::undecided(&self.session, self.stream, call, make));
    }
}

impl Sink for AgentCall {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        if state.done {
            return bytes.len();
        }
        match state.scanner.feed(bytes) {
            Ok(None) => state.request.extend_from_slice(bytes),
            Ok(Some(n)) => {
                state.request.extend_from_slice(&bytes[..n]);
                state.done = true;
                let request = std::mem::take(&mut state.request);
                drop(state);
                match Arc::clone(&self.handler).handle(&self.session, self.kind, &request) {
                    RpcReply::Ready(response) => self.reply(response),
                    RpcReply::Deferred(make) => self.reply_later(make),
                }
            }
            Err(e) => {
                state.done = true;
                state.request = Vec::new();
                drop(state);
                self.fail(&e.to_string());
            }
        }
        bytes.len()
    }

    fn finished(&self) {
        if !std::mem::replace(&mut self.state.lock().done, true) {
            self.fail("The request ended before it was complete.");
        }
    }

    fn reset(&self, _: Reset) {
        self.state.lock().done = true;
        self.session.release(self.stream);
    }
}
