//! End of streams and sessions, with the related counters: unconsumed bytes, streams without a
//! type, heartbeat streams. `muxer` and `receive` use it. Bytes of the peer are not parsed
//! here.

use super::fault_injection::{self, Bug};
use super::flood::Flood;
use super::muxer::Muxer;
use super::stream::{HalfState, Purpose, StreamState};
use super::table::StreamSlot;
use super::{Code, Event, Reason, StreamId};
use crate::time::Instant;

/// Whether the unconsumed bytes of a forgotten stream still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linger {
    WhileUnconsumed,
    No,
}

/// Methods for both parts of the state machine.
impl Muxer {
    /// Returns the stream, if it belongs to the application.
    pub(super) fn application(&mut self, stream: StreamId) -> Option<&mut StreamState> {
        self.table.by_id(stream).filter(|s| s.is_application())
    }

    /// Queues RST for a stream and removes it.
    pub(super) fn reset_stream(&mut self, stream: StreamId, code: Code) {
        if !fault_injection::is(Bug::RstLost) {
            self.control_queue.rst(stream, code);
        }
        self.remove_reset(stream);
    }

    /// Removes a stream whose RST is queued.
    pub(super) fn remove_reset(&mut self, stream: StreamId) {
        self.reset_streams.add(stream);
        self.reader.forget_finished(stream);
        self.remove_stream(stream, Linger::No);
    }

    /// Removes a stream from the table, or keeps only the count of its unconsumed bytes.
    pub(super) fn remove_stream(&mut self, stream: StreamId, linger: Linger) {
        let Some(s) = self.table.by_id(stream) else {
            self.internal_error("a stream to be forgotten is unknown");
            return;
        };
        let unconsumed = s.receive_window.unconsumed();
        let keep = linger == Linger::WhileUnconsumed && !fault_injection::is(Bug::LingerForgotten);
        if keep && unconsumed > 0 && s.is_application() {
            s.lingers = true;
            s.blocked = false;
            return;
        }
        match s.purpose {
            Purpose::Untyped(_) => self.untyped = self.untyped.saturating_sub(1),
            Purpose::Responder(_) => self.responders = self.responders.saturating_sub(1),
            Purpose::Application | Purpose::Requester => {}
        }
        self.table.remove(stream);
        self.holders = self.holders.saturating_sub(usize::from(unconsumed > 0));
        if !fault_injection::is(Bug::ResetLeaks) {
            self.count_consumed(unconsumed);
        }
        self.prune_type_deadlines();
    }

    /// Removes obsolete deadlines from the front of the queue: of streams that have a type or
    /// have ended.
    pub(super) fn prune_type_deadlines(&mut self) {
        while let Some(&(stream, _)) = self.type_deadlines.front() {
            let waits =
                self.table.by_id(stream).is_some_and(|s| matches!(s.purpose, Purpose::Untyped(_)));
            if waits {
                break;
            }
            self.type_deadlines.pop_front();
        }
        if self.type_deadlines.len() > self.config.accept_backlog.saturating_mul(2) {
            let table = &mut self.table;
            self.type_deadlines.retain(|&(stream, _)| {
                table.by_id(stream).is_some_and(|s| matches!(s.purpose, Purpose::Untyped(_)))
            });
        }
    }

    /// Queues a WNDINC if enough window is due.
    pub(super) fn queue_window_update(&mut self, slot: StreamSlot) {
        let share = self.window_share();
        let Some(s) = self.table.get(slot) else { return };
        s.receive_window.set_target(share);
        if fault_injection::is(Bug::NoWindowAfterFin) && s.send == HalfState::Finished {
            return;
        }
        // A heartbeat stream receives four bytes at a time during the whole session. A WNDINC
        // for each would cost a packet for each.
        let due = match s.is_heartbeat() {
            true => s.receive_window.half_is_due(),
            false => s.receive_window.is_due(),
        };
        if due && s.takes_data() && !s.wndinc_waits {
            s.wndinc_waits = true;
            let stream = s.id;
            self.control_queue.wndinc(stream);
        }
    }

    pub(super) fn count_consumed(&mut self, n: u32) {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        match self.unconsumed.checked_sub(n) {
            Some(left) => self.unconsumed = left,
            None => self.internal_error("more was consumed than received"),
        }
    }

