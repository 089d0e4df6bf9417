//! Keys of the REST API: which one a request has, and what it must not be.

use std::net::SocketAddr;

use super::error::ApiError;
use super::http::ApiHttpRequest;
use crate::edge::store::ObjectKind;
use crate::edge::{Edge, token};
use crate::proto::base64;
use crate::proto::secret::Secret;
use crate::sys;

/// Longest key.
const MAX_KEY_BYTES: usize = 256;

/// Id of the key in the state directory.
pub const LOCAL_KEY: &str = "local";

/// Returns the id of the key of a request.
pub fn authenticate(
    edge: &Edge,
    peer: SocketAddr,
    request: &ApiHttpRequest,
) -> Result<String, ApiError> {
    let restrictions = &edge.config().restrictions.rest;
    if !peer.ip().is_loopback() && !restrictions.admits(peer.ip()) {
        let text =
            format!("An IP restriction of this edge refuses API requests from {}.", peer.ip());
        return Err(ApiError::new(403, 220, text));
    }
    let key = key_of(request.authorization.as_deref())?;
    let hash = token::hash(key.expose());
    // It is also accepted from a locked address: it cannot be guessed, and the operator needs it.
    if edge.api.is_local_key(&hash) {
        return Ok(LOCAL_KEY.to_owned());
    }
    let now = sys::clock();
    if edge.api.is_locked(peer.ip(), now) {
        let text = "Too many requests with invalid API keys from this address. Try again later.";
        return Err(ApiError { retry_after: Some(60), ..ApiError::new(429, 226, text) });
    }
    let found = check(edge, &key, &hash);
    if found.is_err() {
        edge.api.record_failure(peer.ip(), now);
    }
    found
}

/// Returns the key in `Authorization`: a bearer token, or user or password of Basic.
fn key_of(authorization: Option<&str>) -> Result<Secret, ApiError> {
    let Some(text) = authorization.map(str::trim).filter(|text| !text.is_empty()) else {
        let text = "The API key is missing. Send it as 'Authorization: Bearer KEY'.";
        return Err(ApiError::new(401, 200, text));
    };
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Secret::new(rest.trim()));
    }
    if scheme.eq_ignore_ascii_case("basic")
        && let Some(pair) = base64::decode(rest.trim()).and_then(|b| String::from_utf8(b).ok())
    {
        let (user, password) = pair.split_once(':').unwrap_or((&pair, ""));
        return Ok(Secret::new(if password.is_empty() { user } else { password }));
    }
    let text = "The field Authorization is malformed. Send 'Authorization: Bearer KEY'.";
    Err(ApiError::new(401, 201, text))
}

fn check(edge: &Edge, key: &Secret, hash: &str) -> Result<String, ApiError> {
    let text = key.expose();
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if text.is_empty() || text.len() > MAX_KEY_BYTES || !text.bytes().all(good) {
        let text = "The API key is malformed: it has letters, digits and '_' only.";
        return Err(ApiError::new(401, 202, text));
    }
    if ObjectKind::ALL.iter().any(|kind| token::is_ksuid(kind.prefix(), text)) {
        let text = "This is the id of an object, not an API key. The key was shown when it was \
                    created.";
        return Err(ApiError::new(401, 207, text));
    }
    // All keys are compared: the time must not depend on which one is similar.
    let table = edge.accounts.table();
    let mut found = None;
    for object in table.of_kind(ObjectKind::ApiKey) {
        let stored = object.secret.as_deref().unwrap_or_default();
        if token::constant_time_eq(stored, hash) {
            found = Some(object.id.clone());
        }
    }
    if found.is_none() && edge.config().credentials.by_hash(hash).is_some() {
        let text = "This is an authtoken of agents, not an API key.";
        return Err(ApiError::new(401, 206, text));
    }
    found.ok_or_else(|| {
        ApiError::new(401, 203, "The API key is unknown to this edge, or was removed.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_both_schemes() {
        for text in
            ["Bearer k_1", "bearer  k_1 ", "Basic a18xOg==", "Basic OmtfMQ==", "basic YTprXzE="]
        {
            assert_eq!(key_of(Some(text)).unwrap().expose(), "k_1", "{text}");
        }
        for (text, code) in
            [(None, 200), (Some(" "), 200), (Some("k_1"), 201), (Some("Basic !"), 201)]
        {
            assert_eq!(key_of(text).unwrap_err().code, code, "{text:?}");
        }
    }
}
