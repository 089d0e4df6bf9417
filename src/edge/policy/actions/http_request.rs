//! `http-request`: sends a request to a server, and puts the response into variables. The
//! server must be one that the edge may connect to.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::agents::address::is_internal;
use crate::edge::fetch::{Fetch, FetchError, FetchErrorKind, FetchRequest, FetchResponse};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::catalog::PolicyPhase;
use crate::edge::policy::phases::{PhaseState, RequestPhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;
use crate::http1::text::percent_encoded;
use crate::net::http_client::Method;
use crate::net::url::Url;

const MAX_PARAMETERS: usize = 32;
const MAX_HEADERS: usize = 10;
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Most bytes of a body in the variables.
const MAX_SHOWN_BYTES: usize = 48 * 1024;

/// Header that counts the requests that led to a request, and their maximum.
const HOPS: &str = "ngrok-req-hops";
const MAX_HOPS: u32 = 3;

/// Time for all of a request.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30);

#[derive(Debug)]
struct OutboundRequest {
    method: Method,
    method_name: &'static str,
    url: InterpolatedText,
    parameters: Vec<(InterpolatedText, InterpolatedText)>,
    headers: Vec<(Arc<str>, InterpolatedText)>,
    body: Option<InterpolatedText>,
    max_redirects: usize,
    timeout: Duration,
    halts: bool,
    fetch: Arc<dyn Fetch>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&[
        "url",
        "method",
        "query_params",
        "headers",
        "body",
        "max_redirects",
        "timeout",
        "retry_condition",
        "on_error",
    ]);
    if config.phase == PolicyPhase::HttpResponse {
        config.fault_here(2202, "this edge sends requests in on_http_request only.");
        return None;
    }
    if config.has("retry_condition") {
        config.fault("retry_condition", 2203, "is not supported by this edge.");
    }
    let method_name =
        config.choice("method", &["GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]);
    let method = match method_name {
        "OPTIONS" => Method::Options,
        name => Method::from_name(name)?,
    };
    let url = config.required_template("url")?;
    if let Some(fixed) = url.fixed()
        && let Err(reason) = check_url(fixed)
    {
        config.fault("url", 2226, reason);
        return None;
    }
    let body = match config.has("body") {
        true => Some(config.template("body")?),
        false => None,
    };
    Some(Arc::new(OutboundRequest {
        method,
        method_name,
        url,
        parameters: parameters(config),
        headers: config.header_lines("headers", MAX_HEADERS, |name| {
            (name == "host" || name == HOPS).then_some("is set by the edge.")
        }),
        body,
        max_redirects: usize::try_from(config.integer("max_redirects", 0, 0..=5)).ok()?,
        timeout: config.duration("timeout", DEFAULT_TIMEOUT, TIMEOUTS),
        halts: config.choice("on_error", &["continue", "halt"]) == "halt",
        fetch: Arc::clone(&config.environment.services.logins()?.fetch),
    }))
}

fn parameters(config: &ConfigReader<'_>) -> Vec<(InterpolatedText, InterpolatedText)> {
    let entries = config.children("query_params", MAX_PARAMETERS);
    let pair = |entry: &ConfigReader<'_>| {
        entry.known_keys(&["key", "value"]);
        for (key, most) in [("key", 128), ("value", 8192)] {
            if entry.text(key).is_some_and(|text| text.chars().count() > most) {
                entry.fault(key, 2221, format!("has more than {most} characters."));
            }
        }
        Some((entry.required_template("key")?, entry.template("value")?))
    };
    entries.iter().filter_map(pair).collect()
}

/// Returns why a URL cannot be requested.
fn check_url(text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|_| "must be a http:// or https:// URL.".to_owned())?;
    match is_internal(url.host.to_ascii_lowercase().trim_end_matches('.')) {
        true => Err("is an internal endpoint; this edge requests other servers only.".to_owned()),
        false => Ok(()),
    }
}

