//! The books of a session: how streams come to their end, what is owed to
//! whom, and what happens when the session itself ends. Used by both halves of
//! the state machine, `session` and `receive`.

use super::fault_injection::{self, Bug};
use super::flood::Flood;
use super::session::Session;
use super::stream::{Half, Purpose, Stream};
use super::{Code, Event, Reason, StreamId};
use crate::time::Instant;

/// Whether a forgotten stream's unconsumed bytes still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linger {
    WhileUnconsumed,
    No,
}

/// What both halves of the state machine use.
impl Session {
    /// The stream, if it is one of the application's.
    pub(super) fn application(&mut self, stream: StreamId) -> Option<&mut Stream> {
        self.table.by_id(stream).filter(|s| s.is_application())
    }

    /// Queues RST for a stream and forgets it.
    pub(super) fn kill(&mut self, stream: StreamId, code: Code) {
        if !fault_injection::is(Bug::RstLost) {
            self.outbox.rst(stream, code);
        }
        self.tombs.add(stream);
        self.forget(stream, Linger::No);
    }

    /// Takes a stream out of the table, or keeps only its account.
    pub(super) fn forget(&mut self, stream: StreamId, linger: Linger) {
        let Some(s) = self.table.by_id(stream) else {
            self.bug("a stream to be forgotten is unknown");
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
        if !fault_injection::is(Bug::ResetLeaks) {
            self.count_consumed(unconsumed);
        }
        self.prune_untyped();
    }

    /// Keeps the front of the queue of deadlines true.
    pub(super) fn prune_untyped(&mut self) {
        while let Some(&(stream, _)) = self.untyped_until.front() {
            let waits =
                self.table.by_id(stream).is_some_and(|s| matches!(s.purpose, Purpose::Untyped(_)));
            if waits {
                break;
            }
            self.untyped_until.pop_front();
        }
        if self.untyped_until.len() > self.config.accept_backlog.saturating_mul(2) {
            let table = &mut self.table;
            self.untyped_until.retain(|&(stream, _)| {
                table.by_id(stream).is_some_and(|s| matches!(s.purpose, Purpose::Untyped(_)))
            });
        }
    }

    /// Queues a WNDINC if one is worth it.
    pub(super) fn offer_window(&mut self, stream: StreamId) {
        let Some(s) = self.table.by_id(stream) else { return };
        if fault_injection::is(Bug::NoWindowAfterFin) && s.send == Half::Finished {
            return;
        }
        // A heartbeat stream takes four bytes at a time for as long as the
        // session lives: a WNDINC for each would cost a packet for each.
        let due = match s.is_heartbeat() {
            true => s.receive_window.half_is_due(),
            false => s.receive_window.is_due(),
        };
        if due && s.takes_data() && !s.wndinc_waits {
            s.wndinc_waits = true;
            self.outbox.wndinc(stream);
        }
    }

    pub(super) fn count_consumed(&mut self, n: u32) {
        let n = usize::try_from(n).unwrap_or(usize::MAX);
        match self.unconsumed.checked_sub(n) {
            Some(left) => self.unconsumed = left,
            None => self.bug("more was consumed than received"),
        }
    }

    /// Queues a beat of our own.
    pub(super) fn beat(&mut self, now: Instant) {
        let Some(requester) = &mut self.requester else { return };
        let stream = requester.stream();
        let number = self.rng.next();
        match self.table.by_id(stream).filter(|s| s.send_window.left() >= 4) {
            Some(s) => {
                s.send_window.take(4, 4);
                self.outbox.beat(stream, number);
                requester.sent(number, now);
            }
            None => requester.stuck(now),
        }
    }

    /// Whether nothing is left to wait for after the peer's GOAWAY.
    pub(super) fn leaving_is_done(&self, now: Instant) -> bool {
        let late = self.peer_left.is_some_and(|(_, until)| until <= now);
        late || !self.table.iter().any(|s| s.is_application() && !s.lingers)
    }

    /// Ends the session after the peer's GOAWAY. It needs no answer.
    pub(super) fn leave(&mut self) -> Event<'static> {
        let code = self.peer_left.map_or(Code::NO_ERROR, |(code, _)| code);
        self.over = true;
        self.outbox.close();
        Event::Over { code, reason: Reason::PeerLeft }
    }

    /// Ends the session with a GOAWAY that says why.
    pub(super) fn fail(&mut self, code: Code, reason: Reason) -> Event<'static> {
        self.outbox.goaway(self.newest_peer, code, &reason.to_string());
        self.over = true;
        Event::Over { code, reason }
    }

    /// Ends the session of a peer that costs too much.
    pub(super) fn flooded(&mut self, flood: Flood) -> Event<'static> {
        self.fail(Code::ENHANCE_YOUR_CALM, Reason::Flood(flood))
    }

    /// A rule of our own is broken: a panic in debug builds, the end of this
    /// session elsewhere.
    pub(super) fn bug(&mut self, what: &'static str) {
        debug_assert!(false, "{what}");
        self.broken.get_or_insert(what);
    }

    pub(super) fn take_broken(&mut self) -> Option<Event<'static>> {
        let what = self.broken.take()?;
        (!self.over).then(|| self.fail(Code::INTERNAL_ERROR, Reason::Bug(what)))
    }

    /// Panics if the books do not balance, in builds with debug assertions.
    pub fn check_invariants(&self) {
        self.table.check();
        let (mut unconsumed, mut untyped, mut responders, mut requesters) = (0, 0, 0, 0);
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
        debug_assert!(requesters <= usize::from(self.requester.is_some()), "heartbeat streams");
        debug_assert!(responders <= self.config.max_heartbeats);
        debug_assert!(untyped <= self.config.accept_backlog);
        debug_assert!(self.table.len() <= self.config.max_streams + 1);
        debug_assert!(self.untyped_until.len() <= 2 * self.config.accept_backlog + 1);
        debug_assert!(self.broken.is_none());
    }
}

#[cfg(test)]
impl Session {
    /// Goes on with another id, as if so many had been used.
    pub(super) fn set_next_id(&mut self, id: u32) {
        self.next_id = id;
    }

    /// The id that the next stream of our own will have.
    pub(super) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// The streams that the application knows or must let go of.
    pub(super) fn application_streams(&self) -> usize {
        self.table.iter().filter(|s| s.is_application()).count()
    }

    /// The bytes of memory that the session holds beside itself.
    pub(super) fn held(&self) -> usize {
        self.table.held()
            + self.outbox.held()
            + self.tombs.held()
            + self.reader.held()
            + self.untyped_until.capacity() * size_of::<(StreamId, Instant)>()
    }
}
