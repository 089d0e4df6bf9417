//! The bulk of a worker's life: upstream to edge. The other direction is the
//! reactor's (`tunnel::Pipe`).

use std::io;
use std::time::Duration;

use super::conn::Link;
use super::pool::Pool;
use crate::sys::{self, Ready};
use crate::time::Deadline;
use crate::tunnel::{Pipe, SendError};

/// Bytes of the buffer on the stack: enough for a small answer, little enough
/// for a stack that is never touched deeper.
pub(super) const SMALL: usize = 4 * 1024;

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
/// Never reads more than the stream's window allows to send, so that a worker can
/// leave at any time with nothing in its hands. A borrowed buffer is held only
/// while a small one would overflow.
pub(super) fn to_edge(pipe: &Pipe, link: &Link, pool: &Pool) -> Outcome {
    let mut small = [0; SMALL];
    let mut large: Option<Box<[u8]>> = None;
    let outcome = run(pipe, link, pool, &mut small, &mut large);
    if let Some(buffer) = large {
        pool.give_back(buffer);
    }
    outcome
}

fn run(
    pipe: &Pipe,
    link: &Link,
    pool: &Pool,
    small: &mut [u8],
    large: &mut Option<Box<[u8]>>,
) -> Outcome {
    let session = pipe.session();
    let stream = pipe.stream();
    // Whether the last read filled its buffer: then there is more, and no need to ask.
    let mut flowing = false;
    let mut patience = if link.is_plain() { Duration::ZERO } else { PATIENCE };
    loop {
        if !flowing {
            match sys::wait(link.fd(), Some(pool.hurry_fd()), Some(patience)) {
                Ok(Ready::First) => {}
                Ok(Ready::Second) if !pool.is_hungry() => continue,
                Ok(_) => return Outcome::Idle,
                Err(e) => return Outcome::Broken(e),
            }
        }
        let window = match session.window(stream, Deadline::At(sys::clock() + PATIENCE)) {
            Ok(window) => window,
            Err(SendError::Late) => return Outcome::NoWindow,
            Err(_) => return Outcome::Gone,
        };
        if flowing && large.is_none() {
            *large = pool.borrow();
        }
        let buffer = large.as_deref_mut().unwrap_or(small);
        let most = window.min(buffer.len());
        match link.read_now(&mut buffer[..most]) {
            Ok(0) => {
                return if pipe.is_reset() { Outcome::Gone } else { Outcome::Finished };
            }
            Ok(n) => {
                if session.send(stream, &buffer[..n], Deadline::Never).is_err() {
                    return Outcome::Gone;
                }
                flowing = n == most;
                if flowing {
                    patience = PATIENCE;
                }
                if n <= SMALL
                    && let Some(buffer) = large.take()
                {
                    pool.give_back(buffer);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => flowing = false,
            Err(e) => {
                return if pipe.is_reset() { Outcome::Gone } else { Outcome::Broken(e) };
            }
        }
    }
}