/// A request with its expressions evaluated.
struct RenderedRequest {
    url: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl PolicyAction for OutboundRequest {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let rendered = self.render(&phase.scope())?;
        let result = match check_url(&rendered.url) {
            Ok(()) => self.send(&rendered),
            Err(reason) => {
                Err(FetchError::new(FetchErrorKind::Refused, format!("the URL {reason}")))
            }
        };
        phase.vars_mut().set_result("http_request", self.variables(&rendered, &result));
        if self.halts && result.is_err() {
            let text = "A request that the traffic policy of this endpoint needs has failed.";
            return Ok(PolicyFlow::Respond(Reply::new(502, 0, text)));
        }
        Ok(PolicyFlow::Continue)
    }
}

impl OutboundRequest {
    fn render(&self, scope: &Scope<'_>) -> Result<RenderedRequest, ActionError> {
        let mut url = self.url.render(scope)?.into_owned();
        for (name, value) in &self.parameters {
            let (name, value) = (name.render(scope)?, value.render(scope)?);
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&percent_encoded(name.as_bytes()));
            url.push('=');
            url.push_str(&percent_encoded(value.as_bytes()));
        }
        let mut headers = Vec::with_capacity(self.headers.len() + 2);
        for (name, value) in &self.headers {
            headers.push((name.to_string(), value.render(scope)?.into_owned()));
        }
        let client = scope.input.connection.client.ip().to_string();
        headers.push(("x-forwarded-for".to_owned(), client));
        let hops = hops(scope);
        headers.push((HOPS.to_owned(), hops.saturating_add(1).to_string()));
        let body = match &self.body {
            Some(body) => Some(body.render(scope)?.into_owned()),
            None => None,
        };
        if hops >= MAX_HOPS {
            return Err(ActionError("a request of the policy leads to itself"));
        }
        Ok(RenderedRequest { url, headers, body })
    }

    fn send(&self, request: &RenderedRequest) -> Result<FetchResponse, FetchError> {
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        self.fetch.fetch(&FetchRequest {
            method: self.method,
            url: &request.url,
            headers: &headers,
            body: request.body.as_ref().map(|body| body.as_bytes()),
            limit: MAX_BODY_BYTES,
            max_redirects: self.max_redirects,
            timeout: self.timeout,
            trusted: false,
        })
    }

    fn variables(
        &self,
        request: &RenderedRequest,
        result: &Result<FetchResponse, FetchError>,
    ) -> Value {
        let header = |lines: &[(String, String)]| {
            let mut map = Map::new();
            for (name, value) in lines {
                let values = map.entry(name.clone()).or_insert_with(|| json!([]));
                if let Some(values) = values.as_array_mut() {
                    values.push(json!(value));
                }
            }
            Value::Object(map)
        };
        let mut variables = json!({"req": {
            "method": self.method_name,
            "header": header(&request.headers),
            "url": request.url,
            "body": request.body.as_deref().unwrap_or_default(),
        }});
        match result {
            Ok(response) => {
                let address = response.address.map(|ip| ip.to_string()).unwrap_or_default();
                let (shown, _) = response.body.split_at(response.body.len().min(MAX_SHOWN_BYTES));
                variables["attempts"] = json!([{
                    "resolved_ip": address,
                    "response_header": header(&response.headers),
                    "response_status_code": response.status,
                }]);
                variables["res"] = json!({
                    "resolved_ip": address,
                    "header": header(&response.headers),
                    "status_code": response.status,
                    "body": String::from_utf8_lossy(shown),
                });
            }
            Err(error) => {
                variables["error"] = json!({"code": "", "message": error.to_string()});
            }
        }
        variables
    }
}

/// Returns the number of requests of policies that led to this request.
fn hops(scope: &Scope<'_>) -> u32 {
    let value = scope.request.and_then(|request| request.fields.first(HOPS));
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
