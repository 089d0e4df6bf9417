//! What the server asks of the application behind it.

use super::http::{Receiver, Reply};
use super::jobs::Job;
use crate::time::Instant;

/// What comes of a request.
pub enum Answer {
    /// This, at once.
    Now(Reply),
    /// What this job says, which may take a while.
    Later(Job),
}

/// What a client that listens for events has been told.
#[derive(Debug, Default)]
pub struct Seen {
    /// Number of the last change of the agent's state, if any was told.
    pub state: Option<u32>,
    /// Number of the last change among captured requests.
    pub requests: Option<u32>,
    /// When anything was sent last.
    pub told: Option<Instant>,
}

/// The application.
pub trait App: Send {
    /// Answers a request that is whole. Does not block.
    fn answer(&mut self, request: &Receiver, now: Instant) -> Answer;

    /// The answer to what is no request, or comes at a bad time.
    fn refusal(&self, status: u16, why: &str) -> Reply;

    /// What a client that listens has not seen yet; nothing if there is nothing.
    fn news(&mut self, seen: &mut Seen, now: Instant) -> Vec<u8>;
}
