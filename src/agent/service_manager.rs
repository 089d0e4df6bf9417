//! Messages to the service manager (sd_notify): readiness, status text and watchdog. The
//! supervisor decides whether the agent is alive.

use std::time::Duration;

use super::status::AgentState;
use crate::sys;
use crate::sys::sd_notify::{self, Manager};
use crate::time::{Deadline, Instant};

/// Connection to the service manager, if it has started this program.
pub(super) struct ServiceManager {
    manager: Option<Manager>,
    /// Interval of the watchdog messages, and time of the next one.
    watchdog: Option<(Duration, Instant)>,
    /// The status text that was sent last.
    last_status: String,
}

impl ServiceManager {
    pub(super) fn find(now: Instant) -> Self {
        let manager = Manager::find();
        let limit = manager.as_ref().and_then(|_| sd_notify::watchdog());
        Self::new(manager, limit, now)
    }

    /// `limit`: silence after which the manager ends the program.
    fn new(manager: Option<Manager>, limit: Option<Duration>, now: Instant) -> Self {
        // Three messages for each limit, so that one late message has no effect.
        let watchdog = limit.map(|limit| (limit / 3, now));
        ServiceManager { manager, watchdog, last_status: String::new() }
    }

    /// Time of the next watchdog message.
    pub(super) fn deadline(&self) -> Deadline {
        self.watchdog.map_or(Deadline::Never, |(_, next)| Deadline::At(next))
    }

    /// Returns whether a watchdog message is due, and schedules the next one.
    pub(super) fn watchdog_due(&mut self, now: Instant) -> bool {
        match &mut self.watchdog {
            Some((interval, next)) if *next <= now => {
                *next = now + *interval;
                true
            }
            _ => false,
        }
    }

    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    pub(super) fn ready(&self) {
        self.send("READY=1");
    }

    /// Reports the begin of a reload or a restart; [`Self::ready`] reports its end.
    pub(super) fn reloading(&self) {
        let us = sys::awake().as_micros();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
    }

    pub(super) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Sends the status text, if it differs from the last one.
    pub(super) fn status(&mut self, state: AgentState, why: &str, endpoints: usize) {
        if self.manager.is_none() {
            return;
        }
        let text = status_text(state, why, endpoints);
        if text != self.last_status {
            self.send(&text);
            self.last_status = text;
        }
    }

    fn send(&self, lines: &str) {
        if let Some(manager) = &self.manager {
            manager.tell(lines);
        }
    }
}

fn status_text(state: AgentState, why: &str, endpoints: usize) -> String {
    // A line end would end the field of the message.
    let why = why.replace('\n', " ");
    match state {
        AgentState::Online => format!("STATUS=online, {endpoints} endpoints up"),
        _ if why.is_empty() => format!("STATUS={}", state.name()),
        _ => format!("STATUS={}: {why}", state.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_watchdog_messages_for_each_limit() {
        let mut manager = ServiceManager::new(None, Some(Duration::from_secs(9)), Instant::ZERO);
        let due = (0..18u64)
            .filter(|s| manager.watchdog_due(Instant::ZERO + Duration::from_secs(*s)))
            .collect::<Vec<_>>();
        assert_eq!(due, [0, 3, 6, 9, 12, 15]);
        let mut none = ServiceManager::new(None, None, Instant::ZERO);
        assert_eq!(none.deadline(), Deadline::Never);
        assert!(!none.watchdog_due(Instant::ZERO));
    }

    #[test]
    fn the_status_text_is_one_line() {
        assert_eq!(status_text(AgentState::Online, "", 2), "STATUS=online, 2 endpoints up");
        assert_eq!(status_text(AgentState::Connecting, "", 0), "STATUS=connecting");
        let text = status_text(AgentState::Reconnecting, "refused\nERR_NGROK_1", 0);
        assert_eq!(text, "STATUS=reconnecting: refused ERR_NGROK_1");
    }
}
