//! The configuration is read again: for SIGHUP, which has what is different made so, and
//! before a restart that the edge asks for. What did not change is not touched; a
//! configuration with a fault changes nothing.
//!
//! A thread of its own reads it: a disk may be slow, and a part of it may be fetched.

use std::sync::Arc;

use super::{Exit, Supervisor};
use crate::agent::commands;
use crate::agent::events::{AgentEvent, ReloadReason};
use crate::config::Agent;
use crate::event;
use crate::mux::StreamType;
use crate::sys::threads;

impl Supervisor {
    /// Begins to read.
    pub(super) fn read(&mut self, reason: ReloadReason) {
        let Some(reread) = self.reread.as_ref().filter(|_| !self.reading).map(Arc::clone) else {
            match reason {
                ReloadReason::Hangup if self.reading => self.read_again = true,
                ReloadReason::Hangup => {
                    event!(info, obj = "app", "nothing to read again", reason = "SIGHUP");
                }
                // Without a configuration there is nothing that could be wrong with it.
                reason if !self.reading => _ = self.push_read(reason, Ok(Agent::default())),
                ReloadReason::Restart(session, stream) => {
                    let why = Some("busy with the configuration, ask again");
                    commands::answer(StreamType::RESTART, &session, stream, why);
                }
            }
            return;
        };
        if matches!(reason, ReloadReason::Hangup) {
            self.host_events.notify_reloading();
        }
        self.reading = true;
        let events = Arc::clone(&self.shared.events);
        let work = move || {
            let read = (reread.lock())();
            events.push(AgentEvent::Read(reason, Box::new(read)));
        };
        if let Err(e) = threads::CONFIG.spawn(Box::new(work)) {
            // Whoever waits for an answer waits in vain, and knows that after a while.
            self.reading = false;
            self.host_events.notify("READY=1");
            event!(error, obj = "app", "cannot read the configuration", err = e);
        }
    }

    fn push_read(&self, reason: ReloadReason, read: Result<Agent, String>) -> bool {
        self.shared.events.push(AgentEvent::Read(reason, Box::new(read)))
    }

    /// It was read.
    pub(super) fn was_read(
        &mut self,
        reason: ReloadReason,
        read: Result<Agent, String>,
    ) -> Option<Exit> {
        self.reading = false;
        match (reason, read) {
            (ReloadReason::Restart(session, stream), read) => {
                // With a broken configuration a restart would be the end.
                let fault = read.err();
                let fault = fault.map(|e| format!("the configuration would not be accepted: {e}"));
                let lost = || std::env::current_exe().err();
                let fault = fault.or_else(|| Some(format!("cannot find its program: {}", lost()?)));
                commands::answer(StreamType::RESTART, &session, stream, fault.as_deref());
                if fault.is_none() {
                    return Some(Exit::Restart);
                }
            }
            (ReloadReason::Hangup, Ok(config)) => self.follow(config),
            (ReloadReason::Hangup, Err(e)) => {
                let msg = "the configuration has a fault: everything stays as it is";
                event!(error, obj = "app", msg, err = e);
            }
        }
        self.host_events.notify("READY=1");
        if std::mem::take(&mut self.read_again) {
            self.read(ReloadReason::Hangup);
        }
        None
    }

    fn follow(&mut self, mut new: Agent) {
        let endpoints = std::mem::take(&mut new.endpoints);
        let options = changed(&self.shared.config, &new).join(", ");
        if !options.is_empty() {
            let msg = "options have changed that count from the next start on";
            event!(warn, obj = "app", msg, name = options);
        }
        let (mut gone, mut added, mut altered) = (0, 0, 0);
        // Names that others gave away stay theirs.
        for index in (0..self.endpoints.len()).rev() {
            let endpoint = &self.endpoints[index];
            if endpoint.configured && !endpoints.iter().any(|e| e.name == endpoint.config.name) {
                self.remove_endpoint(index, None);
                gone += 1;
            }
        }
        for config in endpoints {
            let found = self.endpoints.iter().position(|e| e.config.name == config.name);
            match found {
                None => {
                    self.add_endpoint(config, None);
                    added += 1;
                }
                Some(index) if self.endpoints[index].configured => {
                    let endpoint = &self.endpoints[index];
                    if *endpoint.config != config || endpoint.is_down() {
                        self.change_endpoint(index, config, None);
                        altered += 1;
                    }
                }
                Some(_) => {
                    let msg = "an endpoint of that name was started otherwise: left alone";
                    event!(warn, obj = "tunnels", msg, name = config.name);
                }
            }
        }
        event!(
            info,
            obj = "app",
            "configuration read again",
            started = added,
            stopped = gone,
            changed = altered
        );
        self.dirty = true;
    }
}

/// The options that are not the same.
fn changed(old: &Agent, new: &Agent) -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! compare {
        ($($field:ident)*) => {$(
            if old.$field != new.$field {
                names.push(stringify!($field));
            }
        )*};
    }
    compare!(authtoken connect_url further_urls connect_interface proxy_url dns_resolver_ips);
    compare!(dns_public_resolvers crl_noverify crl_url connect_cas connect_timeout);
    compare!(heartbeat_interval heartbeat_tolerance metadata remote_management max_connections);
    compare!(memory_limit client_version state_dir web_addr web_allow_hosts inspect_db_size);
    compare!(console_ui console_transparent);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn options_that_differ_are_named() {
        let old = Agent::default();
        let mut new = Agent::default();
        assert!(changed(&old, &new).is_empty());
        new.heartbeat_interval = Duration::from_secs(3);
        new.authtoken = crate::proto::secret::Secret::new("another");
        assert_eq!(changed(&old, &new), ["authtoken", "heartbeat_interval"]);
    }
}
