//! `jwt-validation`: each configured token of the request must be signed by a key of its issuer
//! and have the allowed claims. Tokens are verified in [`crate::edge::jwt`].

use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::modules;
use crate::edge::actions::action::{ActionError, Reply};
use crate::edge::fetch::cache::FetchCache;
use crate::edge::fetch::{FetchError, FetchErrorKind};
use crate::edge::jwt::JwtFault;
use crate::edge::jwt::algorithm::JwsAlgorithm;
use crate::edge::jwt::claims::ClaimRules;
use crate::edge::jwt::key_set::{JwkSet, is_unknown_key};
use crate::edge::jwt::token::SignedToken;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{PhaseState, RequestPhase, Scope};
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedText;
use crate::event;
use crate::http1::text::{percent_decoded, query_pairs};
use crate::logging::rate_limit::LineQuota;
use crate::net::url::Url;
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// Bounds of the configuration.
const MAX_ISSUERS: usize = 16;
const MAX_TOKENS: usize = 4;
const MAX_URLS: usize = 8;

/// Longest body with a token.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Log lines about keys that cannot be fetched.
static KEY_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(10));

/// Types of tokens; only `at+jwt` changes what is accepted.
const TYPES: &[&str] = &["jwt", "id_token", "access_token", "at+jwt", "it+jwt", "plain"];

#[derive(Debug)]
struct JwtValidation {
    issuers: Vec<InterpolatedText>,
    audiences: Vec<InterpolatedText>,
    tokens: Vec<TokenSource>,
    algorithms: Vec<JwsAlgorithm>,
    key_urls: Vec<InterpolatedText>,
    keys: Arc<FetchCache<JwkSet>>,
}

/// Where a request has a token.
#[derive(Debug)]
struct TokenSource {
    in_body: bool,
    name: InterpolatedText,
    prefix: Option<InterpolatedText>,
    /// Whether the header must have this type (RFC 9068 section 4).
    is_access_token: bool,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["issuer", "audience", "http", "jws"]);
    let complete = ["issuer", "http", "jws"].map(|key| config.require(key));
    if complete.contains(&false) {
        return None;
    }
    let issuers = allow_list(&config.child("issuer")?, true)?;
    let audiences = match config.child("audience") {
        Some(audience) => allow_list(&audience, false)?,
        None => Vec::new(),
    };
    let http = config.child("http")?;
    http.known_keys(&["tokens"]);
    if !http.require("tokens") {
        return None;
    }
    let tokens: Vec<TokenSource> =
        http.children("tokens", MAX_TOKENS).iter().filter_map(token_source).collect();
    if tokens.is_empty() {
        http.fault("tokens", 2223, "must have at least one token.");
        return None;
    }
    let jws = config.child("jws")?;
    jws.known_keys(&["allowed_algorithms", "keys"]);
    let (algorithms, key_urls) = (algorithms(&jws)?, key_urls(&jws)?);
    let keys = config.environment.services.logins()?.keys.clone();
    Some(Arc::new(JwtValidation { issuers, audiences, tokens, algorithms, key_urls, keys }))
}

fn allow_list(config: &ConfigReader<'_>, required: bool) -> Option<Vec<InterpolatedText>> {
    config.known_keys(&["allow_list"]);
    let entries = config.children("allow_list", MAX_ISSUERS);
    let values: Vec<InterpolatedText> = entries
        .iter()
        .filter_map(|entry| {
            entry.known_keys(&["value"]);
            entry.required_template("value")
        })
        .collect();
    if values.is_empty() && required {
        config.fault("allow_list", 2223, "must have at least one entry.");
        return None;
    }
    Some(values)
}

fn token_source(config: &ConfigReader<'_>) -> Option<TokenSource> {
    config.known_keys(&["type", "method", "name", "prefix"]);
    let given = ["type", "method"].map(|key| config.require(key));
    let kind = config.choice("type", TYPES);
    let in_body = config.choice("method", &["header", "body"]) == "body";
    let name = config.required_template("name")?;
    let is_invalid = |name: &str| modules::check_header_name(name).is_err();
    if !in_body && name.fixed().is_some_and(is_invalid) {
        config.fault("name", 2210, "is not a valid name of a header.");
    }
    let prefix = match config.has("prefix") {
        true => Some(config.template("prefix")?),
        false => None,
    };
    (!given.contains(&false)).then_some(())?;
    Some(TokenSource { in_body, name, prefix, is_access_token: kind == "at+jwt" })
}

