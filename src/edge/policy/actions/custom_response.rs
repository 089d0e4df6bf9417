//! `custom-response`: ends the request with a response of the policy, or replaces the response
//! of the upstream with one.

use std::borrow::Cow;
use std::sync::Arc;

use super::headers;
use crate::edge::actions::action::{ActionError, Reply, ReplyContent};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase, ResponsePhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;

/// Statuses of a response.
const STATUSES: std::ops::RangeInclusive<u64> = 200..=599;

const MAX_HEADERS: usize = 10;

/// Longest body. A longer text is a file for an upstream.
const MAX_BODY_BYTES: usize = 256 * 1024;

#[derive(Debug)]
struct CustomResponse {
    status: u16,
    body: Option<InterpolatedText>,
    headers: Vec<(Arc<str>, InterpolatedText)>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["status_code", "body", "content", "headers"]);
    let status = u16::try_from(config.integer("status_code", 200, STATUSES)).ok()?;
    // The older name of the body.
    let key = if config.has("content") { "content" } else { "body" };
    if config.has("content") && config.has("body") {
        config.fault("content", 2231, "is the same as body; use one of them.");
    }
    if config.text(key).is_some_and(|text| text.len() > MAX_BODY_BYTES) {
        config.fault(key, 2221, format!("has more than {MAX_BODY_BYTES} bytes."));
        return None;
    }
    let body = config.template(key);
    let headers = config.header_lines("headers", MAX_HEADERS, |name| {
        (name == "ngrok-error-code").then_some("cannot be set.")
    });
    Some(Arc::new(CustomResponse { status, body, headers }))
}

impl CustomResponse {
    fn reply(&self, scope: &Scope<'_>) -> Result<Reply, ActionError> {
        let body = match &self.body {
            Some(body) => body.render(scope)?.into_owned(),
            None => String::new(),
        };
        let mut reply = Reply::new(self.status, 0, "");
        let mut kind = None;
        for (name, value) in &self.headers {
            let value = headers::value_of(name, value, scope)?;
            match &**name {
                "content-type" => kind = Some(Cow::Owned(value.to_string())),
                _ => reply.fields.push((Cow::Owned(name.to_string()), value.to_string())),
            }
        }
        let kind = kind.unwrap_or_else(|| infer_type(&body).into());
        reply.content = Some(ReplyContent { kind, body });
        Ok(reply)
    }
}

impl PolicyAction for CustomResponse {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        self.reply(&phase.scope()).map(PolicyFlow::Respond)
    }

    fn response(&self, phase: &mut ResponsePhase<'_, '_>) -> Result<PolicyFlow, ActionError> {
        self.reply(&phase.scope()).map(PolicyFlow::Respond)
    }
}

/// Returns the type of a body by its first characters; empty for an empty body.
fn infer_type(body: &str) -> &'static str {
    let text = body.trim();
    let starts = |prefix: &str| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if text.is_empty() {
        ""
    } else if starts("<!doctype html") || starts("<html") || starts("<head") || starts("<body") {
        "text/html; charset=utf-8"
    } else if starts("<?xml") {
        "text/xml; charset=utf-8"
    } else if text.starts_with(['{', '['])
        && serde_json::from_str::<serde_json::Value>(text).is_ok()
    {
        "application/json"
    } else {
        "text/plain; charset=utf-8"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_that_of_the_text() {
        for (body, kind) in [
            ("", ""),
            ("hello", "text/plain; charset=utf-8"),
            ("\n<!DOCTYPE HTML><p>", "text/html; charset=utf-8"),
            ("<?xml version='1.0'?>", "text/xml; charset=utf-8"),
            ("{\"a\": 1}", "application/json"),
            ("{a}", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(infer_type(body), kind, "{body:?}");
        }
    }
}
