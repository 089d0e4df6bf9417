//! TLS of visitors that the agent terminates (protocol 6.4): the handshake over the stream, and
//! both directions after it. The key stays on this machine, and the edge passes bytes through.
//! The configuration is in [`crate::tls::server`].

use std::io::{self, BufRead, IoSliceMut, Write};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

use super::pool::Pool;
use crate::config::modules::TlsTermination;
use crate::session::{Outlet, Pipe, SendError};
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::Deadline;
use crate::tls::server;

/// Time for a visitor's handshake; the second value applies while connections wait for a
/// worker.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const BUSY_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time between two checks whether connections wait for a worker.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Bytes of one read from the upstream: half a record, on the stack of a worker.
const READ_BYTES: usize = 8 * 1024;

/// Returns the configuration for visitors, if the agent terminates their TLS.
pub fn server_config(end: &TlsTermination) -> io::Result<Option<Arc<ServerConfig>>> {
    match end {
        TlsTermination::Agent { certificate, key, client_cas } => {
            server::visitor_config(certificate, key, client_cas).map(Some)
        }
        _ => Ok(None),
    }
}

/// TLS of one visitor. One lock for both directions, because TLS has one state.
pub(crate) struct VisitorTls(Mutex<TlsState>);

struct TlsState {
    conn: ServerConnection,
    /// The upstream has sent everything, and close_notify was queued.
    closed: bool,
}

impl VisitorTls {
    /// Makes the visitor's handshake over the stream, on a worker.
    pub(super) fn accept(
        pipe: &Pipe,
        config: &Arc<ServerConfig>,
        pool: &Pool,
    ) -> io::Result<Arc<Self>> {
        let mut conn = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let began = sys::clock();
        let deadline = Deadline::At(began + HANDSHAKE_TIMEOUT);
        let mut buf = [0; 4096];
        while conn.is_handshaking() {
            let n = match pipe.read(&mut buf, Deadline::At(sys::clock() + POLL_INTERVAL)) {
                Ok(0) => {
                    let text = "the visitor disconnected in the handshake";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
                }
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    let since = sys::clock().since(began);
                    let timeout =
                        if pool.has_waiting() { BUSY_HANDSHAKE_TIMEOUT } else { HANDSHAKE_TIMEOUT };
                    if since < timeout {
                        continue;
                    }
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
                }
                Err(e) => return Err(e),
            };
            let mut rest = buf.get(..n).unwrap_or_default();
            while !rest.is_empty() {
                // Bytes after a close_notify are ignored.
                if conn.read_tls(&mut rest)? == 0 {
                    break;
                }
                let failed = conn.process_new_packets().err();
                // After a failure this is the alert with the reason.
                let sent = flush(&mut conn, pipe, deadline);
                if let Some(e) = failed {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, e));
                }
                sent.map_err(io::Error::other)?;
            }
        }
        Ok(Arc::new(VisitorTls(Mutex::new(TlsState { conn, closed: false }))))
    }

    fn lock(&self) -> MutexGuard<'_, TlsState> {
        self.0.lock()
    }

    /// Fills `bufs` with records for the visitor, made from the bytes of `upstream`. Does not
    /// block. 0 is the end, after close_notify. Not inlined: connections without TLS must not
    /// use its stack.
    #[inline(never)]
    pub(super) fn read_now(
        &self,
        mut read: impl FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        let mut state = self.lock();
        let TlsState { conn, closed } = &mut *state;
        let mut bufs = BufWriter { bufs, at: 0 };
        let mut sum = 0;
        let mut plaintext = [0; READ_BYTES];
        loop {
            while conn.wants_write() {
                match conn.write_tls(&mut bufs)? {
                    // The rest waits for the next call.
                    0 => return Ok(sum),
                    n => sum += n,
                }
            }
            if *closed {
                return Ok(sum);
            }
            match read(&mut [IoSliceMut::new(&mut plaintext)]) {
                Ok(0) => {
                    *closed = true;
                    conn.send_close_notify();
                }
                Ok(n) => conn.writer().write_all(plaintext.get(..n).unwrap_or_default())?,
                // The next call returns the error again.
                Err(_) if sum > 0 => return Ok(sum),
                Err(e) => return Err(e),
            }
        }
    }
}

fn flush(conn: &mut ServerConnection, pipe: &Pipe, deadline: Deadline) -> Result<(), SendError> {
    let mut out = Vec::new();
    while conn.wants_write() && conn.write_tls(&mut out).is_ok() {}
    match out.is_empty() {
        true => Ok(()),
        false => pipe.session().send(pipe.stream(), &out, deadline).map(drop),
    }
}

/// Writer into several buffers in order. Accepts nothing when they are full.
struct BufWriter<'a, 'b> {
    bufs: &'a mut [IoSliceMut<'b>],
    /// Number of bytes in the first one.
    at: usize,
}

impl Write for BufWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(buf) = self.bufs.first_mut() {
            let room = buf.get_mut(self.at..).unwrap_or_default();
            let n = room.len().min(bytes.len() - done);
            room[..n].copy_from_slice(&bytes[done..done + n]);
            done += n;
            self.at += n;
            if n < room.len() {
                break;
            }
            self.at = 0;
            self.bufs = std::mem::take(&mut self.bufs).get_mut(1..).unwrap_or_default();
        }
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Outlet for a visitor's bytes: out of TLS, into the upstream's outlet.
pub(super) struct VisitorOutlet {
    tls: Arc<VisitorTls>,
    upstream: Box<dyn Outlet>,
    /// The visitor's close_notify arrived, and the end was passed to the upstream.
    ended: bool,
}

impl VisitorOutlet {
    /// Returns this outlet in front of the upstream's own.
    pub(super) fn wrap(tls: Arc<VisitorTls>, upstream: Box<dyn Outlet>) -> Box<dyn Outlet> {
        Box::new(VisitorOutlet { tls, upstream, ended: false })
    }

    /// Forwards the bytes that are decrypted already.
    fn forward_plaintext(&mut self, conn: &mut ServerConnection) -> io::Result<()> {
        let mut reader = conn.reader();
        while !self.ended {
            let n = match reader.fill_buf() {
                Ok([]) => {
                    self.ended = true;
                    self.upstream.finish();
                    break;
                }
                Ok(bytes) => self.upstream.write(bytes)?,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            if n == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            reader.consume(n);
        }
        self.upstream.flush()
    }
}

impl Outlet for VisitorOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let tls = Arc::clone(&self.tls);
        let conn = &mut tls.lock().conn;
        let mut rest = bytes;
        loop {
            // Decrypted bytes are forwarded before more are read: at most one record waits.
            match self.forward_plaintext(conn) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && rest.len() < bytes.len() => {
                    return Ok(bytes.len() - rest.len());
                }
                Err(e) => return Err(e),
            }
            // Bytes after the visitor's close_notify are ignored.
            if rest.is_empty() || self.ended || conn.read_tls(&mut rest)? == 0 {
                return Ok(bytes.len());
            }
            if let Err(e) = conn.process_new_packets() {
                // The upstream is not at fault, but its connection ends too.
                self.upstream.abort();
                return Err(io::Error::new(io::ErrorKind::InvalidData, e));
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let tls = Arc::clone(&self.tls);
        self.forward_plaintext(&mut tls.lock().conn)
    }

    fn finish(&mut self) {
        // An end without close_notify: the connection was truncated, and the upstream's bytes
        // may be incomplete.
        if !self.ended {
            self.upstream.abort();
        }
    }

    fn abort(&mut self) {
        self.upstream.abort();
    }

    fn fd(&self) -> RawFd {
        self.upstream.fd()
    }
}
