//! Connections whose bytes are forwarded unread: TCP endpoints, TLS endpoints, and HTTP
//! connections after an upgrade. Each direction ends separately.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::conn::VisitorConn;
use super::exchange::VisitorExchange;
use super::exchange_state::RequestStart;
use super::failover::MAX_MEMBERS;
use super::response::ResponseFilter;
use crate::edge::Edge;
use crate::edge::agents::registry::OnlineEndpoint;
use crate::edge::config::Limits;
use crate::event;
use crate::mux::MAX_FIRST;
use crate::session::SendError;
use crate::sys::poll;

/// Size of the read buffer at the start, and with TLS after a read that filled it.
const INITIAL_BUFFER_BYTES: usize = 8 * 1024;
const LARGE_BUFFER_BYTES: usize = 128 * 1024;

/// Consecutive reads below [`SMALL_READ_BYTES`] after which the reactor reads the socket: the
/// thread is not woken for each line of a terminal.
const PARK_AFTER_READS: u32 = 2;
const SMALL_READ_BYTES: usize = 2 * 1024;

/// Time to deliver the last bytes of a stream that was reset.
pub(super) const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Practically no limit: the kernel's keep-alive ends dead connections.
pub(super) const NO_READ_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3_600);

/// Connects a visitor with a new stream to `endpoint`, or to another member of its pool if no
/// stream can be opened there. `first` was read already.
pub fn serve(edge: &Edge, conn: &Arc<VisitorConn>, endpoint: &OnlineEndpoint, first: &[u8]) {
    let mut opened = open(edge, conn, endpoint, first);
    if let Err(SendError::Over | SendError::Refused(_)) = opened {
        for other in edge.registry.pool_members(endpoint, MAX_MEMBERS) {
            opened = open(edge, conn, &other, first);
            if opened.is_ok() {
                break;
            }
        }
    }
    match opened {
        Ok((exchange, sent)) => pipe(conn, &exchange, &first[sent..], edge.config().limits),
        Err(e) => {
            event!(debug, obj = "edge", "visitor refused", url = endpoint.url, err = e);
            if matches!(e, SendError::Refused(_)) {
                edge.warn_full("streams to one agent");
            }
            conn.abort();
        }
    }
}

/// Opens a stream. Returns it with the number of bytes of `first` that are in its first frame.
fn open(
    edge: &Edge,
    conn: &Arc<VisitorConn>,
    endpoint: &OnlineEndpoint,
    first: &[u8],
) -> Result<(Arc<VisitorExchange>, usize), SendError> {
    let mut frame = endpoint.prefix(conn.peer(), conn.origin().local, conn.is_tls());
    let room = MAX_FIRST.saturating_sub(frame.len()).min(first.len());
    frame.extend_from_slice(&first[..room]);
    let (target, buffers) = (endpoint.wait_for_target(), &edge.buffers);
    let start = RequestStart::pipe();
    let filter = &ResponseFilter::passthrough;
    let exchange = VisitorExchange::open(&target, conn, buffers, &frame, filter, &start, None)?;
    Ok((exchange, room))
}

/// Forwards the visitor's bytes until their end, then waits for the other direction. Neither
/// side may take no byte for `limits.stall` while bytes wait for it. Once one direction has
/// ended, a silence of `limits.half_closed` resets both sides.
pub fn pipe(
    conn: &Arc<VisitorConn>,
    exchange: &Arc<VisitorExchange>,
    early: &[u8],
    limits: Limits,
) {
    let Limits { stall, half_closed, .. } = limits;
    let mut open = exchange.send(early, stall).is_ok();
    let mut buf = vec![0; INITIAL_BUFFER_BYTES];
    let mut small_reads = 0;
    // Bytes go from the visitor's socket straight into the records of the session.
    let mut bulk = false;
    while open {
        if small_reads >= PARK_AFTER_READS && !conn.is_tls() {
            small_reads = 0;
            buf = Vec::new();
            exchange.park(half_closed);
            buf.resize(INITIAL_BUFFER_BYTES, 0);
        }
        let left = exchange.half_close_left(half_closed);
        if left.is_some_and(|left| left.is_zero()) {
            exchange.cancel();
            break;
        }
        // The agent's end does not interrupt a read: it is noticed at the next timeout.
        let timeout = left.or(half_closed);
        conn.set_read_timeout(timeout.unwrap_or(NO_READ_TIMEOUT));
        let read = match bulk {
            true => match exchange.forward(stall) {
                Ok(read) => read,
                Err(_) => break,
            },
            false => conn.read(&mut buf),
        };
        match read {
            Ok(0) => {
                exchange.finish_request();
                exchange.wait_pipe_end(stall, half_closed);
                break;
            }
            Ok(n) if bulk => bulk = n >= SMALL_READ_BYTES,
            Ok(n) => {
                small_reads = if n < SMALL_READ_BYTES { small_reads + 1 } else { 0 };
                open = exchange.send(&buf[..n], stall).is_ok();
                if n == buf.len() && n < LARGE_BUFFER_BYTES {
                    match conn.is_tls() {
                        true => buf = vec![0; LARGE_BUFFER_BYTES],
                        false => bulk = true,
                    }
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if bulk {
                    // A signal or the timeout: the next turn decides.
                    let _ = poll::readable(&conn.fd(), timeout);
                }
            }
            // The agent's end has woken this thread.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && exchange.is_over() => break,
            Err(_) => {
                // Reset by the visitor, or TLS without its end: the upstream gets a reset too.
                exchange.cancel();
                break;
            }
        }
    }
    if exchange.is_cut() {
        // Bytes that the agent sent before its reset are still delivered.
        exchange.wait_end(DRAIN_TIMEOUT);
    }
    exchange.detach();
}
