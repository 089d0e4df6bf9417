//! `redirect`: sends the visitor to another URL. A URL that stays the same passes.

use std::sync::Arc;

use serde_json::json;

use super::headers;
use super::url_rule::{UrlRule, current_url};
use crate::edge::actions::action::{ActionError, Reply, ReplyContent};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;

const STATUSES: std::ops::RangeInclusive<u64> = 300..=399;

const MAX_HEADERS: usize = 10;

#[derive(Debug)]
struct Redirect {
    rule: UrlRule,
    status: u16,
    headers: Vec<(Arc<str>, InterpolatedText)>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["from", "to", "status_code", "headers"]);
    let rule = UrlRule::read(config);
    let status = u16::try_from(config.integer("status_code", 302, STATUSES)).ok()?;
    let headers = config.header_lines("headers", MAX_HEADERS, |name| match name {
        "location" => Some("is set by the action itself."),
        "ngrok-error-code" => Some("cannot be set."),
        _ => None,
    });
    Some(Arc::new(Redirect { rule: rule?, status, headers }))
}

impl PolicyAction for Redirect {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let Some(url) = current_url(phase) else { return Ok(PolicyFlow::Continue) };
        let Some(changed) = self.rule.apply(&url, &phase.scope())? else {
            phase.vars_mut().set_result_with("redirect", || json!({ "matches": [], "url": "" }));
            return Ok(PolicyFlow::Continue);
        };
        let result = json!({ "matches": changed.matches, "url": changed.url });
        phase.vars_mut().set_result("redirect", result);
        let content = Some(ReplyContent { kind: "".into(), body: String::new() });
        let mut reply = Reply { content, ..Reply::new(self.status, 0, "") };
        reply.fields.push(("Location".into(), changed.url));
        for (name, value) in &self.headers {
            let value = headers::value_of(name, value, &phase.scope())?;
            reply.fields.push((name.to_string().into(), value.to_string()));
        }
        Ok(PolicyFlow::Respond(reply))
    }
}
