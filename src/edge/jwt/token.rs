//! A token in compact form: three texts of base64 with dots between them. Nothing in it is
//! true before a key has verified it.

use serde_json::{Map, Value};

use super::JwtFault;
use super::base64url;

/// Longest token.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Parsed token.
#[derive(Clone, Debug)]
pub struct SignedToken<'a> {
    /// Header, with `alg`.
    pub header: Map<String, Value>,
    /// Name of the algorithm.
    pub algorithm: String,
    /// Id of the key; `None` without one.
    pub key_id: Option<String>,
    /// Claims. Not verified.
    pub claims: Map<String, Value>,
    /// Bytes that the signature is over.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    /// The signature as in the token.
    pub signature_text: &'a str,
}

impl<'a> SignedToken<'a> {
    /// Parses a token.
    pub fn parse(text: &'a str) -> Result<Self, JwtFault> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(JwtFault::Malformed("too long"));
        }
        let (signed, signature_text) =
            text.rsplit_once('.').ok_or(JwtFault::Malformed("dots are missing"))?;
        let (header, claims) = signed
            .split_once('.')
            .filter(|(_, claims)| !claims.contains('.'))
            .ok_or(JwtFault::Malformed("it has not three parts"))?;
        let header = object(header, "its header is not a JSON object")?;
        let claims = object(claims, "its claims are not a JSON object")?;
        let signature = base64url::decode(signature_text)
            .ok_or(JwtFault::Malformed("its signature is not base64"))?;
        // Extensions that must be understood (RFC 7515 4.1.11). This edge has none.
        if header.contains_key("crit") {
            return Err(JwtFault::Malformed("it needs an unknown extension"));
        }
        let algorithm = match header.get("alg") {
            Some(Value::String(name)) => name.clone(),
            _ => return Err(JwtFault::Malformed("its header has no algorithm")),
        };
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(JwtFault::Malformed("its key id is not a text")),
        };
        Ok(SignedToken {
            header,
            algorithm,
            key_id,
            claims,
            signed: signed.as_bytes(),
            signature,
            signature_text,
        })
    }
}

fn object(text: &str, otherwise: &'static str) -> Result<Map<String, Value>, JwtFault> {
    let bytes = base64url::decode(text).ok_or(JwtFault::Malformed("a part is not base64"))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(JwtFault::Malformed(otherwise)),
    }
}
