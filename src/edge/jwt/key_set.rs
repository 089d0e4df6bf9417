//! The keys of an issuer (RFC 7517 section 5), and the selection of the one for a token.

use serde_json::Value;

use super::JwtFault;
use super::algorithm::JwsAlgorithm;
use super::jwk::PublicJwk;
use super::token::SignedToken;

/// Keys of a set.
const MAX_KEYS: usize = 128;

/// Signatures that are computed for one token without a key id.
const MAX_ATTEMPTS: usize = 8;

/// Returns whether a newer set may have the key of a token.
pub fn is_unknown_key<T>(result: &Result<T, JwtFault>) -> bool {
    matches!(result, Err(JwtFault::UnknownKey))
}

/// Public keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct JwkSet {
    keys: Vec<PublicJwk>,
}

impl JwkSet {
    /// Reads a set. Keys for other purposes and of unknown kinds are skipped.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|_| "it is not JSON")?;
        let keys = value.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("it is not a key set: 'keys' is missing")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("it has {} keys, the maximum is {MAX_KEYS}", keys.len()));
        }
        Ok(JwkSet { keys: keys.iter().filter_map(PublicJwk::parse).collect() })
    }

    /// Verifies the signature of a token, whose algorithm must be in `allowed`.
    pub fn verify(
        &self,
        token: &SignedToken<'_>,
        allowed: &[JwsAlgorithm],
    ) -> Result<(), JwtFault> {
        let algorithm = JwsAlgorithm::from_name(&token.algorithm)
            .filter(|algorithm| allowed.contains(algorithm))
            .ok_or(JwtFault::Algorithm)?;
        // A key without an id may be any of them.
        let may_be = |key: &PublicJwk| match (&token.key_id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            (None, _) | (_, None) => true,
        };
        let candidates = || self.keys.iter().filter(|key| may_be(key) && key.fits(algorithm));
        if candidates().next().is_none() {
            return Err(match self.keys.iter().any(may_be) && token.key_id.is_some() {
                // The key exists, for another algorithm.
                true => JwtFault::Algorithm,
                false => JwtFault::UnknownKey,
            });
        }
        let verifies = |key: &PublicJwk| key.verifies(algorithm, token.signed, &token.signature);
        match candidates().take(MAX_ATTEMPTS).any(verifies) {
            true => Ok(()),
            false => Err(JwtFault::Signature),
        }
    }
}
