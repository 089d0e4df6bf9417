//! Joins a TLS connection to a proxy with a local socket pair, so that the session has a plain
//! socket. Only here the session's bytes pass through a further thread. They are not parsed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustls::ClientConnection;

use crate::sys::poll::{self, PollFd};
use crate::sys::{self, threads};

/// Bytes of one copy.
const BUFFER_BYTES: usize = 16 * 1024;
/// Time to send the last bytes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns our end of a socket pair. A thread joins the other end with the proxy. It ends when
/// either side ends.
pub fn start(tcp: TcpStream, conn: Box<ClientConnection>) -> io::Result<TcpStream> {
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    threads::PROXY_TLS.spawn(Box::new(move || _ = run(&tcp, conn, &theirs)))?;
    Ok(TcpStream::from(OwnedFd::from(ours)))
}

/// Returns `None` for a call that would block.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Copies bytes until one side ends. A side is read only when its earlier bytes were written,
/// so at most one buffer waits in each direction.
fn run(tcp: &TcpStream, mut conn: Box<ClientConnection>, inner: &UnixStream) -> io::Result<()> {
    let mut proxy = sys::NonBlocking(tcp.as_raw_fd());
    let mut from_proxy = vec![0; BUFFER_BYTES];
    // Bytes of the proxy that the session has not accepted yet: `from_proxy[from..to]`.
    let (mut from, mut to) = (0, 0);
    let mut to_proxy = vec![0; BUFFER_BYTES];
    let mut ended = false;
    loop {
        let mut idle = true;
        while conn.wants_write() && unless_blocked(conn.write_tls(&mut proxy))?.is_some() {
            idle = false;
        }
        if !conn.wants_write()
            && let Some(n) = unless_blocked(sys::recv_now(inner.as_raw_fd(), &mut to_proxy))?
        {
            if n == 0 {
                conn.send_close_notify();
                let _ = conn.write_tls(&mut proxy);
                return Ok(());
            }
            // Reason for the index: a socket returns at most the length it was given.
            conn.writer().write_all(&to_proxy[..n])?;
            idle = false;
        }
        if from == to {
            match conn.reader().read(&mut from_proxy) {
                Ok(0) => return Ok(()),
                Ok(n) => (from, to, idle) = (0, n, false),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !ended => {
                    if let Some(n) = unless_blocked(conn.read_tls(&mut proxy))? {
                        ended = n == 0;
                        conn.process_new_packets().map_err(io::Error::other)?;
                        idle = false;
                    }
                }
                // Truncated without close_notify: reported as an end. The session's own TLS
                // distinguishes truncation from an end.
                Err(_) => return Ok(()),
            }
        }
        if from < to
            && let Some(n) =
                unless_blocked(sys::send_now(inner.as_raw_fd(), &from_proxy[from..to]))?
        {
            from += n;
            idle = false;
        }
        if idle {
            let mut fds = [
                PollFd::new(tcp, from == to, conn.wants_write()),
                PollFd::new(inner, !conn.wants_write(), from < to),
            ];
            // After an end with bytes left, only the session's side is waited for.
            poll::wait(&mut fds, if ended { Some(CLOSE_TIMEOUT) } else { None })?;
        }
    }
}
