//! Carries out a reload: for SIGHUP, which applies the differences, and before a restart that
//! the edge requests. An invalid configuration changes nothing.
//!
//! A thread reads the configuration: a disk may be slow, and a part of it may be fetched.

use std::sync::Arc;

use super::{Exit, Supervisor};
use crate::agent::commands;
use crate::agent::endpoints::ReloadStep;
use crate::agent::events::{AgentEvent, ReloadReason};
use crate::agent::reload::{ReloadPlan, changed_options};
use crate::config::Agent;
use crate::event;
use crate::mux::StreamType;
use crate::sys::threads;

impl Supervisor {
    /// Begins to read the configuration.
    pub(super) fn read(&mut self, reason: ReloadReason) {
        let hangup = matches!(reason, ReloadReason::Hangup);
        let (read, reason) = match (self.reload.plan(hangup), reason) {
            (ReloadPlan::Read(read), reason) => (read, reason),
            (ReloadPlan::NoConfig, ReloadReason::Hangup) => {
                return event!(info, obj = "app", "nothing to reload", reason = "SIGHUP");
            }
            // Without a configuration file there is nothing to check.
            (ReloadPlan::NoConfig, reason) => {
                let read = Box::new(Ok(Agent::default()));
                self.shared.events.push(AgentEvent::Read(reason, read));
                return;
            }
            (_, ReloadReason::Restart(session, stream)) => {
                let why = Some("busy with a reload; try again");
                return commands::answer(StreamType::RESTART, &session, stream, why);
            }
            (_, ReloadReason::Hangup) => return,
        };
        if hangup {
            self.manager.reloading();
        }
        let events = Arc::clone(&self.shared.events);
        let work = move || {
            let read = read.lock()();
            events.push(AgentEvent::Read(reason, Box::new(read)));
        };
        if let Err(e) = threads::CONFIG.spawn(Box::new(work)) {
            // An edge that waits for a response stops waiting after a while.
            self.reload.finished();
            self.manager.ready();
            event!(error, obj = "app", "cannot reload configuration", err = e);
        }
    }

    /// Handles the result of reading the configuration.
    pub(super) fn was_read(
        &mut self,
        reason: ReloadReason,
        read: Result<Agent, String>,
    ) -> Option<Exit> {
        self.reload.finished();
        match (reason, read) {
            (ReloadReason::Restart(session, stream), read) => {
                // A restart with an invalid configuration would not succeed.
                let fault = read.err();
                let fault = fault.map(|e| format!("the configuration is invalid: {e}"));
                let lost = || std::env::current_exe().err();
                let fault = fault.or_else(|| Some(format!("cannot find the program: {}", lost()?)));
                commands::answer(StreamType::RESTART, &session, stream, fault.as_deref());
                if fault.is_none() {
                    return Some(Exit::Restart);
                }
            }
            (ReloadReason::Hangup, Ok(config)) => self.apply(config),
            (ReloadReason::Hangup, Err(e)) => {
                event!(error, obj = "app", "invalid configuration not applied", err = e);
            }
        }
        self.manager.ready();
        if self.reload.take_read_again() {
            self.read(ReloadReason::Hangup);
        }
        None
    }

    fn apply(&mut self, mut new: Agent) {
        let endpoints = std::mem::take(&mut new.endpoints);
        let options = changed_options(&self.shared.config, &new).join(", ");
        if !options.is_empty() {
            event!(warn, obj = "app", "changed options take effect after restart", name = options);
        }
        let (mut gone, mut added, mut changed) = (0, 0, 0);
        for step in self.endpoints.plan_reload(endpoints) {
            match step {
                ReloadStep::Remove(key) => {
                    if let Some(index) = self.endpoints.by_key(key) {
                        self.remove(index, None);
                    }
                    gone += 1;
                }
                ReloadStep::Add(config) => {
                    self.add(config, None, true);
                    added += 1;
                }
                ReloadStep::Change(key, config) => {
                    if let Some(index) = self.endpoints.by_key(key) {
                        self.change(index, config, None);
                    }
                    changed += 1;
                }
                ReloadStep::NameTaken(name) => {
                    event!(warn, obj = "tunnels", "name taken by another endpoint", name = name);
                }
            }
        }
        event!(
            info,
            obj = "app",
            "configuration reloaded",
            started = added,
            stopped = gone,
            changed = changed
        );
        self.dirty = true;
    }
}
