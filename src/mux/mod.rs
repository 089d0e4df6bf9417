//! The frame muxer: many streams over one ordered byte pipe. Sans-IO.
//!
//! [`Muxer`] is one end of it, agent or edge. Bytes and time are arguments of
//! [`Muxer::receive`] and [`Muxer::tick`]. Decisions are returned as [`Event`]s. Bytes to send
//! are returned by [`Muxer::transmit`] (whole control frames) and [`Muxer::grant`] (a header
//! for payload of the caller). The muxer stores no payload: received payload is passed on as
//! borrowed slices. It keeps the windows and counters (protocol 2, 3 and 4).
//!
//! | file | content |
//! |---|---|
//! | `frame` | 8 bytes of header, and the rules that need nothing else |
//! | `code`, `typed` | error codes; the four bytes that name a stream's purpose |
//! | `window` | bytes that may still be sent, and bytes to return |
//! | `stream`, `table` | the state of one stream; all of them |
//! | `reset_streams` | streams that this side reset; the peer may not know yet |
//! | `flood` | budgets for frames that cost this side more than the peer |
//! | `heartbeat` | requesting echoes and returning them |
//! | `control_queue` | control frames that wait for the link |
//! | `lifecycle` | end of streams and sessions, and the counters until then |
//! | `muxer`, `receive` | the state machine: calls of this side, bytes of the peer |
//!
//! This module uses no socket, thread, clock or JSON. It logs no payload and never panics on
//! bytes of a peer.

mod code;
mod control_queue;
pub mod fault_injection;
mod flood;
pub mod frame;
mod heartbeat;
#[cfg(test)]
mod hostile;
mod lifecycle;
mod muxer;
mod receive;
mod reset_streams;
#[cfg(test)]
mod sim;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod typed;
mod window;
mod xorshift;

use std::fmt;
use std::time::Duration;

pub use code::Code;
pub use flood::Flood;
pub use muxer::Muxer;
pub use typed::StreamType;

/// Initial window of each direction of each stream, in bytes (protocol 2.5). Both sides assume
/// it; it is not announced.
pub const WINDOW: u32 = 262_144;

/// Most payload of one DATA frame, in bytes: with its header the frame fills one TLS record of
/// 16 KiB (protocol 2.1).
pub const MAX_PAYLOAD: usize = 16_376;

/// Most bytes that may follow the type in the SYN frame of [`Muxer::open`].
pub const MAX_FIRST: usize = 4_096;

/// Smallest window that a stream with unconsumed bytes gets back, in bytes.
pub(crate) const MIN_WINDOW_SHARE: u32 = 32_768;

/// Longest control frame. A buffer for [`Muxer::transmit`] must have at least this length, or
/// the queue may block.
pub const MAX_CONTROL: usize = frame::HEADER_BYTES + 4 + MAX_FIRST;

/// End of the session. It decides the parity of stream ids (protocol 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dialled the connection. Opens odd ids from 3.
    Agent,
    /// Accepted the connection. Opens even ids from 2.
    Edge,
}

impl Role {
    /// Returns the first id that this end opens.
    pub(crate) const fn first_id(self) -> u32 {
        match self {
            Role::Agent => 3,
            Role::Edge => 2,
        }
    }

    /// Returns whether this end opens ids like `id`.
    pub(crate) const fn owns(self, id: StreamId) -> bool {
        (id.0 & 1 == 1) == matches!(self, Role::Agent)
    }
}

/// Id of a stream within its session: 31 bits, never 0, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// Returns the id for a number from [`Self::get`].
    pub const fn from_number(number: u32) -> Option<Self> {
        if number == 0 || number > 0x7FFF_FFFF { None } else { Some(StreamId(number)) }
    }

    /// Returns the number in the frame header.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Parameters of a session. [`Config::new`] sets the values of the protocol and its other
