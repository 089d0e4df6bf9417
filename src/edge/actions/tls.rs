//! `MutualTLSCA`, `MutualTLSAtEdge` and the certificate of `TLSTermination`: what an endpoint
//! changes in the TLS handshake of its visitors. Handshakes are made elsewhere.

use std::fmt;
use std::sync::{Arc, Weak};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ProtocolVersion, RootCertStore, ServerConfig,
    SignatureScheme, SupportedProtocolVersion,
};

use crate::edge::certificates::certified;
use crate::sys::sync::Mutex;

/// Most certificates in one option.
const MAX_CERTIFICATES: usize = 64;

/// TLS of an endpoint's visitors.
#[derive(Default)]
pub struct TlsOptions {
    /// What [`TlsOptions::server_config`] has built last, and from which configuration.
    built: Mutex<Option<(Weak<ServerConfig>, Arc<ServerConfig>)>>,
    /// The agent's certificate in place of the edge's.
    pub certificate: Option<Arc<CertifiedKey>>,
    /// Visitors need a certificate that one of these authorities has signed.
    pub client_cas: Option<Arc<dyn ClientCertVerifier>>,
    /// Versions of TLS; empty for those of the edge.
    pub versions: Vec<&'static SupportedProtocolVersion>,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions").finish_non_exhaustive()
    }
}

impl TlsOptions {
    /// Returns `usual` with these options. It is built once for each `usual`, which a reload
    /// replaces: visitors resume the TLS sessions that it remembers.
    pub fn server_config(
        &self,
        usual: &Arc<ServerConfig>,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut built = self.built.lock();
        if let Some((source, config)) = &*built
            && source.upgrade().is_some_and(|source| Arc::ptr_eq(&source, usual))
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build(usual)?);
        *built = Some((Arc::downgrade(usual), Arc::clone(&config)));
        Ok(config)
    }

    /// Returns whether a version, `1.2` or `1.3`, is one of these options.
    pub fn accepts(&self, version: &str) -> bool {
        self.versions.is_empty()
            || self.versions.iter().any(|accepted| version_name(accepted.version) == version)
    }

    fn build(&self, usual: &ServerConfig) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
        let builder = match self.versions.is_empty() {
            true => builder.with_safe_default_protocol_versions()?,
            false => builder.with_protocol_versions(&self.versions)?,
        };
        let builder = match &self.client_cas {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let resolver: Arc<dyn ResolvesServerCert> = match &self.certificate {
            Some(key) => Arc::new(SingleCertAndKey::from(CertifiedKey::clone(key))),
            None => Arc::clone(&usual.cert_resolver),
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols.clone_from(&usual.alpn_protocols);
        Ok(config)
    }
}

/// Returns a version of TLS as policies write it; empty for one that the edge does not have.
pub fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "1.2",
        ProtocolVersion::TLSv1_3 => "1.3",
        _ => "",
    }
}

/// Reads authorities of clients from PEM. The error is the reason, without bytes of the input.
pub fn client_cas(pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in chain(pem)? {
        roots.add(certificate).map_err(|e| format!("a certificate is not an authority: {e}"))?;
    }
    let provider = Arc::new(default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| e.to_string())
}

/// Returns a verifier that asks for a certificate and does not check who has issued it. A client
/// without one is refused if `mandatory`.
pub fn any_client(mandatory: bool) -> Arc<dyn ClientCertVerifier> {
    let algorithms = default_provider().signature_verification_algorithms;
    Arc::new(AnyClient { mandatory, algorithms })
}

/// Accepts any certificate whose key the client has.
#[derive(Debug)]
struct AnyClient {
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Reads a chain and its key from PEM. The error is the reason, without bytes of the input.
pub fn certificate(chain_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, String> {
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|_| "the key is not a private key in PEM format".to_owned())?;
    certified(chain(chain_pem)?, key)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .map_err(|_| "it is not a certificate in PEM format".to_owned())?;
    match list.len() {
        0 => Err("it has no certificate in PEM format".to_owned()),
        1..=MAX_CERTIFICATES => Ok(list),
        _ => Err(format!("it has more than {MAX_CERTIFICATES} certificates")),
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::ResolvesServerCertUsingSni;

    use super::*;

    #[test]
    fn one_configuration_serves_all_handshakes_until_a_reload() {
        let usual = || {
            let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
            Arc::new(config)
        };
        let (options, first, second) = (TlsOptions::default(), usual(), usual());
        let built = options.server_config(&first).unwrap();
        assert!(Arc::ptr_eq(&built, &options.server_config(&first).unwrap()));
        let after_reload = options.server_config(&second).unwrap();
        assert!(Arc::ptr_eq(&after_reload.cert_resolver, &second.cert_resolver));
        assert!(!Arc::ptr_eq(&built, &after_reload));
    }
}
