//! End of a visitor's connection after the last response: discards what the visitor still
//! sends, without a thread. A close with bytes that were not read resets the connection, and
//! the visitor may lose the response. What is sent before is not decided here.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::conn::VisitorConn;
use crate::edge::Edge;
use crate::edge::parking::Parked;
use crate::sys;
use crate::time::Instant;

/// Time that further bytes of a visitor are discarded.
const LINGER_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest silence of a visitor whose bytes are discarded.
const LINGER_SILENCE: Duration = Duration::from_secs(2);

/// Bytes that are discarded at once.
const DISCARD_BYTES: usize = 16 * 1024;

/// Reads in a row. Other connections wait for the same thread.
const MAX_READS: usize = 4;

/// A visitor's connection whose direction to the visitor has ended.
struct LingeringVisitor {
    edge: Arc<Edge>,
    conn: Arc<VisitorConn>,
    end: Instant,
}

/// Closes a connection whose direction to the visitor has ended, once the visitor has ended its
/// own or sends nothing. Does not block.
pub fn close(edge: &Arc<Edge>, conn: Arc<VisitorConn>) {
    conn.shrink();
    conn.visitor().set_idle();
    let end = sys::clock() + LINGER_TIMEOUT;
    LingeringVisitor { edge: Arc::clone(edge), conn, end }.park();
}

impl LingeringVisitor {
    fn park(self) {
        let now = sys::clock();
        let left = self.end.since(now);
        if left.is_zero() || self.conn.visitor().leaves() {
            return;
        }
        let edge = Arc::clone(&self.edge);
        if let Err(e) = edge.parking.park(Box::new(self), now + left.min(LINGER_SILENCE)) {
            edge.warn_park_failed(&e);
        }
    }

    /// Discards received bytes. Returns whether more can follow.
    fn discard(&self) -> bool {
        let mut buf = [0; DISCARD_BYTES];
        for _ in 0..MAX_READS {
            match sys::recv_now(self.conn.fd(), &mut buf) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == std::io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

impl Parked for LingeringVisitor {
    fn fd(&self) -> RawFd {
        self.conn.fd()
    }

    fn resume(self: Box<Self>) {
        if self.discard() {
            self.park();
        }
    }

    fn expire(self: Box<Self>) {}
}
