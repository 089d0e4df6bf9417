//! Joins a TLS connection to a proxy with a local socket pair, so that the session sees a
//! plain socket. Only here do the session's bytes pass a thread of their own. The bytes
//! are not parsed.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustls::ClientConnection;

use crate::sys::poll::{self, PollFd};
use crate::sys::{self, threads};

/// Bytes that are moved at once.
const BUFFER_BYTES: usize = 16 * 1024;
/// How long the last bytes may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Our end of a pair whose other end a thread joins with the proxy. It ends when
/// either side does.
pub fn start(tcp: TcpStream, conn: Box<ClientConnection>) -> io::Result<TcpStream> {
    let (ours, theirs) = UnixStream::pair()?;
    theirs.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    threads::PROXY_TLS.spawn(Box::new(move || _ = run(&tcp, conn, &theirs)))?;
    Ok(TcpStream::from(OwnedFd::from(ours)))
}

/// `None` where a call would block.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

/// Moves bytes until one side ends. Each side is read only when what came before
/// has gone: nothing piles up.
fn run(tcp: &TcpStream, mut conn: Box<ClientConnection>, inner: &UnixStream) -> io::Result<()> {
    let mut proxy = sys::NonBlocking(tcp.as_raw_fd());
    let mut from_proxy = vec![0; BUFFER_BYTES];
    // What the proxy sent and the session has not taken yet: `from_proxy[from..to]`.
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
                // Cut without a close_notify: the end for the session as well, whose
                // own TLS tells a cut from an end.
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
            // With an end seen and bytes left, the session's side alone decides.
            poll::wait(&mut fds, if ended { Some(CLOSE_TIMEOUT) } else { None })?;
        }
    }
}
