//! The frame muxer: many streams over one ordered byte pipe. Sans-IO.
//!
//! [`Muxer`] is one end of it, agent or edge. Bytes and the time go in by
//! [`Muxer::receive`] and [`Muxer::tick`], decisions come out as
//! [`Event`]s, bytes to send by [`Muxer::transmit`] (whole control frames)
//! and [`Muxer::grant`] (a header for payload that the caller holds). The
//! muxer stores no payload: it hands out what arrives as borrowed slices and
//! keeps the accounts (protocol 2, 3 and 4).
//!
//! | file | one idea |
//! |---|---|
//! | `frame` | 8 bytes of header, and the rules that need nothing else |
//! | `code`, `typed` | error codes; the four bytes that name a stream's purpose |
//! | `window` | what may still be sent and what is owed back |
//! | `stream`, `table` | the state of one stream; all of them |
//! | `reset_streams` | streams that this side reset; the peer may not know yet |
//! | `flood` | named budgets for what costs us more than the peer |
//! | `heartbeat` | asking for echoes and giving them |
//! | `control_queue` | control frames that wait for the link |
//! | `lifecycle` | how streams and sessions end, and what is owed until then |
//! | `muxer`, `receive` | the state machine: our side's calls, the peer's bytes |
//!
//! Nothing in this module may know a socket, a thread, a clock or JSON, log a
//! payload, or panic for anything a peer can send.

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

/// The window that each direction of each stream starts with, in bytes
/// (protocol 2.5). Both sides take it for granted; nothing announces it.
pub const WINDOW: u32 = 262_144;

/// The most payload put into one DATA frame, in bytes: with its header the
/// frame fills one TLS record of 16 KiB (protocol 2.1).
pub const MAX_PAYLOAD: usize = 16_376;

/// The most bytes that may follow the type in the SYN frame of [`Muxer::open`].
pub const MAX_FIRST: usize = 4_096;

/// The least window that a stream with unconsumed bytes gets back, in bytes.
pub(crate) const MIN_WINDOW_SHARE: u32 = 32_768;

/// The longest control frame: a buffer for [`Muxer::transmit`] must be at
/// least this long, or the queue may stand still.
pub const MAX_CONTROL: usize = frame::HEADER_BYTES + 4 + MAX_FIRST;

/// Which end of the session this is. It decides the parity of stream ids
/// (protocol 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Dialled the connection; opens odd ids from 3.
    Agent,
    /// Accepted the connection; opens even ids from 2.
    Edge,
}

impl Role {
    /// The first id that this end opens.
    pub(crate) const fn first_id(self) -> u32 {
        match self {
            Role::Agent => 3,
            Role::Edge => 2,
        }
    }

    /// Whether ids like `id` are opened by this end.
    pub(crate) const fn owns(self, id: StreamId) -> bool {
        (id.0 & 1 == 1) == matches!(self, Role::Agent)
    }
}

/// The id of a stream within its session: 31 bits, never 0, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// The id with this number: what [`Self::get`] gave.
    pub const fn from_number(number: u32) -> Option<Self> {
        if number == 0 || number > 0x7FFF_FFFF { None } else { Some(StreamId(number)) }
    }

    /// The number as it stands in the frame header.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a session is built with. [`Config::new`] fills in the values that the
/// protocol and its other implementations suggest.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which end this is.
    pub role: Role,
    /// The initial window of each direction of each stream, in bytes. Anything
    /// but [`WINDOW`] works only with a peer that was built the same way.
    pub window: u32,
    /// The most streams at a time, both directions and heartbeats included,
    /// and those that are over but have bytes that were not consumed.
    pub max_streams: usize,
    /// The most streams at a time that the peer opened without having sent the
    /// four bytes of their type. More are refused with AcceptQueueFull.
    pub accept_backlog: usize,
    /// How long the type of a stream may take to arrive.
    pub type_deadline: Duration,
    /// The most heartbeat streams at a time that the peer may open.
    pub max_heartbeats: usize,
    /// The most control frames that may wait for the link before
    /// [`Muxer::wants_input`] says no.
    pub max_pending: usize,
    /// How long streams may go on after the peer's GOAWAY (protocol 2.7).
    pub leave_grace: Duration,
    /// Bytes that all streams together should not hold unconsumed: above half of it
    /// streams get less window back. The owner enforces a limit of its own.
    pub buffer_target: usize,
    /// Where the numbers in heartbeats come from. They only have to differ
    /// from session to session.
    pub seed: u64,
}

