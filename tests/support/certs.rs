//! Certificates for upstreams and scripted edges, and TLS ends that use them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls::{StreamOwned, crypto};

use super::PATIENCE;
use super::wire::Wire;

/// CA of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // A unique name: another CA is unknown, instead of having a wrong key.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        Authority { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns a server for these names, and for 127.0.0.1 and ::1.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let mut params = params(names);
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.subject_alt_names.push(SanType::IpAddress("::1".parse().unwrap()));
        self.server_with(params)
    }

    /// Returns a server with any certificate below this CA.
    pub fn server_with(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        serve(vec![certificate.der().clone()], &key)
    }

    /// Returns a certificate for these names and its key, both PEM.
    pub fn pair(&self, names: &[&str]) -> (String, String) {
        self.pair_of(params(names))
    }

    /// Returns a certificate with these parameters and its key, both PEM.
    pub fn pair_of(&self, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Returns a server below a CA below this one, which its chain may omit.
    pub fn server_below(
        &self,
        between: CertificateParams,
        leaf: CertificateParams,
        shown: bool,
    ) -> Arc<ServerConfig> {
        let middle_key = KeyPair::generate().unwrap();
        let middle = between.signed_by(&middle_key, &self.issuer).unwrap();
        let issuer = Issuer::new(between, middle_key);
        let key = KeyPair::generate().unwrap();
        let mut chain = vec![leaf.signed_by(&key, &issuer).unwrap().der().clone()];
        if shown {
            chain.push(middle.der().clone());
        }
        serve(chain, &key)
    }

    /// Returns a server below two CAs below this one.
    pub fn server_below_two(
        &self,
        first: CertificateParams,
        second: CertificateParams,
        leaf: CertificateParams,
    ) -> Arc<ServerConfig> {
        let (first_key, second_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let upper = first.signed_by(&first_key, &self.issuer).unwrap();
        let upper_issuer = Issuer::new(first, first_key);
        let lower = second.signed_by(&second_key, &upper_issuer).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(second, second_key)).unwrap();
        serve(vec![leaf.der().clone(), lower.der().clone(), upper.der().clone()], &key)
    }

    /// Returns a server with its certificate and many more in its chain.
    pub fn server_with_chain_of(&self, bytes: usize) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = local_params().signed_by(&key, &self.issuer).unwrap();
        let count = bytes / certificate.der().len() + 1;
        serve(vec![certificate.der().clone(); count], &key)
    }

    /// Returns a server that speaks at most TLS 1.2.
    pub fn old_server(&self) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = local_params().signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private(&key))
            .unwrap();
        Arc::new(config)
    }

    /// Returns a revocation list with these serials, valid until the start of a year.
    pub fn revoked(&self, serials: &[u64], until: i32) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().der().to_vec()
    }

    /// Returns a server whose certificate was signed by one that may not sign.
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

/// Returns the parameters of a certificate for these names.
pub fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

/// Returns the parameters of a certificate for 127.0.0.1.
pub fn local_params() -> CertificateParams {
    params(&["127.0.0.1"])
}

/// Returns a server with a self-signed certificate.
pub fn self_signed() -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = local_params().self_signed(&key).unwrap();
    serve(vec![certificate.der().clone()], &key)
}

/// Returns a server with certificate and key from files.
pub fn server_of_files(chain: &Path, key: &Path) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect();
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    Arc::new(config)
}

/// Returns the parameters of an intermediate CA's certificate.
pub fn authority_params() -> CertificateParams {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut params = params(&[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let name = format!("between {}", NEXT.fetch_add(1, Ordering::Relaxed));
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn serve(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Arc<ServerConfig> {
    let key = private(key);
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

/// Returns a client that trusts a PEM file.
pub fn client(ca: &Path) -> Arc<ClientConfig> {
    client_as(ca, None)
}

/// Returns a client that speaks at most TLS 1.2.
pub fn old_client(ca: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Returns such a client with its own certificate and key.
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
    over(TcpStream::connect_timeout(&to, PATIENCE).unwrap(), name, ca)
}

/// TLS to a name over a connection.
pub fn over(tcp: TcpStream, name: &str, ca: &Path) -> Wire {
    over_with(tcp, name, client(ca))
}

/// Connects with TLS to a name at an address as this client.
pub fn connect_with(to: SocketAddr, name: &str, config: Arc<ClientConfig>) -> Wire {
    over_with(TcpStream::connect_timeout(&to, PATIENCE).unwrap(), name, config)
}

fn over_with(tcp: TcpStream, name: &str, config: Arc<ClientConfig>) -> Wire {
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(config, name).unwrap();
    let stream = StreamOwned::new(session, tcp.try_clone().unwrap());
    Wire::over(tcp, Box::new(stream))
}

/// Returns the server's end of a TLS connection. The handshake happens with the first bytes.
pub fn accept(tcp: TcpStream, config: Arc<ServerConfig>) -> Wire {
    let session = ServerConnection::new(config).unwrap();
    let stream = StreamOwned::new(session, tcp.try_clone().unwrap());
    Wire::over(tcp, Box::new(stream))
}

/// Returns the certificate of a server for the server name `name`.
pub fn presented(address: SocketAddr, name: &str) -> Vec<u8> {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    /// Accepts every certificate: only the choice is tested.
    #[derive(Debug)]
    struct Anything;

    impl ServerCertVerifier for Anything {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    tls.peer_certificates().unwrap()[0].as_ref().to_vec()
}
