//! The interface between the server and the application behind it.

use super::http::ApiReply;
use super::jobs::ApiJob;
use crate::http1::receiver::RequestReceiver;
use crate::time::Instant;

/// Response to a request.
pub enum ApiAnswer {
    /// A response that is ready.
    Now(ApiReply),
    /// The result of this job, which may need some time.
    Later(ApiJob),
}

/// Events that a client has received.
#[derive(Debug, Default)]
pub struct EventCursor {
    /// Number of the last change of the agent's state, if one was sent.
    pub state: Option<u32>,
    /// Number of the last change among captured requests.
    pub requests: Option<u32>,
    /// Time of the last message.
    pub last_sent: Option<Instant>,
}

/// Application behind the server.
pub trait App: Send {
    /// Answers a complete request. Does not block.
    fn answer(&mut self, request: &RequestReceiver, now: Instant) -> ApiAnswer;

    /// Returns the response to an invalid request, or to one that is refused.
    fn refusal(&self, status: u16, why: &str) -> ApiReply;

    /// Returns the events that a client has not received yet; empty without new events.
    fn news(&mut self, cursor: &mut EventCursor, now: Instant) -> Vec<u8>;
}
