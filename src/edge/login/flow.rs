//! The messages of a login: the URL for the browser, the exchange of the code, and the checks
//! of what the provider returns. Sans-IO.

use ring::digest::{SHA256, digest};
use serde_json::Value;

use super::endpoints::LoginEndpoints;
use super::profile::CLAIMS;
use super::session::{LoginIdentity, ProviderTokens};
use crate::edge::jwt::algorithm::JwsAlgorithm;
use crate::edge::jwt::claims::{ClaimRules, audiences};
use crate::edge::jwt::key_set::JwkSet;
use crate::edge::jwt::token::SignedToken;
use crate::edge::jwt::{JwtFault, base64url};
use crate::edge::token::constant_time_eq;
use crate::http1::text::{percent_decoded, percent_encoded, printable, query_pairs};
use crate::proto::base64;
use crate::proto::secret::Secret;

/// Longest id of a person (OpenID Connect Core 2).
const MAX_SUBJECT_BYTES: usize = 255;

/// The edge as a client of a provider.
#[derive(Clone, Copy, Debug)]
pub struct LoginClient<'a> {
    /// Id.
    pub id: &'a str,
    /// Secret; empty for a public client.
    pub secret: &'a Secret,
}

/// Parts of a URL that begins a login.
#[derive(Clone, Copy, Debug)]
pub struct AuthorizationRequest<'a> {
    /// Id of the client.
    pub client_id: &'a str,
    /// URL of the edge that gets the response.
    pub redirect_uri: &'a str,
    /// Scopes with blanks between them.
    pub scopes: &'a str,
    /// Parameter `state`.
    pub state: &'a str,
    /// Claim of the ID token; `None` for OAuth.
    pub nonce: Option<&'a str>,
    /// Secret of PKCE.
    pub verifier: &'a str,
    /// Whether the provider must show its form again.
    pub force: bool,
    /// Parameters of the configuration. They replace none of the above.
    pub extra: &'a [(String, String)],
}

/// Names of parameters that a configuration may not set.
pub const RESERVED_PARAMETERS: &[&str] = &[
    "client_id",
    "client_secret",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// Returns the URL at which a browser begins a login.
pub fn authorization_url(endpoints: &LoginEndpoints, request: &AuthorizationRequest<'_>) -> String {
    let challenge = base64url::encode(digest(&SHA256, request.verifier.as_bytes()).as_ref());
    let mut parameters = vec![
        ("response_type", "code"),
        ("client_id", request.client_id),
        ("redirect_uri", request.redirect_uri),
        ("scope", request.scopes),
        ("state", request.state),
    ];
    if let Some(nonce) = request.nonce {
        parameters.push(("nonce", nonce));
    }
    if endpoints.pkce {
        parameters.push(("code_challenge", &challenge));
        parameters.push(("code_challenge_method", "S256"));
    }
    let forced = request.extra.iter().any(|(name, _)| name == "prompt");
    if request.force && request.nonce.is_some() && !forced {
        parameters.push(("prompt", "login"));
    }
    let extra = request.extra.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    parameters.extend(extra.filter(|(name, _)| !RESERVED_PARAMETERS.contains(name)));
    let separator = if endpoints.authorization.contains('?') { '&' } else { '?' };
    format!("{}{separator}{}", endpoints.authorization, form(&parameters))
}

/// Returns names and values as a form.
fn form(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| percent_encoded(text.as_bytes());
    let pairs = pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Returns a parameter of a query; `None` if it is missing or appears twice.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    let is_named = |key: &str| percent_decoded(key, true).as_deref() == Some(name);
    let found = query_pairs(query).filter(|(key, _)| is_named(key));
    let mut found = found.map(|(_, value)| percent_decoded(value, true));
    let value = found.next()?;
    if found.next().is_some() { None } else { value }
}

/// Exchange of a code for tokens.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Body, a form.
    pub body: String,
    /// Value of `Authorization`.
    pub authorization: Option<String>,
}

