//! `forward-internal`: another endpoint of the same account serves the visitor, with its own
//! policy. Only endpoints whose host ends in `.internal` can be its target.

use std::sync::Arc;

use serde_json::json;

use crate::edge::actions::action::ActionError;
use crate::edge::agents::address::{InternalAddress, Protocol};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::catalog::PolicyPhase;
use crate::edge::policy::phases::{ConnectPhase, InternalFault, PhaseState, RequestPhase};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;

#[derive(Debug)]
struct ForwardInternal {
    url: InterpolatedText,
    /// Whether the next action runs if the endpoint cannot serve the visitor.
    goes_on: bool,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["url", "on_error", "binding"]);
    // Older policies name the binding of the target, which is the only one possible.
    config.choice("binding", &["internal"]);
    let protocol = config.environment.protocol;
    if config.phase == PolicyPhase::TcpConnect && protocol == Protocol::Http {
        let reason = "must be in on_http_request for an HTTP endpoint.";
        config.fault_here(2205, reason);
        return None;
    }
    let goes_on = config.choice("on_error", &["halt", "continue"]) == "continue";
    let url = config.required_template("url")?;
    match url.fixed().map(InternalAddress::parse) {
        Some(Err(reason)) => config.fault("url", 2226, reason),
        Some(Ok(address)) if address.protocol != protocol => {
            config.fault("url", 2205, "must have the protocol of this endpoint.");
        }
        _ => {}
    }
    Some(Arc::new(ForwardInternal { url, goes_on }))
}

impl ForwardInternal {
    /// Returns the URL if its endpoint is online; else why not.
    fn find(
        &self,
        phase: &mut dyn PhaseState,
    ) -> Result<Result<String, InternalFault>, ActionError> {
        let scope = phase.scope();
        let url = self.url.render(&scope)?.into_owned();
        let endpoint = scope.input.endpoint;
        let found = scope.input.services.check_internal(endpoint.account, endpoint.protocol, &url);
        let mut result = json!({ "url": url });
        if let Err(fault) = &found {
            let code = format!("ERR_NGROK_{}", fault.code);
            result["error"] = json!({ "code": code, "message": fault.text });
        }
        phase.vars_mut().set_result("forward_internal", result);
        Ok(found.map(|()| url))
    }
}

impl PolicyAction for ForwardInternal {
    fn connect(&self, phase: &mut ConnectPhase<'_>) -> Result<PolicyFlow, ActionError> {
        Ok(match self.find(phase)? {
            Ok(url) => PolicyFlow::Forward(url),
            Err(_) if self.goes_on => PolicyFlow::Continue,
            Err(_) => PolicyFlow::Close,
        })
    }

    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        Ok(match self.find(phase)? {
            Ok(url) => PolicyFlow::Forward(url),
            Err(_) if self.goes_on => PolicyFlow::Continue,
            Err(fault) => PolicyFlow::Respond(fault.into_reply()),
        })
    }
}
