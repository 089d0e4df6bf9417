//! Endpoints come up on legs: whose turn it is, the Bind and its answer, refusals, and
//! what the edge takes down.

use std::sync::Arc;
use std::time::Duration;

use super::{CALL_TIMEOUT, Supervisor, seconds};
use crate::agent::endpoint::BindState;
use crate::agent::failure::LegFailure;
use crate::agent::leg::CallKind;
use crate::agent::requests::StartError;
use crate::config;
use crate::event;
use crate::logging;
use crate::mux::StreamType;
use crate::proto::DecodeError;
use crate::proto::codes::{self, Refusal, Verdict, When};
use crate::proto::messages::{BindResponse, StartTunnelWithLabelResponse, StopTunnel};
use crate::sys;
use crate::time::{Deadline, Instant};

/// The waits before a refused endpoint is tried again: from this one, doubled, to that.
const MIN_REBIND_WAIT: Duration = Duration::from_secs(1);
const MAX_REBIND_WAIT: Duration = Duration::from_secs(30);

impl Supervisor {
    /// The next call of a leg that has none under way: an errand, or the next endpoint
    /// in order.
    pub(super) fn next_call(&mut self, at: usize, now: Instant) -> Result<(), Refusal> {
        if self.next_pending_call(at, now) {
            return Ok(());
        }
        let set_up = self.legs[at].is_set_up();
        for index in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[index];
            let wanted = match endpoint.legs[at].state {
                BindState::Queued => true,
                BindState::RetryAt(due) => set_up && due <= now,
                _ => false,
            };
            // Those of the configuration first: with them the session is set up.
            if !wanted || endpoint.down.is_some() || !set_up && endpoint.waiter.is_some() {
                continue;
            }
            // Somebody else is asking for its id and token, which we need too.
            if endpoint.binding().is_none() && endpoint.is_binding() {
                return Ok(());
            }
            match self.bind(at, index, now) {
                Ok(()) => return Ok(()),
                // It cannot be served from here: its directory has gone, perhaps.
                Err(e) => {
                    self.bind_refused(at, index, Refusal::text(e.to_string()))?;
                    return self.next_call(at, now);
                }
            }
        }
        if !set_up {
            self.is_set_up(at, now);
            return self.next_call(at, now);
        }
        Ok(())
    }

    /// Sends the Bind of an endpoint, or its labelled form. The route is known before
    /// the first visitor can come.
    fn bind(&mut self, at: usize, index: usize, now: Instant) -> std::io::Result<()> {
        let endpoint = &mut self.endpoints[index];
        let mut target = endpoint.target()?;
        let what = CallKind::Bind(endpoint.key, Arc::clone(&endpoint.config));
        endpoint.legs[at].state = BindState::Binding;
        let labelled = endpoint.is_labelled();
        let (kind, request) = match labelled {
            true => (StreamType::START_TUNNEL_WITH_LABEL, endpoint.label_request().encode()),
            false => (StreamType::BIND, endpoint.bind_request(at).encode()),
        };
        let routes = Arc::clone(&self.routes);
        let on_reactor = move |bytes: &[u8]| {
            if let Ok(BindResponse { id, url, error: None, .. }) = bind_answer(bytes, labelled) {
                target.url = url;
                routes.set(&id, Arc::new(target));
            }
        };
        self.call(at, kind, &request, what, now + CALL_TIMEOUT, Some(Box::new(on_reactor)));
        Ok(())
    }

    /// The edge has answered a Bind.
    pub(super) fn bound(
        &mut self,
        at: usize,
        key: u32,
        config: &Arc<config::Endpoint>,
        bytes: &[u8],
    ) -> Result<Result<(), LegFailure>, Refusal> {
        let labelled = !config.labels.is_empty();
        let mut response = match bind_answer(bytes, labelled) {
            Ok(response) => response,
            Err(e) => {
                let why = format!("the edge's answer to Bind: {e}");
                return Ok(Err(LegFailure::Retry(why)));
            }
        };
        let Some(index) = self.endpoints.iter().position(|e| e.key == key) else {
            // It was taken back in the meantime.
            if response.error.is_none() {
                self.routes.remove(&response.id);
                self.unbind(at, response.id, None);
            }
            return Ok(Ok(()));
        };
        if let Some(refusal) = response.error.take() {
            self.bind_refused(at, index, refusal)?;
            return Ok(Ok(()));
        }
        let url = response.url.clone();
        let id = response.id.clone();
        let endpoint = &mut self.endpoints[index];
        let outage_logged = endpoint.legs[at].outage.has_started();
        let gone = match labelled {
            false => endpoint.bound(at, response),
            true => endpoint.started(at, response.id),
        };
        if let Some(gone) = gone {
            self.routes.remove(&gone);
        }
        if !Arc::ptr_eq(config, &endpoint.config)
            && let Ok(target) = endpoint.target()
        {
            // It was changed while the Bind was under way.
            self.routes.set(&id, Arc::new(target));
        }
        let c = &endpoint.config;
        event!(
            info,
            obj = "tunnels",
            "started tunnel",
            name = c.name,
            addr = c.upstream,
            url = url
        );
        if outage_logged {
            event!(warn, obj = "tunnels", "endpoint is back", name = c.name, url = url);
        }
        if endpoint.announced.as_ref() != Some(&url) {
            logging::announce(&match labelled {
                false => format!("{url} -> {}", c.upstream),
                true => format!("{} -> {}", labels(&c.labels), c.upstream),
            });
            endpoint.announced = Some(url);
        }
        if let Some(waiter) = endpoint.waiter.take() {
            let view = endpoint.view();
            if waiter.slot.is_abandoned() {
                self.remove_endpoint(index, None);
            } else {
                self.reply(waiter.slot, Ok(Some((view, waiter.created))));
            }
        }
        Ok(Ok(()))
    }

    /// The edge refuses an endpoint. At the start that ends the program: the user is
    /// watching. Whoever asked for it is told; later it concerns that endpoint alone.
    fn bind_refused(&mut self, at: usize, index: usize, refusal: Refusal) -> Result<(), Refusal> {
        let now = sys::clock();
        let at_start = self.when() == When::Start;
        let endpoint = &mut self.endpoints[index];
        let elsewhere = endpoint.is_up();
        if !elsewhere && let Some(waiter) = endpoint.waiter.take() {
            self.reply(waiter.slot, Err(StartError::Refused(refusal)));
            self.remove_endpoint(index, None);
            return Ok(());
        }
        if at_start && endpoint.configured && endpoint.binding().is_none() {
            return Err(refusal);
        }
        let is_final = codes::bind_verdict(refusal.code, When::Reconnect) == Verdict::Final;
        let name = endpoint.config.name.clone();
        let on = &mut endpoint.legs[at];
        on.failures = on.failures.saturating_add(1);
        let wait = (MIN_REBIND_WAIT * 2u32.pow(on.failures.min(6) - 1)).min(MAX_REBIND_WAIT);
        on.state = if is_final { BindState::Refused } else { BindState::RetryAt(now + wait) };
        let say = on.outage.allows(now);
        let held = refusal.code == Some(codes::URL_ONLINE) && on.binding.is_some();
        endpoint.why = match held {
            true => format!("{refusal}: the edge may still hold it for our last session"),
            false => refusal.to_string(),
        };
        if say || is_final {
            let retry = if is_final { "no".to_owned() } else { seconds(wait) };
            let (why, addr) = (&endpoint.why, &self.legs[at].address);
            event!(
                error,
                obj = "tunnels",
                "endpoint refused by the edge",
                name = name,
                err = why,
                retry = retry,
                addr = addr
            );
        }
        Ok(())
    }

    /// The edge took an endpoint down: it stays down, on all legs (protocol 1, 7.4).
    pub(super) fn taken_down(&mut self, stop: &StopTunnel) {
        self.routes.remove(&stop.id);
        let Some(index) = self.endpoints.iter().position(|e| e.ids().any(|id| *id == stop.id))
        else {
            return;
        };
        self.unbind_everywhere(index, Some(&stop.id), None);
        let endpoint = &mut self.endpoints[index];
        endpoint.down = Some(stop.message.clone());
        for on in &mut endpoint.legs {
            on.state = BindState::Refused;
        }
        event!(
            error,
            obj = "tunnels",
            "the edge stopped an endpoint",
            name = endpoint.config.name,
            err = stop.message,
            code = stop.error_code
        );
    }

    /// When a refused endpoint is tried again.
    pub(super) fn next_rebind(&self, leg: usize) -> Deadline {
        let later = self.endpoints.iter().filter(|e| e.down.is_none());
        let later = later.filter_map(|e| match e.legs[leg].state {
            BindState::RetryAt(at) => Some(Deadline::At(at)),
            _ => None,
        });
        later.min().unwrap_or(Deadline::Never)
    }
}

/// The answer to a Bind; that to its labelled form has an id only.
fn bind_answer(bytes: &[u8], labelled: bool) -> Result<BindResponse, DecodeError> {
    if !labelled {
        return BindResponse::decode(bytes);
    }
    let StartTunnelWithLabelResponse { id, error } = StartTunnelWithLabelResponse::decode(bytes)?;
    Ok(BindResponse { id, error, ..BindResponse::default() })
}

fn labels(labels: &[(String, String)]) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}
