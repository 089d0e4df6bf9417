//! What the machine and its service manager have to do with the sessions: a network
//! that changes, a sleep, and the manager that wants to know.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use super::handle::State;
use super::leg::{Fate, Link};
use super::supervisor::Supervisor;
use crate::event;
use crate::sys::netlink::{self, Changes, ClockSet};
use crate::sys::sd_notify::{self, Manager};
use crate::sys::{self, signals};
use crate::time::{Deadline, Instant};

/// A change is rarely alone: an address follows a link, a route an address.
const SETTLE: Duration = Duration::from_millis(250);
/// Between two looks at what has changed.
const QUIET: Duration = Duration::from_secs(1);
/// Between two echoes that are asked for because of it.
const PROBES: Duration = Duration::from_secs(5);
/// A sleep shorter than this leaves no trace.
const NAP: Duration = Duration::from_secs(2);

/// The machine, as the supervisor watches it.
pub(super) struct Machine {
    changes: Option<Changes>,
    clock: Option<ClockSet>,
    /// When what has changed is to be looked at.
    look: Deadline,
    /// Until when a change wakes nobody.
    quiet: Instant,
    probed: Option<Instant>,
    asleep: Duration,
    /// The clock was set since the last look.
    clock_set: bool,
    manager: Option<Manager>,
    /// How often the manager is fed, and when next.
    watchdog: Option<(Duration, Instant)>,
    told: String,
}

impl Machine {
    pub(super) fn new(now: Instant) -> Self {
        let manager = Manager::find();
        let watchdog = manager.as_ref().and_then(|_| sd_notify::watchdog());
        Machine {
            // Without them it takes longer to find out, by the heartbeat.
            changes: Changes::open().ok(),
            clock: ClockSet::open().ok(),
            look: Deadline::Never,
            quiet: now,
            probed: None,
            asleep: netlink::asleep(),
            clock_set: false,
            manager,
            // Three times before it is late.
            watchdog: watchdog.map(|every| (every / 3, now)),
            told: String::new(),
        }
    }

    /// When it has something to do.
    pub(super) fn deadline(&self) -> Deadline {
        let watchdog = self.watchdog.map_or(Deadline::Never, |(_, next)| Deadline::At(next));
        // What came in a quiet time is looked at when it is over.
        let quiet = match self.quiet > sys::clock() {
            true => Deadline::At(self.quiet),
            false => Deadline::Never,
        };
        self.look.min(watchdog).min(quiet)
    }

    /// What to wait for, beside the bell: nothing where it is quiet.
    pub(super) fn fds(&self, now: Instant) -> [RawFd; 2] {
        let quiet = now < self.quiet || self.look != Deadline::Never;
        let changes = self.changes.as_ref().filter(|_| !quiet);
        let clock = self.clock.as_ref();
        [changes.map_or(-1, AsRawFd::as_raw_fd), clock.map_or(-1, AsRawFd::as_raw_fd)]
    }

    /// One of the descriptors is ready.
    pub(super) fn ready(&mut self, [changes, clock]: [bool; 2], now: Instant) {
        if changes && let Some(socket) = &self.changes {
            if socket.drain() {
                self.look = Deadline::At(now + SETTLE);
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
    fn slept(&mut self, asleep: Duration) -> bool {
        let slept = asleep.saturating_sub(self.asleep) >= NAP;
        self.asleep = asleep;
        slept
    }

    /// Until it is told `READY=1` again.
    pub(super) fn tell_of_reload(&self) {
        let us = sys::awake().as_micros();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    pub(super) fn tell(&self, lines: &str) {
        if let Some(manager) = &self.manager {
            manager.tell(lines);
        }
    }
}

impl Supervisor {
    /// Does what the machine, its manager and signals want now.
    pub(super) fn see_to_machine(&mut self, now: Instant) {
        if signals::take_hurry() {
            event!(info, obj = "app", "told not to wait", reason = "SIGUSR1");
            self.hurry(true, now);
        }
        if self.machine.slept(netlink::asleep()) {
            event!(info, obj = "app", "the machine has slept");
            self.hurry(false, now);
        }
        if std::mem::take(&mut self.machine.clock_set) {
            // A certificate that was not valid yet may be: a machine without a battery
            // starts in 1970. Sessions do not care what time it is.
            for leg in &mut self.legs {
                leg.wake(false, now);
            }
        }
        if self.machine.look.due(now) {
            self.machine.look = Deadline::Never;
            self.machine.quiet = now + QUIET;
            if let Some(changes) = &self.machine.changes {
                changes.drain();
            }
            self.hurry(false, now);
        }
        self.feed(now);
    }

    /// There may be a way now where was none, or none any more: waits end, and sessions
    /// must show that they live.
    fn hurry(&mut self, force: bool, now: Instant) {
        let again = self.machine.probed.is_none_or(|at| now.since(at) >= PROBES);
        let tolerance = self.shared.config.heartbeat_tolerance;
        for at in 0..self.legs.len() {
            self.legs[at].wake(force, now);
            let Link::Up(live) = &self.legs[at].link else { continue };
            match live.fate() {
                Fate::Dead => self.lost(at, "the address of this machine has changed"),
                Fate::Doubtful if force || again => {
                    live.session.probe(live.patience(tolerance));
                    self.machine.probed = Some(now);
                }
                _ => {}
            }
        }
    }

    /// Tells the manager that the program is alive, if all its reactors are.
    fn feed(&mut self, now: Instant) {
        let Some((every, next)) = self.machine.watchdog else { return };
        if now < next {
            return;
        }
        self.machine.watchdog = Some((every, now + every));
        let mut alive = true;
        for leg in &mut self.legs {
            if let Some(live) = leg.live() {
                let turns = live.session.turns();
                alive &= turns != live.turns || live.session.is_over();
                live.turns = turns;
                // One with nothing to do makes a turn all the same.
                live.session.nudge();
            }
        }
        if alive {
            self.machine.tell("WATCHDOG=1");
        } else {
            event!(crit, obj = "app", "a session's reactor stands still");
        }
    }

    /// Tells the manager how things are, if that has changed.
    pub(super) fn tell_status(&mut self, state: State, why: &str, endpoints: usize) {
        if self.machine.manager.is_none() {
            return;
        }
        // A line of its own ends a message's field.
        let why = why.replace('\n', " ");
        let text = match state {
            State::Online => format!("STATUS=online, {endpoints} endpoints up"),
            _ if why.is_empty() => format!("STATUS={}", state.name()),
            _ => format!("STATUS={}: {why}", state.name()),
        };
        if text != self.machine.told {
            self.machine.tell(&text);
            self.machine.told = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_told_from_a_clock_that_was_set() {
        let mut machine = Machine::new(Instant::ZERO);
        let before = machine.asleep;
        assert!(!machine.slept(before), "the wall clock alone moved");
        assert!(!machine.slept(before + Duration::from_secs(1)));
        assert!(machine.slept(before + Duration::from_secs(3_600)));
        assert!(!machine.slept(before + Duration::from_secs(3_600)));
    }
}
