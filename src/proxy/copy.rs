//! Copies bytes from an upstream to the edge, on a worker. The reactor copies the other
//! direction (`session::Pipe`).

use std::io::{self, IoSliceMut};
use std::time::Duration;

use super::pool::Pool;
use super::upstream::UpstreamConn;
use crate::inspect::Tap;
use crate::session::{Pipe, SendError};
use crate::sys;
use crate::sys::poll::{self, PollFd};
use crate::time::Deadline;

/// Bytes of one read while the amount is not known: as many as the reactor forwards itself.
pub(super) const SMALL_READ_BYTES: usize = 8 * 1024;

/// Bytes of one read in bulk: they fit one turn at the link.
const BULK_READ_BYTES: usize = 64 * 1024;

/// Time without a byte after which a bulk connection is parked and its worker freed. Others are
/// parked at once, because the reactor is faster for small amounts.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reason why the worker is free again.
pub(super) enum CopyOutcome {
    /// The upstream has sent everything.
    Finished,
    /// The upstream's connection has failed.
    Broken(io::Error),
    /// The stream or the session has ended.
    Gone,
    /// The upstream has sent nothing for a while.
    Idle,
    /// The visitor has read nothing for a while.
    NoWindow,
}

/// Reads from the upstream and sends to the edge until one of them pauses.
///
/// Bytes are read from the upstream's socket directly into records of the link, never more than
/// the stream's window allows to send. A worker holds no buffer, so it can leave at any time.
pub(super) fn to_edge(
    pipe: &Pipe,
    upstream: &UpstreamConn,
    pool: &Pool,
    sent: &dyn Fn(usize),
    tap: Option<&Tap>,
) -> CopyOutcome {
    let read = |bufs: &mut [IoSliceMut<'_>]| {
        let n = upstream.read_now(bufs)?;
        sent(n);
        if let Some(tap) = tap {
            tap.responses(bufs, n);
        }
        Ok(n)
    };
    let session = pipe.session();
    let stream = pipe.stream();
    // Whether the last read filled its buffer: then more is available, and a wait for the
    // socket is not needed. The socket also does not report bytes that the TLS library holds,
    // such as a greeting in the same packet as the handshake's last message.
    let mut flowing = !upstream.is_plain();
    let mut idle_timeout = if upstream.is_plain() { Duration::ZERO } else { IDLE_TIMEOUT };
    loop {
        if !flowing {
            let mut fds = [upstream.fd(), pool.waiting_fd()].map(|fd| PollFd::readable(&fd));
            match poll::wait(&mut fds, Some(idle_timeout)) {
                Ok(()) if fds[0].is_ready() => {}
                Ok(()) if fds[1].is_ready() && !pool.has_waiting() => continue,
                Ok(()) => return CopyOutcome::Idle,
                Err(e) => return CopyOutcome::Broken(e),
            }
        }
        let window = match session.window(stream, Deadline::At(sys::clock() + IDLE_TIMEOUT)) {
            Ok(window) => window,
            Err(SendError::Late) => return CopyOutcome::NoWindow,
            Err(_) => return CopyOutcome::Gone,
        };
        let max = window.min(if flowing { BULK_READ_BYTES } else { SMALL_READ_BYTES });
        match session.forward_bulk(stream, max, read) {
            Err(_) => return CopyOutcome::Gone,
            Ok(Ok(0)) => return end(pipe),
            Ok(Ok(n)) => {
                flowing = n >= SMALL_READ_BYTES.min(max);
                if flowing {
                    idle_timeout = IDLE_TIMEOUT;
                }
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => flowing = false,
            Ok(Err(e)) => {
                return if pipe.is_reset() { CopyOutcome::Gone } else { CopyOutcome::Broken(e) };
            }
        }
    }
}

/// Returns what the end of the upstream's socket means.
pub(super) fn end(pipe: &Pipe) -> CopyOutcome {
    if pipe.is_reset() {
        return CopyOutcome::Gone;
    }
    match pipe.write_error() {
        Some(how) => CopyOutcome::Broken(how.into()),
        None => CopyOutcome::Finished,
    }
}
