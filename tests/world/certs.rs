//! Certificates for upstreams and scripted edges, and TLS ends that use them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls::{StreamOwned, crypto};

use super::PATIENCE;
use super::wire::Wire;

/// A certificate authority of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A name of its own: another authority is unknown, not one with a wrong key.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server for these names, and for 127.0.0.1 and ::1.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let mut params = params(names);
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.subject_alt_names.push(SanType::IpAddress("::1".parse().unwrap()));
        self.server_with(params)
    }

    /// A server with any certificate below this authority.
    pub fn server_with(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        serve(vec![certificate.der().clone()], &key)
    }

    /// A certificate for these names and its key, both PEM.
    pub fn pair(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names).signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A server whose certificate was signed by one that may sign none.
    pub fn server_below_a_leaf(&self) -> Arc<ServerConfig> {
        let middle_key = KeyPair::generate().unwrap();
        let middle = local_params();
        let middle_certificate = middle.signed_by(&middle_key, &self.issuer).unwrap();
        let issuer = Issuer::new(middle, middle_key);
        let key = KeyPair::generate().unwrap();
        let certificate = local_params().signed_by(&key, &issuer).unwrap();
        serve(vec![certificate.der().clone(), middle_certificate.der().clone()], &key)
    }
}

/// What to put into a certificate for these names.
pub fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

/// What to put into a certificate for 127.0.0.1.
pub fn local_params() -> CertificateParams {
    params(&["127.0.0.1"])
}

/// A server that signed its certificate itself.
pub fn self_signed() -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = local_params().self_signed(&key).unwrap();
    serve(vec![certificate.der().clone()], &key)
}

fn serve(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

fn provider() -> Arc<crypto::CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

/// A client that trusts what is in a PEM file.
pub fn client(ca: &Path) -> Arc<ClientConfig> {
    client_as(ca, None)
}

/// The same, with a certificate of its own and its key.
pub fn client_as(ca: &Path, own: Option<&(String, String)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    Arc::new(config)
}

/// Connects with TLS to a name at an address.
pub fn connect(to: SocketAddr, name: &str, ca: &Path) -> Wire {
    let tcp = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(client(ca), name).unwrap();
    let stream = StreamOwned::new(session, tcp.try_clone().unwrap());
    Wire::over(tcp, Box::new(stream))
}

/// The server's end of a TLS connection; the handshake happens with the first
/// bytes.
pub fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> Wire {
    let session = ServerConnection::new(config).unwrap();
    let stream = StreamOwned::new(session, tcp.try_clone().unwrap());
    Wire::over(tcp, Box::new(stream))
}
