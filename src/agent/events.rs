//! The events of other threads for the supervisor: a bounded queue, and the wakeup that
//! ends the supervisor's wait. What an event leads to does not belong here.

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
use crate::tls::Established;

/// Queue capacity. Further events are rejected.
const MAX_QUEUED: usize = 64;

/// An event for the supervisor.
pub(super) enum AgentEvent {
    /// Result of the attempt with this number.
    Dialled(u32, Box<Result<Established, LegFailure>>),
    /// The session with this number is over.
    Ended(u32, End),
    /// Result of the call with this number.
    Answered(u32, CallResult),
    /// The edge took an endpoint down.
    StopTunnel(StopTunnel),
    /// The configuration was read again.
    Read(ReloadReason, Box<Result<config::Agent, String>>),
    /// A request of the edge that waits for an answer.
    Command(StreamType, Session, StreamId),
    /// A request of another thread that waits for an answer.
    Request(Request, Arc<ReplySlot>),
}

/// Why the configuration is read.
pub(super) enum ReloadReason {
    /// SIGHUP.
    Hangup,
    /// The edge requests a restart, and waits for an answer on this stream.
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

    /// Adds an event. `false`: the queue is full. Events that the supervisor waits for
    /// always fit: each leg has one of a kind at most.
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

    /// Takes the oldest event.
    pub(super) fn pop(&self) -> Option<AgentEvent> {
        self.lock().pop_front()
    }

    /// The event that wakes the supervisor. Signal handlers notify it, too.
    pub(super) fn wakeup(&self) -> &'static EventFd {
        self.wakeup
    }
}