/// implementations.
#[derive(Clone, Debug)]
pub struct Config {
    /// This end of the session.
    pub role: Role,
    /// Initial window of each direction of each stream, in bytes. Other values than [`WINDOW`]
    /// need a peer with the same value.
    pub window: u32,
    /// Most streams at a time, including those of both sides, heartbeats, and ended streams
    /// with unconsumed bytes.
    pub max_streams: usize,
    /// Most streams at a time that the peer opened without sending the four bytes of their
    /// type. Further ones are refused with AcceptQueueFull.
    pub accept_backlog: usize,
    /// Time for the type of a stream to arrive.
    pub type_deadline: Duration,
    /// Most heartbeat streams of the peer at a time.
    pub max_heartbeats: usize,
    /// Most control frames that may wait for the link before [`Muxer::wants_input`] returns
    /// false.
    pub max_pending: usize,
    /// Time that streams may continue after the peer's GOAWAY (protocol 2.7).
    pub leave_grace: Duration,
    /// Bytes that all streams together should not exceed without consuming them. Above half of
    /// it streams get less window back. The owner enforces its own limit.
    pub buffer_target: usize,
    /// Seed for the numbers in heartbeats. They only have to differ between sessions.
    pub seed: u64,
}

impl Config {
    /// Returns the defaults for `role`.
    pub fn new(role: Role, seed: u64) -> Self {
        Config {
            role,
            window: WINDOW,
            max_streams: match role {
                // Peers of the Rust family end the session at the 513th stream, including their
                // own (protocol 2.9).
                Role::Edge => 500,
                Role::Agent => 512,
            },
            accept_backlog: 128,
            type_deadline: Duration::from_secs(10),
            max_heartbeats: 4,
            max_pending: 1_024,
            leave_grace: Duration::from_secs(5),
            buffer_target: usize::MAX,
            seed,
        }
    }
}

/// Action of the peer, or its consequence.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// The peer opened a stream, and its type is complete. Heartbeat streams are handled
    /// internally and never reported.
    Opened {
        /// The new stream.
        stream: StreamId,
        /// Its purpose.
        kind: StreamType,
    },
    /// Bytes of a stream: a whole DATA payload or a part of it, never empty. They must be
    /// consumed with [`Muxer::consumed`].
    Data {
        /// The stream of the bytes.
        stream: StreamId,
        /// The bytes, borrowed from the input.
        bytes: &'b [u8],
    },
    /// The peer's FIN, after all data.
    Finished {
        /// The stream. Its other direction may continue.
        stream: StreamId,
    },
    /// The stream ended, by the peer's RST or by this side because the peer broke a rule.
    /// Earlier data stays valid. Directly after the [`Event::Finished`] that ended a stream in
    /// both directions it means that the peer cancelled the stream.
    Reset {
        /// The stream, which is forgotten.
        stream: StreamId,
        /// The peer's code, or ours.
        code: Code,
    },
    /// The stream has window again, after a [`Muxer::grant`] without window.
    Writable {
        /// The stream that may send.
        stream: StreamId,
    },
    /// A heartbeat's echo arrived. The round trip time.
    Latency(Duration),
    /// The peer accepts and opens no further streams. Open ones may finish until
    /// [`Event::Over`].
    GoAway {
        /// Reason of the peer. NoError for an orderly end.
        code: Code,
        /// Debug text of the peer, made printable, at most 256 bytes.
        text: Box<str>,
    },
    /// The session must end: send the rest of [`Muxer::transmit`], then close the connection.
    /// No event follows.
    Over {
        /// Code that was sent to the peer or received from it.
        code: Code,
        /// Reason for the end.
        reason: Reason,
    },
}

