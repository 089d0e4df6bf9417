//! Events of other threads for the supervisor: a bounded queue, and the wakeup that ends the
//! supervisor's wait. The consequence of an event does not belong here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::failure::LegFailure;
use super::requests::{ReplySlot, Request};
use super::rpc::CallResult;
use crate::config;
use crate::mux::{StreamId, StreamType};
use crate::proto::messages::{StopTunnel, UpdateRequest};
use crate::session::{End, Session};
use crate::sys::eventfd::EventFd;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::tls::Established;

/// Queue capacity. Further events are rejected.
const MAX_QUEUED: usize = 64;

/// Event for the supervisor.
pub(super) enum AgentEvent {
    /// Result of the attempt with this number.
    Dialled(u32, Box<Result<Established, LegFailure>>),
    /// The session with this number has ended.
    Ended(u32, End),
    /// Result of the call with this number.
    Answered(u32, CallResult),
    /// The edge took an endpoint down.
    StopTunnel(StopTunnel),
    /// The configuration was read again.
    Read(ReloadReason, Box<Result<config::Agent, String>>),
    /// Request of the edge that waits for a response.
    Command(StreamType, Session, StreamId),
    /// Update of the edge, which waits for a response.
    Update(UpdateRequest, Session, StreamId),
    /// Request of another thread that waits for a response.
    Request(Request, Arc<ReplySlot>),
}

/// Reason for reading the configuration.
pub(super) enum ReloadReason {
    /// SIGHUP.
    Hangup,
    /// The edge requests a restart, and waits for a response on this stream.
    Restart(Session, StreamId),
}

/// Queue of events.
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

    /// Adds an event. Returns false if the queue is full. Events that the supervisor waits for
    /// always fit: each leg has at most one of a kind.
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

    /// Removes and returns the oldest event.
    pub(super) fn pop(&self) -> Option<AgentEvent> {
        self.lock().pop_front()
    }

    /// Returns the event that wakes the supervisor. Signal handlers notify it too.
    pub(super) fn wakeup(&self) -> &'static EventFd {
        self.wakeup
    }
}
