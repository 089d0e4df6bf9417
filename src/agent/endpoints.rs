//! All endpoints: the order of binds on each leg, the consequence of a refusal, and the steps
//! for a request or a new configuration. Methods return decisions; the supervisor carries them
//! out. Sessions and threads do not belong here.

use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::{BindState, ManagedEndpoint, Waiter};
use super::requests::{ReplySlot, Request, StartError};
use crate::config;
use crate::proto::codes::{self, Refusal, Verdict, When};
use crate::proto::messages::BindResponse;
use crate::time::{Deadline, Instant};

/// Wait before the next Bind of a refused endpoint: doubled from the first value to the second.
const MIN_REBIND_WAIT: Duration = Duration::from_secs(1);
const MAX_REBIND_WAIT: Duration = Duration::from_secs(30);

/// Name of the endpoint of the command line, unless it has another.
const COMMAND_LINE: &str = "command_line";

/// The endpoints, in the order of the requests for them.
#[derive(Default)]
pub(super) struct Endpoints(Vec<ManagedEndpoint>);

/// The next bind on a leg.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextBind {
    /// This endpoint.
    Bind(usize),
    /// Wait for the response on another leg: it has the id and the token.
    Wait,
    /// All are bound, or wait.
    None,
}

/// Consequence of a successful bind.
pub(super) struct BindReport {
    /// Former id of the endpoint on this leg, if no leg has it now.
    pub(super) old_id: Option<String>,
    /// It was refused on this leg before.
    pub(super) after_outage: bool,
    /// The URL is new to the user.
    pub(super) announce: bool,
    pub(super) waiter: Option<Waiter>,
}

/// Consequence of a refused bind.
pub(super) enum BindRefusal {
    /// The request fails, and its endpoint is removed.
    Reject(Arc<ReplySlot>, Refusal),
    /// The program ends with this error.
    Exit(Refusal),
    /// A new bind after this wait; `None`: no further bind. `log`: the refusal is logged.
    Keep { retry: Option<Duration>, log: bool },
}

/// Steps for a request.
pub(super) enum RequestPlan {
    Add(Box<config::Endpoint>),
    Change(usize, Box<config::Endpoint>),
    Remove(usize),
    Reject(StartError),
}

/// One step from the current endpoints to those of a configuration file. Endpoints are
/// identified by their key.
#[derive(Debug, PartialEq)]
pub(super) enum ReloadStep {
    Remove(u32),
    Add(config::Endpoint),
    Change(u32, config::Endpoint),
    /// Another endpoint has this name. It does not come from the configuration file.
    NameTaken(String),
}

impl Index<usize> for Endpoints {
    type Output = ManagedEndpoint;

    fn index(&self, index: usize) -> &ManagedEndpoint {
        &self.0[index]
    }
}

impl IndexMut<usize> for Endpoints {
    fn index_mut(&mut self, index: usize) -> &mut ManagedEndpoint {
        &mut self.0[index]
    }
}

impl Endpoints {
    pub(super) fn push(&mut self, endpoint: ManagedEndpoint) {
        self.0.push(endpoint);
    }

