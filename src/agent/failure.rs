//! Reasons why an attempt to set up a session failed, and the wait that each requires.

use crate::net;
use crate::proto::codes::Refusal;

/// Reason why a session could not be established.
#[derive(Debug)]
pub(super) enum LegFailure {
    /// Try again after the usual wait.
    Retry(String),
    /// Try again after the longest wait.
    RetrySlowly(String),
    /// Try again once, as a new client.
    ForgetCookie(String),
    /// Further attempts cannot succeed.
    Final(Refusal),
}

impl From<net::DialError> for LegFailure {
    fn from(e: net::DialError) -> Self {
        match e {
            net::DialError::Retry(why) => LegFailure::Retry(why),
            net::DialError::Final(refusal) => LegFailure::Final(refusal),
        }
    }
}
