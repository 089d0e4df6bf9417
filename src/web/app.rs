//! The interface between the server and the application behind it.

use super::http::{ApiReply, Receiver};
use super::jobs::ApiJob;
use crate::time::Instant;

/// Answer to a request.
pub enum ApiAnswer {
    /// This, at once.
    Now(ApiReply),
    /// The result of this job, which may take a while.
    Later(ApiJob),
}

/// The events that a client has received.
#[derive(Debug, Default)]
pub struct EventCursor {
    /// Number of the last change of the agent's state, if one was sent.
    pub state: Option<u32>,
    /// Number of the last change among captured requests.
    pub requests: Option<u32>,
    /// When anything was sent last.
    pub last_sent: Option<Instant>,
}

/// The application.
pub trait App: Send {
    /// Answers a request that is whole. Does not block.
    fn answer(&mut self, request: &Receiver, now: Instant) -> ApiAnswer;

    /// The answer to what is no request, or comes at a bad time.
    fn refusal(&self, status: u16, why: &str) -> ApiReply;

    /// What a client that listens has not seen yet; nothing if there is nothing.
    fn news(&mut self, cursor: &mut EventCursor, now: Instant) -> Vec<u8>;
}