fn algorithms(jws: &ConfigReader<'_>) -> Option<Vec<JwsAlgorithm>> {
    let known = JwsAlgorithm::ALL.map(JwsAlgorithm::name);
    let names = jws.texts("allowed_algorithms", known.len());
    if names.is_empty() {
        jws.fault("allowed_algorithms", 2223, "must have at least one algorithm.");
        return None;
    }
    let found: Option<Vec<JwsAlgorithm>> =
        names.iter().map(|name| JwsAlgorithm::from_name(name)).collect();
    if found.is_none() {
        let reason = format!("must be of {}.", known.join(", "));
        jws.fault("allowed_algorithms", 2222, reason);
    }
    found
}

/// Returns the URLs of the key sets. `keys` and `sources` are a mapping, or a list of them.
fn key_urls(jws: &ConfigReader<'_>) -> Option<Vec<InterpolatedText>> {
    let mut urls = Vec::new();
    for keys in mappings(jws, "keys") {
        keys.known_keys(&["identification", "sources"]);
        for sources in mappings(&keys, "sources") {
            sources.known_keys(&["additional_jkus"]);
            urls.extend(sources.templates("additional_jkus", MAX_URLS));
        }
    }
    if urls.is_empty() {
        jws.fault("keys", 2223, "must have sources with additional_jkus.");
        return None;
    }
    if urls.len() > MAX_URLS {
        jws.fault("keys", 2218, format!("has more than {MAX_URLS} URLs."));
    }
    let is_invalid =
        |url: &InterpolatedText| url.fixed().is_some_and(|url| Url::parse(url).is_err());
    if urls.iter().any(is_invalid) {
        let reason = "must have http:// or https:// URLs without a user in additional_jkus.";
        jws.fault("keys", 2226, reason);
    }
    Some(urls)
}

fn mappings<'a>(config: &ConfigReader<'a>, key: &str) -> Vec<ConfigReader<'a>> {
    match config.value(key) {
        Some(serde_yaml::Value::Sequence(_)) => config.children(key, MAX_URLS),
        _ => config.child(key).into_iter().collect(),
    }
}

impl PolicyAction for JwtValidation {
    fn request(&self, phase: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        match self.read_tokens(phase) {
            Ok(tokens) => {
                phase.vars_mut().set_result("jwt_validation", json!({ "tokens": tokens }));
                Ok(PolicyFlow::Continue)
            }
            Err(TokenError::Refused(reply)) => Ok(PolicyFlow::Respond(reply)),
            Err(TokenError::Failed(error)) => Err(error),
        }
    }
}

/// Why a token is not accepted.
enum TokenError {
    /// The token is missing or invalid. The reply ends the request.
    Refused(Reply),
    /// The action cannot decide.
    Failed(ActionError),
}

impl From<Reply> for TokenError {
    fn from(reply: Reply) -> Self {
        TokenError::Refused(reply)
    }
}

impl From<ActionError> for TokenError {
    fn from(error: ActionError) -> Self {
        TokenError::Failed(error)
    }
}

impl From<JwtFault> for TokenError {
    fn from(fault: JwtFault) -> Self {
        TokenError::Refused(refuse(fault))
    }
}

impl JwtValidation {
    /// Returns the variables of the tokens, if all of them are accepted.
    fn read_tokens(&self, phase: &mut RequestPhase<'_>) -> Result<Vec<Value>, TokenError> {
        let read = |source: &TokenSource| {
            let text = source.read(phase)?;
            self.check(&text, source, phase)
        };
        self.tokens.iter().map(read).collect()
    }

    /// Returns the variables of an accepted token.
    fn check(
        &self,
        text: &str,
        source: &TokenSource,
        phase: &RequestPhase<'_>,
    ) -> Result<Value, TokenError> {
        let scope = phase.scope();
        let render = |texts: &[InterpolatedText]| -> Result<Vec<String>, ActionError> {
            texts.iter().map(|text| text.render(&scope).map(|text| text.into_owned())).collect()
        };
        let (issuers, audiences) = (render(&self.issuers)?, render(&self.audiences)?);
        let urls = render(&self.key_urls)?;
        let token = SignedToken::parse(text)?;
        if source.is_access_token && !is_access_token(&token) {
            return Err(JwtFault::Malformed("its type is not at+jwt").into());
        }
        self.verify(&token, &urls, phase)?;
        let rules = ClaimRules {
            issuers: &issuers,
            audiences: &audiences,
            needs_expiry: source.is_access_token,
            now: phase.input.unix_seconds,
        };
        rules.check(&token.claims)?;
        let location = if source.in_body { "body" } else { "header" };
        Ok(json!({
            "header": token.header,
            "location": location,
            "location_property": source.name.render(&scope)?,
            "payload": token.claims,
            "signature": token.signature_text,
            "verified": true,
        }))
    }

