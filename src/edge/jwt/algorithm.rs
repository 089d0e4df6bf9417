//! Algorithms of signatures (RFC 7518, RFC 8037) that this edge verifies. `none` and those with
//! a shared secret are not among them: the keys of issuers are public.

use ring::signature as ring_keys;

/// Algorithm of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
    /// ECDSA over P-256 with SHA-256.
    Es256,
    /// ECDSA over P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// Kind of key that an algorithm needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFamily {
    /// RSA with 2,048 to 8,192 bits.
    Rsa,
    /// Point on P-256.
    P256,
    /// Point on P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

impl JwsAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 9] = [
        JwsAlgorithm::Rs256,
        JwsAlgorithm::Rs384,
        JwsAlgorithm::Rs512,
        JwsAlgorithm::Ps256,
        JwsAlgorithm::Ps384,
        JwsAlgorithm::Ps512,
        JwsAlgorithm::Es256,
        JwsAlgorithm::Es384,
        JwsAlgorithm::EdDsa,
    ];

    /// Returns its name in tokens and keys.
    pub fn name(self) -> &'static str {
        match self {
            JwsAlgorithm::Rs256 => "RS256",
            JwsAlgorithm::Rs384 => "RS384",
            JwsAlgorithm::Rs512 => "RS512",
            JwsAlgorithm::Ps256 => "PS256",
            JwsAlgorithm::Ps384 => "PS384",
            JwsAlgorithm::Ps512 => "PS512",
            JwsAlgorithm::Es256 => "ES256",
            JwsAlgorithm::Es384 => "ES384",
            JwsAlgorithm::EdDsa => "EdDSA",
        }
    }

    /// Returns the algorithm with this name. Names have one case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Returns the kind of its keys.
    pub fn family(self) -> KeyFamily {
        match self {
            JwsAlgorithm::Es256 => KeyFamily::P256,
            JwsAlgorithm::Es384 => KeyFamily::P384,
            JwsAlgorithm::EdDsa => KeyFamily::Ed25519,
            _ => KeyFamily::Rsa,
        }
    }

    /// Returns the verification with an RSA key; `None` for other keys.
    pub fn rsa(self) -> Option<&'static ring_keys::RsaParameters> {
        Some(match self {
            JwsAlgorithm::Rs256 => &ring_keys::RSA_PKCS1_2048_8192_SHA256,
            JwsAlgorithm::Rs384 => &ring_keys::RSA_PKCS1_2048_8192_SHA384,
            JwsAlgorithm::Rs512 => &ring_keys::RSA_PKCS1_2048_8192_SHA512,
            JwsAlgorithm::Ps256 => &ring_keys::RSA_PSS_2048_8192_SHA256,
            JwsAlgorithm::Ps384 => &ring_keys::RSA_PSS_2048_8192_SHA384,
            JwsAlgorithm::Ps512 => &ring_keys::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}
