//! One live session: the muxer over an established link, shared by agent and
//! edge.
//!
//! ```text
//! threads --send--> [ lock: mux + sealer + out ] --send(2)--> peer
//! sinks <--data--- reactor <--open-- records <--recv(2)------ peer
//! ```
//!
//! The two types that matter: [`Session`], which any thread may use, and
//! [`Sink`], where the reactor delivers a stream's bytes. One reactor thread a
//! session reads, opens, parses and delivers, and never blocks; sending threads
//! seal and send by themselves under the session's lock. [`Pipe`] is the sink
//! for a socket. No messages of the protocol here, no HTTP, no policy.

mod frame_writer;
mod half_close_timer;
mod handle;
mod held_finish;
mod inbound;
mod input_limit;
mod outlet;
mod pipe;
mod reactor;
mod record_reader;
mod send_buffer;
mod send_error;
mod sender;
#[cfg(test)]
mod sim;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod waiting;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use half_close_timer::HalfCloseTimer;
pub use handle::{Session, Watch};
pub use inbound::Reset;
pub use input_limit::{BufferLimits, HeldBytes, ProcessBuffers};
pub use outlet::{Outlet, PlainOutlet};
pub use pipe::Pipe;
pub use reactor::{BUFFERED, start};
pub use send_error::SendError;
pub use sender::Forwarded;

use crate::mux::{Code, StreamId, StreamType};
use crate::time::{Deadline, Instant};

/// Where a stream's incoming bytes go. Called on the reactor thread: nothing in
/// it may block.
///
/// Whoever made the sink calls [`Session::release`] when the stream is over on
/// both sides; until then the session keeps it.
pub trait Sink: Send + Sync {
    /// Takes all of `bytes`, and returns how many of them are consumed for good.
    /// The rest is kept by the sink, which calls [`Session::consumed`] later.
    fn data(&self, bytes: &[u8]) -> usize;
    /// The peer sends no more, after all its data.
    fn finished(&self);
    /// The stream is over in both directions. After [`Reset::Peer`] what came before it
    /// still counts, and [`Self::ready`] goes on until [`Session::release`].
    fn reset(&self, reset: Reset);
    /// The peer gave the stream up: its end and a reset came in one go (protocol
    /// 2.6). Who passes ends on must not pass this one on as an orderly one.
    fn cancelled(&self, code: Code) {
        self.finished();
        self.reset(Reset::Peer(code));
    }
    /// There is room in the stream's window again, after [`Session::window`] found none.
    fn window(&self) {}
    /// The descriptor given to [`Session::watch`] is ready. `closed`: its end is
    /// there too, behind what can still be read; no other call will tell of it.
    fn ready(&self, readable: bool, writable: bool, closed: bool) {
        let _ = (readable, writable, closed);
    }
}

/// The application of a session, on its reactor thread: nothing in it may block.
pub trait Handler: Send {
    /// The peer opened a stream. `None` refuses it (FIN, then RST 5).
    fn opened(
        &mut self,
        session: &Session,
        stream: StreamId,
        kind: StreamType,
    ) -> Option<Arc<dyn Sink>>;
    /// A heartbeat's echo came.
    fn latency(&mut self, latency: Duration) {
        let _ = latency;
    }
    /// The peer said goodbye: it opens and accepts nothing more, and the session
    /// ends when the streams that run have, or after a few seconds.
    fn going_away(&mut self, code: Code, text: &str) {
        let _ = (code, text);
    }
    /// Time passed: called when the returned deadline is due, after streams were
    /// opened and after heartbeats, and at least once at the start.
    fn tick(&mut self, now: Instant) -> Deadline {
        let _ = now;
        Deadline::Never
    }
    /// The session ended; every sink has been told before. Once, last.
    fn ended(&mut self, end: &End);
}

/// Why a session ended.
#[derive(Clone, Debug)]
pub enum End {
    /// The peer closed the connection or it broke.
    Lost(String),
    /// The peer said goodbye (GOAWAY) and then closed.
    GoneAway(Code, String),
    /// We ended it because of what the peer did, or of a missing heartbeat.
    Failed(Code, String),
    /// We closed it on purpose.
    Closed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Lost(why) => f.write_str(why),
            End::GoneAway(code, text) => write!(f, "the peer went away: {text} ({code})"),
            End::Failed(code, why) => write!(f, "{why} ({code})"),
            End::Closed => f.write_str("closed"),
        }
    }
}
