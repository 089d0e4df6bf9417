//! One public key in JSON (RFC 7517).

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value;

use super::algorithm::{JwsAlgorithm, KeyFamily};
use super::base64url;

/// Longest modulus: 8,192 bits.
const MAX_MODULUS_BYTES: usize = 1024;

/// Longest public exponent that is not slow.
const MAX_EXPONENT_BYTES: usize = 8;

/// Public key of an issuer.
#[derive(Clone, Debug)]
pub struct PublicJwk {
    /// Id; `None` without one.
    pub id: Option<String>,
    /// The only algorithm of the key; `None`: each one of its family.
    algorithm: Option<String>,
    material: KeyMaterial,
}

#[derive(Clone, Debug)]
enum KeyMaterial {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl PublicJwk {
    /// Reads a key. `None`: it is for another purpose, of another kind, or malformed.
    pub fn parse(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let verifies = |operations: &Vec<Value>| operations.iter().any(|op| op == "verify");
        if key.get("key_ops").and_then(Value::as_array).is_some_and(|ops| !verifies(ops)) {
            return None;
        }
        let bytes = |name: &str| text(name).and_then(base64url::decode);
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4], &*x, &*y].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (modulus, exponent) = (bytes("n")?, bytes("e")?);
                if modulus.len() > MAX_MODULUS_BYTES || exponent.len() > MAX_EXPONENT_BYTES {
                    return None;
                }
                KeyMaterial::Rsa { modulus, exponent }
            }
            ("EC", Some("P-256")) => KeyMaterial::P256(point(32)?),
            ("EC", Some("P-384")) => KeyMaterial::P384(point(48)?),
            ("OKP", Some("Ed25519")) => KeyMaterial::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        let owned = |name: &str| text(name).map(str::to_owned);
        Some(PublicJwk { id: owned("kid"), algorithm: owned("alg"), material })
    }

    /// Returns whether the key may have made a signature with this algorithm.
    pub fn fits(&self, algorithm: JwsAlgorithm) -> bool {
        let family = match self.material {
            KeyMaterial::Rsa { .. } => KeyFamily::Rsa,
            KeyMaterial::P256(_) => KeyFamily::P256,
            KeyMaterial::P384(_) => KeyFamily::P384,
            KeyMaterial::Ed25519(_) => KeyFamily::Ed25519,
        };
        let named = self.algorithm.as_deref().map(JwsAlgorithm::from_name);
        family == algorithm.family() && named.is_none_or(|only| only == Some(algorithm))
    }

    /// Returns whether the key made this signature of `message`.
    pub fn verifies(&self, algorithm: JwsAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match &self.material {
            KeyMaterial::Rsa { modulus, exponent } => algorithm.rsa().is_some_and(|parameters| {
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(parameters, message, signature)
                    .is_ok()
            }),
            KeyMaterial::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            KeyMaterial::P384(point) => UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            KeyMaterial::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
            }
        }
    }
}
