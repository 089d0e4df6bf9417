//! State of one stream: two directions, two windows, one purpose. Frames are not parsed or
//! written here.

use super::StreamId;
use super::typed::PartialU32;
use super::window::{ReceiveWindow, SendWindow};
use crate::time::Instant;

/// One direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfState {
    /// Bytes may be sent or received.
    Open,
    /// FIN was received, or queued for sending.
    Finished,
}

/// Purpose of a stream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Bytes of the application.
    Application,
    /// Not known yet: the peer opened it, and its type is incomplete.
    Untyped(PartialU32),
    /// Heartbeats of the peer, which are echoed. With the part of one that has arrived.
    Responder(PartialU32),
    /// Echoes of our heartbeats.
    Requester,
}

/// A stream that the peer or the application may still refer to.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) id: StreamId,
    pub(super) purpose: Purpose,
    pub(super) send: HalfState,
    pub(super) receive: HalfState,
    /// Ended in the protocol. Only its unconsumed bytes are still counted.
    pub(super) lingers: bool,
    /// The SYN waits in the control queue, so no data may be sent yet.
    pub(super) syn_waits: bool,
    /// A WNDINC waits in the control queue.
    pub(super) wndinc_waits: bool,
    /// The application found no window and waits for [`super::Event::Writable`].
    pub(super) blocked: bool,
    /// Time at which waiting bytes were last consumed, or at which the first of them arrived.
    pub(super) progress: Instant,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
}

impl StreamState {
    pub(super) fn new(id: StreamId, purpose: Purpose, window: u32) -> Self {
        StreamState {
            id,
            purpose,
            send: HalfState::Open,
            receive: HalfState::Open,
            lingers: false,
            syn_waits: false,
            wndinc_waits: false,
            blocked: false,
            progress: Instant::ZERO,
            send_window: SendWindow::new(window),
            receive_window: ReceiveWindow::new(window),
        }
    }

    /// Returns whether the application may use it.
    pub(super) fn is_application(&self) -> bool {
        matches!(self.purpose, Purpose::Application)
    }

    /// Returns whether it is one of the session's own heartbeat streams.
    pub(super) fn is_heartbeat(&self) -> bool {
        matches!(self.purpose, Purpose::Responder(_) | Purpose::Requester)
    }

    /// Returns whether the peer may still send data and needs window.
    pub(super) fn takes_data(&self) -> bool {
        self.receive == HalfState::Open && !self.lingers
    }

    pub(super) fn check(&self) {
        self.send_window.check();
        self.receive_window.check();
        if self.lingers {
            debug_assert!(self.receive_window.unconsumed() > 0, "lingers for nothing");
            debug_assert!(self.is_application(), "only the application's streams linger");
        } else {
            let over = self.send == HalfState::Finished && self.receive == HalfState::Finished;
            debug_assert!(!over, "stream {} is over and not forgotten", self.id);
        }
    }
}
