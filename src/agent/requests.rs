//! Request of another thread to the supervisor, and the slot for the response. The request is
//! carried out in `supervisor::changes`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::status::EndpointView;
use crate::config;
use crate::proto::codes::Refusal;
use crate::sys;
use crate::sys::sync::{Condvar, Mutex};

/// Total time of a request. The supervisor responds earlier, because its waits for a session
/// and for the edge are bounded.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// Reason why a request was not carried out.
#[derive(Clone, Debug)]
pub enum StartError {
    /// Another endpoint has that name.
    NameTaken,
    /// The name is not known.
    Unknown,
    /// No session is open.
    NotReady,
    /// The configuration is invalid, independent of the edge.
    Invalid(Refusal),
    /// The edge refused.
    Refused(Refusal),
    /// The response is late, the queue is full, or the program is ending.
    Late,
}

/// A request for an endpoint.
pub(super) enum Request {
    Start(Box<config::Endpoint>),
    Put(Box<config::Endpoint>),
    Stop(String),
}

/// Result of a request: the endpoint, and whether it is new. `None` after a stop.
pub(super) type RequestResult = Result<Option<(EndpointView, bool)>, StartError>;

/// Slot for the response to a request.
#[derive(Default)]
pub(super) struct ReplySlot {
    answer: Mutex<Option<RequestResult>>,
    answered: Condvar,
    /// The caller no longer waits.
    abandoned: AtomicBool,
}

impl ReplySlot {
    pub(super) fn set(&self, answer: RequestResult) {
        self.answer.lock().get_or_insert(answer);
        self.answered.notify_all();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub(super) fn wait(&self) -> RequestResult {
        let until = sys::clock() + REQUEST_TIMEOUT;
        let mut answer = self.answer.lock();
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            let left = until.since(sys::clock());
            if left.is_zero() {
                self.abandoned.store(true, Ordering::Relaxed);
                return Err(StartError::Late);
            }
            let waited = self.answered.wait_timeout(answer, left);
            answer = waited.0;
        }
    }
}
