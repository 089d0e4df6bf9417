//! The bulk of a worker's life: upstream to edge. The other direction is the
//! reactor's (`session::Pipe`).

use std::io::{self, IoSliceMut};
use std::time::Duration;

use super::conn::Link;
use super::pool::Pool;
use crate::inspect::Tap;
use crate::metrics;
use crate::session::{Pipe, SendError};
use crate::sys;
use crate::sys::poll::{self, PollFd};
use crate::time::Deadline;

/// Bytes read at once while it is not known that there is much: as much as the
/// reactor takes upon itself.
pub(super) const SMALL: usize = 8 * 1024;

/// Bytes read at once when there is much: what fits a turn at the link.
const BULK: usize = 64 * 1024;

/// After this long without a byte the worker goes and the connection is parked,
/// if much has flowed; else at once: the reactor is quicker with what is little.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the worker is free again.
pub(super) enum Outcome {
    /// The upstream has sent everything.
    Finished,
    /// The upstream's connection broke.
    Broken(io::Error),
    /// The stream or the session is over: nobody wants more.
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
    link: &Link,
    pool: &Pool,
    metrics: &metrics::EndpointMetrics,
    tap: Option<&Tap>,
) -> Outcome {
    let read = |places: &mut [IoSliceMut<'_>]| {
        let n = link.read_now(places)?;
        metrics.sent(n);
        if let Some(tap) = tap {
            tap.responses(places, n);
        }
        Ok(n)
    };
    let session = pipe.session();
    let stream = pipe.stream();
    // Whether the last read found as much as it could take: then there is more, and
    // no need to ask. Nor would the socket tell of what the TLS library holds: a
    // greeting that came with the handshake's last message.
    let mut flowing = !link.is_plain();
    let mut patience = if link.is_plain() { Duration::ZERO } else { PATIENCE };
    loop {
        if !flowing {
            let mut fds = [link.fd(), pool.hurry_fd()].map(|fd| PollFd::readable(&fd));
            match poll::wait(&mut fds, Some(patience)) {
                Ok(()) if fds[0].is_ready() => {}
                Ok(()) if fds[1].is_ready() && !pool.is_hungry() => continue,
                Ok(()) => return Outcome::Idle,
                Err(e) => return Outcome::Broken(e),
            }
        }
        let window = match session.window(stream, Deadline::At(sys::clock() + PATIENCE)) {
            Ok(window) => window,
            Err(SendError::Late) => return Outcome::NoWindow,
            Err(_) => return Outcome::Gone,
        };
        let most = window.min(if flowing { BULK } else { SMALL });
        match session.pass_on(stream, most, read) {
            Err(_) => return Outcome::Gone,
            Ok(Ok(0)) => return end(pipe),
            Ok(Ok(n)) => {
                flowing = n >= SMALL.min(most);
                if flowing {
                    patience = PATIENCE;
                }
            }
            Ok(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => flowing = false,
            Ok(Err(e)) => {
                return if pipe.is_reset() { Outcome::Gone } else { Outcome::Broken(e) };
            }
        }
    }
}

/// What it means that the upstream's socket has come to its end.
pub(super) fn end(pipe: &Pipe) -> Outcome {
    if pipe.is_reset() {
        return Outcome::Gone;
    }
    match pipe.broken() {
        Some(how) => Outcome::Broken(how.into()),
        None => Outcome::Finished,
    }
}
