//! What the machine and its service manager have to do with the sessions: a network
//! that changes, a sleep, and the manager that wants to know.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::leg::{LegState, PathState};
use super::status::AgentState;
use super::supervisor::Supervisor;
use crate::event;
use crate::sys::netlink::{self, Changes, ClockSet};
use crate::sys::sd_notify::{self, Manager};
use crate::sys::{self, signals};
use crate::time::{Deadline, Instant};

/// A change is rarely alone: an address follows a link, a route an address.
const SETTLE_TIME: Duration = Duration::from_millis(250);
/// Between two looks at what has changed.
const MIN_CHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// Between two echoes that are asked for because of it.
const MIN_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// A sleep shorter than this leaves no trace.
const MIN_SUSPEND: Duration = Duration::from_secs(2);

/// The machine, as the supervisor watches it.
pub(super) struct HostEvents {
    changes: Option<Changes>,
    clock: Option<ClockSet>,
    /// When what has changed is to be looked at.
    check_at: Deadline,
    /// Until when a change wakes nobody.
    ignore_until: Instant,
    last_probe: Option<Instant>,
    time_asleep: Duration,
    /// The clock was set since the last look.
    clock_set: bool,
    manager: Option<Manager>,
    /// How often the manager is fed, and when next.
    watchdog: Option<(Duration, Instant)>,
    last_status: String,
}

impl HostEvents {
    pub(super) fn new(now: Instant) -> Self {
        let manager = Manager::find();
        let watchdog = manager.as_ref().and_then(|_| sd_notify::watchdog());
        HostEvents {
            // Without them it takes longer to find out, by the heartbeat.
            changes: Changes::open().ok(),
            clock: ClockSet::open().ok(),
            check_at: Deadline::Never,
            ignore_until: now,
            last_probe: None,
            time_asleep: netlink::asleep(),
            clock_set: false,
            manager,
            // Three times before it is late.
            watchdog: watchdog.map(|every| (every / 3, now)),
            last_status: String::new(),
        }
    }

    /// When it has something to do.
    pub(super) fn deadline(&self) -> Deadline {
        let watchdog = self.watchdog.map_or(Deadline::Never, |(_, next)| Deadline::At(next));
        // What came in a quiet time is looked at when it is over.
        let ignore_until = match self.ignore_until > sys::clock() {
            true => Deadline::At(self.ignore_until),
            false => Deadline::Never,
        };
        self.check_at.min(watchdog).min(ignore_until)
    }

    /// What to wait for, beside the supervisor's event: nothing where it is quiet.
    pub(super) fn fds(&self, now: Instant) -> [RawFd; 2] {
        let ignore_until = now < self.ignore_until || self.check_at != Deadline::Never;
        let changes = self.changes.as_ref().filter(|_| !ignore_until);
        let clock = self.clock.as_ref();
        [changes.map_or(-1, AsRawFd::as_raw_fd), clock.map_or(-1, AsRawFd::as_raw_fd)]
    }

    /// One of the descriptors is ready.
    pub(super) fn ready(&mut self, [changes, clock]: [bool; 2], now: Instant) {
        if changes && let Some(socket) = &self.changes {
            if socket.drain() {
                self.check_at = Deadline::At(now + SETTLE_TIME);
            } else {
                // Readable and nothing to read: it is broken.
                self.changes = None;
            }
        }
        if clock && let Some(timer) = &self.clock {
            self.clock_set = true;
            if timer.take().is_err() {
                self.clock = None;
            }
        }
    }

    /// Whether the machine has slept since the last time.
    fn has_slept(&mut self, time_asleep: Duration) -> bool {
        let has_slept = time_asleep.saturating_sub(self.time_asleep) >= MIN_SUSPEND;
        self.time_asleep = time_asleep;
        has_slept
    }

