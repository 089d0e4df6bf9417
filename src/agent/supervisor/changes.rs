//! Endpoints that come and go while the agent runs: what other parts of the program
//! ask for, and what the calls that follow from it bring.

use std::sync::Arc;
use std::time::Duration;

use super::{CALL_TIMEOUT, Supervisor};
use crate::agent::endpoint::{BindState, ManagedEndpoint, Waiter};
use crate::agent::leg::{CallKind, Leg, PendingCall};
use crate::agent::requests::{ReplySlot, Request, StartError};
use crate::agent::rpc::CallResult;
use crate::config;
use crate::config::modules::HostHeader;
use crate::event;
use crate::mux::StreamType;
use crate::proto::codes::Refusal;
use crate::proto::messages::{CommandResponse, PatchRequest, UnbindRequest};
use crate::sys;
use crate::time::Instant;

/// How long a request waits for a session.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

/// What a changed configuration of an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangePlan {
    /// Nothing has changed.
    Unchanged,
    /// Where its visitors go: the edge need not know.
    Local,
    /// What the edge can change in place.
    Patch,
    /// A new endpoint in its place.
    Rebind,
}

impl Supervisor {
    pub(super) fn asked(&mut self, request: Request, slot: Arc<ReplySlot>) {
        if slot.is_abandoned() {
            return;
        }
        let named = |s: &Self, name: &str| s.endpoints.iter().position(|e| e.config.name == name);
        match request {
            Request::Start(config) => match named(self, &config.name) {
                Some(_) => self.reply(slot, Err(StartError::NameTaken)),
                None => self.add_endpoint(*config, Some((slot, true))),
            },
            Request::Put(config) => match named(self, &config.name) {
                Some(index) => self.change_endpoint(index, *config, Some(slot)),
                None => self.add_endpoint(*config, Some((slot, true))),
            },
            Request::Stop(name) => match named(self, &name) {
                Some(index) => self.remove_endpoint(index, Some(slot)),
                None => self.reply(slot, Err(StartError::Unknown)),
            },
        }
    }

    /// A new endpoint, at the end of the list.
    pub(super) fn add_endpoint(
        &mut self,
        config: config::Endpoint,
        waiter: Option<(Arc<ReplySlot>, bool)>,
    ) {
        let key = self.new_id();
        let name = config.name.clone();
        match ManagedEndpoint::new(key, config, self.legs.len()) {
            Ok(mut endpoint) => {
                endpoint.inspector = self.shared.inspector().cloned();
                endpoint.why = "waiting for the edge".into();
                endpoint.configured = waiter.is_none();
                endpoint.waiter = waiter.map(|(slot, created)| Waiter {
                    slot,
                    until: sys::clock() + SESSION_TIMEOUT,
                    created,
                });
                self.endpoints.push(endpoint);
            }
            Err(e) => {
                let refusal = Refusal::text(format!("endpoint '{name}': {e}"));
                match waiter {
                    Some((slot, _)) => self.reply(slot, Err(StartError::Invalid(refusal))),
                    None => event!(error, obj = "tunnels", "no endpoint", err = refusal),
                }
            }
        }
        self.dirty = true;
    }

    /// Has an endpoint be as given, with as little ado as possible.
    pub(super) fn change_endpoint(
        &mut self,
        index: usize,
        config: config::Endpoint,
        slot: Option<Arc<ReplySlot>>,
    ) {
        self.dirty = true;
        let endpoint = &self.endpoints[index];
        let old = &endpoint.config;
        let dead = endpoint.is_down();
        let mut change = change_plan(old, &config);
        if dead {
            change = ChangePlan::Rebind;
        }
        let patch = PatchRequest {
            tunnel_id: String::new(),
            name: None,
            description: differs(&old.description, &config.description),
            metadata: differs(&old.metadata, &config.metadata),
            traffic_policy: differs(&old.traffic_policy, &config.traffic_policy),
            pooling_enabled: (old.pooling != config.pooling).then_some(config.pooling),
        };
        if change == ChangePlan::Patch && self.patch(index, patch, &config, slot.as_ref()) {
            return;
        }
        match change {
            ChangePlan::Unchanged => self.reply_with_view(index, slot),
            ChangePlan::Local => {
                let changed = self.endpoints[index].change(config);
                let swapped = changed.and_then(|()| self.update_routes(index));
                match (swapped, slot) {
                    (Ok(()), slot) => self.reply_with_view(index, slot),
                    (Err(e), Some(slot)) => {
                        self.reply(slot, Err(StartError::Invalid(Refusal::text(e.to_string()))));
                    }
                    (Err(e), None) => {
                        event!(error, obj = "tunnels", "endpoint stays as it was", err = e);
                    }
                }
            }
            ChangePlan::Patch | ChangePlan::Rebind => {
                let configured = self.endpoints[index].configured;
                self.remove_endpoint(index, None);
                self.add_endpoint(config, slot.map(|slot| (slot, false)));
                if let Some(endpoint) = self.endpoints.last_mut() {
                    endpoint.configured |= configured;
                }
            }
        }
    }