    /// Verifies a signature with the key sets, in their order.
    fn verify(
        &self,
        token: &SignedToken<'_>,
        urls: &[String],
        phase: &RequestPhase<'_>,
    ) -> Result<(), Reply> {
        let now = phase.input.now;
        let mut last = None;
        let mut failure = None;
        for url in urls {
            let verify = |set: &JwkSet| set.verify(token, &self.algorithms);
            match self.keys.read(url, now, verify, is_unknown_key) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(fault)) => last = Some(fault),
                Err(error) => failure = Some(error),
            }
        }
        // Without all keys it is not known whether the token is valid.
        match (failure, last) {
            (Some(error), _) => Err(keys_failed(&error, now)),
            (None, last) => Err(refuse(last.unwrap_or(JwtFault::UnknownKey))),
        }
    }
}

impl TokenSource {
    /// Returns the token of a request.
    fn read(&self, phase: &mut RequestPhase<'_>) -> Result<String, TokenError> {
        let scope = phase.scope();
        let name = self.name.render(&scope)?.into_owned();
        let prefix = match &self.prefix {
            Some(prefix) => prefix.render(&scope)?.into_owned(),
            None => String::new(),
        };
        let value = match self.in_body {
            false => header(&scope, &name)?,
            true => body(phase, &name)?,
        };
        // Names of schemes have no case (RFC 9110 11.1).
        let start = value.get(..prefix.len());
        match start.is_some_and(|start| start.eq_ignore_ascii_case(&prefix)) {
            true => Ok(value[prefix.len()..].trim().to_owned()),
            false => Err(missing(3413, format!("The prefix '{prefix}' was not found.")).into()),
        }
    }
}

fn header(scope: &Scope<'_>, name: &str) -> Result<String, Reply> {
    let request = scope.request.ok_or_else(|| missing(3406, "The request has no token."))?;
    let mut values = request.fields.values(name);
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(String::from_utf8_lossy(value).into_owned()),
        (None, _) => Err(missing(3408, format!("The request has no header '{name}'."))),
        // The upstream could read the other one.
        (Some(_), Some(_)) => Err(missing(3401, format!("The header '{name}' appears twice."))),
    }
}

fn body(phase: &mut RequestPhase<'_>, name: &str) -> Result<String, Reply> {
    let method = String::from_utf8_lossy(phase.request.method).into_owned();
    if !["POST", "PUT", "PATCH"].contains(&&*method) {
        let text = format!("A request with the method {method} has no token in its body.");
        return Err(missing(3415, text));
    }
    let kind = phase.request.fields.first("content-type").unwrap_or_default();
    let kind = String::from_utf8_lossy(kind).to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
    let body = phase.body(MAX_BODY_BYTES)?;
    match &*kind {
        "application/json" => {
            let value: Value = serde_json::from_slice(body)
                .map_err(|_| missing(3411, "The body of the request is not JSON."))?;
            let members = value.as_object().into_iter().flatten();
            let mut named = members.filter(|(key, _)| key.eq_ignore_ascii_case(name));
            one(
                named.next().and_then(|(_, v)| v.as_str()).map(str::to_owned),
                named.next().is_some(),
            )
        }
        "application/x-www-form-urlencoded" => {
            let text = std::str::from_utf8(body)
                .map_err(|_| missing(3412, "The body of the request is not a form."))?;
            let mut named = query_pairs(text).filter_map(|(key, value)| {
                let key = percent_decoded(key, true)?;
                key.eq_ignore_ascii_case(name).then(|| percent_decoded(value, true))
            });
            one(named.next().flatten(), named.next().is_some())
        }
        _ => Err(missing(3414, "The type of the body is neither JSON nor a form.")),
    }
}

fn one(value: Option<String>, has_more: bool) -> Result<String, Reply> {
    match value {
        Some(value) if !has_more => Ok(value),
        _ => Err(missing(3406, "The body of the request has no token, or several.")),
    }
}

fn is_access_token(token: &SignedToken<'_>) -> bool {
    let kind = token.header.get("typ").and_then(Value::as_str).unwrap_or_default();
    ["at+jwt", "application/at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known))
}

fn missing(code: u32, text: impl Into<String>) -> Reply {
    let mut reply = Reply::new(401, code, text);
    reply.fields.push(("WWW-Authenticate".into(), "Bearer".into()));
    reply
}

fn refuse(fault: JwtFault) -> Reply {
    let mut reply = Reply::new(401, 3401, format!("The token was not accepted: {fault}."));
    reply.fields.push(("WWW-Authenticate".into(), "Bearer error=\"invalid_token\"".into()));
    reply
}

fn keys_failed(error: &FetchError, now: Instant) -> Reply {
    if let Some(count) = KEY_LINES.lock().record(now) {
        event!(warn, obj = "edge", "cannot fetch keys", count = count, err = error);
    }
    let status = if error.kind == FetchErrorKind::Timeout { 504 } else { 502 };
    Reply::new(status, 0, "The keys that verify the token could not be fetched. Try again.")
}