/// Returns the request for the tokens of a code.
pub fn token_request(
    endpoints: &LoginEndpoints,
    client: LoginClient<'_>,
    code: &str,
    redirect_uri: &str,
    verifier: &str,
) -> TokenRequest {
    let mut pairs =
        vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", redirect_uri)];
    if endpoints.pkce {
        pairs.push(("code_verifier", verifier));
    }
    let secret = client.secret.expose();
    // RFC 6749 2.3.1: both are encoded as in a form before they are joined.
    let basic = endpoints.basic_auth && !secret.is_empty();
    let authorization = basic.then(|| {
        let [id, secret] = [client.id, secret].map(|text| percent_encoded(text.as_bytes()));
        format!("Basic {}", base64::encode(format!("{id}:{secret}").as_bytes()))
    });
    if !basic {
        pairs.push(("client_id", client.id));
        if !secret.is_empty() {
            pairs.push(("client_secret", secret));
        }
    }
    TokenRequest { body: form(&pairs), authorization }
}

/// Reads the response to an exchange. The error is for the log.
pub fn tokens(status: u16, bytes: &[u8]) -> Result<ProviderTokens, String> {
    let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    if status != 200 || !text("error").is_empty() {
        let error = printable(text("error").as_bytes());
        return Err(format!("the token endpoint returned {status} {error}"));
    }
    let tokens = ProviderTokens {
        identity: text("id_token").to_owned(),
        access: text("access_token").to_owned(),
        refresh: text("refresh_token").to_owned(),
    };
    match tokens.identity.is_empty() && tokens.access.is_empty() {
        true => Err("the token endpoint returned no token".to_owned()),
        false => Ok(tokens),
    }
}

/// What an ID token must be.
#[derive(Clone, Copy, Debug)]
pub struct IdTokenRules<'a> {
    /// Issuer.
    pub issuer: &'a str,
    /// Id of the client.
    pub client_id: &'a str,
    /// Claim `nonce`.
    pub nonce: &'a str,
    /// Wall clock, in seconds since 1970.
    pub now: u64,
}

/// Checks an ID token (OpenID Connect Core 3.1.3.7) and returns its identity.
pub fn check_id_token(
    keys: &JwkSet,
    token: &SignedToken<'_>,
    rules: &IdTokenRules<'_>,
) -> Result<LoginIdentity, JwtFault> {
    keys.verify(token, &JwsAlgorithm::ALL)?;
    let claims = &token.claims;
    ClaimRules {
        issuers: &[rules.issuer.to_owned()],
        audiences: &[rules.client_id.to_owned()],
        needs_expiry: true,
        now: rules.now,
    }
    .check(claims)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // With several audiences the token names the client that it was made for.
    let several = audiences(claims).is_some_and(|list| list.len() > 1);
    if (several || claims.contains_key("azp")) && text("azp") != Some(rules.client_id) {
        return Err(JwtFault::Claim("azp"));
    }
    let nonce = text("nonce").unwrap_or_default();
    if !constant_time_eq(nonce, rules.nonce) {
        return Err(JwtFault::Claim("nonce"));
    }
    let subject = text("sub").filter(|sub| (1..=MAX_SUBJECT_BYTES).contains(&sub.len()));
    subject.ok_or(JwtFault::Claim("sub"))?;
    CLAIMS.identity(&Value::Object(claims.clone())).ok_or(JwtFault::Claim("sub"))
}

/// Returns whether an identity is one of the allowed ones. Empty lists allow every account
/// of the provider.
pub fn is_allowed(identity: &LoginIdentity, domains: &[String], emails: &[String]) -> bool {
    if domains.is_empty() && emails.is_empty() {
        return true;
    }
    let email = identity.email.as_str();
    let Some((_, domain)) = email.rsplit_once('@') else { return false };
    let is_of = |allowed: &str| allowed.trim_start_matches('@').eq_ignore_ascii_case(domain);
    emails.iter().any(|allowed| allowed.eq_ignore_ascii_case(email))
        || domains.iter().any(|allowed| is_of(allowed))
}

#[cfg(test)]
mod tests;
