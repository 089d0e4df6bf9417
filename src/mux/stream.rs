//! The state of one stream: two directions, two windows, one purpose.

use super::StreamId;
use super::typed::Four;
use super::window::{ReceiveWindow, SendWindow};

/// One direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Bytes may come or go.
    Open,
    /// FIN was received, or queued for sending.
    Finished,
}

/// Who a stream's bytes are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application's.
    Application,
    /// Not known yet: the peer opened it, its type is incomplete.
    Untyped(Four),
    /// The peer's heartbeats, which are echoed; the beat being collected.
    Responder(Four),
    /// The echoes of our heartbeats.
    Requester,
}

/// A stream that frames or the application may still refer to.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) purpose: Purpose,
    pub(super) send: Half,
    pub(super) receive: Half,
    /// Over for the protocol; only the account of unconsumed bytes is left.
    pub(super) lingers: bool,
    /// The SYN waits in the outbox: no data may be sent yet.
    pub(super) syn_waits: bool,
    /// A WNDINC waits in the outbox.
    pub(super) wndinc_waits: bool,
    /// The application found no window and wants to hear of it.
    pub(super) blocked: bool,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ReceiveWindow,
}

impl Stream {
    pub(super) fn new(id: StreamId, purpose: Purpose, window: u32) -> Self {
        Stream {
            id,
            purpose,
            send: Half::Open,
            receive: Half::Open,
            lingers: false,
            syn_waits: false,
            wndinc_waits: false,
            blocked: false,
            send_window: SendWindow::new(window),
            receive_window: ReceiveWindow::new(window),
        }
    }

    /// Whether the application may call for it.
    pub(super) fn is_application(&self) -> bool {
        matches!(self.purpose, Purpose::Application)
    }

    /// Whether it is one of the session's own heartbeats.
    pub(super) fn is_heartbeat(&self) -> bool {
        matches!(self.purpose, Purpose::Responder(_) | Purpose::Requester)
    }

    /// Whether the peer may still send data, and so wants window.
    pub(super) fn takes_data(&self) -> bool {
        self.receive == Half::Open && !self.lingers
    }

    pub(super) fn check(&self) {
        self.send_window.check();
        self.receive_window.check();
        if self.lingers {
            debug_assert!(self.receive_window.unconsumed() > 0, "lingers for nothing");
            debug_assert!(self.is_application(), "only the application's streams linger");
        } else {
            let over = self.send == Half::Finished && self.receive == Half::Finished;
            debug_assert!(!over, "stream {} is over and not forgotten", self.id);
        }
    }
}
