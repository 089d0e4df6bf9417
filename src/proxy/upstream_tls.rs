//! TLS to an upstream: who is trusted, the handshake, and the connection that the
//! reactor writes to while a worker reads from it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme};

use crate::config::{Cas, Verify};
use crate::link::tls;
use crate::sys;
use crate::tunnel::Outlet;

/// How long the handshake with an upstream may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Bytes that may wait inside the TLS library on their way out.
const UNSENT: usize = 64 * 1024;

/// How an endpoint's TLS upstream is spoken to. Devices on a local network often
/// know TLS 1.2 only, so it is allowed here.
pub fn client_config(verify: &Verify, http2: bool) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(provider::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = match verify {
        Verify::Off => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
            .with_no_client_auth(),
        Verify::System => {
            builder.with_root_certificates(tls::roots(&Cas::Host)?).with_no_client_auth()
        }
        Verify::File(path) => builder
            .with_root_certificates(tls::roots(&Cas::File(path.clone()))?)
            .with_no_client_auth(),
    };
    config.resumption = rustls::client::Resumption::in_memory_sessions(2);
    if http2 {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

/// Accepts any certificate: the default for upstreams, which are the user's own
/// machines with certificates that nobody signed (protocol 6.4). The handshake's
/// signatures are still checked.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS connection to an upstream. One lock for both directions: TLS is one state.
pub(super) struct UpstreamTls {
    socket: Arc<TcpStream>,
    conn: Mutex<ClientConnection>,
}

/// A socket that never blocks, for rustls.
struct Now(RawFd);

impl Read for Now {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        sys::recv_now(self.0, buf)
    }
}

impl Write for Now {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::send_now(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl UpstreamTls {
    /// Makes the handshake. `host` is the SNI and the name that is verified.
    pub(super) fn connect(
        mut socket: TcpStream,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Arc<Self>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| io::Error::other(format!("'{host}' is not a name for a certificate")))?;
        let mut conn = ClientConnection::new(config, name).map_err(io::Error::other)?;
        conn.set_buffer_limit(Some(UNSENT));
        let until = sys::clock() + HANDSHAKE;
        while conn.is_handshaking() {
            let left = until.since(sys::clock()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left))?;
            socket.set_write_timeout(Some(left))?;
            if until <= sys::clock() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "TLS handshake took too long"));
            }
            match conn.complete_io(&mut socket) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(io::Error::new(e.kind(), format!("TLS handshake: {e}"))),
            }
        }
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        Ok(Arc::new(UpstreamTls { socket: Arc::new(socket), conn: Mutex::new(conn) }))
    }

    pub(super) fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    fn lock(&self) -> MutexGuard<'_, ClientConnection> {
        self.conn.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Reads decrypted bytes without blocking. 0 is the end. Many servers close
    /// without close_notify; that is taken for an end too, as browsers and ngrok's
    /// agent do: HTTP has lengths of its own, and who can cut a connection to the
    /// upstream could do worse.
    pub(super) fn read_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut conn = self.lock();
        loop {
            match conn.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            // 0 here is the end; the next `read` above says of which kind.
            conn.read_tls(&mut Now(self.socket.as_raw_fd()))?;
            conn.process_new_packets().map_err(io::Error::other)?;
            if conn.wants_write() {
                flush(&mut conn, self.socket.as_raw_fd())?;
            }
        }
    }
}

fn flush(conn: &mut ClientConnection, fd: RawFd) -> io::Result<()> {
    while conn.wants_write() {
        conn.write_tls(&mut Now(fd))?;
    }
    Ok(())
}

/// The reactor's side of an [`UpstreamTls`].
pub(super) struct TlsOutlet(pub(super) Arc<UpstreamTls>);

impl Outlet for TlsOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut conn = self.0.lock();
        let n = conn.writer().write(bytes)?;
        match flush(&mut conn, self.fd()) {
            // The rest waits inside, up to the limit; taken is taken.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && n > 0 => Ok(n),
            Err(e) => Err(e),
            Ok(()) => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.0.lock(), self.0.socket.as_raw_fd())
    }

    fn finish(&mut self) {
        let mut conn = self.0.lock();
        conn.send_close_notify();
        // Not the socket's end: many servers stop answering when they see it.
        let _ = flush(&mut conn, self.0.socket.as_raw_fd());
    }

    fn abort(&mut self) {
        let _ = self.0.socket.shutdown(Shutdown::Both);
    }

    fn fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }
}
