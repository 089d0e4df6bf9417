//! `WebhookVerification`: the signature of a provider over the body of each request, checked
//! before the request reaches the upstream. Which provider signs how is in [`providers`].

mod challenge;
mod form;
mod mac;
mod parts;
pub mod providers;
mod special;
mod time;

use std::fmt;

use ring::hmac;

use self::mac::KeyedMac;
use self::parts::one;
use self::providers::{Challenge, Provider, Scheme};
use super::action::{ActionError, Flow, Reply, RequestAction, RequestInfo};
use super::edits::HeaderEdits;
use crate::proto::base64;

/// Longest body whose signature is checked.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Number of the error code of a request without a valid signature.
pub const INVALID_SIGNATURE: u32 = 3204;

/// Checks the signature of each request.
pub struct WebhookVerification {
    provider: &'static Provider,
    verifier: Verifier,
}

/// The scheme of a provider with the secret of one endpoint.
enum Verifier {
    Macs(Vec<KeyedMac>),
    /// The tag of the value that this header must have.
    Value {
        header: &'static str,
        key: hmac::Key,
        tag: hmac::Tag,
    },
    /// A scheme of its own.
    Special(fn(&hmac::Key, &RequestInfo<'_>) -> bool, hmac::Key),
    PublicKey(Vec<u8>),
}

impl fmt::Debug for WebhookVerification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookVerification").field("provider", &self.provider.name).finish()
    }
}

impl Verifier {
    /// Returns a comparison with a fixed value. It is made by a MAC, which takes the same time
    /// for all values.
    fn value(header: &'static str, expected: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, expected.as_bytes());
        let tag = hmac::sign(&key, expected.as_bytes());
        Verifier::Value { header, key, tag }
    }

    fn verifies(&self, request: &RequestInfo<'_>) -> bool {
        match self {
            Verifier::Macs(macs) => macs.iter().any(|mac| mac.verifies(request)),
            Verifier::Value { header, key, tag } => {
                let value = one(request, header);
                value.is_some_and(|value| hmac::verify(key, value, tag.as_ref()).is_ok())
            }
            Verifier::Special(verifies, key) => verifies(key, request),
            Verifier::PublicKey(point) => special::ecdsa(point, request),
        }
    }
}

impl WebhookVerification {
    /// Returns an action for this provider. The error is the fault of the secret.
    pub fn new(provider: &'static Provider, secret: &str) -> Result<Self, &'static str> {
        let special = |verifies| {
            Verifier::Special(verifies, hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()))
        };
        let verifier = match provider.scheme {
            Scheme::Macs(macs) => {
                let keyed = macs.iter().map(|mac| KeyedMac::new(mac, secret));
                Verifier::Macs(keyed.collect::<Result<_, _>>()?)
            }
            Scheme::Token(header) => Verifier::value(header, secret),
            Scheme::Basic => {
                let (user, password) = secret.split_once("::").ok_or("is not USER::PASSWORD")?;
                let pair = base64::encode(format!("{user}:{password}").as_bytes());
                Verifier::value("Authorization", &format!("Basic {pair}"))
            }
            Scheme::JsonFields => special(special::json_fields),
            Scheme::JsonEnvelope => special(special::json_envelope),
            Scheme::CanonicalRequest => special(special::canonical_request),
            Scheme::Ecdsa => Verifier::PublicKey(special::public_key(secret)?),
        };
        Ok(WebhookVerification { provider, verifier })
    }

    /// Returns the answer to the provider's check of the address, by one of its functions.
    fn answer(
        &self,
        request: &RequestInfo<'_>,
        by: fn(Challenge, &KeyedMac, &RequestInfo<'_>) -> Option<Reply>,
    ) -> Option<Reply> {
        match (self.provider.challenge, &self.verifier) {
            (Some(challenge), Verifier::Macs(macs)) => by(challenge, macs.first()?, request),
            _ => None,
        }
    }

    fn refusal(&self) -> Reply {
        let text = format!(
            "The request has no valid signature of {}. Check that both sides have the same \
             secret, and the clock.",
            self.provider.name
        );
        let status =
            if self.provider.challenge == Some(Challenge::EmptyEvents) { 401 } else { 403 };
        Reply::new(status, INVALID_SIGNATURE, text)
    }
}

impl RequestAction for WebhookVerification {
    fn run(&self, request: &RequestInfo<'_>, _: &mut HeaderEdits) -> Result<Flow, ActionError> {
        if let Some(reply) = self.answer(request, challenge::answer_unsigned) {
            return Ok(Flow::Respond(reply));
        }
        if !self.verifier.verifies(request) {
            return Ok(Flow::Respond(self.refusal()));
        }
        Ok(match self.answer(request, challenge::answer_signed) {
            Some(reply) => Flow::Respond(reply),
            None => Flow::Continue,
        })
    }

    fn body_limit(&self) -> Option<usize> {
        Some(MAX_BODY_BYTES)
    }
}

#[cfg(test)]
mod tests;