    fn reply_with_view(&mut self, index: usize, slot: Option<Arc<ReplySlot>>) {
        if let Some(slot) = slot {
            self.reply(slot, Ok(Some((self.endpoints[index].view(), false))));
        }
    }

    /// Sends visitors from now on to where the endpoint's configuration says.
    fn update_routes(&mut self, index: usize) -> std::io::Result<()> {
        let endpoint = &self.endpoints[index];
        let target = Arc::new(endpoint.target()?);
        for id in endpoint.ids() {
            self.routes.set(id, Arc::clone(&target));
        }
        Ok(())
    }

    /// Asks the edge to change an endpoint in place. `false`: it is not there, or the
    /// edge gave no id for that.
    fn patch(
        &mut self,
        index: usize,
        patch: PatchRequest,
        config: &config::Endpoint,
        slot: Option<&Arc<ReplySlot>>,
    ) -> bool {
        let endpoint = &self.endpoints[index];
        let mut ids = Vec::new();
        for (at, on) in endpoint.legs.iter().enumerate() {
            let tunnel = on.binding.as_ref().map_or("", |b| b.tunnel.as_str());
            if on.state == BindState::Bound && !self.legs[at].announced {
                ids.push((at, tunnel.to_owned()));
            }
        }
        if ids.is_empty() || endpoint.is_labelled() || ids.iter().any(|(_, id)| id.is_empty()) {
            return false;
        }
        let key = endpoint.key;
        let slot = slot.cloned().unwrap_or_default();
        // The first one speaks for all.
        let mut tell = Some((Box::new(config.clone()), slot));
        for (at, tunnel_id) in ids {
            let patch = Box::new(PatchRequest { tunnel_id, ..patch.clone() });
            let pending = PendingCall::Patch(key, patch, tell.take());
            self.queue_call(at, pending);
        }
        true
    }

