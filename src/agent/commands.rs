//! Requests of the edge to the agent: Stop, Restart, Update, StopTunnel (protocol 5.7). They
//! are read on the reactor thread. The supervisor answers them and carries them out.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use super::events::{AgentEvent, EventQueue};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{Code, StreamId, StreamType};
use crate::proto::codes::Refusal;
use crate::proto::json::Scanner;
use crate::proto::messages::{CommandResponse, StopTunnel, UpdateRequest};
use crate::session::{Reset, Session, Sink};
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::{Deadline, Instant};

/// Reason for refusing every request.
pub(super) const NO_REMOTE: &str = "remote management is switched off in the agent's configuration";

/// The longest request, in bytes: a name and a sentence.
const MAX_REQUEST: usize = 16 * 1024;
/// Time for a request to arrive.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

/// Log lines about requests, and about streams of the edge that are not valid.
static REQUEST_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(10));
static FAULT_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(10));

/// Counts a fault of the edge. Returns how many the log line to write stands for; `None`: write
/// no line.
pub(super) fn count_fault() -> Option<u32> {
    FAULT_LINES.lock().record(sys::clock())
}

/// Sink of a request's stream.
pub(super) struct CommandSink {
    session: Session,
    stream: StreamId,
    kind: StreamType,
    events: Arc<EventQueue>,
    allowed: bool,
    until: Instant,
    request: Mutex<(Vec<u8>, Scanner)>,
}

impl CommandSink {
    pub(super) fn new(
        session: &Session,
        stream: StreamId,
        kind: StreamType,
        events: &Arc<EventQueue>,
        allowed: bool,
    ) -> Self {
        CommandSink {
            session: session.clone(),
            stream,
            kind,
            events: Arc::clone(events),
            allowed,
            until: sys::clock() + REQUEST_WAIT,
            request: Mutex::new((Vec::new(), Scanner::new(MAX_REQUEST))),
        }
    }

    /// Refuses the request if its deadline has passed. Returns the deadline.
    pub(super) fn expire(&self, now: Instant) -> Deadline {
        let until = Deadline::At(self.until);
        if until.due(now) {
            if let Some(count) = count_fault() {
                let kind = self.kind;
                event!(warn, obj = "csess", "edge request timed out", kind = kind, count = count);
            }
            self.session.cancel(self.stream, Code::PROTOCOL_ERROR);
            return Deadline::Never;
        }
        until
    }

    fn carry_out(&self, request: &[u8]) {
        if self.kind == StreamType::STOP_TUNNEL {
            // One-way: no answer (protocol 5.7).
            match StopTunnel::decode(request) {
                Ok(stop) => _ = self.events.push(AgentEvent::StopTunnel(stop)),
                Err(e) => self.log_malformed(&e),
            }
            return self.end();
        }
        if !self.allowed {
            return answer(self.kind, &self.session, self.stream, Some(NO_REMOTE));
        }
        let (session, stream) = (self.session.clone(), self.stream);
        let event = match self.kind {
            StreamType::UPDATE => match UpdateRequest::decode(request) {
                Ok(update) => AgentEvent::Update(update, session, stream),
                Err(e) => {
                    self.log_malformed(&e);
                    return self.session.cancel(stream, Code::PROTOCOL_ERROR);
                }
            },
            kind => AgentEvent::Command(kind, session, stream),
        };
        // The supervisor decides, and answers before it acts.
        if !self.events.push(event) {
            let why = Some("too many requests at once");
            answer(self.kind, &self.session, self.stream, why);
        }
    }

    fn log_malformed(&self, error: &dyn Display) {
        if let Some(count) = count_fault() {
            event!(
                warn,
                obj = "csess",
                "malformed edge request",
                kind = self.kind,
                err = error,
                count = count
            );
        }
    }

    fn end(&self) {
        self.session.finish(self.stream);
        self.session.release(self.stream);
    }
}

/// Sends the response to a request: accepted, or the reason for the refusal.
pub(super) fn answer(kind: StreamType, session: &Session, stream: StreamId, no: Option<&str>) {
    if let Some(count) = REQUEST_LINES.lock().record(sys::clock()) {
        let why = no.unwrap_or("nil");
        event!(info, obj = "csess", "edge request", kind = kind, err = why, count = count);
    }
    let response = CommandResponse { error: no.map(Refusal::text) };
    // The response is small and the stream's window unused: it is sent, or the link is stuck.
    let _ = session.try_send(stream, &response.encode());
    session.finish(stream);
    session.release(stream);
}

impl Sink for CommandSink {
    fn data(&self, bytes: &[u8]) -> usize {
        let whole = {
            let mut request = self.request.lock();
            let (text, scanner) = &mut *request;
            match scanner.feed(bytes) {
                Ok(None) => {
                    text.extend_from_slice(bytes);
                    return bytes.len();
                }
                Ok(Some(end)) => {
                    text.extend_from_slice(&bytes[..end]);
                    Ok(std::mem::take(text))
                }
                Err(e) => Err(e),
            }
        };
        match whole {
            Ok(request) => self.carry_out(&request),
            Err(e) => {
                self.log_malformed(&e);
                self.session.cancel(self.stream, Code::PROTOCOL_ERROR);
            }
        }
        bytes.len()
    }

    fn finished(&self) {
        // Only before the request was complete: after that the stream was released.
        self.session.cancel(self.stream, Code::PROTOCOL_ERROR);
    }

    fn reset(&self, _: Reset) {
        self.session.release(self.stream);
    }
}
