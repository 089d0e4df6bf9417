//! Endpoints that come and go while the agent runs: what other parts of the program
//! ask for, and what the calls that follow from it bring.

use std::sync::Arc;
use std::time::Duration;

use super::endpoints::{Asker, Endpoint, Place};
use super::handle::{Ask, Slot, StartError};
use super::leg::{Errand, Leg, What};
use super::rpc::Outcome;
use super::supervisor::{CALL, Supervisor};
use crate::config;
use crate::config::modules::HostHeader;
use crate::event;
use crate::mux::StreamType;
use crate::proto::codes::Refusal;
use crate::proto::messages::{CommandResponse, PatchRequest, UnbindRequest};
use crate::sys;
use crate::time::Instant;

/// How long a request waits for a session.
const SESSION: Duration = Duration::from_secs(5);

/// What a changed configuration of an endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Nothing has changed.
    None,
    /// Where its visitors go: the edge need not know.
    Here,
    /// What the edge can change in place.
    There,
    /// A new endpoint in its place.
    Anew,
}

impl Supervisor {
    pub(super) fn asked(&mut self, ask: Ask, slot: Arc<Slot>) {
        if slot.is_left() {
            return;
        }
        let named = |s: &Self, name: &str| s.endpoints.iter().position(|e| e.config.name == name);
        match ask {
            Ask::Start(config) => match named(self, &config.name) {
                Some(_) => self.tell_asker(slot, Err(StartError::NameTaken)),
                None => self.add(*config, Some((slot, true))),
            },
            Ask::Put(config) => match named(self, &config.name) {
                Some(index) => self.alter(index, *config, Some(slot)),
                None => self.add(*config, Some((slot, true))),
            },
            Ask::Stop(name) => match named(self, &name) {
                Some(index) => self.remove(index, Some(slot)),
                None => self.tell_asker(slot, Err(StartError::Unknown)),
            },
        }
    }

    /// A new endpoint, at the end of the list.
    pub(super) fn add(&mut self, config: config::Endpoint, asker: Option<(Arc<Slot>, bool)>) {
        let key = self.number();
        let name = config.name.clone();
        match Endpoint::new(key, config, self.legs.len()) {
            Ok(mut endpoint) => {
                endpoint.inspector = self.shared.inspector.clone();
                endpoint.why = "waiting for the edge".into();
                endpoint.configured = asker.is_none();
                endpoint.asker = asker.map(|(slot, created)| Asker {
                    slot,
                    until: sys::clock() + SESSION,
                    created,
                });
                self.endpoints.push(endpoint);
            }
            Err(e) => {
                let refusal = Refusal::text(format!("endpoint '{name}': {e}"));
                match asker {
                    Some((slot, _)) => self.tell_asker(slot, Err(StartError::Invalid(refusal))),
                    None => event!(error, obj = "tunnels", "no endpoint", err = refusal),
                }
            }
        }
        self.dirty = true;
    }

    /// Has an endpoint be as given, with as little ado as possible.
    pub(super) fn alter(
        &mut self,
        index: usize,
        config: config::Endpoint,
        slot: Option<Arc<Slot>>,
    ) {
        self.dirty = true;
        let endpoint = &self.endpoints[index];
        let old = &endpoint.config;
        let dead = endpoint.is_down();
        let mut change = judge(old, &config);
        if dead {
            change = Change::Anew;
        }
        let patch = PatchRequest {
            tunnel_id: String::new(),
            name: None,
            description: differs(&old.description, &config.description),
            metadata: differs(&old.metadata, &config.metadata),
            traffic_policy: differs(&old.traffic_policy, &config.traffic_policy),
            pooling_enabled: (old.pooling != config.pooling).then_some(config.pooling),
        };
        if change == Change::There && self.patch(index, patch, &config, slot.as_ref()) {
            return;
        }
        match change {
            Change::None => self.give_view(index, slot),
            Change::Here => {
                let changed = self.endpoints[index].change(config);
                let swapped = changed.and_then(|()| self.reroute(index));
                match (swapped, slot) {
                    (Ok(()), slot) => self.give_view(index, slot),
                    (Err(e), Some(slot)) => {
                        self.tell_asker(
                            slot,
                            Err(StartError::Invalid(Refusal::text(e.to_string()))),
                        );
                    }
                    (Err(e), None) => {
                        event!(error, obj = "tunnels", "endpoint stays as it was", err = e);
                    }
                }
            }
            Change::There | Change::Anew => {
                let configured = self.endpoints[index].configured;
                self.remove(index, None);
                self.add(config, slot.map(|slot| (slot, false)));
                if let Some(endpoint) = self.endpoints.last_mut() {
                    endpoint.configured |= configured;
                }
            }
        }
    }

