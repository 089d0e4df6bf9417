//! `verify-webhook`: the signature of a provider over the body. The check is that of the option
//! of the same name.

use std::fmt;
use std::sync::Arc;

use serde_json::json;

use crate::edge::actions::action::{ActionError, Flow, RequestAction, RequestInfo};
use crate::edge::actions::edits::HeaderEdits;
use crate::edge::actions::webhook::providers::{self, Provider};
use crate::edge::actions::webhook::{INVALID_SIGNATURE, MAX_BODY_BYTES, WebhookVerification};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;
use crate::http1::text::shortened;
use crate::sys::sync::Mutex;

struct VerifyWebhook {
    provider: &'static Provider,
    secret: InterpolatedText,
    enforce: bool,
    /// The last secret, and what checks with it.
    last: Mutex<Option<(String, Arc<WebhookVerification>)>>,
}

impl fmt::Debug for VerifyWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyWebhook").field("provider", &self.provider.name).finish()
    }
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["provider", "secret", "enforce"]);
    let name = config.required_text("provider");
    let secret = config.required_template("secret");
    let enforce = config.flag("enforce", true);
    let provider = provider(config, &name?)?;
    let secret = secret?;
    let mut last = None;
    if let Some(text) = secret.fixed() {
        match WebhookVerification::new(provider, text) {
            Ok(checker) => last = Some((text.to_owned(), Arc::new(checker))),
            Err(reason) => {
                config.fault("secret", 2204, format!("{reason}."));
                return None;
            }
        }
    }
    Some(Arc::new(VerifyWebhook { provider, secret, enforce, last: Mutex::new(last) }))
}

fn provider(config: &ConfigReader<'_>, name: &str) -> Option<&'static Provider> {
    let name = name.to_ascii_lowercase();
    let found = providers::find(&name);
    if found.is_none() {
        let shown = shortened(&name);
        let reason = match providers::UNSUPPORTED.iter().find(|(other, _)| *other == name) {
            Some((_, reason)) => format!("is {shown}, which this edge cannot verify: {reason}."),
            None => format!("is {shown:?}, which is not a known provider of webhooks."),
        };
        config.fault("provider", 2222, reason);
    }
    found
}

impl VerifyWebhook {
    fn checker(&self, scope: &Scope<'_>) -> Result<Arc<WebhookVerification>, ActionError> {
        let secret = self.secret.render(scope)?;
        let mut last = self.last.lock();
        if let Some((known, checker)) = &*last
            && *known == *secret
        {
            return Ok(Arc::clone(checker));
        }
        let checker = WebhookVerification::new(self.provider, &secret)
            .map_err(|_| ActionError("the secret of verify-webhook is not valid"))?;
        let checker = Arc::new(checker);
        *last = Some((secret.into_owned(), Arc::clone(&checker)));
        Ok(checker)
    }
}

impl PolicyAction for VerifyWebhook {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let checker = self.checker(&phase.scope())?;
        let request = phase.request;
        let body = match phase.body(MAX_BODY_BYTES) {
            Ok(body) => body,
            Err(reply) => return Ok(PolicyFlow::Respond(reply)),
        };
        let request = RequestInfo { body, ..request };
        let flow = checker.run(&request, &mut HeaderEdits::default())?;
        let refused = match &flow {
            Flow::Respond(reply) => reply.code == INVALID_SIGNATURE,
            Flow::Continue => false,
        };
        let result = match refused {
            false => json!({ "verified": true }),
            true => {
                let message = "The request has no valid signature.";
                let error = json!({ "code": "ERR_NGROK_3204", "message": message });
                json!({ "verified": false, "error": error })
            }
        };
        phase.vars_mut().set_result("verify_webhook", result);
        Ok(match flow {
            Flow::Respond(_) if refused && !self.enforce => PolicyFlow::Continue,
            Flow::Respond(reply) => PolicyFlow::Respond(reply),
            Flow::Continue => PolicyFlow::Continue,
        })
    }
}
