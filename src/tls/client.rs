//! TLS 1.3 between agent and edge: who is trusted, the handshake (rustls), and
//! the connected pipe that comes out of it. The same code for both sides. No
//! knowledge of frames.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::kernel::KernelConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, UnbufferedConnectionCommon, UnbufferedStatus,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, ExtractedSecrets, RootCertStore, ServerConfig,
    SignatureScheme, SupportedCipherSuite,
};

use super::provider;
use super::records::{Opener, Sealer};
use crate::config::Cas;
use crate::http1::text::printable;
use crate::sys;
use crate::time::{Deadline, Instant};

/// The root that signs the certificates of ngrok's service (protocol 9).
const BUNDLED_ROOT: &[u8] = include_bytes!("ngrok-root-ca.pem");

/// Where systems keep their bundle of roots, most common first.
const HOST_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// Handshake bytes that may wait unparsed: the largest flight of a sane peer.
const MAX_FLIGHT_BYTES: usize = 256 * 1024;

/// The cipher suites for the tunnel: AES first where the processor has it.
fn tunnel_suites() -> Vec<SupportedCipherSuite> {
    use rustls::crypto::ring::cipher_suite::*;
    if sys::has_aes() {
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256]
    } else {
        vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384]
    }
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// The certificates of a PEM file. No certificate in it is an error.
pub fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = read(path)?;
    let list = certificates_in(&pem).map_err(|e| {
        invalid(format!("{} is not a PEM file of certificates: {e}", path.display()))
    })?;
    if list.is_empty() {
        return Err(invalid(format!("{} holds no certificate", path.display())));
    }
    Ok(list)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))
}

fn certificates_in(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| invalid(e.to_string()))
}

/// The roots for a value of `connect_cas`. For `host` the certificates that do
/// not parse are left out, as every system's bundle has some.
pub fn roots(cas: &Cas) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    match cas {
        Cas::Trusted => {
            for der in certificates_in(BUNDLED_ROOT)? {
                store.add(der).map_err(|e| invalid(e.to_string()))?;
            }
        }
        Cas::File(path) => {
            for der in certificates(path)? {
                store.add(der).map_err(|e| {
                    invalid(format!("{} holds an unusable certificate: {e}", path.display()))
                })?;
            }
        }
        Cas::Host => {
            // As other programs do (OpenSSL, Go).
            let named = std::env::var_os("SSL_CERT_FILE").filter(|v| !v.is_empty());
            let places = named.iter().map(Path::new).chain(HOST_BUNDLES.iter().map(Path::new));
            let bundle = places.into_iter().find(|p| p.exists()).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::NotFound,
                    "this system has no CA bundle: install ca-certificates (OpenWrt: ca-bundle), or \
                     name a PEM file (connect_cas for the edge, tls_verify_cas for an upstream, \
                     SSL_CERT_FILE for both)",
                )
            })?;
            let pem = read(bundle)?;
            let (added, _) = store.add_parsable_certificates(
                CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok),
            );
            if added == 0 {
                return Err(invalid(format!("{} holds no usable certificate", bundle.display())));
            }
        }
    }
    Ok(store)
}

/// The agent's side of the tunnel: TLS 1.3, the given roots, no ALPN (protocol 1).
pub fn client_config(roots: Arc<RootCertStore>) -> io::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider::with(tunnel_suites())))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| invalid(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    // A few edges, each with one ticket in use and one fresh.
    config.resumption = Resumption::in_memory_sessions(8);
    Ok(Arc::new(config))
}

/// For what is no tunnel: a proxy, a web server. TLS 1.2 is allowed here.
pub fn web_config(cas: &Cas) -> io::Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(provider::any())
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(e.to_string()))?
        .with_root_certificates(roots(cas)?)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For resolvers: whoever it is that answers.
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

