//! `WebhookVerification`: the signature of a provider over the body of each request, checked
//! before the request reaches the upstream. Which provider signs how is in [`providers`].

mod form;
pub mod providers;

use std::fmt;

use ring::hmac;

use self::providers::{Encoding, Provider, Scheme};
use super::edits::HeaderEdits;
use super::{ActionError, Flow, Reply, RequestAction, RequestInfo};
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
    /// Returns an action for this provider. The error says what is wrong with the secret.
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
        let fields = request.fields;
        let one = |name: &str| {
            let mut values = fields.values(name);
            match (values.next(), values.next()) {
                (Some(value), None) if value.len() <= MAX_SIGNATURE_BYTES => Some(value),
                _ => None,
            }
        };
        let recent = |time: &[u8]| {
            let seconds = std::str::from_utf8(time).ok().and_then(|t| t.trim().parse::<u64>().ok());
            // Some providers count milliseconds.
            let seconds = seconds.map(|t| if t > 100_000_000_000 { t / 1000 } else { t });
            seconds.is_some_and(|t| t.abs_diff(request.unix_seconds) <= MAX_AGE_SECONDS)
        };
        match &self.provider.scheme {
            Scheme::Body { header, prefix, encoding, .. } => one(header).is_some_and(|value| {
                // Several signatures are separated by commas.
                let mut candidates = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                candidates.any(|signature| {
                    let signature = signature.strip_prefix(prefix.as_bytes());
                    signature.is_some_and(|s| self.matches(s, *encoding, &[request.body]))
                })
            }),
            Scheme::TimeAndBody { header, time, signature } => one(header).is_some_and(|value| {
                let at = parts(value, time).next().unwrap_or_default();
                let signed = [at, b".", request.body];
                let mut candidates = parts(value, signature);
                recent(at) && candidates.any(|s| self.matches(s, Encoding::Hex, &signed))
            }),
            Scheme::VersionTimeBody { header, time, version } => {
                let (Some(value), Some(at)) = (one(header), one(time)) else { return false };
                let signature =
                    value.strip_prefix(version.as_bytes()).and_then(|rest| rest.strip_prefix(b"="));
                let signed = [version.as_bytes(), b":", at, b":", request.body];
                recent(at) && signature.is_some_and(|s| self.matches(s, Encoding::Hex, &signed))
            }
            Scheme::Svix { prefix } => {
                let named = |part: &str| one(&format!("{prefix}-{part}"));
                let (Some(id), Some(at), Some(value)) =
                    (named("id"), named("timestamp"), named("signature"))
                else {
                    return false;
                };
                let signed = [id, b".", at, b".", request.body];
                let mut candidates = value.split(|b| *b == b' ');
                recent(at)
                    && candidates.any(|signature| {
                        let signature = signature.strip_prefix(b"v1,");
                        signature.is_some_and(|s| self.matches(s, Encoding::Base64, &signed))
                    })
            }
            Scheme::TimeThenBody { header, time } => {
                let (Some(value), Some(at)) = (one(header), one(time)) else { return false };
                self.matches(value, Encoding::Base64, &[at, request.body])
            }
            Scheme::Token { header } => one(header).is_some_and(|value| {
                // Both through a MAC, so that the comparison takes the same time.
                let tag = hmac::sign(&self.key, &self.token);
                hmac::verify(&self.key, value, tag.as_ref()).is_ok()
            }),
            Scheme::UrlAndForm { header } => one(header).is_some_and(|value| {
                let scheme: &[u8] = if request.tls { b"https://" } else { b"http://" };
                let form = form::sorted(request.fields, request.body);
                let mut signed = vec![scheme, request.authority, request.target];
                for (name, content) in &form {
                    signed.extend([&**name, &**content]);
                }
                self.matches(value, Encoding::Base64, &signed)
            }),
            Scheme::JsonFields => self.verify_json(request.body, recent),
        }
    }

    /// Mailgun's form: time, token and signature are in the body.
    fn verify_json(&self, body: &[u8], recent: impl Fn(&[u8]) -> bool) -> bool {
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
        let text = |name: &str| value["signature"][name].as_str().map(str::as_bytes);
        let (Some(time), Some(token), Some(signature)) =
            (text("timestamp"), text("token"), text("signature"))
        else {
            return false;
        };
        recent(time) && self.matches(signature, Encoding::Hex, &[time, token])
    }

    /// Returns whether `signature` is the MAC of `parts`.
    fn matches(&self, signature: &[u8], encoding: Encoding, parts: &[&[u8]]) -> bool {
        let Ok(text) = std::str::from_utf8(signature) else { return false };
        let decoded = match encoding {
            Encoding::Hex => hex(text),
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

/// Returns the values of the parts `name=VALUE` that are separated by commas.
fn parts<'a>(value: &'a [u8], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let parts = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    parts.filter_map(|part| part.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()).collect()
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