    fn give_view(&mut self, index: usize, slot: Option<Arc<Slot>>) {
        if let Some(slot) = slot {
            self.tell_asker(slot, Ok(Some((self.endpoints[index].view(), false))));
        }
    }

    /// Sends visitors from now on to where the endpoint's configuration says.
    fn reroute(&mut self, index: usize) -> std::io::Result<()> {
        let endpoint = &self.endpoints[index];
        let target = Arc::new(endpoint.target()?);
        for id in endpoint.ids() {
            self.table.set(id, Arc::clone(&target));
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
        slot: Option<&Arc<Slot>>,
    ) -> bool {
        let endpoint = &self.endpoints[index];
        let mut ids = Vec::new();
        for (at, on) in endpoint.on.iter().enumerate() {
            let tunnel = on.binding.as_ref().map_or("", |b| b.tunnel.as_str());
            if on.place == Place::Up && !self.legs[at].announced {
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
            let errand = Errand::Patch(key, patch, tell.take());
            self.errand(at, errand);
        }
        true
    }

    /// Takes an endpoint off the list, here and at the edge.
    pub(super) fn remove(&mut self, index: usize, slot: Option<Arc<Slot>>) {
        self.unbind_everywhere(index, None, slot);
        let endpoint = self.endpoints.remove(index);
        for id in endpoint.ids() {
            self.table.remove(id);
        }
        if let Some(inspector) = &endpoint.inspector {
            inspector.forget(&endpoint.config.name);
        }
        if let Some(asker) = endpoint.asker {
            self.tell_asker(asker.slot, Err(StartError::Late));
        }
        self.dirty = true;
    }

    /// Unbinds an endpoint on all legs that the configuration asked for, but not by the
    /// id that the edge itself took down. `slot` is told of the end.
    pub(super) fn unbind_everywhere(
        &mut self,
        index: usize,
        but: Option<&str>,
        slot: Option<Arc<Slot>>,
    ) {
        let mut ids = Vec::new();
        for (at, on) in self.endpoints[index].on.iter().enumerate() {
            if on.place == Place::Up
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
            self.tell_asker(slot, Ok(None));
        }
        for (at, id) in ids {
            self.unbind(at, id, slot.take());
        }
    }

    pub(super) fn unbind(&mut self, at: usize, id: String, slot: Option<Arc<Slot>>) {
        self.errand(at, Errand::Unbind(id, slot));
    }

    fn errand(&mut self, at: usize, errand: Errand) {
        match self.legs[at].ready() {
            Some(live) => live.errands.push_back(errand),
            None => self.errand_lost(errand),
        }
    }

    /// Begins a leg's next errand, if there is one.
    pub(super) fn next_errand(&mut self, at: usize, now: Instant) -> bool {
        let Some(errand) = self.legs[at].ready().and_then(|live| live.errands.pop_front()) else {
            return false;
        };
        let (kind, request) = match &errand {
            Errand::Unbind(id, _) => {
                (StreamType::UNBIND, UnbindRequest { id: id.clone() }.encode())
            }
            Errand::Patch(_, patch, _) => (StreamType::PATCH_TUNNEL_STATE, patch.encode()),
        };
        self.call(at, kind, &request, What::Errand(errand), now + CALL, None);
        true
    }

    /// What came of an errand.
    pub(super) fn errand_done(&mut self, at: usize, errand: Errand, outcome: Outcome) {
        let refusal = match outcome.map(|bytes| CommandResponse::decode(&bytes)) {
            Ok(Ok(response)) => response.error,
            Ok(Err(e)) => Some(Refusal::text(e.to_string())),
            Err(e) => Some(Refusal::text(e.to_string())),
        };
        match errand {
            Errand::Unbind(_, slot) => {
                if let Some(refusal) = refusal {
                    // It is not ours any more, whatever the edge thinks.
                    event!(warn, obj = "tunnels", "the edge does not unbind", err = refusal);
                }
                if let Some(slot) = slot {
                    self.tell_asker(slot, Ok(None));
                }
            }
            Errand::Patch(key, _, Some((config, slot))) => {
                let Some(index) = self.endpoints.iter().position(|e| e.key == key) else {
                    return self.tell_asker(slot, Err(StartError::Unknown));
                };
                match refusal {
                    None => {
                        let changed = self.endpoints[index].change(*config);
                        let _ = changed.and_then(|()| self.reroute(index));
                        self.give_view(index, Some(slot));
                    }
                    // It knows what is wrong with it: the endpoint stays as it was.
                    Some(refusal) if refusal.code.is_some() => {
                        event!(error, obj = "tunnels", "endpoint stays as it was", err = refusal);
                        self.tell_asker(slot, Err(StartError::Refused(refusal)));
                    }
                    // It cannot do that.
                    Some(_) => {
                        let configured = self.endpoints[index].configured;
                        self.remove(index, None);
                        self.add(*config, Some((slot, false)));
                        if let Some(endpoint) = self.endpoints.last_mut() {
                            endpoint.configured = configured;
                        }
                    }
                }
            }
            Errand::Patch(_, _, None) => {
                if let Some(refusal) = refusal {
                    let addr = &self.legs[at].address;
                    event!(warn, obj = "tunnels", "not changed there", err = refusal, addr = addr);
                }
            }
        }
    }

    /// The session went before an errand was done.
    pub(super) fn errand_lost(&mut self, errand: Errand) {
        match errand {
            // With the session its binds are gone.
            Errand::Unbind(_, Some(slot)) => self.tell_asker(slot, Ok(None)),
            Errand::Patch(_, _, Some((_, slot))) => {
                self.tell_asker(slot, Err(StartError::NotReady))
            }
            _ => {}
        }
    }

    /// Tells those who have waited long enough for a session.
    pub(super) fn expire_askers(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(endpoint) = self.endpoints.get_mut(index) {
            let late = endpoint.asker.as_ref().is_some_and(|a| a.until <= now || a.slot.is_left());
            if !late || endpoint.is_asked() {
                index += 1;
                continue;
            }
            // Where there is a session its turn comes: each call before it has a deadline.
            let ready = self.legs.iter_mut().any(|leg| Leg::ready(leg).is_some());
            let endpoint = &mut self.endpoints[index];
            if ready && endpoint.on.iter().any(|on| on.place == Place::Wanted) {
                index += 1;
                continue;
            }
            if let Some(asker) = endpoint.asker.take() {
                self.tell_asker(asker.slot, Err(StartError::NotReady));
            }
            self.remove(index, None);
        }
    }
}

/// What it takes to get from one configuration of an endpoint to another.
fn judge(old: &config::Endpoint, new: &config::Endpoint) -> Change {
    if old == new {
        return Change::None;
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
        return Change::Here;
    }
    like.description.clone_from(&new.description);
    like.metadata.clone_from(&new.metadata);
    like.traffic_policy.clone_from(&new.traffic_policy);
    like.pooling = new.pooling;
    if like == *new { Change::There } else { Change::Anew }
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
            judge(&old, &new)
        };
        assert_eq!(with(|_| {}), Change::None);
        assert_eq!(with(|e| e.upstream.port = 1), Change::Here);
        assert_eq!(with(|e| e.inspect = false), Change::Here);
        assert_eq!(with(|e| e.traffic_policy = "x".into()), Change::There);
        assert_eq!(
            with(|e| {
                e.description = "x".into();
                e.upstream.port = 1;
            }),
            Change::There
        );
        assert_eq!(with(|e| e.url = "http://b.example".into()), Change::Anew);
        assert_eq!(with(|e| e.upstream.scheme = config::UpstreamScheme::Https), Change::Anew);
        assert_eq!(with(|e| e.proxy_protocol = 1), Change::Anew);
        let mut old = old.clone();
        old.modules.host_header = HostHeader::Rewrite;
        let mut new = old.clone();
        new.upstream.port = 1;
        assert_eq!(judge(&old, &new), Change::Anew);
    }
}