impl Config {
    /// The defaults for `role`.
    pub fn new(role: Role, seed: u64) -> Self {
        Config {
            role,
            window: WINDOW,
            max_streams: match role {
                // Peers of the Rust family end the session at the 513th
                // stream, their own included (protocol 2.9).
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

/// What the peer did, or what came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'b> {
    /// The peer opened a stream and its type is complete. Heartbeat streams
    /// are served inside and never reported.
    Opened {
        /// The new stream.
        stream: StreamId,
        /// What it is for.
        kind: StreamType,
    },
    /// Bytes of a stream: a whole DATA payload or a part of it, never empty.
    /// [`Muxer::consumed`] is owed for each of them.
    Data {
        /// The stream they belong to.
        stream: StreamId,
        /// The bytes, borrowed from the input.
        bytes: &'b [u8],
    },
    /// The peer's FIN: no more data comes. After all data.
    Finished {
        /// The stream, whose other direction may go on.
        stream: StreamId,
    },
    /// The stream ended by the peer's RST, or was ended by this side because
    /// the peer broke a rule on it. Data that came before stays valid. Right behind
    /// the [`Event::Finished`] that ended a stream in both directions, it means that
    /// the peer gave the stream up.
    Reset {
        /// The stream, which is forgotten.
        stream: StreamId,
        /// The peer's code, or ours.
        code: Code,
    },
    /// A [`Muxer::grant`] had found no window; now there is some.
    Writable {
        /// The stream that may go on.
        stream: StreamId,
    },
    /// A heartbeat's echo came; this is the time it took.
    Latency(Duration),
    /// The peer accepts and opens nothing more. What runs may finish until
    /// [`Event::Over`] comes.
    GoAway {
        /// Why, in the peer's view. NoError for an orderly end.
        code: Code,
        /// The peer's debug text, made printable, at most 256 bytes.
        text: Box<str>,
    },
    /// The session must end: send what [`Muxer::transmit`] still has, then
    /// close the connection. Nothing comes after this.
    Over {
        /// The code that went to the peer, or came from it.
        code: Code,
        /// Why.
        reason: Reason,
    },
}

/// Why a session is over. Its text is for the log and for the GOAWAY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// RST, WNDINC or GOAWAY with an impossible length (protocol 2.2).
    FrameLength {
        /// The frame's name.
        frame: &'static str,
        /// The length in its header.
        length: u32,
    },
    /// A frame that must name a stream has id 0.
    StreamZero {
        /// The frame's name.
        frame: &'static str,
    },
    /// GOAWAY that names a stream.
    GoAwayOnStream {
        /// The stream it named.
        stream: StreamId,
    },
    /// WNDINC that increments by nothing.
    ZeroIncrement {
        /// The stream it was for.
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
    /// A heartbeat's echo differs from what was sent, or none was due.
    WrongEcho,
    /// No echo within interval and tolerance.
    HeartbeatTimeout,
    /// The peer spent a budget that no honest peer spends.
    Flood(Flood),
    /// The peer had said GOAWAY, and now its time is up or its bytes end.
    PeerLeft,
    /// A fault of this program. Names the broken rule.
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
            Reason::PeerLeft => f.write_str("the other side said goodbye"),
            Reason::Bug(what) => write!(f, "internal error: {what}"),
        }
    }
}

/// Why no stream could be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// [`Config::max_streams`] are open. Retry when one has closed.
    TooMany,
    /// Too much waits for the link already. Retry when it was sent.
    Busy,
    /// The peer said GOAWAY.
    PeerLeft,
    /// The ids of this session are used up: start another.
    Exhausted,
    /// More than [`MAX_FIRST`] bytes were to follow the type.
    TooLong,
    /// The session is over.
    Over,
}

impl OpenError {
    /// The protocol's code for it (protocol 2.8).
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
            OpenError::TooMany => "no stream can be opened: too many are open",
            OpenError::Busy => "no stream can be opened: the link takes no more for now",
            OpenError::PeerLeft => "no stream can be opened: the other side is leaving",
            OpenError::Exhausted => "no stream can be opened: the session's ids are used up",
            OpenError::TooLong => "no stream can be opened: its first bytes are too many",
            OpenError::Over => "no stream can be opened: the session is over",
        })
    }
}

impl std::error::Error for OpenError {}

/// Why nothing may be sent on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    /// The window is used up. [`Event::Writable`] will come.
    NoWindow,
    /// The stream's SYN has not been taken by [`Muxer::transmit`] yet.
    ControlPending,
    /// The stream takes no more: finished, reset, unknown, or the session is
    /// over.
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

/// Leave to send one DATA frame. The window is spent already, so the header
/// and exactly `len` bytes must be written next, before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the window is spent: write the header and the payload"]
pub struct Grant {
    /// The frame's header.
    pub header: [u8; frame::HEADER_BYTES],
    /// The number of payload bytes that must follow it.
    pub len: usize,
}
