//! Cryptography of TLS clients. The library's own provider can also sign handshakes. A client
//! without a certificate does not need that, and a build that terminates no TLS should not
//! contain it.

use std::sync::Arc;

use ring::rand::SecureRandom as _;
use rustls::crypto::ring::{DEFAULT_CIPHER_SUITES, kx_group};
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SupportedKxGroup,
    WebPkiSupportedAlgorithms,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use rustls::{Error, SignatureScheme, SupportedCipherSuite};
use webpki::ring as algorithms;

use crate::features;
use crate::sys;

/// Returns everything that the library supports.
pub fn any() -> Arc<CryptoProvider> {
    Arc::new(with(DEFAULT_CIPHER_SUITES.to_vec()))
}

/// Returns the same with these cipher suites, the preferred first.
pub(super) fn with(cipher_suites: Vec<SupportedCipherSuite>) -> CryptoProvider {
    CryptoProvider {
        cipher_suites,
        kx_groups: KEY_EXCHANGES.to_vec(),
        signature_verification_algorithms: SIGNATURES,
        secure_random: &ClientProvider,
        key_provider: &ClientProvider,
    }
}

/// Returns the cipher suites for the tunnel: AES first if the processor supports it.
pub(super) fn tunnel_suites() -> Vec<SupportedCipherSuite> {
    use rustls::crypto::ring::cipher_suite::*;
    if sys::has_aes() {
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256]
    } else {
        vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384]
    }
}

/// Parts that differ from the library's provider.
#[derive(Debug)]
struct ClientProvider;

impl SecureRandom for ClientProvider {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        ring::rand::SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
    }
}

impl KeyProvider for ClientProvider {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("a client has no key".to_owned()))
    }
}

/// Key exchanges of a session, the preferred first.
static KEY_EXCHANGES: &[&dyn SupportedKxGroup] = if features::CURVES {
    &[kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]
} else {
    &[kx_group::X25519, kx_group::SECP256R1]
};

/// Signature algorithms, in the order in which they are sent to a server.
macro_rules! signatures {
    ($($ed25519:expr)?) => {
        WebPkiSupportedAlgorithms {
            all: &[
                algorithms::ECDSA_P256_SHA256,
                algorithms::ECDSA_P256_SHA384,
                algorithms::ECDSA_P384_SHA256,
                algorithms::ECDSA_P384_SHA384,
                $($ed25519,)?
                algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
                algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
                algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
                algorithms::RSA_PKCS1_2048_8192_SHA256,
                algorithms::RSA_PKCS1_2048_8192_SHA384,
                algorithms::RSA_PKCS1_2048_8192_SHA512,
                algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
                algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
                algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
            ],
            mapping: &[
                (
                    SignatureScheme::ECDSA_NISTP384_SHA384,
                    &[algorithms::ECDSA_P384_SHA384, algorithms::ECDSA_P256_SHA384],
                ),
                (
                    SignatureScheme::ECDSA_NISTP256_SHA256,
                    &[algorithms::ECDSA_P256_SHA256, algorithms::ECDSA_P384_SHA256],
                ),
                $((SignatureScheme::ED25519, &[$ed25519]),)?
                (SignatureScheme::RSA_PSS_SHA512, &[algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
                (SignatureScheme::RSA_PSS_SHA384, &[algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
                (SignatureScheme::RSA_PSS_SHA256, &[algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
                (SignatureScheme::RSA_PKCS1_SHA512, &[algorithms::RSA_PKCS1_2048_8192_SHA512]),
                (SignatureScheme::RSA_PKCS1_SHA384, &[algorithms::RSA_PKCS1_2048_8192_SHA384]),
                (SignatureScheme::RSA_PKCS1_SHA256, &[algorithms::RSA_PKCS1_2048_8192_SHA256]),
            ],
        }
    };
}

/// Supported signatures: those of the library. TLS 1.2 combines every curve with every hash,
/// hence the pairs.
static SIGNATURES: WebPkiSupportedAlgorithms =
    if features::CURVES { signatures!(algorithms::ED25519) } else { signatures!() };

#[cfg(all(test, feature = "curves"))]
mod tests {
    use super::*;

    /// Detects an update of the library that supports more or fewer.
    #[test]
    fn as_much_is_understood_as_by_the_library() {
        let theirs = rustls::crypto::ring::default_provider();
        let ours = any();
        let schemes = |p: &CryptoProvider| {
            p.signature_verification_algorithms
                .mapping
                .iter()
                .map(|(scheme, ways)| (*scheme, ways.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(schemes(&ours), schemes(&theirs));
        let all = |p: &CryptoProvider| p.signature_verification_algorithms.all.len();
        assert_eq!(all(&ours), all(&theirs));
        assert_eq!(ours.cipher_suites, theirs.cipher_suites);
        assert_eq!(format!("{:?}", ours.kx_groups), format!("{:?}", theirs.kx_groups));
    }
}
