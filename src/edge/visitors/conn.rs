//! Connection of a visitor, with or without TLS. Its own thread reads it with blocking calls.
//! The reactor of an agent's session writes to it and never blocks. HTTP does not belong here.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{HandshakeKind, ServerConnection};

use super::origin::ConnectionOrigin;
use super::visitor::Visitor;
use crate::edge::actions::tls::{TlsOptions, version_name};
use crate::edge::policy::phases::TlsDetails;
use crate::session::Outlet;
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::Deadline;

/// Ciphertext of one read: the largest TLS record.
const CIPHERTEXT_READ_BYTES: usize = 16 * 1024 + 512;

/// Limit of plaintext and of ciphertext that the TLS state buffers.
const TLS_BUFFER_BYTES: usize = 64 * 1024;

/// Time to send a page, and for a handshake without a deadline.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connection of a visitor. Dropping it closes it.
pub struct VisitorConn {
    socket: Arc<TcpStream>,
    visitor: Arc<Visitor>,
    /// TLS state, for the reader and the writer.
    /// Rank: below [`Tls::ciphertext`], above nothing.
    tls: Option<Tls>,
    /// Current read timeout of the socket in milliseconds. Saves a system call.
    timeout: AtomicU32,
    /// Options of the endpoint whose handshake was made.
    tls_options: Option<Arc<TlsOptions>>,
}

struct Tls {
    state: Mutex<ServerConnection>,
    /// Received ciphertext that `state` has not read yet. Used by the reading thread only.
    ciphertext: Mutex<CiphertextBuffer>,
    /// Server name of the handshake. Each request needs it.
    server_name: OnceLock<Option<String>>,
    /// Result of the handshake, for policies.
    details: OnceLock<Arc<TlsDetails>>,
}

/// Returns the result of a handshake.
fn details_of(state: &ServerConnection) -> TlsDetails {
    let suite = state.negotiated_cipher_suite().map(|suite| suite.suite());
    TlsDetails {
        version: state.protocol_version().map(version_name).unwrap_or_default(),
        // The names of rustls have the version where the standard has none.
        cipher_suite: suite
            .and_then(|suite| suite.as_str())
            .map(|name| name.replacen("TLS13_", "TLS_", 1))
            .unwrap_or_default(),
        alpn: state
            .alpn_protocol()
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .unwrap_or_default(),
        resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        certificate: state
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(|certificate| certificate.as_ref().to_vec()),
    }
}

#[derive(Default)]
struct CiphertextBuffer {
    buf: Vec<u8>,
    start: usize,
}

impl VisitorConn {
    /// Returns a connection without TLS.
    pub fn plain(socket: Arc<TcpStream>, visitor: Arc<Visitor>) -> Self {
        VisitorConn { socket, visitor, tls: None, timeout: AtomicU32::new(0), tls_options: None }
    }

    /// Returns a connection with a TLS handshake by `state`. `first` was read already.
    pub fn tls(
        socket: Arc<TcpStream>,
        visitor: Arc<Visitor>,
        mut state: ServerConnection,
        tls_options: Option<Arc<TlsOptions>>,
        first: Vec<u8>,
        deadline: Deadline,
    ) -> io::Result<Self> {
        state.set_buffer_limit(Some(TLS_BUFFER_BYTES));
        let tls = Tls {
            state: Mutex::new(state),
            ciphertext: Mutex::new(CiphertextBuffer { buf: first, start: 0 }),
            server_name: OnceLock::new(),
            details: OnceLock::new(),
        };
        let timeout = AtomicU32::new(0);
        let conn = VisitorConn { socket, visitor, tls: Some(tls), timeout, tls_options };
        conn.handshake(deadline)?;
        Ok(conn)
    }

    /// Returns the address of the visitor, or of the proxy that sends HTTP on its behalf.
    pub fn peer(&self) -> SocketAddr {
        self.visitor.origin().peer
    }

    /// Returns the server name of the visitor's TLS handshake.
    pub fn server_name(&self) -> Option<&str> {
        let tls = self.tls.as_ref()?;
        let read = || tls.state.lock().server_name().map(str::to_owned);
        tls.server_name.get_or_init(read).as_deref()
    }

    /// Returns the result of the TLS handshake. It is read once.
    pub fn handshake_details(&self) -> Option<Arc<TlsDetails>> {
        let tls = self.tls.as_ref()?;
        let details = tls.details.get_or_init(|| Arc::new(details_of(&tls.state.lock())));
        Some(Arc::clone(details))
    }

    /// Returns the options of the endpoint whose handshake was made.
    pub fn tls_options(&self) -> Option<&Arc<TlsOptions>> {
        self.tls_options.as_ref()
    }

    /// Returns the visitor's place.
    pub fn visitor(&self) -> &Arc<Visitor> {
        &self.visitor
    }

    /// Returns the addresses of the connection.
    pub fn origin(&self) -> ConnectionOrigin {
        self.visitor.origin()
    }

    /// Returns whether the edge terminates TLS on this connection.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns the socket, for the reactor to watch.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Limits the wait of each [`VisitorConn::read`].
    pub fn set_read_timeout(&self, time: Duration) {
        // Zero would disable the limit.
        let ms = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
        if self.timeout.swap(ms, Ordering::Relaxed) != ms {
            // After a failure the former limit stays.
            let _ = self.socket.set_read_timeout(Some(Duration::from_millis(ms.into())));
        }
    }

