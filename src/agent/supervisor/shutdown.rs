//! The shutdown: endpoints are unbound, connections finish, sessions are closed. Only here the
//! supervisor waits, for a bounded time.

use std::time::Duration;

use super::Supervisor;
use crate::agent::events::AgentEvent;
use crate::agent::requests::StartError;
use crate::agent::rpc;
use crate::event;
use crate::mux::{Code, StreamType};
use crate::proto::messages::UnbindRequest;
use crate::sys::{self, poll};
use crate::time::Deadline;

/// Time for the edge to answer the Unbinds.
const UNBIND_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for connections to finish.
const GRACE_PERIOD: Duration = Duration::from_secs(10);
/// Time for the reactors to send the end of the sessions.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

impl Supervisor {
    /// Unbinds the endpoints, lets connections finish for a while, and closes the sessions.
    pub(super) fn wind_down(&mut self) {
        let deadline = Deadline::At(sys::clock() + UNBIND_TIMEOUT);
        for at in 0..self.legs.len() {
            self.unbind_all(at, deadline);
        }
        let until = sys::clock() + GRACE_PERIOD;
        while self.shared.pool.live() > 0 && self.is_connected() && sys::clock() < until {
            self.wait_briefly(&mut Vec::new());
        }
        let cut = self.shared.pool.live();
        if cut > 0 {
            event!(warn, obj = "app", "connections cut after grace period", count = cut);
        }
        let mut open = Vec::new();
        for live in self.legs.iter_mut().filter_map(|leg| leg.live()) {
            live.session.close(Code::NO_ERROR, "no error");
            open.push(live.number);
        }
        let until = sys::clock() + CLOSE_TIMEOUT;
        while !open.is_empty() && sys::clock() < until {
            self.wait_briefly(&mut open);
        }
    }

    fn unbind_all(&mut self, at: usize, deadline: Deadline) {
        let leg = &mut self.legs[at];
        if leg.announced {
            return;
        }
        let Some(live) = leg.ready() else { return };
        let bound = self.endpoints.iter().flat_map(|e| e.bound_legs());
        for (_, binding) in bound.filter(|(leg, _)| *leg == at) {
            let request = UnbindRequest { id: binding.id.clone() };
            // The result has no effect: the session ends in a moment.
            let call = rpc::call(&live.session, StreamType::UNBIND, &request.encode(), deadline);
            if call.is_err() {
                break;
            }
        }
    }

    fn is_connected(&mut self) -> bool {
        self.legs.iter_mut().any(|leg| leg.live().is_some_and(|live| !live.session.is_over()))
    }

    /// Waits for an event or a few milliseconds. Removes ended sessions from the list.
    fn wait_briefly(&self, open: &mut Vec<u32>) {
        let events = &self.shared.events;
        while let Some(event) = events.pop() {
            match event {
                AgentEvent::Ended(number, _) => open.retain(|n| *n != number),
                AgentEvent::Request(_, slot) => slot.set(Err(StartError::Late)),
                _ => {}
            }
        }
        if open.is_empty() && self.shared.pool.live() == 0 {
            return;
        }
        // A signal may keep the event readable, but it has no meaning during the shutdown.
        events.wakeup().clear();
        let _ = poll::readable(events.wakeup(), Some(Duration::from_millis(20)));
    }
}
