//! Claims of a verified token: issuer, audience and times.

use serde_json::{Map, Value};

use super::JwtFault;

/// Tolerated difference between the clocks of issuer and edge, in seconds.
const LEEWAY_SECONDS: u64 = 60;

/// What the claims must be.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRules<'a> {
    /// Allowed issuers. The text must be equal.
    pub issuers: &'a [String],
    /// Audiences, of which the token must have one; empty: any.
    pub audiences: &'a [String],
    /// Whether a token must expire.
    pub needs_expiry: bool,
    /// Wall clock, in seconds since 1970.
    pub now: u64,
}

impl ClaimRules<'_> {
    /// Checks the claims of a token.
    pub fn check(&self, claims: &Map<String, Value>) -> Result<(), JwtFault> {
        let issuer = claims.get("iss").and_then(Value::as_str).ok_or(JwtFault::Claim("iss"))?;
        if !self.issuers.iter().any(|allowed| allowed == issuer) {
            return Err(JwtFault::Issuer);
        }
        if !self.audiences.is_empty() {
            let given = audiences(claims).ok_or(JwtFault::Claim("aud"))?;
            if !given.iter().any(|aud| self.audiences.iter().any(|allowed| allowed == aud)) {
                return Err(JwtFault::Audience);
            }
        }
        match seconds(claims, "exp")? {
            Some(expiry) if expiry.saturating_add(LEEWAY_SECONDS) <= self.now => {
                return Err(JwtFault::Expired);
            }
            None if self.needs_expiry => return Err(JwtFault::Claim("exp")),
            _ => {}
        }
        match seconds(claims, "nbf")? {
            Some(start) if start > self.now.saturating_add(LEEWAY_SECONDS) => Err(JwtFault::NotYet),
            _ => Ok(()),
        }
    }
}

/// Returns the audiences of a token: a text or a list of texts. `None` if they are missing or
/// malformed.
pub fn audiences(claims: &Map<String, Value>) -> Option<Vec<&str>> {
    match claims.get("aud")? {
        Value::String(one) => Some(vec![one]),
        Value::Array(list) => list.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Returns a time in seconds since 1970; a part of a second is cut off.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, JwtFault> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(n)) => match (n.as_u64(), n.as_f64()) {
            (Some(whole), _) => Ok(Some(whole)),
            // Saturates: a time that far in the future never comes.
            (None, Some(part)) if part >= 0.0 => Ok(Some(part as u64)),
            _ => Err(JwtFault::Claim(name)),
        },
        Some(_) => Err(JwtFault::Claim(name)),
    }
}
