//! A MAC of the table with its key: finds the signatures in a request and compares them with
//! the one of the signed parts, in constant time.

use ring::hmac;

use super::parts::{self, one};
use super::providers::{Digest, Encoding, KeyForm, Mac, TimePlace};
use super::time;
use crate::edge::actions::action::RequestInfo;
use crate::edge::token::unhex;
use crate::proto::base64;

/// Most signatures in one header.
const MAX_SIGNATURES: usize = 16;

/// A MAC and the key of one endpoint.
pub struct KeyedMac {
    mac: &'static Mac,
    key: hmac::Key,
}

impl KeyedMac {
    /// Returns the MAC with the key in `secret`. The error is the fault of the secret.
    pub fn new(mac: &'static Mac, secret: &str) -> Result<Self, &'static str> {
        let bytes = match mac.key {
            KeyForm::Text => secret.as_bytes().to_vec(),
            KeyForm::Base64 => base64::decode(secret).ok_or("is not base64")?,
            KeyForm::Svix => {
                let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
                base64::decode(encoded).ok_or("is not 'whsec_' and base64")?
            }
        };
        let algorithm = match mac.digest {
            Digest::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Digest::Sha256 => hmac::HMAC_SHA256,
            Digest::Sha512 => hmac::HMAC_SHA512,
        };
        Ok(KeyedMac { mac, key: hmac::Key::new(algorithm, &bytes) })
    }

    /// Returns whether the request has a valid signature and, if one is signed, a recent time.
    pub fn verifies(&self, request: &RequestInfo<'_>) -> bool {
        let mac = self.mac;
        let Some(value) = one(request, mac.header) else { return false };
        let at = match mac.time {
            None => None,
            Some(TimePlace::Header(name)) => one(request, name),
            Some(TimePlace::Element(name)) => {
                elements(value, b',', name).find_map(|rest| rest.strip_prefix(b"="))
            }
        };
        if mac.time.is_some() && !at.is_some_and(|at| time::is_recent(at, request.unix_seconds)) {
            return false;
        }
        let mut context = hmac::Context::with_key(&self.key);
        for part in mac.signed {
            match parts::bytes(*part, request, at) {
                Some(bytes) => context.update(&bytes),
                None => return false,
            }
        }
        let tag = context.sign();
        elements(value, mac.separator, mac.prefix)
            .take(MAX_SIGNATURES)
            .any(|signature| is_tag(&self.key, &tag, signature, mac.encoding))
    }

    /// Returns whether `signature` is the MAC of `bytes`.
    pub fn verifies_bytes(&self, signature: &[u8], bytes: &[u8]) -> bool {
        let signature = signature.strip_prefix(self.mac.prefix.as_bytes());
        let tag = self.sign(bytes);
        signature.is_some_and(|s| is_tag(&self.key, &tag, s, self.mac.encoding))
    }

    /// Returns the MAC of `bytes`.
    pub fn sign(&self, bytes: &[u8]) -> hmac::Tag {
        hmac::sign(&self.key, bytes)
    }

    /// Returns the header with the signatures.
    pub fn header(&self) -> &'static str {
        self.mac.header
    }
}

/// Returns whether the text of a signature is `tag`.
pub fn is_tag(key: &hmac::Key, tag: &hmac::Tag, signature: &[u8], encoding: Encoding) -> bool {
    let Ok(text) = std::str::from_utf8(signature) else { return false };
    let decoded = match encoding {
        Encoding::Hex => unhex(text),
        Encoding::Base64 => base64::decode(text),
    };
    // Compared through another MAC, because `verify` takes the same time for all tags.
    let again = hmac::sign(key, tag.as_ref());
    decoded.is_some_and(|decoded| hmac::verify(key, &decoded, again.as_ref()).is_ok())
}

/// Returns what is behind `prefix` in the elements of a header.
fn elements<'a>(
    value: &'a [u8],
    separator: u8,
    prefix: &'static str,
) -> impl Iterator<Item = &'a [u8]> {
    let elements = value.split(move |b| *b == separator).map(<[u8]>::trim_ascii);
    elements.filter_map(move |element| element.strip_prefix(prefix.as_bytes()))
}
