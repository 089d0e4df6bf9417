//! A request of another thread to the supervisor, and the slot that takes the answer. How
//! a request is carried out is in `supervisor::changes`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::status::EndpointView;
use crate::config;
use crate::proto::codes::Refusal;
use crate::sys;
use crate::sys::sync::{Condvar, Mutex};

/// How long a request may take in all. The supervisor answers sooner: it waits for a
/// session, and then for the edge, for a bounded time each.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// Why a request was not carried out.
#[derive(Clone, Debug)]
pub enum StartError {
    /// Another endpoint has that name.
    NameTaken,
    /// The name is not known.
    Unknown,
    /// No session is open.
    NotReady,
    /// It cannot work, whatever the edge says.
    Invalid(Refusal),
    /// The edge refused.
    Refused(Refusal),
    /// No answer in time, or too many requests at once, or the program is ending.
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

/// Slot for the answer to a request.
#[derive(Default)]
pub(super) struct ReplySlot {
    answer: Mutex<Option<RequestResult>>,
    answered: Condvar,
    /// The caller does not wait any more.
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
