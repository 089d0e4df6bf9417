//! `url-rewrite`: changes the URL that the upstream gets. The visitor does not see it.

use std::sync::Arc;

use serde_json::json;

use super::url_rule::{UrlRule, current_url};
use crate::edge::actions::action::ActionError;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::rewrite::request_target;
use crate::http1::text::host_of;

const INVALID: ActionError = ActionError("url-rewrite has made a URL that is not valid");

#[derive(Debug)]
struct UrlRewrite {
    rule: UrlRule,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["from", "to"]);
    Some(Arc::new(UrlRewrite { rule: UrlRule::read(config)? }))
}

impl PolicyAction for UrlRewrite {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let Some(url) = current_url(phase) else { return Ok(PolicyFlow::Continue) };
        let Some(changed) = self.rule.apply(&url, &phase.scope())? else {
            phase
                .vars_mut()
                .set_result_with("url_rewrite", || json!({ "matches": [], "url": url }));
            return Ok(PolicyFlow::Continue);
        };
        let new = request_target(&changed.url).ok_or(INVALID)?;
        if let Some(authority) = new.authority
            && authority.as_bytes() != phase.request.authority
        {
            host_of(authority.as_bytes()).ok_or(INVALID)?;
            phase.edits.set_host(&authority.into());
        }
        let slash = if new.target.starts_with('/') { "" } else { "/" };
        phase.edits.set_target(format!("{slash}{}", new.target));
        let result = json!({ "matches": changed.matches, "url": changed.url });
        phase.vars_mut().set_result("url_rewrite", result);
        Ok(PolicyFlow::Continue)
    }
}
