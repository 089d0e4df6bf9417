//! What happens on other threads and concerns the supervisor: a short queue and
//! the event that wakes it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::failure::LegFailure;
use super::requests::{ReplySlot, Request};
use super::rpc::CallResult;
use crate::config;
use crate::mux::{StreamId, StreamType};
use crate::proto::messages::StopTunnel;
use crate::session::{End, Session};
use crate::sys::eventfd::EventFd;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::tls::client::Established;

/// More waiting notes than this and whoever leaves them is not making sense: he is
/// told no.
const MAX_QUEUED: usize = 64;

/// Something for the supervisor.
pub(super) enum AgentEvent {
    /// What came of the attempt with this number.
    Dialled(u32, Box<Result<Established, LegFailure>>),
    /// The session with this number is over.
    Ended(u32, End),
    /// What came of the call with this number.
    Answered(u32, CallResult),
    /// The edge took an endpoint down.
    StopTunnel(StopTunnel),
    /// The configuration was read again, and what it says.
    Read(ReloadReason, Box<Result<config::Agent, String>>),
    /// The edge asks the program for something, and waits for an answer.
    Command(StreamType, Session, StreamId),
    /// Another part of the program asks for something, and waits.
    Request(Request, Arc<ReplySlot>),
}

/// Why the configuration is read.
pub(super) enum ReloadReason {
    /// SIGHUP.
    Hangup,
    /// The edge asks for a restart, and waits for an answer on this stream.
    Restart(Session, StreamId),
}

/// The queue.
pub(super) struct EventQueue {
    queue: Mutex<VecDeque<AgentEvent>>,
    wakeup: &'static EventFd,
}

impl EventQueue {
    pub(super) fn new(wakeup: &'static EventFd) -> Self {
        EventQueue { queue: Mutex::new(VecDeque::new()), wakeup }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<AgentEvent>> {
        self.queue.lock()
    }

    /// Leaves a note. `false`: there are too many. What the supervisor itself waits
    /// for always fits: there is one of each to a leg.
    pub(super) fn push(&self, event: AgentEvent) -> bool {
        let awaited = matches!(
            event,
            AgentEvent::Dialled(..)
                | AgentEvent::Ended(..)
                | AgentEvent::Answered(..)
                | AgentEvent::Read(..)
        );
        let mut queue = self.lock();
        if queue.len() >= MAX_QUEUED && !awaited {
            return false;
        }
        queue.push_back(event);
        drop(queue);
        self.wakeup.notify();
        true
    }

    /// The oldest note.
    pub(super) fn pop(&self) -> Option<AgentEvent> {
        self.lock().pop_front()
    }

    /// The event that wakes the supervisor. Signal handlers notify it, too.
    pub(super) fn wakeup(&self) -> &'static EventFd {
        self.wakeup
    }
}