    /// Reads bytes of the visitor and waits for them. 0 is the end. Returns `UnexpectedEof` if
    /// TLS has ended without close_notify: a part may be missing. One thread may call it.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else {
            return self.receive(buf);
        };
        let mut ciphertext = tls.ciphertext.lock();
        loop {
            {
                let mut state = tls.state.lock();
                loop {
                    match state.reader().read(buf) {
                        Ok(n) => return Ok(n),
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        Err(e) => return Err(e),
                    }
                    if ciphertext.start == ciphertext.buf.len() {
                        break;
                    }
                    self.feed(&mut state, &mut ciphertext)?;
                }
            }
            // Blocks without the writer's lock.
            ciphertext.start = 0;
            ciphertext.buf.resize(CIPHERTEXT_READ_BYTES, 0);
            let n = match self.receive(&mut ciphertext.buf) {
                Ok(n) => n,
                Err(e) => {
                    ciphertext.buf.clear();
                    return Err(e);
                }
            };
            ciphertext.buf.truncate(n);
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        let n = retry(|| (&*self.socket).read(buf))?;
        self.visitor.record_progress();
        Ok(n)
    }

    /// Returns whether bytes of the visitor wait in the socket.
    pub fn has_input(&self) -> bool {
        matches!(self.socket.peek(&mut [0]), Ok(1..))
    }

    /// Gives back the memory of buffers that hold nothing.
    pub fn shrink(&self) {
        if let Some(tls) = &self.tls {
            let mut ciphertext = tls.ciphertext.lock();
            if ciphertext.start == ciphertext.buf.len() {
                *ciphertext = CiphertextBuffer::default();
            }
        }
    }

    /// Passes received bytes to TLS and sends the bytes that TLS returns.
    fn feed(
        &self,
        state: &mut ServerConnection,
        ciphertext: &mut CiphertextBuffer,
    ) -> io::Result<()> {
        let mut rest = &ciphertext.buf[ciphertext.start..];
        let before = rest.len();
        state.read_tls(&mut rest)?;
        ciphertext.start += before - rest.len();
        let processed = state.process_new_packets();
        while state.wants_write() {
            match state.write_tls(&mut sys::NonBlocking(self.fd())) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        match processed {
            Ok(_) => Ok(()),
            Err(e) => Err(io::Error::new(io::ErrorKind::InvalidData, e.to_string())),
        }
    }

    fn handshake(&self, deadline: Deadline) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let mut ciphertext = tls.ciphertext.lock();
        let mut state = tls.state.lock();
        loop {
            while ciphertext.start < ciphertext.buf.len() && state.is_handshaking() {
                self.feed(&mut state, &mut ciphertext)?;
            }
            if !state.is_handshaking() {
                return Ok(());
            }
            let left = deadline.left(sys::clock()).unwrap_or(PAGE_TIMEOUT);
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.set_read_timeout(left);
            ciphertext.start = 0;
            ciphertext.buf.resize(CIPHERTEXT_READ_BYTES, 0);
            let n = self.receive(&mut ciphertext.buf)?;
            ciphertext.buf.truncate(n);
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Writes without waiting. Returns `WouldBlock` if nothing can be written.
    pub fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.write_some(bytes)?;
        self.visitor.record_progress();
        Ok(n)
    }

    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return sys::send_now(self.fd(), bytes) };
        let mut state = tls.state.lock();
        let mut done = 0;
        while done < bytes.len() {
            if !self.push(&mut state)? {
                break;
            }
            let end = bytes.len().min(done + TLS_BUFFER_BYTES / 2);
            done += state.writer().write(&bytes[done..end])?;
        }
        self.push(&mut state)?;
        if done == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(done)
    }

    /// Sends the bytes that TLS buffers. Returns false if some are left.
    pub fn flush_now(&self) -> io::Result<bool> {
        match &self.tls {
            None => Ok(true),
            Some(tls) => self.push(&mut tls.state.lock()),
        }
    }

    fn push(&self, state: &mut ServerConnection) -> io::Result<bool> {
        while state.wants_write() {
            match state.write_tls(&mut sys::NonBlocking(self.fd())) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Writes all bytes and waits for the socket. For pages, while no stream writes.
    pub fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.set_write_timeout(Some(PAGE_TIMEOUT))?;
        let Some(tls) = &self.tls else { return (&*self.socket).write_all(bytes) };
        let mut state = tls.state.lock();
        let mut rest = bytes;
        while !rest.is_empty() || state.wants_write() {
            let n = state.writer().write(rest)?;
            rest = &rest[n..];
            while state.wants_write() {
                state.write_tls(&mut &*self.socket)?;
            }
        }
        Ok(())
    }

    /// Returns whether the connection was reset or timed out since the last call. A read
    /// reports no reset that follows an orderly end.
    pub fn has_failed(&self) -> bool {
        self.socket.take_error().map_or(true, |error| error.is_some())
    }

    /// Ends the direction to the visitor in an orderly way.
    pub fn finish(&self) {
        if let Some(tls) = &self.tls {
            let mut state = tls.state.lock();
            state.send_close_notify();
            // The close_notify is not needed if the visitor reads nothing more.
            let _ = self.push(&mut state);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Wakes the reading thread, which reads the end of the connection.
    pub fn stop_reading(&self) {
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Marks the connection as broken. The reading thread wakes up, and the close that follows
    /// is a reset.
    pub fn abort(&self) {
        sys::reset_on_close(self.fd());
        self.stop_reading();
    }
}

/// The reactor's side of the connection.
impl Outlet for &VisitorConn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_now(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.flush_now()? {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn finish(&mut self) {
        VisitorConn::finish(self);
    }

    fn abort(&mut self) {
        VisitorConn::abort(self);
    }

    fn fd(&self) -> RawFd {
        VisitorConn::fd(self)
    }
}

fn retry(mut read: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match read() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