/// Accepts any certificate: the default for upstreams, which are the user's own
/// machines with certificates that nobody signed (protocol 6.4), and for resolvers.
/// Never for the edge. The handshake's signatures are still checked.
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

/// The edge's side of the tunnel: TLS 1.3, no client certificates.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> io::Result<Arc<ServerConfig>> {
    // The library's own provider: it can sign.
    let provider = CryptoProvider {
        cipher_suites: tunnel_suites(),
        ..rustls::crypto::ring::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| invalid(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| invalid(e.to_string()))?;
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// What rustls keeps for the life of a connection: the next keys, and tickets.
pub enum KeySchedule {
    /// The agent's.
    Client(KernelConnection<ClientConnectionData>),
    /// The edge's.
    Server(KernelConnection<ServerConnectionData>),
}

impl KeySchedule {
    /// The key for sending after the current one.
    pub fn next_sealer(&mut self) -> Result<Sealer, rustls::Error> {
        let (sequence, secrets) = match self {
            KeySchedule::Client(k) => k.update_tx_secret()?,
            KeySchedule::Server(k) => k.update_tx_secret()?,
        };
        Sealer::new(sequence, &secrets).ok_or(rustls::Error::EncryptError)
    }

    /// The key for receiving after the current one.
    pub fn next_opener(&mut self) -> Result<Opener, rustls::Error> {
        let (sequence, secrets) = match self {
            KeySchedule::Client(k) => k.update_rx_secret()?,
            KeySchedule::Server(k) => k.update_rx_secret()?,
        };
        Opener::new(sequence, &secrets).ok_or(rustls::Error::DecryptError)
    }

    /// Takes a ticket for a quicker handshake next time.
    pub fn ticket(&mut self, body: &[u8]) -> Result<(), rustls::Error> {
        match self {
            KeySchedule::Client(k) => k.handle_new_session_ticket(body),
            KeySchedule::Server(_) => Err(rustls::Error::General("a ticket from a client".into())),
        }
    }
}

/// A connection after its handshake, still in blocking mode.
pub struct Established {
    /// The TCP connection. No timeouts set.
    pub socket: TcpStream,
    /// Seals what goes out.
    pub sealer: Sealer,
    /// Opens what comes in.
    pub opener: Opener,
    /// Key updates and tickets.
    pub kernel: KeySchedule,
    /// Application bytes that came with the handshake.
    pub early: Vec<u8>,
    /// Records received behind the handshake, not opened yet.
    pub leftover: Vec<u8>,
}

/// Makes the agent's side of the handshake: `name` is a DNS name or an IP address.
/// Errors name what is wrong with the certificate.
pub fn connect(
    socket: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
    deadline: Deadline,
) -> io::Result<Established> {
    connect_with_chain(socket, name, config, deadline).map(|(link, _)| link)
}

/// The same, and the certificates that the edge showed, now or when the session was
/// new that was resumed.
pub fn connect_with_chain(
    mut socket: TcpStream,
    name: &str,
    config: Arc<ClientConfig>,
    deadline: Deadline,
) -> io::Result<(Established, Vec<CertificateDer<'static>>)> {
    let server = ServerName::try_from(name.to_owned())
        .map_err(|_| invalid(format!("'{name}' is neither a host name nor an IP address")))?;
    let mut conn = UnbufferedClientConnection::new(config, server).map_err(explain)?;
    let process = UnbufferedConnectionCommon::<ClientConnectionData>::process_tls_records;
    let rest = handshake(&mut socket, &mut conn, process, deadline)?;
    let chain = conn.peer_certificates().unwrap_or_default().to_vec();
    let (secrets, kernel) = conn.dangerous_into_kernel_connection().map_err(explain)?;
    Ok((established(socket, &secrets, KeySchedule::Client(kernel), rest)?, chain))
}

/// Makes the edge's side of the handshake.
pub fn accept(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    deadline: Deadline,
) -> io::Result<Established> {
    let mut conn = UnbufferedServerConnection::new(config).map_err(explain)?;
    let process = UnbufferedConnectionCommon::<ServerConnectionData>::process_tls_records;
    let rest = handshake(&mut socket, &mut conn, process, deadline)?;
    let (secrets, kernel) = conn.dangerous_into_kernel_connection().map_err(explain)?;
    established(socket, &secrets, KeySchedule::Server(kernel), rest)
}

/// What one side does with the records that came: the library has it for each of them.
type Process<Data> = for<'c, 'i> fn(
    &'c mut UnbufferedConnectionCommon<Data>,
    &'i mut [u8],
) -> UnbufferedStatus<'c, 'i, Data>;

/// Makes the handshake. Returns the application bytes that came with it, and the records
/// behind it.
fn handshake<Data>(
    socket: &mut TcpStream,
    conn: &mut UnbufferedConnectionCommon<Data>,
    process: Process<Data>,
    deadline: Deadline,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    // Not every stream is TCP: behind a proxy it may be a local one.
    let _ = socket.set_nodelay(true);
    // How the peer began, to say what it is if it is no TLS.
    let mut first = Vec::new();
    let mut incoming = Vec::new();
    let mut outgoing: Vec<u8> = Vec::new();
    let mut early = Vec::new();
    loop {
        let UnbufferedStatus { mut discard, state } = process(conn, &mut incoming);
        let mut established = false;
        let mut needs_bytes = false;
        match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut outgoing, |out| data.encode(out))?
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                socket.set_write_timeout(Some(time_left(deadline)?))?;
                socket.write_all(&outgoing).map_err(timed_out)?;
                outgoing.clear();
                data.done();
            }
            Ok(ConnectionState::BlockedHandshake) => needs_bytes = true,
            Ok(ConnectionState::WriteTraffic(_)) => established = true,
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(explain)?;
                    discard += record.discard;
                    early.extend_from_slice(record.payload);
                }
            }
            Ok(_) => return Err(eof()),
            Err(e) => {
                // Tells the peer why, if it still listens. Asked once, for the alert
                // alone, and with the bytes that are left: the library remembers
                // where in them it was, and must not meet the error again.
                incoming.drain(..discard);
                if let Ok(ConnectionState::EncodeTlsData(mut data)) =
                    process(conn, &mut incoming).state
                {
                    let _ = encode(&mut outgoing, |out| data.encode(out));
                }
                let _ = socket.write_all(&outgoing);
                return Err(match e {
                    rustls::Error::InvalidMessage(_) if first.first() != Some(&HANDSHAKE) => {
                        not_tls(&first)
                    }
                    e => explain(e),
                });
            }
        }
        incoming.drain(..discard);
        if established {
            break;
        }
        if needs_bytes {
            if incoming.len() > MAX_FLIGHT_BYTES {
                return Err(invalid("the TLS handshake of the peer is too large"));
            }
            receive(socket, &mut incoming, deadline)?;
            if first.is_empty() {
                first.extend_from_slice(&incoming[..incoming.len().min(64)]);
            }
        }
    }
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)?;
    Ok((early, incoming))
}

