//! Calls to the edge: one stream for each call, with JSON in both directions (protocol 5.1).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::mux::{Code, StreamId, StreamType};
use crate::proto::json::{MAX_MESSAGE_BYTES, Scanner};
use crate::session::{Reset, SendError, Session, Sink};
use crate::sys::sync::{Condvar, Mutex};
use crate::sys::{self, threads};
use crate::time::Deadline;

/// Size of the part in the opening frame. The rest of a longer request has frames of its own.
const MAX_FIRST_FRAME_BYTES: usize = 4_096;

/// Time to send the rest of a long request.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Reason why a call has no response.
#[derive(Debug)]
pub enum CallError {
    /// It could not be sent.
    Send(SendError),
    /// The edge ended the stream or the session first.
    Ended(Code),
    /// The response is late.
    Late,
    /// The bytes are not a response: too large, too deep, or not JSON.
    Malformed(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Send(e) => write!(f, "cannot send to the edge: {e}"),
            CallError::Ended(code) => {
                write!(f, "the edge ended the call without a response ({code})")
            }
            CallError::Late => f.write_str("the edge did not respond in time"),
            CallError::Malformed(why) => write!(f, "the edge's response is invalid: {why}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Result of a call: the bytes of the response, one JSON object.
pub type CallResult = Result<Vec<u8>, CallError>;

/// Receives the result on the reactor thread, before any later bytes of the edge are read. A
/// visitor may follow the response to a Bind in the same packet.
pub type OnAnswer = Box<dyn FnOnce(CallResult) + Send>;

/// Sends `request` on a stream of type `kind`. `on_answer` receives the result. Does not wait
/// and has no deadline: a caller with a deadline cancels the stream. After an error here
/// `on_answer` is not called.
pub fn begin(
    session: &Session,
    kind: StreamType,
    request: &[u8],
    on_answer: OnAnswer,
) -> Result<StreamId, CallError> {
    let first = request.len().min(MAX_FIRST_FRAME_BYTES);
    let stream = session
        .open_with(kind, &request[..first], |stream| {
            let state = AwaitedAnswer {
                bytes: Vec::new(),
                scanner: Scanner::new(MAX_MESSAGE_BYTES),
                on_answer,
            };
            Arc::new(AnswerSink {
                session: session.clone(),
                stream,
                state: Mutex::new(Some(state)),
            })
        })
        .map_err(CallError::Send)?;
    if first < request.len() {
        send_rest(session, stream, &request[first..]).map_err(CallError::Send)?;
    }
    Ok(stream)
}

/// Sends the rest of a request on a thread of its own, which waits for the link.
fn send_rest(session: &Session, stream: StreamId, rest: &[u8]) -> Result<(), SendError> {
    let sent = session.try_send(stream, rest)?;
    if sent < rest.len() {
        let (owner, rest) = (session.clone(), rest[sent..].to_vec());
        let work = move || {
            if owner.send(stream, &rest, Deadline::At(sys::clock() + SEND_TIMEOUT)).is_err() {
                owner.cancel(stream, Code::STREAM_CANCELLED);
            }
        };
        threads::CALL.spawn(Box::new(work)).map_err(|_| SendError::Late)?;
    }
    Ok(())
}

/// Makes a call and waits for the response. Not on the reactor thread.
pub fn call(session: &Session, kind: StreamType, request: &[u8], deadline: Deadline) -> CallResult {
    let slot = Arc::new((Mutex::new(None), Condvar::new()));
    let theirs = Arc::clone(&slot);
    let on_answer = Box::new(move |outcome| {
        *theirs.0.lock() = Some(outcome);
        theirs.1.notify_all();
    });
    let stream = begin(session, kind, request, on_answer)?;
    let mut outcome = slot.0.lock();
    loop {
        if let Some(outcome) = outcome.take() {
            return outcome;
        }
        let left = deadline.left(sys::clock()).unwrap_or(Duration::MAX);
        if left.is_zero() {
            drop(outcome);
            session.cancel(stream, Code::STREAM_CANCELLED);
            return Err(CallError::Late);
        }
        outcome = slot.1.wait_timeout(outcome, left).0;
    }
}

/// Sink of a call's stream.
struct AnswerSink {
    session: Session,
    stream: StreamId,
    /// `None` after the result was delivered.
    state: Mutex<Option<AwaitedAnswer>>,
}

struct AwaitedAnswer {
    bytes: Vec<u8>,
    scanner: Scanner,
    on_answer: OnAnswer,
}

impl AnswerSink {
    fn take(&self) -> Option<AwaitedAnswer> {
        self.state.lock().take()
    }

    fn fail(&self, why: CallError) {
        if let Some(state) = self.take() {
            (state.on_answer)(Err(why));
        }
    }
}

impl Sink for AnswerSink {
    fn data(&self, bytes: &[u8]) -> usize {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_mut() else { return bytes.len() };
        let end = match state.scanner.feed(bytes) {
            Ok(None) => {
                state.bytes.extend_from_slice(bytes);
                return bytes.len();
            }
            Ok(Some(end)) => Ok(end),
            Err(e) => Err(CallError::Malformed(e.to_string())),
        };
        let state = guard.take();
        drop(guard);
        // The response is complete or invalid: further bytes are not needed.
        match &end {
            Ok(_) => {
                self.session.finish(self.stream);
                self.session.release(self.stream);
            }
            Err(_) => self.session.cancel(self.stream, Code::STREAM_CANCELLED),
        }
        if let Some(mut state) = state {
            (state.on_answer)(end.map(|end| {
                state.bytes.extend_from_slice(&bytes[..end]);
                state.bytes
            }));
        }
        bytes.len()
    }

    fn finished(&self) {
        self.session.cancel(self.stream, Code::STREAM_CANCELLED);
        self.fail(CallError::Ended(Code::NO_ERROR));
    }

    fn reset(&self, reset: Reset) {
        let code = reset.code();
        self.session.release(self.stream);
        self.fail(CallError::Ended(code));
    }
}