    /// Takes an endpoint off the list, here and at the edge.
    pub(super) fn remove_endpoint(&mut self, index: usize, slot: Option<Arc<ReplySlot>>) {
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

    /// Unbinds an endpoint on all legs that the configuration asked for, but not by the
    /// id that the edge itself took down. `slot` is told of the end.
    pub(super) fn unbind_everywhere(
        &mut self,
        index: usize,
        but: Option<&str>,
        slot: Option<Arc<ReplySlot>>,
    ) {
        let mut ids = Vec::new();
        for (at, on) in self.endpoints[index].legs.iter().enumerate() {
            if on.state == BindState::Bound
                && !self.legs[at].announced
                && let Some(binding) = &on.binding
                && Some(binding.id.as_str()) != but
            {
                ids.push((at, binding.id.clone()));
            }
        }
        let mut slot = slot;
        if ids.is_empty()
            && let Some(slot) = slot.take()
        {
            self.reply(slot, Ok(None));
        }
        for (at, id) in ids {
            self.unbind(at, id, slot.take());
        }
    }

    pub(super) fn unbind(&mut self, at: usize, id: String, slot: Option<Arc<ReplySlot>>) {
        self.queue_call(at, PendingCall::Unbind(id, slot));
    }

    fn queue_call(&mut self, at: usize, pending: PendingCall) {
        match self.legs[at].ready() {
            Some(live) => live.pending_calls.push_back(pending),
            None => self.pending_call_lost(pending),
        }
    }

    /// Begins a leg's next errand, if there is one.
    pub(super) fn next_pending_call(&mut self, at: usize, now: Instant) -> bool {
        let Some(pending) = self.legs[at].ready().and_then(|live| live.pending_calls.pop_front())
        else {
            return false;
        };
        let (kind, request) = match &pending {
            PendingCall::Unbind(id, _) => {
                (StreamType::UNBIND, UnbindRequest { id: id.clone() }.encode())
            }
            PendingCall::Patch(_, patch, _) => (StreamType::PATCH_TUNNEL_STATE, patch.encode()),
        };
        self.call(at, kind, &request, CallKind::Pending(pending), now + CALL_TIMEOUT, None);
        true
    }

    /// What came of an errand.
    pub(super) fn pending_call_done(
        &mut self,
        at: usize,
        pending: PendingCall,
        outcome: CallResult,
    ) {
        let refusal = match outcome.map(|bytes| CommandResponse::decode(&bytes)) {
            Ok(Ok(response)) => response.error,
            Ok(Err(e)) => Some(Refusal::text(e.to_string())),
            Err(e) => Some(Refusal::text(e.to_string())),
        };
        match pending {
            PendingCall::Unbind(_, slot) => {
                if let Some(refusal) = refusal {
                    // It is not ours any more, whatever the edge thinks.
                    event!(warn, obj = "tunnels", "the edge does not unbind", err = refusal);
                }
                if let Some(slot) = slot {
                    self.reply(slot, Ok(None));
                }
            }
            PendingCall::Patch(key, _, Some((config, slot))) => {
                let Some(index) = self.endpoints.iter().position(|e| e.key == key) else {
                    return self.reply(slot, Err(StartError::Unknown));
                };
                match refusal {
                    None => {
                        let changed = self.endpoints[index].change(*config);
                        let _ = changed.and_then(|()| self.update_routes(index));
                        self.reply_with_view(index, Some(slot));
                    }
                    // It knows what is wrong with it: the endpoint stays as it was.
                    Some(refusal) if refusal.code.is_some() => {
                        event!(error, obj = "tunnels", "endpoint stays as it was", err = refusal);
                        self.reply(slot, Err(StartError::Refused(refusal)));
                    }
                    // It cannot do that.
                    Some(_) => {
                        let configured = self.endpoints[index].configured;
                        self.remove_endpoint(index, None);
                        self.add_endpoint(*config, Some((slot, false)));
                        if let Some(endpoint) = self.endpoints.last_mut() {
                            endpoint.configured = configured;
                        }
                    }
                }
            }
            PendingCall::Patch(_, _, None) => {
                if let Some(refusal) = refusal {
                    let addr = &self.legs[at].address;
                    event!(warn, obj = "tunnels", "not changed there", err = refusal, addr = addr);
                }
            }
        }
    }

    /// The session went before an errand was done.
    pub(super) fn pending_call_lost(&mut self, pending: PendingCall) {
        match pending {
            // With the session its binds are gone.
            PendingCall::Unbind(_, Some(slot)) => self.reply(slot, Ok(None)),
            PendingCall::Patch(_, _, Some((_, slot))) => {
                self.reply(slot, Err(StartError::NotReady))
            }
            _ => {}
        }
    }

    /// Tells those who have waited long enough for a session.
    pub(super) fn expire_waiters(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(endpoint) = self.endpoints.get_mut(index) {
            let late =
                endpoint.waiter.as_ref().is_some_and(|a| a.until <= now || a.slot.is_abandoned());
            if !late || endpoint.is_binding() {
                index += 1;
                continue;
            }
            // Where there is a session its turn comes: each call before it has a deadline.
            let ready = self.legs.iter_mut().any(|leg| Leg::ready(leg).is_some());
            let endpoint = &mut self.endpoints[index];
            if ready && endpoint.legs.iter().any(|on| on.state == BindState::Queued) {
                index += 1;
                continue;
            }
            if let Some(waiter) = endpoint.waiter.take() {
                self.reply(waiter.slot, Err(StartError::NotReady));
            }
            self.remove_endpoint(index, None);
        }
    }
}

/// What it takes to get from one configuration of an endpoint to another.
fn change_plan(old: &config::Endpoint, new: &config::Endpoint) -> ChangePlan {
    if old == new {
        return ChangePlan::Unchanged;
    }
    let mut like = old.clone();
    // What the edge makes of requests may depend on the upstream.
    let apart = old.modules.host_header != HostHeader::Rewrite;
    if apart && old.upstream.scheme == new.upstream.scheme {
        like.upstream = new.upstream.clone();
    }
    like.verify = new.verify.clone();
    like.inspect = new.inspect;
    if like == *new {
        return ChangePlan::Local;
    }
    like.description.clone_from(&new.description);
    like.metadata.clone_from(&new.metadata);
    like.traffic_policy.clone_from(&new.traffic_policy);
    like.pooling = new.pooling;
    if like == *new { ChangePlan::Patch } else { ChangePlan::Rebind }
}

fn differs(old: &str, new: &str) -> Option<String> {
    (old != new).then(|| new.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EndpointKind, Upstream};

    #[test]
    fn as_little_ado_as_possible() {
        let upstream = |text: &str| Upstream::parse(EndpointKind::Http, text).expect("an upstream");
        let old = config::Endpoint::new("a", EndpointKind::Http, upstream("8080"));
        let with = |change: fn(&mut config::Endpoint)| {
            let mut new = old.clone();
            change(&mut new);
            change_plan(&old, &new)
        };
        assert_eq!(with(|_| {}), ChangePlan::Unchanged);
        assert_eq!(with(|e| e.upstream.port = 1), ChangePlan::Local);
        assert_eq!(with(|e| e.inspect = false), ChangePlan::Local);
        assert_eq!(with(|e| e.traffic_policy = "x".into()), ChangePlan::Patch);
        assert_eq!(
            with(|e| {
                e.description = "x".into();
                e.upstream.port = 1;
            }),
            ChangePlan::Patch
        );
        assert_eq!(with(|e| e.url = "http://b.example".into()), ChangePlan::Rebind);
        assert_eq!(with(|e| e.upstream.scheme = config::UpstreamScheme::Https), ChangePlan::Rebind);
        assert_eq!(with(|e| e.proxy_protocol = 1), ChangePlan::Rebind);
        let mut old = old.clone();
        old.modules.host_header = HostHeader::Rewrite;
        let mut new = old.clone();
        new.upstream.port = 1;
        assert_eq!(change_plan(&old, &new), ChangePlan::Rebind);
    }
}