fn established(
    socket: TcpStream,
    secrets: &ExtractedSecrets,
    kernel: KeySchedule,
    (early, leftover): (Vec<u8>, Vec<u8>),
) -> io::Result<Established> {
    let (tx, rx) = (&secrets.tx, &secrets.rx);
    match (Sealer::new(tx.0, &tx.1), Opener::new(rx.0, &rx.1)) {
        (Some(sealer), Some(opener)) => {
            Ok(Established { socket, sealer, opener, kernel, early, leftover })
        }
        _ => Err(invalid("the TLS library chose an unknown cipher")),
    }
}

fn encode(
    outgoing: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let used = outgoing.len();
    let mut room = 4_096;
    loop {
        outgoing.resize(used + room, 0);
        match write(&mut outgoing[used..]) {
            Ok(n) => {
                outgoing.truncate(used + n);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => {
                room = size.required_size;
            }
            Err(e) => return Err(invalid(e.to_string())),
        }
    }
}

fn receive(socket: &mut TcpStream, incoming: &mut Vec<u8>, deadline: Deadline) -> io::Result<()> {
    socket.set_read_timeout(Some(time_left(deadline)?))?;
    let used = incoming.len();
    incoming.resize(used + 4_096, 0);
    let n = socket.read(&mut incoming[used..]).map_err(timed_out)?;
    incoming.truncate(used + n);
    if n == 0 { Err(eof()) } else { Ok(()) }
}

/// The time until `deadline`, at least a millisecond as sockets demand; an error when it is over.
pub(crate) fn time_left(deadline: Deadline) -> io::Result<Duration> {
    let now: Instant = sys::clock();
    match deadline.left(now) {
        None => Ok(Duration::from_secs(3_600)),
        Some(left) if left.is_zero() => Err(late()),
        Some(left) => Ok(left.max(Duration::from_millis(1))),
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

fn eof() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the peer closed the connection during the TLS handshake",
    )
}

pub(crate) fn timed_out(e: io::Error) -> io::Error {
    match e.kind() {
        // What the kernel calls a wait that is over.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        // A peer that leaves bytes unread says farewell like this.
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => eof(),
        _ => e,
    }
}

/// First byte of a record with a handshake message.
const HANDSHAKE: u8 = 22;

/// What answered is something else; its first words say what.
fn not_tls(first: &[u8]) -> io::Error {
    let said = printable(first);
    let what = match () {
        () if first.starts_with(b"HTTP/") => {
            ": a login page of this network, a web server, or the wrong port"
        }
        () if first.starts_with(b"SSH-") => ": an SSH server",
        () => "",
    };
    invalid(format!(
        "what answered does not speak TLS but began with '{said}'{what}. Is it the edge's port \
         for agents?"
    ))
}

/// A TLS error of the edge in words that say what to do.
pub fn explain(e: rustls::Error) -> io::Error {
    let hint = ": set agent.connect_cas to the edge's CA file, or to 'host' for a certificate of \
                a public CA or of a middle box whose CA this system trusts";
    invalid(describe(&e, "the edge", hint))
}

/// The same of another server, that this system's roots vouch for.
pub fn explain_web(e: &rustls::Error) -> io::Error {
    let hint = ": its CA belongs into this system's bundle, or into the file that SSL_CERT_FILE \
                names";
    invalid(describe(e, "the server", hint))
}

fn describe(e: &rustls::Error, who: &str, unknown: &str) -> String {
    use rustls::CertificateError as C;
    match e {
        rustls::Error::InvalidCertificate(c) => match c {
            C::UnknownIssuer => {
                format!("{who}'s certificate is not signed by a CA that is trusted here{unknown}")
            }
            C::NotValidYet | C::NotValidYetContext { .. } => {
                format!(
                    "{who}'s certificate is not valid yet: is this machine's clock right? ({c})"
                )
            }
            C::Expired | C::ExpiredContext { .. } => {
                format!("{who}'s certificate has expired (or this machine's clock is wrong): {c}")
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                format!("{who}'s certificate is for another name: {c}")
            }
            C::BadSignature => format!(
                "{who}'s certificate is not acceptable: a signature does not hold, or its key is too \
                 weak (RSA keys need 2,048 bits)"
            ),
            other => format!("{who}'s certificate is not acceptable: {other}"),
        },
        rustls::Error::InvalidMessage(_) => {
            format!("what answered does not speak TLS as it should ({e})")
        }
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion) => {
            format!("{who} does not speak TLS 1.3, or no cipher that is safe ({e})")
        }
        rustls::Error::AlertReceived(alert) => {
            format!("{who} ended the TLS handshake: alert {alert:?}")
        }
        _ => format!("TLS: {e}"),
    }
}
