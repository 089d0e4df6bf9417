//! Error of sending on a stream.

use std::fmt;

use crate::mux::Code;

/// Reason why bytes could not be sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The stream is closed for sending: reset or finished.
    Closed(Code),
    /// The session has ended.
    Over,
    /// The deadline has passed.
    Late,
    /// Too many streams, or the peer is going away: nothing was opened.
    Refused(Code),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closed(code) => write!(f, "the stream is closed: {code}"),
            SendError::Over => f.write_str("the session is over"),
            SendError::Late => f.write_str("the peer took too long"),
            SendError::Refused(code) => write!(f, "no stream could be opened: {code}"),
        }
    }
}

impl std::error::Error for SendError {}
