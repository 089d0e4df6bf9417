//! `http-request`: sends a request, and puts the response into variables. The server is an
//! internal endpoint of the same account, or one that the edge may connect to.

use std::sync::Arc;
use std::time::Duration;

use super::http_attempt::{self, Attempt, RenderedRequest};
use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::agents::address::{InternalAddress, is_internal};
use crate::edge::fetch::{
    Fetch, FetchError, FetchErrorKind, FetchRequest, FetchResponse, redirect,
};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::expression::{EvalBudget, Expression, Value};
use crate::edge::policy::phases::{InternalRequest, PhaseState, PolicyHops, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::request_places::RequestPlace;
use crate::edge::policy::text::InterpolatedText;
use crate::http1::text::percent_encoded;
use crate::net::http_client::{Method, Request};
use crate::net::url::Url;
use crate::sys;
use crate::time::Deadline;

const MAX_PARAMETERS: usize = 32;
const MAX_HEADERS: usize = 10;
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Header that counts the requests that led to a request, and their maximum. The header is for
/// requests that leave this edge and come back: a policy may remove it.
const HOPS: &str = "ngrok-req-hops";
const MAX_HOPS: u32 = 3;

/// Header that marks the requests of policies.
const REQUEST_TYPE: (&str, &str) = ("ngrok-req-type", "http-request");

/// Headers that a policy does not set: they route, frame or mark the request.
const SET_BY_EDGE: [&str; 7] = [
    "host",
    HOPS,
    REQUEST_TYPE.0,
    "connection",
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
];

/// Attempts after the first one.
const MAX_RETRIES: usize = 3;

/// Name of the result in the variables.
const RESULT: &str = "http_request";

/// Variables of `retry_condition`.
const RETRY_VARIABLES: &[&str] = &["attempts", "last_attempt"];

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
    retry_condition: Option<Expression>,
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
    let retry_condition = match config.has("retry_condition") {
        true => Some(config.expression("retry_condition", RETRY_VARIABLES)?),
        false => None,
    };
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
            SET_BY_EDGE.contains(&name).then_some("is set by the edge.")
        }),
        body,
        max_redirects: usize::try_from(config.integer("max_redirects", 0, 0..=5)).ok()?,
        timeout: config.duration("timeout", DEFAULT_TIMEOUT, TIMEOUTS),
        retry_condition,
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
    match is_internal_url(&url) {
        true => InternalAddress::parse(&endpoint_url(&url)).map(drop),
        false => Ok(()),
    }
}

/// Returns a URL without its path and query.
fn endpoint_url(url: &Url) -> String {
    let scheme = if url.secure { "https" } else { "http" };
    format!("{scheme}://{}:{}", url.host, url.port)
}

/// Returns whether a URL is that of an internal endpoint.
fn is_internal_url(url: &Url) -> bool {
    is_internal(url.host.to_ascii_lowercase().trim_end_matches('.'))
}

impl PolicyAction for OutboundRequest {
    fn any(&self, phase: &mut dyn PhaseState) -> Result<PolicyFlow, ActionError> {
        let (request, attempts) = self.run(&phase.scope())?;
        let mut has_failed = attempts.last().is_none_or(|attempt| attempt.result.is_err());
        let result = http_attempt::variables(&request, &attempts);
        let vars = phase.vars_mut();
        if vars.try_set_result(RESULT, result).is_err() {
            has_failed = true;
            vars.set_result(RESULT, http_attempt::without_content(&request, &attempts));
        }
        if self.halts && has_failed {
            let text = "A request that the traffic policy of this endpoint needs has failed.";
            return Ok(PolicyFlow::Respond(Reply::new(502, 0, text)));
        }
        Ok(PolicyFlow::Continue)
    }

    fn may_block(&self) -> bool {
        true
    }
}

impl OutboundRequest {
    /// Sends the request until an attempt is not to be repeated, or the time is over.
    fn run(&self, scope: &Scope<'_>) -> Result<(RenderedRequest, Vec<Attempt>), ActionError> {
        let count = scope.input.hops.count.max(received_hops(scope));
        if count >= MAX_HOPS {
            return Err(ActionError("a request of the policy leads to itself"));
        }
        let (now, spent) = (sys::clock(), scope.made.request_time.get());
        let left = TIMEOUTS.end().saturating_sub(spent);
        if left.is_zero() {
            return Err(ActionError("the requests of the policy took too long"));
        }
        let own_end = now + self.timeout.min(left);
        let end = scope.input.hops.end.map_or(own_end, |end| end.min(own_end));
        let hops = PolicyHops { count: count + 1, end: Some(end) };
        let request = self.render(scope, hops)?;
        // The requests of internal endpoints are a part of the visitor's first one.
        let place = match scope.input.hops.count {
            0 => scope.input.services.request_place(scope.input.endpoint.account),
            _ => Some(RequestPlace::default()),
        };
        if place.is_none() {
            let text = "the credential has too many requests of policies under way";
            let result = Err(FetchError::new(FetchErrorKind::Busy, text));
            return Ok((request, vec![Attempt { result, time: Duration::ZERO }]));
        }
        let mut attempts: Vec<Attempt> = Vec::new();
        loop {
            let start = sys::clock();
            let result = self.send(&request, scope, hops, end.since(start));
            attempts.push(Attempt { result, time: sys::clock().since(start) });
            if attempts.len() > MAX_RETRIES
                || sys::clock() >= end
                || !self.retries(&request, &attempts, scope)
            {
                scope.made.request_time.set(spent + sys::clock().since(now));
                return Ok((request, attempts));
            }
            attempts.iter_mut().for_each(Attempt::release_body);
        }
    }

