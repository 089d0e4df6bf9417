//! Server side of TLS: the edge's handshake with an agent, and the configurations of the edge
//! and of an agent that terminates visitors' TLS. Frames do not belong here.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    NoServerSessionStorage, ResolvesServerCert, ServerConnectionData, UnbufferedServerConnection,
    WebPkiClientVerifier,
};
use rustls::unbuffered::UnbufferedConnectionCommon;
use rustls::{Error, RootCertStore, ServerConfig};

use super::error::{explain, invalid};
use super::handshake::{self, Established};
use super::key_update::KeySchedule;
use super::provider;
use crate::proto::secret::Secret;
use crate::time::Deadline;

/// Returns the configuration for a tunnel with one certificate.
#[cfg(test)]
pub fn tunnel_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> io::Result<Arc<ServerConfig>> {
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    let key = default_provider().key_provider.load_private_key(key).map_err(explain)?;
    let key = Arc::new(CertifiedKey::new(chain, key));
    tunnel_config_with(Arc::new(SingleCertAndKey::from(key)))
}

/// Returns the configuration of the edge for the tunnel: TLS 1.3, no client certificates. The
/// certificate is resolved at each handshake.
pub fn tunnel_config_with(resolver: Arc<dyn ResolvesServerCert>) -> io::Result<Arc<ServerConfig>> {
    // The library's own provider, because it can sign.
    let provider =
        CryptoProvider { cipher_suites: provider::tunnel_suites(), ..default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| invalid(e.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// Makes the edge's side of the handshake.
pub fn accept(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    deadline: Deadline,
) -> io::Result<Established> {
    let mut conn = UnbufferedServerConnection::new(config).map_err(explain)?;
    let process = UnbufferedConnectionCommon::<ServerConnectionData>::process_tls_records;
    let rest = handshake::run(&mut socket, &mut conn, process, deadline)?;
    let (secrets, kernel) = conn.dangerous_into_kernel_connection().map_err(explain)?;
    handshake::established(socket, &secrets, KeySchedule::Server(kernel), rest)
}

/// Returns the configuration for visitors: certificate, key and client CAs as PEM texts.
/// Without CAs no client certificate is requested. The error names the unusable text. A session
/// is never resumed: each handshake verifies the client's certificate again (agent 4.3).
pub fn visitor_config(
    certificate: &str,
    key: &Secret,
    client_cas: &str,
) -> io::Result<Arc<ServerConfig>> {
    let chain = certificates("certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|e| unusable("private key", &e))?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = if client_cas.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in certificates("client authority", client_cas)? {
            roots.add(authority).map_err(|e| unusable("client authority", &e))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| unusable("client authority", &e))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|e| match e {
        Error::InconsistentKeys(_) => io::Error::new(
            io::ErrorKind::InvalidData,
            "the private key does not match the certificate",
        ),
        e => unusable("certificate", &e),
    })?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn unusable(what: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the {what} cannot be used: {error}"))
}

fn certificates(what: &str, pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(unusable(what, &"its PEM has none")),
        Err(e) => Err(unusable(what, &e)),
    }
}
