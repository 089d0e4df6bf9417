//! Signed JSON Web Tokens (RFC 7519 in the compact form of RFC 7515): parsing, keys (RFC 7517),
//! signatures and claims. Sans-IO: keys come from the caller. What a login or a policy does with
//! a token is not here.
//!
//! A key decides which algorithms it may have, and the caller which of them are allowed. The
//! header of a token only selects among both. It never brings a key: `jwk`, `jku`, `x5c` and
//! `x5u` are not read.

pub mod algorithm;
pub mod base64url;
pub mod claims;
pub mod jwk;
pub mod key_set;
pub mod token;

use std::fmt;

/// Why a token is not valid. The texts have no part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtFault {
    /// It is not a signed token in compact form.
    Malformed(&'static str),
    /// Its algorithm is not allowed or not known.
    Algorithm,
    /// None of the keys has its id.
    UnknownKey,
    /// No key made its signature.
    Signature,
    /// A claim is missing or has the wrong type.
    Claim(&'static str),
    /// Its issuer is not allowed.
    Issuer,
    /// It is for another audience.
    Audience,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYet,
}

impl fmt::Display for JwtFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            JwtFault::Malformed(what) => return write!(f, "it is not a signed JWT: {what}"),
            JwtFault::Claim(name) => return write!(f, "its claim '{name}' is missing or invalid"),
            JwtFault::Algorithm => "its algorithm is not allowed",
            JwtFault::UnknownKey => "it was signed with an unknown key",
            JwtFault::Signature => "its signature is not valid",
            JwtFault::Issuer => "its issuer is not allowed",
            JwtFault::Audience => "it is for another audience",
            JwtFault::Expired => "it has expired",
            JwtFault::NotYet => "it is not valid yet",
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests;
