//! One live session: the muxer over an established link, shared by agent and edge.
//!
//! ```text
//! threads --send--> [ lock: mux + sealer + out ] --send(2)--> peer
//! sinks <--data--- reactor <--open-- records <--recv(2)------ peer
//! ```
//!
//! The main types are [`Session`], which any thread may use, and [`Sink`], which receives a
//! stream's bytes from the reactor. Each session has one reactor thread. It reads, opens,
//! parses and delivers, and never blocks. Sending threads seal and send by themselves under the
//! session's lock. [`Pipe`] is the sink for a socket. Messages of the protocol, HTTP and policy
//! do not belong here.

mod frame_writer;
mod gathered;
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
use std::io::IoSlice;
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

/// Receiver of a stream's incoming bytes. It is called on the reactor thread and must not
/// block.
///
/// The owner of the sink calls [`Session::release`] when the stream has ended on both sides.
/// Until then the session keeps the sink.
pub trait Sink: Send + Sync {
    /// Accepts all of `bytes`, and returns how many of them are consumed. The sink keeps the
    /// others and calls [`Session::consumed`] later.
    fn data(&self, bytes: &[u8]) -> usize;
    /// Does the same as [`Self::data`] for bytes in several buffers.
    fn data_parts(&self, parts: &[IoSlice<'_>]) -> usize {
        parts.iter().map(|part| self.data(part)).sum()
    }
    /// The peer has sent FIN after all its data.
    fn finished(&self);
    /// The stream has ended in both directions. After [`Reset::Peer`] earlier bytes are still
    /// delivered, and [`Self::ready`] continues until [`Session::release`].
    fn reset(&self, reset: Reset);
    /// The peer cancelled the stream with FIN and RST together (protocol 2.6). A sink that
    /// forwards ends must not forward this one as an orderly end.
    fn cancelled(&self, code: Code) {
        self.finished();
        self.reset(Reset::Peer(code));
    }
    /// The stream's window has room again, after [`Session::window`] found none.
    fn window(&self) {}
    /// The descriptor of [`Session::watch`] is ready. `closed`: it also has the end, after the
    /// bytes that can be read; no other call reports it.
    fn ready(&self, readable: bool, writable: bool, closed: bool) {
        let _ = (readable, writable, closed);
    }
}

/// The application of a session, on its reactor thread. It must not block.
pub trait Handler: Send {
    /// The peer opened a stream. `None` refuses it (FIN, then RST 5).
    fn opened(
        &mut self,
        session: &Session,
        stream: StreamId,
        kind: StreamType,
    ) -> Option<Arc<dyn Sink>>;
    /// The echo of a heartbeat arrived.
    fn latency(&mut self, latency: Duration) {
        let _ = latency;
    }
    /// The peer sent GOAWAY: it opens and accepts no further streams. The session ends after
    /// its open streams, or after a few seconds.
    fn going_away(&mut self, code: Code, text: &str) {
        let _ = (code, text);
    }
    /// The deadline of the last call has passed. Also called after streams were opened, after
    /// heartbeats, and at least once at the start.
    fn tick(&mut self, now: Instant) -> Deadline {
        let _ = now;
        Deadline::Never
    }
    /// The session has ended. Called once, after all sinks were notified.
    fn ended(&mut self, end: &End);
}

/// Reason why a session ended.
#[derive(Clone, Debug)]
pub enum End {
    /// The peer closed the connection or it broke.
    Lost(String),
    /// The peer sent GOAWAY and then closed the connection.
    GoneAway(Code, String),
    /// This side ended it, because of an error of the peer or a missing heartbeat.
    Failed(Code, String),
    /// This side closed it on purpose.
    Closed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Lost(why) => f.write_str(why),
            End::GoneAway(code, text) => write!(f, "the peer sent GOAWAY: {text} ({code})"),
            End::Failed(code, why) => write!(f, "{why} ({code})"),
            End::Closed => f.write_str("closed"),
        }
    }
}
