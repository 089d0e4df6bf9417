//! TLS to an upstream: its configuration, the handshake, and the connection that the
//! reactor writes to while a worker reads from it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Error};

use crate::config::{Cas, Verify};
use crate::session::Outlet;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{self, fd_budget};
use crate::time::{Deadline, Instant};
use crate::tls::{client, provider, roots};

/// Time for the handshake with an upstream.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Unsent bytes that the TLS library may hold: one record. They count as forwarded, and every
/// connection may have this number.
const MAX_UNSENT_BYTES: usize = 16 * 1024;

/// Time between two attempts to load the system's roots.
const ROOTS_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// TLS configuration for an endpoint's upstream, with the trusted authorities.
///
/// The system's roots may become available late, with a disk that is mounted or a package that
/// is installed, so missing roots end nothing. Visitors are refused until the roots are
/// available. Each visitor may cause a new attempt to load them.
pub struct UpstreamTlsConfig {
    verify: Verify,
    http2: bool,
    config: OnceLock<Arc<ClientConfig>>,
    /// Reason why `config` is missing, and since when. Not held during other calls.
    missing: Mutex<(Instant, String)>,
}

impl UpstreamTlsConfig {
    /// Returns an error if a file that the user named is unusable. Missing roots of the system
    /// are not an error, because they may become available.
    pub fn new(verify: &Verify, http2: bool) -> io::Result<Self> {
        let client = UpstreamTlsConfig {
            verify: verify.clone(),
            http2,
            config: OnceLock::new(),
            missing: Mutex::default(),
        };
        match client.make() {
            Ok(config) => _ = client.config.set(config),
            Err(e) if *verify == Verify::System => {
                *client.lock() = (sys::clock(), e.to_string());
            }
            Err(e) => return Err(e),
        }
        Ok(client)
    }

    /// Returns why connections are not possible at the moment, if the roots are missing.
    pub fn missing_roots(&self) -> Option<String> {
        self.config.get().is_none().then(|| self.lock().1.clone())
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, String)> {
        self.missing.lock()
    }

    /// Returns the configuration for a connection.
    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.get() {
            return Ok(Arc::clone(config));
        }
        // A missing descriptor is not a fault of the roots.
        let _place = fd_budget::place()?;
        let now = sys::clock();
        let mut missing = self.lock();
        if now.since(missing.0) >= ROOTS_RETRY_INTERVAL {
            missing.0 = now;
            drop(missing);
            let made = self.make();
            missing = self.lock();
            match made {
                Ok(config) => return Ok(Arc::clone(self.config.get_or_init(|| config))),
                Err(e) => missing.1 = e.to_string(),
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, missing.1.as_str()))
    }

    fn make(&self) -> io::Result<Arc<ClientConfig>> {
        let provider = provider::any();
        // Many devices on local networks know only TLS 1.2, so it is allowed here.
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let mut config = match &self.verify {
            Verify::Off => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(client::Unverified(provider)))
                .with_no_client_auth(),
            Verify::System => {
                builder.with_root_certificates(roots::load(&Cas::Host)?).with_no_client_auth()
            }
            Verify::File(path) => builder
                .with_root_certificates(roots::load(&Cas::File(path.clone()))?)
                .with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::in_memory_sessions(2);
        if self.http2 {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        Ok(Arc::new(config))
    }
}

