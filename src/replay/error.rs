//! Reasons why a replay was refused. Texts for the user of the local API; its status codes are
//! in [`crate::web`].

use std::fmt;

/// Replays that may run at the same time.
pub(super) const MAX_REPLAYS: usize = 4;

/// Reason why nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// The exchange is unknown or was removed.
    NotFound,
    /// The endpoint is unknown, or its requests are not inspected.
    NoEndpoint(String),
    /// Its body is incomplete, and no other one was given.
    Incomplete,
    /// The maximum of replays is running.
    Busy,
    /// The changed request is invalid.
    Invalid(&'static str),
    /// A thread cannot be started.
    System(String),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::NotFound => f.write_str("the request is not stored"),
            ReplayError::NoEndpoint(name) => {
                write!(f, "endpoint '{name}' does not exist, or is not inspected")
            }
            ReplayError::Incomplete => f.write_str(
                "only the beginning of this request was stored; give a body to send in its place",
            ),
            ReplayError::Busy => {
                write!(f, "{MAX_REPLAYS} replays are running; try again later")
            }
            ReplayError::Invalid(what) => f.write_str(what),
            ReplayError::System(why) => write!(f, "cannot start a thread for the replay: {why}"),
        }
    }
}

impl std::error::Error for ReplayError {}
