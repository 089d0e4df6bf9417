//! Requests of the edge to the agent: Stop, Restart, Update, StopTunnel (protocol 5.7). They
//! are read on the reactor thread. The supervisor answers them and carries them out.

use std::sync::Arc;
use std::time::Duration;

use super::events::{AgentEvent, EventQueue};
use crate::event;
use crate::mux::{Code, StreamId, StreamType};
use crate::proto::codes::Refusal;
use crate::proto::json::Scanner;
use crate::proto::messages::{CommandResponse, StopTunnel};
use crate::session::{Reset, Session, Sink};
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::{Deadline, Instant};

/// Reason for refusing an update.
pub(super) const NO_UPDATE: &str = "this agent is updated by the system it runs on, not remotely";
/// Reason for refusing every request.
pub(super) const NO_REMOTE: &str = "remote management is switched off in the agent's configuration";

/// The longest request, in bytes: a name and a sentence.
const MAX_REQUEST: usize = 16 * 1024;
/// Time for a request to arrive.
const REQUEST_WAIT: Duration = Duration::from_secs(10);

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
            event!(warn, obj = "csess", "edge request timed out", kind = self.kind);
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
                Err(e) => event!(warn, obj = "csess", "malformed edge request", err = e),
            }
            return self.end();
        }
        if !self.allowed {
            return answer(self.kind, &self.session, self.stream, Some(NO_REMOTE));
        }
        if self.kind == StreamType::UPDATE {
            return answer(self.kind, &self.session, self.stream, Some(NO_UPDATE));
        }
        // The supervisor decides, and answers before it acts.
        if !self.events.push(AgentEvent::Command(self.kind, self.session.clone(), self.stream)) {
            let why = Some("too many requests at once");
            answer(self.kind, &self.session, self.stream, why);
        }
    }

    fn end(&self) {
        self.session.finish(self.stream);
        self.session.release(self.stream);
    }
}

/// Sends the response to a request: accepted, or the reason for the refusal.
pub(super) fn answer(kind: StreamType, session: &Session, stream: StreamId, no: Option<&str>) {
    event!(info, obj = "csess", "edge request", kind = kind, err = no.unwrap_or("nil"));
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
                event!(warn, obj = "csess", "malformed edge request", kind = self.kind, err = e);
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
