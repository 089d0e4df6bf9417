//! `request-body-find-replace` and `response-body-find-replace`: replace text in bodies. The body
//! of a request is read whole, that of a response is changed while it passes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::body_failures::BodyFailures;
use crate::edge::policy::phases::{PhaseState, RequestPhase, ResponsePhase, Scope, body_too_long};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::replace::{FirstMatch, ReplaceError, Replacement, replace_bytes};
use crate::edge::policy::replace_stream::ReplaceStream;
use crate::edge::policy::replacement_text::ReplacementText;

/// Replacements of one action.
const MAX_REPLACEMENTS: usize = 10;

/// Longest body of a request, before and after the replacement.
const MAX_BODY_BYTES: usize = 1024 * 1024;

const TOO_SLOW: ActionError =
    ActionError("a regular expression of the policy takes too long for the body");

#[derive(Debug)]
struct BodyFindReplace {
    replacements: Vec<ReplacementText>,
    failures: BodyFailures,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["replacements"]);
    let entries = replacements(config)?;
    let read = |entry: &ConfigReader<'_>| {
        entry.known_keys(&["from", "to"]);
        ReplacementText::read(entry)
    };
    let replacements = entries.iter().map(read).collect::<Option<_>>()?;
    Some(Arc::new(BodyFindReplace { replacements, failures: BodyFailures::default() }))
}

/// Returns the configured replacements. `None` after a fault.
pub(super) fn replacements<'a>(config: &ConfigReader<'a>) -> Option<Vec<ConfigReader<'a>>> {
    config.required_children("replacements", MAX_REPLACEMENTS, "needs at least one replacement.")
}

/// Returns the matches as the variables of an action.
fn result(matches: &[FirstMatch]) -> Value {
    let one =
        |m: &FirstMatch| json!({ "replacement_index": m.replacement, "matched_content": m.text });
    json!({ "replacements": matches.iter().map(one).collect::<Vec<_>>() })
}

impl BodyFindReplace {
    fn resolve(&self, scope: &Scope<'_>) -> Result<Vec<Replacement>, ActionError> {
        self.replacements.iter().map(|text| text.resolve(scope)).collect()
    }
}

impl PolicyAction for BodyFindReplace {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let replacements = self.resolve(&phase.scope())?;
        let mut codings = phase.request.fields.values("content-encoding");
        if codings.any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            // The text is not readable, and must not pass unchanged.
            let text = "This endpoint does not accept bodies with a content coding.";
            return Ok(PolicyFlow::Respond(Reply::new(415, 0, text)));
        }
        let body = match phase.body(MAX_BODY_BYTES) {
            Ok(body) => body,
            Err(reply) => return Ok(PolicyFlow::Respond(reply)),
        };
        let mut matches = Vec::new();
        let changed = match replace_bytes(body, &replacements, MAX_BODY_BYTES, &mut matches) {
            Ok(changed) => changed,
            Err(ReplaceError::TooLong) => {
                return Ok(PolicyFlow::Respond(body_too_long(MAX_BODY_BYTES)));
            }
            Err(ReplaceError::TooSlow) => return Err(TOO_SLOW),
        };
        if let Some(changed) = changed {
            phase.edits.set_body(changed);
        }
        phase.vars_mut().set_result("request_body_find_replace", result(&matches));
        Ok(PolicyFlow::Continue)
    }

    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        let replacements = self.resolve(&phase.scope())?;
        let stream = ReplaceStream::new(replacements);
        let change = self.failures.logged(stream, &phase.scope());
        phase.head.change_body(change)?;
        Ok(PolicyFlow::Continue)
    }

    fn changes_bodies(&self) -> bool {
        true
    }
}