/// Reason why a session has ended. Its text is for the log and for the GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// RST, WNDINC or GOAWAY with an invalid length (protocol 2.2).
    FrameLength {
        /// The frame's name.
        frame: &'static str,
        /// The length in its header.
        length: u32,
    },
    /// A frame for a stream has id 0.
    StreamZero {
        /// The frame's name.
        frame: &'static str,
    },
    /// GOAWAY with the id of a stream.
    GoAwayOnStream {
        /// The stream.
        stream: StreamId,
    },
    /// WNDINC with an increment of 0.
    ZeroIncrement {
        /// The stream.
        stream: StreamId,
    },
    /// SYN with an id that only this side may open.
    WrongParity {
        /// The id.
        stream: StreamId,
    },
    /// SYN for a stream that is open.
    DuplicateSyn {
        /// The id.
        stream: StreamId,
    },
    /// A heartbeat's echo is wrong or was not expected.
    WrongEcho,
    /// The echo did not arrive within interval and tolerance.
    HeartbeatTimeout,
    /// The peer exhausted a budget that honest peers do not exhaust.
    Flood(Flood),
    /// The peer had sent GOAWAY, and its time or its bytes have ended.
    PeerLeft,
    /// A fault of this program, with the broken rule.
    Bug(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::FrameLength { frame, length } => {
                write!(f, "{frame} frame with a payload of {length} bytes")
            }
            Reason::StreamZero { frame } => write!(f, "{frame} frame for stream 0"),
            Reason::GoAwayOnStream { stream } => write!(f, "GOAWAY frame for stream {stream}"),
            Reason::ZeroIncrement { stream } => {
                write!(f, "WNDINC frame of 0 for stream {stream}")
            }
            Reason::WrongParity { stream } => {
                write!(f, "SYN for stream {stream}, an id of the receiver's own")
            }
            Reason::DuplicateSyn { stream } => {
                write!(f, "SYN for stream {stream}, which is open already")
            }
            Reason::WrongEcho => f.write_str("heartbeat echo that differs from the beat"),
            Reason::HeartbeatTimeout => f.write_str("no answer to the heartbeat in time"),
            Reason::Flood(flood) => write!(f, "too many {flood}"),
            Reason::PeerLeft => f.write_str("the peer sent GOAWAY"),
            Reason::Bug(what) => write!(f, "internal error: {what}"),
        }
    }
}

/// Reason why a stream could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// [`Config::max_streams`] are open. Try again when one has ended.
    TooMany,
    /// Too many bytes wait for the link. Try again when they were sent.
    Busy,
    /// The peer has sent GOAWAY.
    PeerLeft,
    /// The ids of this session are used up. A new session is needed.
    Exhausted,
    /// More than [`MAX_FIRST`] bytes after the type.
    TooLong,
    /// The session has ended.
    Over,
}

impl OpenError {
    /// Returns the code in the protocol (protocol 2.8).
    pub fn code(self) -> Code {
        match self {
            OpenError::TooMany | OpenError::Exhausted => Code::STREAMS_EXHAUSTED,
            OpenError::Busy => Code::WRITE_TIMEOUT,
            OpenError::PeerLeft => Code::REMOTE_GONE_AWAY,
            OpenError::TooLong => Code::INTERNAL_ERROR,
            OpenError::Over => Code::SESSION_CLOSED,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OpenError::TooMany => "cannot open a stream: too many are open",
            OpenError::Busy => "cannot open a stream: the link is full",
            OpenError::PeerLeft => "cannot open a stream: the peer sent GOAWAY",
            OpenError::Exhausted => "cannot open a stream: the session's ids are used up",
            OpenError::TooLong => "cannot open a stream: its first bytes are too many",
            OpenError::Over => "cannot open a stream: the session is over",
        })
    }
}

impl std::error::Error for OpenError {}

/// Reason why nothing may be sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The window is empty. [`Event::Writable`] follows.
    NoWindow,
    /// The stream's SYN has not been taken by [`Muxer::transmit`] yet.
    ControlPending,
    /// The stream accepts no bytes: finished, reset or unknown, or the session has ended.
    Closed(Code),
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrantError::NoWindow => f.write_str("the stream's window is used up"),
            GrantError::ControlPending => f.write_str("the stream's first frame is not sent yet"),
            GrantError::Closed(code) => write!(f, "the stream is closed: {code}"),
        }
    }
}

impl std::error::Error for GrantError {}

/// Permission to send one DATA frame. The window is already spent, so the header and exactly
/// `len` bytes must be written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the window is spent: write the header and the payload"]
pub struct Grant {
    /// Header of the frame.
    pub header: [u8; frame::HEADER_BYTES],
    /// Number of payload bytes that must follow it.
    pub len: usize,
}
