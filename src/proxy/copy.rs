//! Copies bytes from an upstream to the edge on a worker. The other direction is the
//! reactor's (`session::Pipe`).

use std::io::{self, IoSliceMut};
use std::time::Duration;

use super::pool::Pool;
use super::upstream::UpstreamConn;
use crate::inspect::Tap;
use crate::metrics;
use crate::session::{Pipe, SendError};
use crate::sys;
use crate::sys::poll::{self, PollFd};
use crate::time::Deadline;

/// Bytes read at once while it is not known that there is much: as much as the
/// reactor takes upon itself.
pub(super) const SMALL_READ_BYTES: usize = 8 * 1024;

/// Bytes read at once when there is much: what fits a turn at the link.
const BULK_READ_BYTES: usize = 64 * 1024;

/// After this long without a byte the worker goes and the connection is parked,
/// if much has flowed; else at once: the reactor is quicker with what is little.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the worker is free again.
pub(super) enum CopyOutcome {
    /// The upstream has sent everything.
    Finished,
    /// The upstream's connection broke.
    Broken(io::Error),
    /// The stream or the session is over.
    Gone,
    /// Nothing to read for a while.
    Idle,
    /// The visitor takes nothing for a while.
    NoWindow,
}

/// Reads the upstream and sends to the edge until one of them stops for a while.
///
/// Bytes go from the upstream's socket straight into records of the link, never
/// more than the stream's window allows to send: a worker holds no buffer and can
/// leave at any time with nothing in its hands.
pub(super) fn to_edge(
    pipe: &Pipe,
    upstream: &UpstreamConn,
    pool: &Pool,
    metrics: &metrics::EndpointMetrics,
    tap: Option<&Tap>,
) -> CopyOutcome {
    let read = |bufs: &mut [IoSliceMut<'_>]| {
        let n = upstream.read_now(bufs)?;
        metrics.sent(n);
        if let Some(tap) = tap {
            tap.responses(bufs, n);
        }
        Ok(n)
    };
    let session = pipe.session();
    let stream = pipe.stream();
    // Whether the last read found as much as it could take: then there is more, and
    // no need to ask. Nor would the socket tell of what the TLS library holds: a
    // greeting that came with the handshake's last message.
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

/// What it means that the upstream's socket has come to its end.
pub(super) fn end(pipe: &Pipe) -> CopyOutcome {
    if pipe.is_reset() {
        return CopyOutcome::Gone;
    }
    match pipe.write_error() {
        Some(how) => CopyOutcome::Broken(how.into()),
        None => CopyOutcome::Finished,
    }
}