    /// Queues a heartbeat of this side.
    pub(super) fn beat(&mut self, now: Instant) {
        let Some(heartbeat) = &mut self.heartbeat else { return };
        let stream = heartbeat.stream();
        let number = self.rng.next();
        match self.table.by_id(stream).filter(|s| s.send_window.left() >= 4) {
            Some(s) => {
                s.send_window.take(4, 4);
                self.control_queue.beat(stream, number);
                heartbeat.sent(number, now);
            }
            None => heartbeat.stuck(now),
        }
    }

    /// Returns whether all streams have ended after the peer's GOAWAY.
    pub(super) fn is_drained(&self, now: Instant) -> bool {
        let late = self.goaway_received.is_some_and(|(_, until)| until <= now);
        late || !self.table.iter().any(|s| s.is_application() && !s.lingers)
    }

    /// Ends the session after the peer's GOAWAY. It needs no response.
    pub(super) fn end_after_goaway(&mut self) -> Event<'static> {
        let code = self.goaway_received.map_or(Code::NO_ERROR, |(code, _)| code);
        self.over = true;
        self.control_queue.close();
        Event::Over { code, reason: Reason::PeerLeft }
    }

    /// Ends the session with a GOAWAY that has the reason.
    pub(super) fn session_error(&mut self, code: Code, reason: Reason) -> Event<'static> {
        self.control_queue.goaway(self.last_peer_stream, code, &reason.to_string());
        self.over = true;
        Event::Over { code, reason }
    }

    /// Ends the session of a peer that exhausted a budget.
    pub(super) fn flood_error(&mut self, flood: Flood) -> Event<'static> {
        self.session_error(Code::ENHANCE_YOUR_CALM, Reason::Flood(flood))
    }

    /// Reports a fault of this program: a panic in debug builds, the end of this session in
    /// others.
    pub(super) fn internal_error(&mut self, what: &'static str) {
        debug_assert!(false, "{what}");
        self.internal_error.get_or_insert(what);
    }

    pub(super) fn take_internal_error(&mut self) -> Option<Event<'static>> {
        let what = self.internal_error.take()?;
        (!self.over).then(|| self.session_error(Code::INTERNAL_ERROR, Reason::Bug(what)))
    }

    /// Panics if the counters are inconsistent, in builds with debug assertions.
    pub fn check_invariants(&self) {
        self.table.check();
        let (mut unconsumed, mut untyped, mut responders, mut requesters) = (0, 0, 0, 0);
        let holders = self.table.iter().filter(|s| s.receive_window.unconsumed() > 0).count();
        debug_assert_eq!(holders, self.holders, "streams with unconsumed bytes");
        for stream in self.table.iter() {
            stream.check();
            unconsumed += stream.receive_window.unconsumed() as usize;
            match stream.purpose {
                Purpose::Application => {}
                Purpose::Untyped(_) => untyped += 1,
                Purpose::Responder(_) => responders += 1,
                Purpose::Requester => requesters += 1,
            }
        }
        debug_assert_eq!(unconsumed, self.unconsumed, "unconsumed bytes");
        debug_assert_eq!(untyped, self.untyped, "untyped streams");
        debug_assert_eq!(responders, self.responders, "heartbeat streams of the peer");
        debug_assert!(requesters <= usize::from(self.heartbeat.is_some()), "heartbeat streams");
        debug_assert!(responders <= self.config.max_heartbeats);
        debug_assert!(untyped <= self.config.accept_backlog);
        debug_assert!(self.table.len() <= self.config.max_streams + 1);
        debug_assert!(self.type_deadlines.len() <= 2 * self.config.accept_backlog + 1);
        debug_assert!(self.internal_error.is_none());
    }
}

#[cfg(test)]
impl Muxer {
    /// Sets the next id, as if the lower ones had been used.
    pub(super) fn set_next_id(&mut self, id: u32) {
        self.next_id = id;
    }

    /// Returns the id of the next stream of this side.
    pub(super) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Returns the number of streams that the application uses or must release.
    pub(super) fn application_streams(&self) -> usize {
        self.table.iter().filter(|s| s.is_application()).count()
    }

    /// Returns the memory of the session on the heap, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        self.table.heap_bytes()
            + self.control_queue.heap_bytes()
            + self.reset_streams.heap_bytes()
            + self.reader.heap_bytes()
            + self.type_deadlines.capacity() * size_of::<(StreamId, Instant)>()
    }
}
