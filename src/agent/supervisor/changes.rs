//! Carries out requests for endpoints and the calls that follow from them. The steps are
//! decided in `endpoints` and `change_plan`.

use std::sync::Arc;
use std::time::Duration;

use super::{CALL_TIMEOUT, Supervisor};
use crate::agent::change_plan::{ChangePlan, patch_request};
use crate::agent::endpoint::{ManagedEndpoint, Waiter};
use crate::agent::endpoints::RequestPlan;
use crate::agent::leg::{CallKind, PendingCall};
use crate::agent::requests::{ReplySlot, Request, StartError};
use crate::agent::rpc::CallResult;
use crate::config;
use crate::event;
use crate::mux::StreamType;
use crate::proto::codes::Refusal;
use crate::proto::messages::{CommandResponse, PatchRequest, UnbindRequest};
use crate::sys;
use crate::time::Instant;

/// Time that a request waits for a session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) fn requested(&mut self, request: Request, slot: Arc<ReplySlot>) {
        if slot.is_abandoned() {
            return;
        }
        match self.endpoints.plan(request) {
            RequestPlan::Add(config) => self.add(*config, Some((slot, true)), false),
            RequestPlan::Change(index, config) => self.change(index, *config, Some(slot)),
            RequestPlan::Remove(index) => self.remove(index, Some(slot)),
            RequestPlan::Reject(error) => self.reply(slot, Err(error)),
        }
    }

    /// Appends an endpoint to the list. `slot`: its request, and whether it is new.
    /// `configured`: it comes from the configuration file.
    pub(super) fn add(
        &mut self,
        config: config::Endpoint,
        slot: Option<(Arc<ReplySlot>, bool)>,
        configured: bool,
    ) {
        let key = self.new_id();
        let name = config.name.clone();
        match ManagedEndpoint::new(key, config, self.legs.len()) {
            Ok(mut endpoint) => {
                endpoint.inspector = self.shared.inspector().cloned();
                endpoint.why = "waiting for the edge".into();
                endpoint.configured = configured;
                let until = sys::clock() + SESSION_TIMEOUT;
                endpoint.waiter = slot.map(|(slot, created)| Waiter { slot, until, created });
                self.endpoints.push(endpoint);
            }
            Err(e) => {
                let refusal = Refusal::text(format!("endpoint '{name}': {e}"));
                match slot {
                    Some((slot, _)) => self.reply(slot, Err(StartError::Invalid(refusal))),
                    None => event!(error, obj = "tunnels", "cannot start endpoint", err = refusal),
                }
            }
        }
        self.dirty = true;
    }

    /// Applies a new configuration with the least disruptive change.
    pub(super) fn change(
        &mut self,
        index: usize,
        config: config::Endpoint,
        slot: Option<Arc<ReplySlot>>,
    ) {
        self.dirty = true;
        let endpoint = &self.endpoints[index];
        let plan = match endpoint.is_down() {
            true => ChangePlan::Rebind,
            false => ChangePlan::new(&endpoint.config, &config),
        };
        if plan == ChangePlan::Patch && self.patch(index, &config, slot.as_ref()) {
            return;
        }
        match plan {
            ChangePlan::Unchanged => self.reply_with_view(index, slot),
            ChangePlan::Local => match (self.change_locally(index, config), slot) {
                (Ok(()), slot) => self.reply_with_view(index, slot),
                (Err(e), Some(slot)) => {
                    self.reply(slot, Err(StartError::Invalid(Refusal::text(e.to_string()))));
                }
                (Err(e), None) => {
                    event!(error, obj = "tunnels", "endpoint not changed", err = e);
                }
            },
            ChangePlan::Patch | ChangePlan::Rebind => {
                let configured = self.endpoints[index].configured || slot.is_none();
                self.replace(index, config, slot, configured);
            }
        }
    }

    /// Removes an endpoint and adds it with another configuration.
    fn replace(
        &mut self,
        index: usize,
        config: config::Endpoint,
        slot: Option<Arc<ReplySlot>>,
        configured: bool,
    ) {
        self.remove(index, None);
        self.add(config, slot.map(|slot| (slot, false)), configured);
    }

    fn reply_with_view(&mut self, index: usize, slot: Option<Arc<ReplySlot>>) {
        if let Some(slot) = slot {
            self.reply(slot, Ok(Some((self.endpoints[index].view(), false))));
        }
    }

    /// Applies a configuration, and sends visitors to its upstream.
    fn change_locally(&mut self, index: usize, config: config::Endpoint) -> std::io::Result<()> {
        let endpoint = &mut self.endpoints[index];
        endpoint.change(config)?;
        let target = Arc::new(endpoint.target()?);
        for id in endpoint.ids() {
            self.routes.set(id, Arc::clone(&target));
        }
        Ok(())
    }

    /// Requests that the edge changes an endpoint in place. Returns false if that is not
    /// possible.
    fn patch(
        &mut self,
        index: usize,
        config: &config::Endpoint,
        slot: Option<&Arc<ReplySlot>>,
    ) -> bool {
        let ids = self.endpoints.patches(index, |leg| self.legs[leg].announced);
        let endpoint = &self.endpoints[index];
        let key = endpoint.key;
        let patch = patch_request(&endpoint.config, config);
        // The first response is the result for all legs.
        let mut first = Some((Box::new(config.clone()), slot.cloned().unwrap_or_default()));
        let can = !ids.is_empty();
        for (at, tunnel_id) in ids {
            let patch = Box::new(PatchRequest { tunnel_id, ..patch.clone() });
            self.queue_call(at, PendingCall::Patch(key, patch, first.take()));
        }
        can
    }

    /// Removes an endpoint, here and at the edge. `slot` is answered after that.
    pub(super) fn remove(&mut self, index: usize, slot: Option<Arc<ReplySlot>>) {
        self.unbind_everywhere(index, None, slot);
        let endpoint = self.endpoints.remove(index);
        for id in endpoint.ids() {
            self.routes.remove(id);
        }
        if let Some(replayer) = &self.shared.replayer {
            replayer.remove_target(&endpoint.config.name);
        }
        if let Some(waiter) = endpoint.waiter {
            self.reply(waiter.slot, Err(StartError::Late));
        }
        self.dirty = true;
    }

    /// Unbinds an endpoint on all legs, except for the id that the edge itself took down.
    /// `slot` is answered after that.
    pub(super) fn unbind_everywhere(
        &mut self,
        index: usize,
        except: Option<&str>,
        mut slot: Option<Arc<ReplySlot>>,
    ) {
        for (at, id) in self.endpoints.unbinds(index, except, |leg| self.legs[leg].announced) {
            self.unbind(at, id, slot.take());
        }
        // No call has to be awaited.
        if let Some(slot) = slot {
            self.reply(slot, Ok(None));
        }
    }

    pub(super) fn unbind(&mut self, at: usize, id: String, slot: Option<Arc<ReplySlot>>) {
        self.queue_call(at, PendingCall::Unbind(id, slot));
    }

    fn queue_call(&mut self, at: usize, call: PendingCall) {
        match self.legs[at].ready() {
            Some(live) => live.pending_calls.push_back(call),
            None => self.pending_call_lost(call),
        }
    }

    /// Makes the next waiting call of a leg. Returns false if no call waits.
    pub(super) fn next_pending_call(&mut self, at: usize, now: Instant) -> bool {
        let Some(call) = self.legs[at].ready().and_then(|live| live.pending_calls.pop_front())
        else {
            return false;
        };
        let (kind, request) = match &call {
            PendingCall::Unbind(id, _) => {
                (StreamType::UNBIND, UnbindRequest { id: id.clone() }.encode())
            }
            PendingCall::Patch(_, patch, _) => (StreamType::PATCH_TUNNEL_STATE, patch.encode()),
        };
        self.call(at, kind, &request, CallKind::Pending(call), now + CALL_TIMEOUT, None);
        true
    }

    /// Applies the result of a call.
    pub(super) fn pending_call_done(&mut self, at: usize, call: PendingCall, result: CallResult) {
        let refusal = match result.map(|bytes| CommandResponse::decode(&bytes)) {
            Ok(Ok(response)) => response.error,
            Ok(Err(e)) => Some(Refusal::text(e.to_string())),
            Err(e) => Some(Refusal::text(e.to_string())),
        };
        match (call, refusal) {
            (PendingCall::Unbind(_, slot), refusal) => {
                if let Some(refusal) = refusal {
                    // The endpoint is removed here, even if the edge disagrees.
                    event!(warn, obj = "tunnels", "cannot unbind endpoint", err = refusal);
                }
                if let Some(slot) = slot {
                    self.reply(slot, Ok(None));
                }
            }
            (PendingCall::Patch(key, _, Some((config, slot))), refusal) => {
                self.patched(key, *config, slot, refusal);
            }
            (PendingCall::Patch(_, _, None), Some(refusal)) => {
                let addr = &self.legs[at].address;
                event!(warn, obj = "tunnels", "endpoint not changed", err = refusal, addr = addr);
            }
            (PendingCall::Patch(_, _, None), None) => {}
        }
    }

    /// Handles the response to a change in place.
    fn patched(
        &mut self,
        key: u32,
        config: config::Endpoint,
        slot: Arc<ReplySlot>,
        refusal: Option<Refusal>,
    ) {
        let Some(index) = self.endpoints.by_key(key) else {
            return self.reply(slot, Err(StartError::Unknown));
        };
        match refusal {
            None => {
                // If its files are missing, the endpoint stays unchanged here.
                let _ = self.change_locally(index, config);
                self.reply_with_view(index, Some(slot));
            }
            // The edge refuses this configuration: the endpoint stays unchanged.
            Some(refusal) if refusal.code.is_some() => {
                event!(error, obj = "tunnels", "endpoint not changed", err = refusal);
                self.reply(slot, Err(StartError::Refused(refusal)));
            }
            // The edge does not support changes in place.
            Some(_) => {
                let configured = self.endpoints[index].configured;
                self.replace(index, config, Some(slot), configured);
            }
        }
    }

    /// Handles a call whose session ended before its response.
    pub(super) fn pending_call_lost(&mut self, call: PendingCall) {
        match call {
            // The end of the session ends its binds.
            PendingCall::Unbind(_, Some(slot)) => self.reply(slot, Ok(None)),
            PendingCall::Patch(_, _, Some((_, slot))) => {
                self.reply(slot, Err(StartError::NotReady))
            }
            _ => {}
        }
    }

    /// Ends requests that have waited long enough for a session.
    pub(super) fn expire_waiters(&mut self, now: Instant) {
        let ready = self.legs.any_ready();
        while let Some(index) = self.endpoints.expired(ready, now) {
            if let Some(waiter) = self.endpoints[index].waiter.take() {
                self.reply(waiter.slot, Err(StartError::NotReady));
            }
            self.remove(index, None);
        }
    }
}
