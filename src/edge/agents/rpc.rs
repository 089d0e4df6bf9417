//! One call of an agent (protocol 5.1): collects the request as it comes, has it
//! answered the moment it is complete, sends the answer and then FIN.

use std::sync::Arc;
use std::time::Duration;

use super::session::{AgentSession, RpcReply};
use crate::event;
use crate::mux::{Code, StreamId, StreamType};
use crate::proto::codes::Refusal;
use crate::proto::json::{MAX_MESSAGE_BYTES, Scanner};
use crate::proto::messages::CommandResponse;
use crate::session::{Session, Sink};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{self, threads};
use crate::time::{Deadline, Instant};

/// How long an answer may take to leave.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request before Auth: an Auth request with all that may be in it.
const MAX_UNAUTHENTICATED_BYTES: usize = 64 * 1024;

/// A call under way.
pub struct AgentCall {
    agent: Arc<AgentSession>,
    session: Session,
    stream: StreamId,
    kind: StreamType,
    started: Instant,
    state: Mutex<PartialRequest>,
}

struct PartialRequest {
    scanner: Scanner,
    request: Vec<u8>,
    done: bool,
}

impl AgentCall {
    /// A call of which nothing has come yet. Who is not `known` may say less.
    pub fn new(
        agent: Arc<AgentSession>,
        session: &Session,
        stream: StreamId,
        kind: StreamType,
        known: bool,
    ) -> Self {
        let most = if known { MAX_MESSAGE_BYTES } else { MAX_UNAUTHENTICATED_BYTES };
        let state =
            PartialRequest { scanner: Scanner::new(most), request: Vec::new(), done: false };
        AgentCall {
            agent,
            session: session.clone(),
            stream,
            kind,
            started: sys::clock(),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, PartialRequest> {
        self.state.lock()
    }

    /// Ends a call whose request does not come.
    pub fn expire(&self, now: Instant, limit: Duration) {
        if now.since(self.started) >= limit && !std::mem::replace(&mut self.lock().done, true) {
            self.fail("The request took too long.");
        }
    }

    fn fail(&self, text: &str) {
        event!(
            warn,
            obj = "edge",
            "malformed call",
            id = self.stream,
            kind = self.kind,
            err = text
        );
        self.reply(CommandResponse::refused(Refusal::new(301, text)).encode());
    }

    /// Sends an answer and FIN, in frames of their own.
    fn reply(&self, answer: Vec<u8>) {
        match self.session.try_send(self.stream, &answer) {
            Ok(n) if n == answer.len() => {
                self.session.finish(self.stream);
                self.session.release(self.stream);
            }
            // The link is full: somebody must wait, and it must not be the reactor.
            Ok(n) => self.reply_on_thread(Box::new(move || answer[n..].to_vec())),
            Err(_) => self.session.release(self.stream),
        }
    }

    /// The same on a thread of its own.
    fn reply_on_thread(&self, make: Box<dyn FnOnce() -> Vec<u8> + Send>) {
        let (session, stream) = (self.session.clone(), self.stream);
        let waiting = threads::ANSWER.spawn(Box::new(move || {
            let answer = make();
            match session.send(stream, &answer, Deadline::At(sys::clock() + REPLY_TIMEOUT)) {
                Ok(()) => session.finish(stream),
                Err(_) => session.cancel(stream, Code::INTERNAL_ERROR),
            }
            session.release(stream);
        }));
        if waiting.is_err() {
            self.session.cancel(self.stream, Code::INTERNAL_ERROR);
        }
    }
}

impl Sink for AgentCall {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
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
                match self.agent.answer(&self.session, self.kind, &request) {
                    RpcReply::Ready(answer) => self.reply(answer),
                    RpcReply::Deferred(make) => self.reply_on_thread(make),
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
        if !std::mem::replace(&mut self.lock().done, true) {
            self.fail("The request ended before it was complete.");
        }
    }

    fn reset(&self, _code: Code) {
        self.lock().done = true;
        self.session.release(self.stream);
    }
}
