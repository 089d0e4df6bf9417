//! Carries out binds: sends them, applies their responses, and handles endpoints that the edge
//! takes down. The order of binds and the meaning of a refusal are in `endpoints`.

use std::sync::Arc;

use super::{CALL_TIMEOUT, Supervisor, seconds};
use crate::agent::endpoint::BindState;
use crate::agent::endpoints::{BindRefusal, BindReport, NextBind};
use crate::agent::leg::CallKind;
use crate::agent::requests::StartError;
use crate::config;
use crate::event;
use crate::logging;
use crate::mux::StreamType;
use crate::proto::DecodeError;
use crate::proto::codes::Refusal;
use crate::proto::messages::{BindResponse, StartTunnelWithLabelResponse, StopTunnel};
use crate::sys;
use crate::time::Instant;

impl Supervisor {
    /// Makes the next call of a leg without a current one: a waiting call, else the next bind.
    pub(super) fn next_call(&mut self, at: usize, now: Instant) -> Result<(), Refusal> {
        while !self.next_pending_call(at, now) {
            let set_up = self.legs[at].is_set_up();
            match self.endpoints.next_bind(at, set_up, now) {
                NextBind::Bind(index) => match self.bind(at, index, now) {
                    Ok(()) => break,
                    // It cannot be served: its directory is missing, for example.
                    Err(e) => self.bind_refused(at, index, Refusal::text(e.to_string()))?,
                },
                NextBind::None if !set_up => self.set_up(at, now),
                NextBind::Wait | NextBind::None => break,
            }
        }
        Ok(())
    }

    /// Sends the Bind of an endpoint, or its labelled form. The route exists before the first
    /// visitor can arrive.
    fn bind(&mut self, at: usize, index: usize, now: Instant) -> std::io::Result<()> {
        let endpoint = &mut self.endpoints[index];
        let mut target = endpoint.target()?;
        let call = CallKind::Bind(endpoint.key, Arc::clone(&endpoint.config));
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
        self.call(at, kind, &request, call, now + CALL_TIMEOUT, Some(Box::new(on_reactor)));
        Ok(())
    }

    /// Handles the response to the Bind of the endpoint with this key.
    pub(super) fn bind_answered(
        &mut self,
        at: usize,
        key: u32,
        config: &Arc<config::Endpoint>,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let mut response = match bind_answer(bytes, !config.labels.is_empty()) {
            Ok(response) => response,
            Err(e) => {
                self.lost(at, &format!("invalid response to Bind: {e}"));
                return Ok(());
            }
        };
        match (self.endpoints.by_key(key), response.error.take()) {
            (Some(index), Some(refusal)) => return self.bind_refused(at, index, refusal),
            (Some(index), None) => self.bound(at, index, config, response),
            // It was removed in the meantime.
            (None, None) => {
                self.routes.remove(&response.id);
                self.unbind(at, response.id, None);
            }
            (None, Some(_)) => {}
        }
        Ok(())
    }

    /// Handles a successful bind of an endpoint that had this configuration at that time.
    fn bound(
        &mut self,
        at: usize,
        index: usize,
        config: &Arc<config::Endpoint>,
        response: BindResponse,
    ) {
        let (id, url) = (response.id.clone(), response.url.clone());
        let BindReport { old_id, after_outage, announce, waiter } =
            self.endpoints.bound(at, index, response);
        if let Some(old_id) = old_id {
            self.routes.remove(&old_id);
        }
        let endpoint = &self.endpoints[index];
        let c = &endpoint.config;
        if !Arc::ptr_eq(config, c)
            && let Ok(target) = endpoint.target()
        {
            // It was changed while the Bind was under way.
            self.routes.set(&id, Arc::new(target));
        }
        event!(
            info,
            obj = "tunnels",
            "started tunnel",
            name = c.name,
            addr = c.upstream,
            url = url
        );
        if after_outage {
            event!(warn, obj = "tunnels", "endpoint is back", name = c.name, url = url);
        }
        if announce {
            let from = if endpoint.is_labelled() { labels(&c.labels) } else { url };
            logging::announce(&format!("{from} -> {}", c.upstream));
        }
        if let Some(waiter) = waiter {
            if waiter.slot.is_abandoned() {
                self.remove(index, None);
            } else {
                let view = endpoint.view();
                self.reply(waiter.slot, Ok(Some((view, waiter.created))));
            }
        }
    }

    /// Handles a refusal of the edge, or an endpoint that cannot be served.
    fn bind_refused(&mut self, at: usize, index: usize, refusal: Refusal) -> Result<(), Refusal> {
        let when = self.legs.when();
        let keep_others = self.shared.config.keep_others;
        match self.endpoints.refused(at, index, refusal, when, keep_others, sys::clock()) {
            BindRefusal::Exit(refusal) => return Err(refusal),
            BindRefusal::Reject(slot, refusal) => {
                self.reply(slot, Err(StartError::Refused(refusal)));
                self.remove(index, None);
            }
            BindRefusal::Keep { retry, log: true } => {
                let endpoint = &self.endpoints[index];
                event!(
                    error,
                    obj = "tunnels",
                    "endpoint refused",
                    name = endpoint.config.name,
                    err = endpoint.why,
                    retry = retry.map_or_else(|| "no".to_owned(), seconds),
                    addr = self.legs[at].address
                );
            }
            BindRefusal::Keep { .. } => {}
        }
        Ok(())
    }

    /// Handles an endpoint that the edge took down.
    pub(super) fn taken_down(&mut self, stop: &StopTunnel) {
        self.routes.remove(&stop.id);
        let Some(index) = self.endpoints.by_id(&stop.id) else { return };
        self.unbind_everywhere(index, Some(&stop.id), None);
        self.endpoints.take_down(index, &stop.message);
        event!(
            error,
            obj = "tunnels",
            "endpoint stopped by the edge",
            name = self.endpoints[index].config.name,
            err = stop.message,
            code = stop.error_code
        );
    }
}

/// Decodes the response to a Bind. The response to a labelled one has an id only.
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