    /// Until it is told `READY=1` again.
    pub(super) fn notify_reloading(&self) {
        let us = sys::awake().as_micros();
        self.notify(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    pub(super) fn notify(&self, lines: &str) {
        if let Some(manager) = &self.manager {
            manager.tell(lines);
        }
    }
}

impl Supervisor {
    /// Does what the machine, its manager and signals want now.
    pub(super) fn check_host(&mut self, now: Instant) {
        if signals::take_hurry() {
            event!(info, obj = "app", "told not to wait", reason = "SIGUSR1");
            self.retry_now(true, now);
        }
        if self.host_events.has_slept(netlink::asleep()) {
            event!(info, obj = "app", "the machine has slept");
            self.retry_now(false, now);
        }
        if std::mem::take(&mut self.host_events.clock_set) {
            // A certificate that was not valid yet may be: a machine without a battery
            // starts in 1970. Sessions do not care what time it is.
            for leg in &mut self.legs {
                leg.wake(false, now);
            }
        }
        if self.host_events.check_at.due(now) {
            self.host_events.check_at = Deadline::Never;
            self.host_events.ignore_until = now + MIN_CHANGE_INTERVAL;
            if let Some(changes) = &self.host_events.changes {
                changes.drain();
            }
            self.retry_now(false, now);
        }
        self.notify_watchdog(now);
    }

    /// There may be a way now where was none, or none any more: waits end, and sessions
    /// must show that they live.
    fn retry_now(&mut self, force: bool, now: Instant) {
        let again =
            self.host_events.last_probe.is_none_or(|at| now.since(at) >= MIN_PROBE_INTERVAL);
        let tolerance = self.shared.config.heartbeat_tolerance;
        for at in 0..self.legs.len() {
            self.legs[at].wake(force, now);
            let LegState::Connected(live) = &self.legs[at].state else { continue };
            match live.path_state() {
                PathState::Dead => self.lost(at, "the address of this machine has changed"),
                PathState::Doubtful if force || again => {
                    live.session.probe(live.probe_timeout(tolerance));
                    self.host_events.last_probe = Some(now);
                }
                _ => {}
            }
        }
    }

    /// Tells the manager that the program is alive, if all its reactors are.
    fn notify_watchdog(&mut self, now: Instant) {
        let Some((every, next)) = self.host_events.watchdog else { return };
        if now < next {
            return;
        }
        self.host_events.watchdog = Some((every, now + every));
        let mut alive = true;
        for leg in &mut self.legs {
            if let Some(live) = leg.live() {
                let reactor_turns = live.session.turns();
                alive &= reactor_turns != live.reactor_turns || live.session.is_over();
                live.reactor_turns = reactor_turns;
                // One with nothing to do makes a turn all the same.
                live.session.wake_reactor();
            }
        }
        if alive {
            self.host_events.notify("WATCHDOG=1");
        } else {
            event!(crit, obj = "app", "a session's reactor stands still");
        }
    }

    /// Tells the manager how things are, if that has changed.
    pub(super) fn notify_status(&mut self, state: AgentState, why: &str, endpoints: usize) {
        if self.host_events.manager.is_none() {
            return;
        }
        // A line of its own ends a message's field.
        let why = why.replace('\n', " ");
        let text = match state {
            AgentState::Online => format!("STATUS=online, {endpoints} endpoints up"),
            _ if why.is_empty() => format!("STATUS={}", state.name()),
            _ => format!("STATUS={}: {why}", state.name()),
        };
        if text != self.host_events.last_status {
            self.host_events.notify(&text);
            self.host_events.last_status = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_told_from_a_clock_that_was_set() {
        let mut host_events = HostEvents::new(Instant::ZERO);
        let before = host_events.time_asleep;
        assert!(!host_events.has_slept(before), "the wall clock alone moved");
        assert!(!host_events.has_slept(before + Duration::from_secs(1)));
        assert!(host_events.has_slept(before + Duration::from_secs(3_600)));
        assert!(!host_events.has_slept(before + Duration::from_secs(3_600)));
    }
}