    /// Returns whether the last attempt is to be repeated. A condition with an error is false.
    fn retries(&self, request: &RenderedRequest, attempts: &[Attempt], scope: &Scope<'_>) -> bool {
        let (Some(condition), Some(last)) = (&self.retry_condition, attempts.last()) else {
            return false;
        };
        let count = i64::try_from(attempts.len()).unwrap_or(i64::MAX);
        let last = Value::from(&http_attempt::last_attempt(request, last));
        let values = vec![Value::Int(count), last];
        condition.is_true_with(scope, values, &mut EvalBudget::new()).unwrap_or(false)
    }

    fn render(&self, scope: &Scope<'_>, hops: PolicyHops) -> Result<RenderedRequest, ActionError> {
        let mut url = self.url.render(scope)?.into_owned();
        let fragment = url.find('#').map(|at| url.split_off(at)).unwrap_or_default();
        for (name, value) in &self.parameters {
            let (name, value) = (name.render(scope)?, value.render(scope)?);
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&percent_encoded(name.as_bytes()));
            url.push('=');
            url.push_str(&percent_encoded(value.as_bytes()));
        }
        url.push_str(&fragment);
        let mut headers = Vec::with_capacity(self.headers.len() + 3);
        for (name, value) in &self.headers {
            headers.push((name.to_string(), value.render(scope)?.into_owned()));
        }
        let client = scope.input.connection.client.ip().to_canonical().to_string();
        headers.push(("x-forwarded-for".to_owned(), client));
        headers.push((HOPS.to_owned(), hops.count.to_string()));
        headers.push((REQUEST_TYPE.0.to_owned(), REQUEST_TYPE.1.to_owned()));
        let body = match &self.body {
            Some(body) => Some(body.render(scope)?.into_owned()),
            None => None,
        };
        Ok(RenderedRequest { method: self.method_name, url, headers, body })
    }

    fn send(
        &self,
        request: &RenderedRequest,
        scope: &Scope<'_>,
        hops: PolicyHops,
        timeout: Duration,
    ) -> Result<FetchResponse, FetchError> {
        let refused = |text: String| FetchError::new(FetchErrorKind::Refused, text);
        check_url(&request.url).map_err(|reason| refused(format!("the URL {reason}")))?;
        let first = Url::parse(&request.url).map_err(refused)?;
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let fetch = FetchRequest {
            method: self.method,
            url: &request.url,
            headers: &headers,
            body: request.body.as_ref().map(|body| body.as_bytes()),
            limit: MAX_BODY_BYTES,
            max_redirects: self.max_redirects,
            timeout,
            trusted: false,
        };
        if !is_internal_url(&first) {
            return self.fetch.fetch(&fetch);
        }
        let deadline = Deadline::At(sys::clock() + timeout);
        let mut outside: Option<String> = None;
        redirect::follow(&fetch, deadline, &mut |url, hop| {
            if !is_internal_url(url) {
                outside = Some(url.authority());
                return self.fetch_once(hop, deadline);
            }
            // A server of the internet may not choose what an internal endpoint gets.
            if let Some(server) = &outside {
                let text = format!("{server} redirects to an internal endpoint");
                return Err(refused(text));
            }
            scope.input.services.request_internal(&InternalRequest {
                account: scope.input.endpoint.account,
                connection: scope.input.connection,
                hops,
                url,
                request: hop,
            })
        })
    }

    /// Sends a request to another server, to which an internal endpoint redirects.
    fn fetch_once(
        &self,
        hop: &Request<'_>,
        deadline: Deadline,
    ) -> Result<FetchResponse, FetchError> {
        self.fetch.fetch(&FetchRequest {
            method: hop.method,
            url: hop.url,
            headers: hop.headers,
            body: hop.body,
            limit: hop.limit,
            max_redirects: 0,
            timeout: deadline.left(sys::clock()).unwrap_or(self.timeout),
            trusted: false,
        })
    }
}

/// Returns the number of requests of policies that led to this request, as its header names it.
fn received_hops(scope: &Scope<'_>) -> u32 {
    let value = scope.request.and_then(|request| request.fields.first(HOPS));
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
