//! `add-headers` and `remove-headers`: header lines of a request on its way to the upstream, or
//! of a response on its way to the visitor.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::config::modules;
use crate::edge::actions::action::ActionError;
use crate::edge::actions::edits::HeaderLine;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::catalog::PolicyPhase;
use crate::edge::policy::phases::{PhaseState, RequestPhase, ResponsePhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;
use crate::edge::policy::vars::PolicyVars;
use crate::http1::text::host_of;

/// Headers of one action.
const MAX_HEADERS: usize = 10;

#[derive(Debug)]
struct AddHeaders {
    lines: Vec<(Arc<str>, InterpolatedText)>,
}

#[derive(Debug)]
struct RemoveHeaders {
    names: Vec<Arc<str>>,
}

/// Returns why a header cannot be changed in this phase.
fn check(phase: PolicyPhase, name: &str) -> Option<&'static str> {
    match (phase, name) {
        (PolicyPhase::HttpRequest, "user-agent")
        | (PolicyPhase::HttpResponse, "ngrok-error-code") => Some("cannot be changed."),
        _ => None,
    }
}

pub(super) fn add(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["headers"]);
    if !config.require("headers") {
        return None;
    }
    let lines = config.header_lines("headers", MAX_HEADERS, |name| check(config.phase, name));
    config.not_empty("headers", "must not be empty.");
    let invalid_host = |(name, value): &(Arc<str>, InterpolatedText)| {
        let host = value.fixed().filter(|_| &**name == "host");
        host.is_some_and(|host| host_of(host.as_bytes()).is_none())
    };
    if config.phase == PolicyPhase::HttpRequest && lines.iter().any(invalid_host) {
        config.fault("headers", 2211, "has a 'host' that is not a host with or without a port.");
    }
    if lines.is_empty() {
        return None;
    }
    Some(Arc::new(AddHeaders { lines }))
}

pub(super) fn remove(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["headers"]);
    if !config.require("headers") {
        return None;
    }
    let mut names = config.header_names("headers", MAX_HEADERS, |name| check(config.phase, name));
    config.not_empty("headers", "must not be empty.");
    if names.is_empty() {
        return None;
    }
    // A request without `Host` has no destination.
    names.retain(|name| config.phase != PolicyPhase::HttpRequest || &**name != "host");
    Some(Arc::new(RemoveHeaders { names }))
}

const INVALID: ActionError = ActionError("a header of the policy has an invalid value");

/// Returns the value of a configured header. An expression must not end the line.
pub(super) fn value_of(
    name: &str,
    value: &InterpolatedText,
    scope: &Scope<'_>,
) -> Result<Arc<str>, ActionError> {
    let value = value.shared(scope)?;
    modules::check_header_value(name, &value).map_err(|_| INVALID)?;
    Ok(value)
}

/// Result of `add-headers`: the added lines, if a rule reads results.
struct AddedHeaders(Option<Map<String, Value>>);

impl AddedHeaders {
    fn new(vars: &PolicyVars) -> Self {
        AddedHeaders(vars.keeps_results().then(Map::new))
    }

    fn record(&mut self, name: &str, value: &str) {
        if let Some(lines) = &mut self.0 {
            lines.insert(name.to_owned(), value.into());
        }
    }

    fn store(self, vars: &mut PolicyVars) {
        if let Some(lines) = self.0 {
            vars.set_result("add_headers", json!({ "headers_added": lines }));
        }
    }
}

impl PolicyAction for AddHeaders {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let mut added = AddedHeaders::new(&phase.vars);
        for (name, value) in &self.lines {
            let value = value_of(name, value, &phase.scope())?;
            added.record(name, &value);
            let name = Arc::clone(name);
            match &*name {
                "host" if host_of(value.as_bytes()).is_none() => return Err(INVALID),
                "host" => phase.edits.set_host(&value),
                _ => phase.edits.add(&HeaderLine { name, value }),
            }
        }
        added.store(&mut phase.vars);
        Ok(PolicyFlow::Continue)
    }

    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        let mut added = AddedHeaders::new(&phase.vars);
        for (name, value) in &self.lines {
            let value = value_of(name, value, &phase.scope())?;
            added.record(name, &value);
            phase.head.add(name, value.as_bytes().to_vec());
        }
        added.store(&mut phase.vars);
        Ok(PolicyFlow::Continue)
    }
}

impl RemoveHeaders {
    /// Stores the result: the names of the headers that exist.
    fn store_result(&self, vars: &mut PolicyVars, exists: impl Fn(&str) -> bool) {
        vars.set_result_with("remove_headers", || {
            let names = self.names.iter().map(|name| &**name);
            json!({ "headers_removed": names.filter(|name| exists(name)).collect::<Vec<_>>() })
        });
    }
}

impl PolicyAction for RemoveHeaders {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let (fields, added) = (phase.request.fields, phase.edits.added());
        self.store_result(&mut phase.vars, |name| {
            fields.first(name).is_some() || added.iter().any(|line| &*line.name == name)
        });
        self.names.iter().for_each(|name| phase.edits.remove(name));
        Ok(PolicyFlow::Continue)
    }

    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        let head = &*phase.head;
        self.store_result(&mut phase.vars, |name| head.values(name).next().is_some());
        self.names.iter().for_each(|name| phase.head.remove(name));
        Ok(PolicyFlow::Continue)
    }
}