    pub(super) fn remove(&mut self, index: usize) -> ManagedEndpoint {
        self.0.remove(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ManagedEndpoint> {
        self.0.iter()
    }

    pub(super) fn by_key(&self, key: u32) -> Option<usize> {
        self.0.iter().position(|e| e.key == key)
    }

    pub(super) fn by_id(&self, id: &str) -> Option<usize> {
        self.0.iter().position(|e| e.ids().any(|known| known == id))
    }

    fn by_name(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|e| e.config.name == name)
    }

    /// Sets the number of legs.
    pub(super) fn add_legs(&mut self, legs: usize) {
        self.0.iter_mut().for_each(|e| e.add_legs(legs));
    }

    /// Returns the next bind on a leg, in order. Until the leg is set up, only endpoints of the
    /// configuration are bound.
    pub(super) fn next_bind(&self, leg: usize, set_up: bool, now: Instant) -> NextBind {
        let next = self.0.iter().position(|endpoint| {
            let is_due = match endpoint.legs[leg].state {
                BindState::Queued => true,
                BindState::RetryAt(due) => set_up && due <= now,
                _ => false,
            };
            is_due && endpoint.down.is_none() && (set_up || endpoint.waiter.is_none())
        });
        match next {
            None => NextBind::None,
            Some(index) if self.0[index].binding().is_none() && self.0[index].is_binding() => {
                NextBind::Wait
            }
            Some(index) => NextBind::Bind(index),
        }
    }

    /// Records that the edge has bound an endpoint on a leg.
    pub(super) fn bound(&mut self, leg: usize, index: usize, response: BindResponse) -> BindReport {
        let endpoint = &mut self.0[index];
        let url = response.url.clone();
        BindReport {
            after_outage: endpoint.legs[leg].outage.has_started(),
            old_id: endpoint.bound(leg, response),
            announce: endpoint.announced.replace(url.clone()) != Some(url),
            waiter: endpoint.waiter.take(),
        }
    }

    /// Records that the edge refused an endpoint on a leg, or that it cannot be served. During
    /// the start this ends the program, unless other endpoints are kept and there are some.
    /// Later it affects this endpoint only.
    pub(super) fn refused(
        &mut self,
        leg: usize,
        index: usize,
        refusal: Refusal,
        when: When,
        keep_others: bool,
        now: Instant,
    ) -> BindRefusal {
        let hopes = |(n, e): (usize, &ManagedEndpoint)| {
            n != index && matches!(e.legs[leg].state, BindState::Queued | BindState::Bound)
        };
        let kept = keep_others && self.0.iter().enumerate().any(hopes);
        let endpoint = &mut self.0[index];
        let elsewhere = endpoint.is_up();
        if !elsewhere && let Some(waiter) = endpoint.waiter.take() {
            return BindRefusal::Reject(waiter.slot, refusal);
        }
        let at_start = when == When::Start && endpoint.configured;
        if at_start && endpoint.binding().is_none() && !kept {
            let name = &endpoint.config.name;
            return BindRefusal::Exit(match name == COMMAND_LINE {
                true => refusal,
                false => {
                    let message = format!("endpoint '{name}': {}", refusal.message);
                    Refusal { message, ..refusal }
                }
            });
        }
        let is_final = codes::bind_verdict(refusal.code, When::Reconnect) == Verdict::Final;
        let on = &mut endpoint.legs[leg];
        on.failures = on.failures.saturating_add(1);
        let wait = (MIN_REBIND_WAIT * 2u32.pow(on.failures.min(6) - 1)).min(MAX_REBIND_WAIT);
        on.state = if is_final { BindState::Refused } else { BindState::RetryAt(now + wait) };
        let log = on.outage.allows(now) || is_final;
        let held = refusal.code == Some(codes::URL_ONLINE) && on.binding.is_some();
        endpoint.why = match held {
            true => format!("{refusal}: the edge may still hold it for our last session"),
            false => refusal.to_string(),
        };
        BindRefusal::Keep { retry: (!is_final).then_some(wait), log }
    }

    /// Returns the time of the next attempt to bind a refused endpoint on a leg.
    pub(super) fn next_rebind(&self, leg: usize) -> Deadline {
        let later = self.0.iter().filter(|e| e.down.is_none());
        let later = later.filter_map(|e| match e.legs[leg].state {
            BindState::RetryAt(at) => Some(Deadline::At(at)),
            _ => None,
        });
        later.min().unwrap_or(Deadline::Never)
    }

    /// Returns the time at which the next request has waited too long for a session.
    pub(super) fn waiter_deadline(&self) -> Deadline {
        let waiting = self.0.iter().filter(|e| !e.is_binding());
        let until = waiting.filter_map(|e| Some(Deadline::At(e.waiter.as_ref()?.until)));
        until.min().unwrap_or(Deadline::Never)
    }

    /// Returns an endpoint whose request has ended: it has waited too long for a session, or
    /// its caller has left. `ready`: endpoints can be bound.
    pub(super) fn expired(&self, ready: bool, now: Instant) -> Option<usize> {
        self.0.iter().position(|endpoint| {
            let Some(waiter) = &endpoint.waiter else { return false };
            let is_late = waiter.until <= now || waiter.slot.is_abandoned();
            // With a session its Bind follows: each call before it has a deadline.
            let has_turn = ready && endpoint.legs.iter().any(|on| on.state == BindState::Queued);
            is_late && !endpoint.is_binding() && !has_turn
        })
    }

    /// Records the end of a leg's session, and of all its binds.
    pub(super) fn leg_lost(&mut self, leg: usize) {
        for endpoint in &mut self.0 {
            let state = &mut endpoint.legs[leg].state;
            if *state != BindState::Refused {
                *state = BindState::Queued;
            }
            if endpoint.why.is_empty() && !endpoint.is_up() {
                endpoint.why = "no session with the edge".into();
            }
        }
    }

    /// Records that the edge took an endpoint down. It stays down on all legs (protocol 1,
    /// 7.4).
    pub(super) fn take_down(&mut self, index: usize, why: &str) {
        let endpoint = &mut self.0[index];
        endpoint.down = Some(why.to_owned());
        for on in &mut endpoint.legs {
            on.state = BindState::Refused;
        }
    }

    /// Returns the legs where an endpoint must be unbound, and its id there. The edge itself
    /// unbinds it on legs that it announced, and the id `except`.
    pub(super) fn unbinds(
        &self,
        index: usize,
        except: Option<&str>,
        announced: impl Fn(usize) -> bool,
    ) -> Vec<(usize, String)> {
        let bound = self.0[index].bound_legs().filter(|(leg, _)| !announced(*leg));
        let ids = bound.map(|(leg, binding)| (leg, binding.id.clone()));
        ids.filter(|(_, id)| Some(id.as_str()) != except).collect()
    }

    /// Returns the legs where the edge can change an endpoint in place, and its public id
    /// there. Empty: it cannot be changed in place.
    pub(super) fn patches(
        &self,
        index: usize,
        announced: impl Fn(usize) -> bool,
    ) -> Vec<(usize, String)> {
        let endpoint = &self.0[index];
        let bound = endpoint.bound_legs().filter(|(leg, _)| !announced(*leg));
        let ids: Vec<_> = bound.map(|(leg, binding)| (leg, binding.tunnel.clone())).collect();
        match endpoint.is_labelled() || ids.iter().any(|(_, id)| id.is_empty()) {
            true => Vec::new(),
            false => ids,
        }
    }

    /// Returns the steps for a request.
    pub(super) fn plan(&self, request: Request) -> RequestPlan {
        match request {
            Request::Start(config) => match self.by_name(&config.name) {
                Some(_) => RequestPlan::Reject(StartError::NameTaken),
                None => RequestPlan::Add(config),
            },
            Request::Put(config) => match self.by_name(&config.name) {
                Some(index) => RequestPlan::Change(index, config),
                None => RequestPlan::Add(config),
            },
            Request::Stop(name) => match self.by_name(&name) {
                Some(index) => RequestPlan::Remove(index),
                None => RequestPlan::Reject(StartError::Unknown),
            },
        }
    }

    /// Returns the steps to the endpoints of a configuration file. Endpoints that were added by
    /// requests stay as they are.
    pub(super) fn plan_reload(&self, wanted: Vec<config::Endpoint>) -> Vec<ReloadStep> {
        let gone = self.0.iter().rev().filter(|endpoint| {
            endpoint.configured && !wanted.iter().any(|e| e.name == endpoint.config.name)
        });
        let mut steps: Vec<_> = gone.map(|endpoint| ReloadStep::Remove(endpoint.key)).collect();
        for config in wanted {
            match self.by_name(&config.name).map(|index| &self.0[index]) {
                None => steps.push(ReloadStep::Add(config)),
                Some(endpoint) if !endpoint.configured => {
                    steps.push(ReloadStep::NameTaken(config.name));
                }
                Some(endpoint) if *endpoint.config != config || endpoint.is_down() => {
                    steps.push(ReloadStep::Change(endpoint.key, config));
                }
                Some(_) => {}
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EndpointKind, Upstream};

    const NOW: Instant = Instant::ZERO;

    fn at(seconds: u64) -> Instant {
        NOW + Duration::from_secs(seconds)
    }

    fn config(name: &str) -> config::Endpoint {
        let upstream = Upstream::parse(EndpointKind::Tcp, "8080").unwrap();
        config::Endpoint::new(name, EndpointKind::Tcp, upstream)
    }

    /// Returns endpoints of a configuration, on this many legs.
    fn endpoints(names: &[&str], legs: usize) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for (key, name) in (0..).zip(names) {
            endpoints.push(ManagedEndpoint::new(key, config(name), legs).unwrap());
        }
        endpoints
    }

    fn request(endpoints: &mut Endpoints, index: usize, until: Instant) -> Arc<ReplySlot> {
        let slot = Arc::<ReplySlot>::default();
        endpoints[index].configured = false;
        endpoints[index].waiter = Some(Waiter { slot: Arc::clone(&slot), until, created: true });
        slot
    }

    fn bind(endpoints: &mut Endpoints, leg: usize, index: usize, id: &str) -> BindReport {
        let mut response =
            BindResponse { id: id.into(), url: "tcp://a:1".into(), ..Default::default() };
        response.extra.tunnel_id = format!("public-{id}");
        endpoints.bound(leg, index, response)
    }

    fn refuse(endpoints: &mut Endpoints, code: u32, when: When, now: Instant) -> BindRefusal {
        let refusal = Refusal::new(code, "refused");
        endpoints.refused(0, 0, refusal, when, false, now)
    }

    fn next(endpoints: &Endpoints, leg: usize) -> NextBind {
        endpoints.next_bind(leg, false, NOW)
    }

    #[test]
    fn endpoints_are_bound_in_order_and_one_at_a_time_across_legs() {
        let mut endpoints = endpoints(&["a", "b"], 2);
        assert_eq!(next(&endpoints, 0), NextBind::Bind(0));
        endpoints[0].legs[0].state = BindState::Binding;
        assert_eq!(next(&endpoints, 0), NextBind::Bind(1));
        assert_eq!(next(&endpoints, 1), NextBind::Wait, "its id and token are not known yet");
        bind(&mut endpoints, 0, 0, "id");
        assert_eq!(next(&endpoints, 1), NextBind::Bind(0));
        bind(&mut endpoints, 1, 0, "id");
        bind(&mut endpoints, 0, 1, "id2");
        bind(&mut endpoints, 1, 1, "id2");
        assert_eq!((next(&endpoints, 0), next(&endpoints, 1)), (NextBind::None, NextBind::None));
        endpoints.leg_lost(0);
        assert_eq!((next(&endpoints, 0), next(&endpoints, 1)), (NextBind::Bind(0), NextBind::None));
    }

    #[test]
    fn requested_endpoints_follow_when_the_leg_is_set_up() {
        let mut endpoints = endpoints(&["a"], 1);
        request(&mut endpoints, 0, at(5));
        assert_eq!(endpoints.next_bind(0, false, NOW), NextBind::None);
        assert_eq!(endpoints.next_bind(0, true, NOW), NextBind::Bind(0));
    }

    #[test]
    fn a_refusal_at_the_start_ends_the_program_and_later_it_is_tried_again() {
        let mut starting = endpoints(&["a"], 1);
        let refusal = refuse(&mut starting, codes::URL_ONLINE, When::Start, NOW);
        assert!(matches!(refusal, BindRefusal::Exit(_)));
        let mut running = endpoints(&["a"], 1);
        bind(&mut running, 0, 0, "id");
        running.leg_lost(0);
        let mut waits = Vec::new();
        for _ in 0..8 {
            match refuse(&mut running, codes::URL_ONLINE, When::Reconnect, NOW) {
                BindRefusal::Keep { retry: Some(wait), .. } => waits.push(wait.as_secs()),
                _ => panic!("no further bind"),
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(running.next_rebind(0), Deadline::At(at(30)));
        assert_eq!(running.next_bind(0, true, at(29)), NextBind::None);
        assert_eq!(running.next_bind(0, true, at(30)), NextBind::Bind(0));
        assert!(running[0].why.contains("may still hold it"), "{}", running[0].why);
        let report = bind(&mut running, 0, 0, "id");
        assert!(report.after_outage && !report.announce);
    }

    #[test]
    fn a_refused_request_fails_and_takes_its_endpoint_with_it() {
        let mut endpoints = endpoints(&["a"], 2);
        request(&mut endpoints, 0, at(5));
        let refusal = refuse(&mut endpoints, codes::URL_ONLINE, When::Reconnect, NOW);
        assert!(matches!(refusal, BindRefusal::Reject(..)));
        // It is up on another leg: the endpoint is kept.
        request(&mut endpoints, 0, at(5));
        bind(&mut endpoints, 1, 0, "id");
        let refusal = refuse(&mut endpoints, codes::URL_ONLINE, When::Reconnect, NOW);
        assert!(matches!(refusal, BindRefusal::Keep { retry: Some(_), log: true }));
    }

    #[test]
    fn a_request_waits_for_a_session_and_not_for_ever() {
        let mut endpoints = endpoints(&["a", "b"], 1);
        request(&mut endpoints, 1, at(5));
        assert_eq!(endpoints.waiter_deadline(), Deadline::At(at(5)));
        assert_eq!(endpoints.expired(false, at(4)), None);
        assert_eq!(endpoints.expired(false, at(5)), Some(1));
        assert_eq!(endpoints.expired(true, at(5)), None, "its turn comes");
        endpoints[1].legs[0].state = BindState::Binding;
        assert_eq!(endpoints.expired(false, at(5)), None, "the edge answers or is late");
        assert_eq!(endpoints.waiter_deadline(), Deadline::Never);
    }

    #[test]
    fn an_endpoint_that_the_edge_took_down_stays_down() {
        let mut endpoints = endpoints(&["a"], 2);
        bind(&mut endpoints, 0, 0, "id0");
        bind(&mut endpoints, 1, 0, "id1");
        let index = endpoints.by_id("id1").unwrap();
        assert_eq!(endpoints.unbinds(index, Some("id1"), |_| false), [(0, "id0".into())]);
        endpoints.take_down(index, "abuse");
        endpoints.leg_lost(0);
        assert_eq!(endpoints.next_bind(0, true, at(3_600)), NextBind::None);
        assert!(endpoints[0].is_down());
    }

    #[test]
    fn an_endpoint_is_unbound_and_changed_on_legs_of_the_configuration_alone() {
        let mut endpoints = endpoints(&["a"], 3);
        bind(&mut endpoints, 0, 0, "id0");
        bind(&mut endpoints, 2, 0, "id2");
        let announced = |leg| leg == 2;
        assert_eq!(endpoints.unbinds(0, None, announced), [(0, "id0".into())]);
        assert_eq!(endpoints.patches(0, announced), [(0, "public-id0".into())]);
        let old = BindResponse { id: "id0".into(), ..Default::default() };
        endpoints.bound(0, 0, old);
        assert!(endpoints.patches(0, announced).is_empty(), "an edge without public ids");
    }

    #[test]
    fn an_id_is_old_when_no_leg_has_it() {
        let mut endpoints = endpoints(&["a"], 2);
        assert_eq!(bind(&mut endpoints, 0, 0, "id").old_id, None);
        assert_eq!(bind(&mut endpoints, 1, 0, "id").old_id, None);
        assert_eq!(bind(&mut endpoints, 0, 0, "new").old_id, None, "the second leg has it");
        assert_eq!(bind(&mut endpoints, 1, 0, "new").old_id.as_deref(), Some("id"));
    }

    #[test]
    fn a_request_is_planned_by_name() {
        let endpoints = endpoints(&["a", "b"], 1);
        let plan = |request| endpoints.plan(request);
        let boxed = |name| Box::new(config(name));
        assert!(matches!(plan(Request::Start(boxed("c"))), RequestPlan::Add(_)));
        assert!(matches!(
            plan(Request::Start(boxed("a"))),
            RequestPlan::Reject(StartError::NameTaken)
        ));
        assert!(matches!(plan(Request::Put(boxed("b"))), RequestPlan::Change(1, _)));
        assert!(matches!(plan(Request::Put(boxed("c"))), RequestPlan::Add(_)));
        assert!(matches!(plan(Request::Stop("b".into())), RequestPlan::Remove(1)));
        assert!(matches!(
            plan(Request::Stop("c".into())),
            RequestPlan::Reject(StartError::Unknown)
        ));
    }

    #[test]
    fn a_new_configuration_touches_only_what_differs() {
        let mut endpoints = endpoints(&["same", "changed", "gone", "down", "foreign"], 1);
        endpoints[4].configured = false;
        endpoints.take_down(3, "abuse");
        let mut changed = config("changed");
        changed.metadata = "x".into();
        let names = ["same", "down", "foreign", "new"].map(config);
        let wanted = names.into_iter().chain([changed.clone()]).collect();
        assert_eq!(
            endpoints.plan_reload(wanted),
            [
                ReloadStep::Remove(2),
                ReloadStep::Change(3, config("down")),
                ReloadStep::NameTaken("foreign".into()),
                ReloadStep::Add(config("new")),
                ReloadStep::Change(1, changed),
            ]
        );
    }
}