/// Returns an error for the user of the upstream. Its kind is `InvalidData`: the upstream
/// accepts connections, so the advice for one that does not listen would be wrong.
fn explain(e: &io::Error) -> io::Error {
    let inner = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let cause = match (inner, e.kind()) {
        (Some(Error::InvalidMessage(_)), _) => {
            "the upstream does not use TLS; is its address http://, not https://?".to_owned()
        }
        (Some(Error::InvalidCertificate(reason)), _) => format!(
            "the certificate is not accepted: {reason} (a self-signed CA certificate cannot \
             verify itself; sign one with it)"
        ),
        (None, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
            "the upstream reset the connection".to_owned()
        }
        (None, io::ErrorKind::UnexpectedEof) => "the upstream closed the connection".to_owned(),
        (None, io::ErrorKind::TimedOut) => {
            format!("no answer of the upstream within {} s", HANDSHAKE_TIMEOUT.as_secs())
        }
        _ => e.to_string(),
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS handshake: {cause}"))
}

/// A TLS connection to an upstream. One lock for both directions, because TLS has one state.
pub(crate) struct UpstreamTls {
    socket: Arc<TcpStream>,
    conn: Mutex<ClientConnection>,
    /// A write failed with a reset. Bytes can still be read, but their end is not an orderly
    /// one.
    broken: AtomicBool,
}

impl UpstreamTls {
    /// Makes the handshake. `host` is the SNI and the verified name.
    pub(super) fn connect(
        mut socket: TcpStream,
        host: &str,
        client: &UpstreamTlsConfig,
    ) -> io::Result<Arc<Self>> {
        let config = client.config()?;
        let host = host.split('%').next().unwrap_or_default();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            let text = format!("'{host}' is not a name for a certificate");
            explain(&io::Error::other(text))
        })?;
        let mut conn =
            ClientConnection::new(config, name).map_err(|e| explain(&io::Error::other(e)))?;
        conn.set_buffer_limit(Some(MAX_UNSENT_BYTES));
        handshake(&mut conn, &mut socket, Deadline::At(sys::clock() + HANDSHAKE_TIMEOUT))
            .map_err(|e| explain(&e))?;
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        Ok(Arc::new(UpstreamTls {
            socket: Arc::new(socket),
            conn: Mutex::new(conn),
            broken: AtomicBool::new(false),
        }))
    }

    pub(super) fn socket(&self) -> &Arc<TcpStream> {
        &self.socket
    }

    fn lock(&self) -> MutexGuard<'_, ClientConnection> {
        self.conn.lock()
    }

    /// Reads decrypted bytes without blocking. 0 is the end. Many servers close without
    /// close_notify. That counts as an end too, as in browsers and ngrok's agent: HTTP has its
    /// own lengths, and an attacker between agent and upstream has more effective attacks.
    pub(super) fn read_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut conn = self.lock();
        loop {
            match conn.reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    return match self.broken.load(Ordering::Relaxed) {
                        false => Ok(0),
                        true => Err(io::ErrorKind::ConnectionReset.into()),
                    };
                }
                other => return other,
            }
            // 0 is the end here. The next `read` above returns of which kind.
            conn.read_tls(&mut sys::NonBlocking(self.socket.as_raw_fd()))?;
            conn.process_new_packets().map_err(io::Error::other)?;
            // Received bytes come first, independent of room to write.
            if let Err(e) = flush(&mut conn, self.socket.as_raw_fd())
                && !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::BrokenPipe)
            {
                self.broken.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Makes the handshake. All waits end at `deadline`, also with a slow peer.
fn handshake(
    conn: &mut ClientConnection,
    socket: &mut TcpStream,
    deadline: Deadline,
) -> io::Result<()> {
    while conn.is_handshaking() || conn.wants_write() {
        let left = deadline.left(sys::clock()).unwrap_or(HANDSHAKE_TIMEOUT);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Sockets do not support a shorter timeout.
        let left = Some(left.max(Duration::from_millis(1)));
        let done = if conn.wants_write() {
            socket.set_write_timeout(left)?;
            conn.write_tls(socket)
        } else {
            socket.set_read_timeout(left)?;
            conn.read_tls(socket)
        };
        match done {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e)
                if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(e) => return Err(e),
        }
        if let Err(e) = conn.process_new_packets() {
            // Sends the alert with the reason, if there is room.
            let _ = flush(conn, socket.as_raw_fd());
            return Err(io::Error::new(io::ErrorKind::InvalidData, e));
        }
    }
    Ok(())
}

fn flush(conn: &mut ClientConnection, fd: RawFd) -> io::Result<()> {
    while conn.wants_write() {
        conn.write_tls(&mut sys::NonBlocking(fd))?;
    }
    Ok(())
}

/// Outlet of an [`UpstreamTls`], for the reactor.
pub(super) struct TlsOutlet(pub(super) Arc<UpstreamTls>);

