//! Client side of TLS: configurations for the tunnel, for web servers and for resolvers, and
//! the agent's handshake with the edge. Frames do not belong here.

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientConnectionData, Resumption, UnbufferedClientConnection, WebPkiServerVerifier,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::UnbufferedConnectionCommon;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::{explain, invalid};
use super::handshake::{self, Established};
use super::key_update::KeySchedule;
use super::{provider, roots};
use crate::config::Cas;
use crate::sys::sync::Mutex;
use crate::time::Deadline;

/// Returns the configuration of the agent for the tunnel: TLS 1.3, the given roots, no ALPN
/// (protocol 1).
pub fn tunnel_config(roots: Arc<RootCertStore>) -> io::Result<Arc<ClientConfig>> {
    let mut config = new_tunnel_config(roots)?;
    // A few edges, each with one ticket in use and one new ticket.
    config.resumption = Resumption::in_memory_sessions(8);
    Ok(Arc::new(config))
}

/// Returns a configuration like [`tunnel_config`] without resumption. `seen` gets the chain of
/// the peer, also if that is refused.
pub fn observed_config(
    roots: Arc<RootCertStore>,
    seen: Arc<PeerChain>,
) -> io::Result<Arc<ClientConfig>> {
    let mut config = new_tunnel_config(Arc::clone(&roots))?;
    let provider = Arc::clone(config.crypto_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
    let verifier = verifier.map_err(|e| invalid(e.to_string()))?;
    config.dangerous().set_certificate_verifier(Arc::new(Observed { verifier, seen }));
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn new_tunnel_config(roots: Arc<RootCertStore>) -> io::Result<ClientConfig> {
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(provider::with(provider::tunnel_suites())))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| invalid(e.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.enable_secret_extraction = true;
    Ok(config)
}

/// Chain of certificates that a peer has sent, the peer's own first.
#[derive(Default)]
pub struct PeerChain(Mutex<Vec<CertificateDer<'static>>>);

impl PeerChain {
    /// Returns the chain; empty if none was received.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.0.lock().clone()
    }
}

/// The library's verifier, and the chain that it got.
struct Observed {
    verifier: Arc<WebPkiServerVerifier>,
    seen: Arc<PeerChain>,
}

// The library needs it. A derived one would print the chain.
impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observed")
    }
}

impl ServerCertVerifier for Observed {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(between);
        *self.seen.0.lock() = chain.map(|der| der.clone().into_owned()).collect();
        self.verifier.verify_server_cert(leaf, between, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Returns the configuration for a proxy or a web server. Allows TLS 1.2.
pub fn web_config(cas: &Cas) -> io::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(provider::any())
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(e.to_string()))?
        .with_root_certificates(roots::load(cas)?)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Returns the configuration for resolvers, which accepts any certificate.
pub fn unverified_config() -> io::Result<Arc<ClientConfig>> {
    let provider = provider::any();
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Verifier that accepts any certificate: the default for upstreams, which are the user's own
/// machines with self-signed certificates (protocol 6.4), and for resolvers. It is not used for
/// the edge. The handshake's signatures are still checked.
#[derive(Debug)]
pub struct Unverified(pub Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Makes the agent's side of the handshake. `name` is a DNS name or an IP address. Errors
/// contain the fault of the certificate. Also returns the edge's certificates, from this
/// handshake or from that of the resumed session.
pub fn connect(
    mut socket: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
    deadline: Deadline,
) -> io::Result<(Established, Vec<CertificateDer<'static>>)> {
    // A certificate knows nothing of this machine's interfaces.
    let name = name.split('%').next().unwrap_or_default();
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| invalid(format!("'{name}' is neither a host name nor an IP address")))?;
    let mut conn = UnbufferedClientConnection::new(config, server).map_err(explain)?;
    let process = UnbufferedConnectionCommon::<ClientConnectionData>::process_tls_records;
    let rest = handshake::run(&mut socket, &mut conn, process, deadline)?;
    let chain = conn.peer_certificates().unwrap_or_default().to_vec();
    let (secrets, kernel) = conn.dangerous_into_kernel_connection().map_err(explain)?;
    Ok((handshake::established(socket, &secrets, KeySchedule::Client(kernel), rest)?, chain))
}
