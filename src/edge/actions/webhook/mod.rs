//! `WebhookVerification`: the signature of a provider over the body of each request, checked
//! before the request reaches the upstream. Which provider signs how is in [`providers`].

mod form;
pub mod providers;

use std::fmt;

use ring::hmac;

use self::providers::{Encoding, Provider, Scheme};
use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use crate::edge::token::unhex;
use crate::http1::text::decimal;
use crate::proto::base64;

/// Longest body whose signature is checked.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Greatest difference between the time in a signature and the clock.
const MAX_AGE_SECONDS: u64 = 300;

/// Longest value of a header with signatures.
const MAX_SIGNATURE_BYTES: usize = 4096;

/// Checks the signature of each request.
pub struct WebhookVerification {
    provider: &'static Provider,
    /// The secret as given, for providers that send it.
    token: Vec<u8>,
    key: hmac::Key,
}

impl fmt::Debug for WebhookVerification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookVerification").field("provider", &self.provider.name).finish()
    }
}

impl WebhookVerification {
    /// Returns an action for this provider. The error is the fault of the secret.
    pub fn new(provider: &'static Provider, secret: &str) -> Result<Self, &'static str> {
        let bytes = match provider.scheme {
            Scheme::Svix { .. } => {
                let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
                base64::decode(encoded).ok_or("is not 'whsec_' and base64")?
            }
            _ => secret.as_bytes().to_vec(),
        };
        let key = hmac::Key::new(provider.scheme.algorithm(), &bytes);
        Ok(WebhookVerification { provider, token: secret.as_bytes().to_vec(), key })
    }

    fn verify(&self, request: &RequestInfo<'_>) -> bool {
        let body = request.body;
        let time = |name: &str| one(request, name).filter(|at| is_recent(at, request));
        match &self.provider.scheme {
            Scheme::Body { header, prefix, encoding, .. } => {
                // Several signatures are separated by commas.
                let value = one(request, header).unwrap_or_default();
                let mut candidates = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                candidates.any(|signature| {
                    let signature = signature.strip_prefix(prefix.as_bytes());
                    signature.is_some_and(|s| self.matches(s, *encoding, &[body]))
                })
            }
            Scheme::TimeAndBody { header, time, signature } => {
                let value = one(request, header).unwrap_or_default();
                let at = parts(value, time).next().unwrap_or_default();
                let mut candidates = parts(value, signature);
                is_recent(at, request)
                    && candidates.any(|s| self.matches(s, Encoding::Hex, &[at, b".", body]))
            }
            Scheme::VersionTimeBody { header, time: at, version } => {
                let (Some(value), Some(at)) = (one(request, header), time(at)) else {
                    return false;
                };
                let version = version.as_bytes();
                let signature = value.strip_prefix(version).and_then(|s| s.strip_prefix(b"="));
                let signed = [version, b":", at, b":", body];
                signature.is_some_and(|s| self.matches(s, Encoding::Hex, &signed))
            }
            Scheme::Svix { prefix } => {
                let id = one(request, &format!("{prefix}-id"));
                let at = time(&format!("{prefix}-timestamp"));
                let (Some(id), Some(at)) = (id, at) else { return false };
                let value = one(request, &format!("{prefix}-signature")).unwrap_or_default();
                let signed = [id, b".", at, b".", body];
                value.split(|b| *b == b' ').any(|signature| {
                    let signature = signature.strip_prefix(b"v1,");
                    signature.is_some_and(|s| self.matches(s, Encoding::Base64, &signed))
                })
            }
            Scheme::TimeThenBody { header, time: at } => {
                let (Some(value), Some(at)) = (one(request, header), one(request, at)) else {
                    return false;
                };
                self.matches(value, Encoding::Base64, &[at, body])
            }
            Scheme::Token { header } => one(request, header).is_some_and(|value| {
                // Both through a MAC, so that the comparison takes the same time.
                let tag = hmac::sign(&self.key, &self.token);
                hmac::verify(&self.key, value, tag.as_ref()).is_ok()
            }),
            Scheme::UrlAndForm { header } => {
                one(request, header).is_some_and(|value| self.verify_url(value, request))
            }
            Scheme::JsonFields => self.verify_json(request),
        }
    }

    /// Verifies Twilio's form: the URL, then the fields of the body.
    fn verify_url(&self, signature: &[u8], request: &RequestInfo<'_>) -> bool {
        let scheme: &[u8] = if request.tls { b"https://" } else { b"http://" };
        let form = form::sorted(request.fields, request.body);
        let mut signed = vec![scheme, request.authority, request.target];
        for (name, content) in &form {
            signed.extend([&**name, &**content]);
        }
        self.matches(signature, Encoding::Base64, &signed)
    }

    /// Verifies Mailgun's form: time, token and signature are in the body.
    fn verify_json(&self, request: &RequestInfo<'_>) -> bool {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(request.body) else {
            return false;
        };
        let text = |name: &str| value["signature"][name].as_str().map(str::as_bytes);
        let (Some(time), Some(token), Some(signature)) =
            (text("timestamp"), text("token"), text("signature"))
        else {
            return false;
        };
        is_recent(time, request) && self.matches(signature, Encoding::Hex, &[time, token])
    }

    /// Returns whether `signature` is the MAC of `parts`.
    fn matches(&self, signature: &[u8], encoding: Encoding, parts: &[&[u8]]) -> bool {
        let Ok(text) = std::str::from_utf8(signature) else { return false };
        let decoded = match encoding {
            Encoding::Hex => unhex(text),
            Encoding::Base64 => base64::decode(text),
        };
        let Some(decoded) = decoded else { return false };
        let mut context = hmac::Context::with_key(&self.key);
        parts.iter().for_each(|part| context.update(part));
        let tag = context.sign();
        // Of two tags under the key: `verify` compares in constant time.
        let of = |bytes: &[u8]| hmac::sign(&self.key, bytes);
        hmac::verify(&self.key, &decoded, of(tag.as_ref()).as_ref()).is_ok()
    }
}

/// Returns the value of a header that occurs once.
fn one<'a>(request: &RequestInfo<'a>, name: &str) -> Option<&'a [u8]> {
    let mut values = request.fields.values(name);
    match (values.next(), values.next()) {
        (Some(value), None) if value.len() <= MAX_SIGNATURE_BYTES => Some(value),
        _ => None,
    }
}

/// Returns whether a time in seconds or milliseconds is near the clock.
fn is_recent(time: &[u8], request: &RequestInfo<'_>) -> bool {
    let time = decimal(time.trim_ascii());
    let seconds = time.map(|t| if t > 100_000_000_000 { t / 1000 } else { t });
    seconds.is_some_and(|t| t.abs_diff(request.unix_seconds) <= MAX_AGE_SECONDS)
}

/// Returns the values of the parts `name=VALUE` that are separated by commas.
fn parts<'a>(value: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let parts = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    parts.filter_map(|part| part.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

impl RequestAction for WebhookVerification {
    fn run(&self, request: &RequestInfo<'_>, _: &mut HeaderEdits) -> Result<Flow, ActionError> {
        if self.verify(request) {
            return Ok(Flow::Continue);
        }
        let text = format!(
            "The request has no valid signature of {}. Check that both sides have the same \
             secret, and the clock.",
            self.provider.name
        );
        Ok(Flow::Respond(Reply::new(403, 3204, text)))
    }

    fn body_limit(&self) -> Option<usize> {
        Some(MAX_BODY_BYTES)
    }
}

#[cfg(test)]
mod tests;