impl Outlet for TlsOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut conn = self.0.lock();
        loop {
            let n = conn.writer().write(bytes)?;
            match flush(&mut conn, self.fd()) {
                // The rest waits in the library, up to its limit. Accepted bytes stay accepted.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && n > 0 => return Ok(n),
                Err(e) => return Err(e),
                Ok(()) if n > 0 || bytes.is_empty() => return Ok(n),
                // The buffer was full and is empty now: no event would report that.
                Ok(()) => {}
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        flush(&mut self.0.lock(), self.0.socket.as_raw_fd())
    }

    fn finish(&mut self) {
        let mut conn = self.0.lock();
        conn.send_close_notify();
        // Without the socket's end: many servers stop responding when they receive it.
        let _ = flush(&mut conn, self.0.socket.as_raw_fd());
    }

    fn abort(&mut self) {
        sys::reset_on_close(self.fd());
        let _ = self.0.socket.shutdown(Shutdown::Read);
    }

    fn fd(&self) -> RawFd {
        self.0.socket.as_raw_fd()
    }
}

// The servers speak TLS 1.2, like many devices.
#[cfg(all(test, feature = "tls12"))]
mod tests {
    use super::*;
    use crate::sys::poll;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ServerConfig, ServerConnection, Stream};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};

    /// Returns a server with TLS 1.2, like many devices, and its address.
    fn server(
        serve: impl FnOnce(ServerConnection, TcpStream) + Send + 'static,
    ) -> (std::net::SocketAddr, JoinHandle<()>) {
        let cert = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(cert.signing_key.serialize_der()));
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS12])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.cert.der().clone()], key)
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            serve(ServerConnection::new(Arc::new(config)).unwrap(), socket);
        });
        (address, thread)
    }

    fn connect(address: std::net::SocketAddr) -> Arc<UpstreamTls> {
        let client = UpstreamTlsConfig::new(&Verify::Off, false).unwrap();
        UpstreamTls::connect(TcpStream::connect(address).unwrap(), "localhost", &client).unwrap()
    }

    #[test]
    fn an_outlet_that_was_full_takes_more_once_there_is_room() {
        let (go, started) = mpsc::channel();
        let (address, thread) = server(move |mut conn, mut socket| {
            conn.complete_io(&mut socket).unwrap();
            started.recv().unwrap();
            let mut buf = vec![0; 65_536];
            while matches!(Stream::new(&mut conn, &mut socket).read(&mut buf), Ok(1..)) {}
        });
        let tls = connect(address);
        let mut outlet = TlsOutlet(Arc::clone(&tls));
        let bytes = vec![7; 50_000];
        let full = loop {
            match outlet.write(&bytes) {
                Ok(n) => assert!(n > 0),
                Err(e) => break e,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        go.send(()).unwrap();
        // 0 would look like another time without room, and no event would follow.
        loop {
            poll::writable(&outlet.fd(), Some(Duration::from_secs(20))).unwrap();
            match outlet.write(&bytes) {
                Ok(n) => break assert!(n > 0),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
        }
        outlet.abort();
        // The reset is sent with the last handle. The server waits for it.
        drop((outlet, tls));
        thread.join().unwrap();
    }

    #[test]
    fn what_is_there_to_read_does_not_wait_for_room_to_write() {
        let (say, said) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let (address, thread) = server(move |mut conn, mut socket| {
            conn.complete_io(&mut socket).unwrap();
            said.recv().unwrap();
            conn.writer().write_all(b"stop").unwrap();
            conn.write_tls(&mut socket).unwrap();
            let _ = ended.recv();
        });
        let tls = connect(address);
        let mut outlet = TlsOutlet(Arc::clone(&tls));
        while outlet.write(&[7; 50_000]).is_ok() {}
        say.send(()).unwrap();
        assert!(poll::readable(&outlet.fd(), Some(Duration::from_secs(20))).unwrap());
        let mut buf = [0; 10];
        assert_eq!(tls.read_now(&mut buf).unwrap(), 4);
        drop(end);
        thread.join().unwrap();
    }

    #[test]
    fn a_peer_that_talks_slowly_does_not_hold_the_handshake() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // The header of a handshake record, then its bytes one by one.
            socket.write_all(&[22, 3, 3, 0x40, 0, 2, 0, 0x3f, 0xfc]).unwrap();
            let pace = Duration::from_millis(20);
            while ended.recv_timeout(pace) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = socket.write_all(&[0]);
            }
        });
        let config = UpstreamTlsConfig::new(&Verify::Off, false).unwrap().config().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut conn = ClientConnection::new(config, name).unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        let deadline = Deadline::At(sys::clock() + Duration::from_millis(200));
        let late = handshake(&mut conn, &mut socket, deadline).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        drop(end);
        thread.join().unwrap();
    }
}
