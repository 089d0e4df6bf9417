//! Calls to the edge: one stream a call, JSON there and back (protocol 5.1).

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::mux::{Code, StreamType};
use crate::proto::json::{MAX_MESSAGE, Scanner};
use crate::sys;
use crate::time::Deadline;
use crate::tunnel::{SendError, Session, Sink};

/// What goes into the opening frame; a longer request follows in frames of its own.
const FIRST: usize = 4_096;

/// Why a call has no answer.
#[derive(Debug)]
pub enum CallError {
    /// It could not be sent.
    Send(SendError),
    /// The edge ended the stream or the session first.
    Ended(Code),
    /// No answer in time.
    Late,
    /// What came is not an answer: too large, too deep, or no JSON.
    Garbage(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Send(e) => write!(f, "cannot send to the edge: {e}"),
            CallError::Ended(code) => {
                write!(f, "the edge ended the call without an answer ({code})")
            }
            CallError::Late => f.write_str("the edge did not answer in time"),
            CallError::Garbage(why) => write!(f, "the edge's answer makes no sense: {why}"),
        }
    }
}

/// Sends `request` on a stream of type `kind` and waits for the answer's bytes:
/// one JSON object. Not on the reactor thread.
pub fn call(
    session: &Session,
    kind: StreamType,
    request: &[u8],
    deadline: Deadline,
) -> Result<Vec<u8>, CallError> {
    call_with(session, kind, request, deadline, Box::new(|_| {}))
}

/// What is done with an answer's bytes on the reactor thread, before it looks at
/// what the edge sent after them.
pub type AtOnce = Box<dyn FnOnce(&[u8]) + Send>;

/// As [`call`]; `at_once` sees the answer before any later frame of the edge is
/// looked at: a visitor may follow a Bind's answer in the same packet.
pub fn call_with(
    session: &Session,
    kind: StreamType,
    request: &[u8],
    deadline: Deadline,
    at_once: AtOnce,
) -> Result<Vec<u8>, CallError> {
    let answer = Arc::new(Answer::default());
    answer.lock().at_once = Some(at_once);
    let first = request.len().min(FIRST);
    let stream = session
        .open(kind, &request[..first], Arc::clone(&answer) as Arc<dyn Sink>)
        .map_err(CallError::Send)?;
    let sent = session.send(stream, &request[first..], deadline).map_err(CallError::Send);
    let result = sent.and_then(|()| answer.wait(deadline));
    // The answer is complete or worthless: the rest of the stream is not wanted.
    match &result {
        Ok(_) => {
            session.finish(stream);
            session.release(stream);
        }
        Err(_) => session.cancel(stream, Code::STREAM_CANCELLED),
    }
    result
}

/// The sink of a call's stream.
#[derive(Default)]
struct Answer {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    bytes: Vec<u8>,
    scanner: Scanner,
    at_once: Option<AtOnce>,
    result: Option<Result<(), CallError>>,
}

impl Default for State {
    fn default() -> Self {
        State { bytes: Vec::new(), scanner: Scanner::new(MAX_MESSAGE), at_once: None, result: None }
    }
}

impl Answer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn end(&self, result: Result<(), CallError>) {
        self.lock().result.get_or_insert(result);
        self.changed.notify_all();
    }

    fn wait(&self, deadline: Deadline) -> Result<Vec<u8>, CallError> {
        let mut state = self.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result.map(|()| std::mem::take(&mut state.bytes));
            }
            state = match deadline.left(sys::clock()) {
                None => self.changed.wait(state).unwrap_or_else(|p| p.into_inner()),
                Some(left) if left.is_zero() => return Err(CallError::Late),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(|p| p.into_inner()).0
                }
            };
        }
    }
}

impl Sink for Answer {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        if state.result.is_none() {
            let scanned = state.scanner.feed(bytes);
            let (used, result) = match scanned {
                Ok(None) => (bytes.len(), None),
                Ok(Some(end)) => (end, Some(Ok(()))),
                Err(e) => (0, Some(Err(CallError::Garbage(e.to_string())))),
            };
            state.bytes.extend_from_slice(&bytes[..used]);
            if result.is_some() {
                if let (Some(Ok(())), Some(at_once)) = (&result, state.at_once.take()) {
                    at_once(&state.bytes);
                }
                state.result = result;
                self.changed.notify_all();
            }
        }
        bytes.len()
    }

    fn finished(&self) {
        self.end(Err(CallError::Ended(Code::NO_ERROR)));
    }

    fn reset(&self, code: Code) {
        self.end(Err(CallError::Ended(code)));
    }
}
