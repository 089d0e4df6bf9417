//! Commands to an agent: Stop, Restart, Update (protocol 5.7). One request, and the wait for
//! its response. Which agent gets one is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use crate::mux::{Code, StreamType};
use crate::proto::json::Scanner;
use crate::proto::messages::CommandResponse;
use crate::session::{Reset, Session, Sink};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex};
use crate::time::Deadline;

/// Longest response: a sentence.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Why a command has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// The session has ended, or has no free stream.
    NotSent,
    /// Nothing came in time, or something that is not a response.
    NoResponse,
}

/// Sends a command and waits for the response.
pub fn send(
    session: &Session,
    kind: StreamType,
    request: &[u8],
    timeout: Duration,
) -> Result<CommandResponse, CommandFault> {
    let reply = Arc::new(ReplyCollector::default());
    let sink: Arc<dyn Sink> = Arc::<ReplyCollector>::clone(&reply);
    let stream = session.open(kind, request, sink).map_err(|_| CommandFault::NotSent)?;
    let response = reply.wait(Deadline::At(sys::clock() + timeout));
    match &response {
        Some(_) => session.finish(stream),
        None => session.cancel(stream, Code::NO_ERROR),
    }
    session.release(stream);
    let bytes = response.ok_or(CommandFault::NoResponse)?;
    CommandResponse::decode(&bytes).map_err(|_| CommandFault::NoResponse)
}

/// Collects the response.
#[derive(Default)]
struct ReplyCollector {
    state: Mutex<CollectedReply>,
    changed: Condvar,
}

struct CollectedReply {
    scanner: Scanner,
    bytes: Vec<u8>,
    /// Set at the end: whether the response is complete.
    complete: Option<bool>,
}

impl Default for CollectedReply {
    fn default() -> Self {
        let scanner = Scanner::new(MAX_RESPONSE_BYTES);
        CollectedReply { scanner, bytes: Vec::new(), complete: None }
    }
}

impl ReplyCollector {
    /// Waits for the end. Returns a complete response.
    fn wait(&self, deadline: Deadline) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        while state.complete.is_none() {
            let left = deadline.left(sys::clock()).unwrap_or_default();
            if left.is_zero() {
                state.complete = Some(false);
            } else {
                state = self.changed.wait_timeout(state, left).0;
            }
        }
        (state.complete == Some(true)).then(|| std::mem::take(&mut state.bytes))
    }

    fn end(&self, complete: bool) {
        self.state.lock().complete.get_or_insert(complete);
        self.changed.notify_all();
    }
}

impl Sink for ReplyCollector {
    fn data(&self, bytes: &[u8]) -> usize {
        let ended = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            match state.scanner.feed(bytes) {
                _ if state.complete.is_some() => None,
                Ok(None) => {
                    state.bytes.extend_from_slice(bytes);
                    None
                }
                Ok(Some(used)) => {
                    state.bytes.extend_from_slice(&bytes[..used]);
                    Some(true)
                }
                Err(_) => Some(false),
            }
        };
        if let Some(complete) = ended {
            self.end(complete);
        }
        bytes.len()
    }

    fn finished(&self) {
        self.end(false);
    }

    fn reset(&self, _: Reset) {
        self.end(false);
    }
}
