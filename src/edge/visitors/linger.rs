//! End of a visitor's connection after the last response: discards what the visitor still
//! sends, without a thread. A close with bytes that were not read resets the connection, and
//! the visitor may lose the response. What is sent before is not decided here.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::conn::VisitorConn;
use super::pages::{ErrorPage, PageFormat};
use super::visitor;
use crate::edge::Edge;
use crate::edge::parking::Parked;
use crate::edge::places::Place;
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

/// Most visitors without a place that linger at the same time, and the part of all places that
/// they may be. Their descriptors are above the limit of visitors.
const MAX_REFUSED: usize = 32;
const REFUSED_SHARE: usize = 8;

/// A visitor's connection whose direction to the visitor has ended.
struct LingeringVisitor {
    edge: Arc<Edge>,
    socket: LingeringSocket,
    end: Instant,
}

enum LingeringSocket {
    /// Of a visitor with a place.
    Visitor(Arc<VisitorConn>),
    /// Of a visitor that was refused.
    Refused { socket: Arc<TcpStream>, _place: Place },
}

impl LingeringSocket {
    fn fd(&self) -> RawFd {
        match self {
            LingeringSocket::Visitor(conn) => conn.fd(),
            LingeringSocket::Refused { socket, .. } => socket.as_raw_fd(),
        }
    }

    /// Returns whether another visitor needs the place.
    fn leaves(&self) -> bool {
        matches!(self, LingeringSocket::Visitor(conn) if conn.visitor().leaves())
    }
}

/// Closes a connection whose direction to the visitor has ended, once the visitor has ended its
/// own or sends nothing. Does not block.
pub fn close(edge: &Arc<Edge>, conn: Arc<VisitorConn>) {
    conn.shrink();
    conn.visitor().set_idle();
    linger(edge, LingeringSocket::Visitor(conn));
}

/// Sends the page for a visitor of HTTP over the limit, and closes the connection. Does not
/// block.
pub fn refuse(edge: &Arc<Edge>, socket: Arc<TcpStream>, peer: SocketAddr) {
    let _ = sys::send_now(socket.as_raw_fd(), &ErrorPage::edge_full().render(PageFormat::CLOSE));
    let _ = socket.shutdown(Shutdown::Write);
    let max_refused = (edge.config().limits.visitors / REFUSED_SHARE).clamp(1, MAX_REFUSED);
    if edge.refused.count() < max_refused {
        let _place = edge.refused.insert(visitor::owner(peer.ip()));
        linger(edge, LingeringSocket::Refused { socket, _place });
    }
}

fn linger(edge: &Arc<Edge>, socket: LingeringSocket) {
    let end = sys::clock() + LINGER_TIMEOUT;
    LingeringVisitor { edge: Arc::clone(edge), socket, end }.park();
}

impl LingeringVisitor {
    fn park(self) {
        let now = sys::clock();
        let left = self.end.since(now);
        if left.is_zero() || self.socket.leaves() {
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
            match sys::recv_now(self.socket.fd(), &mut buf) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

impl Parked for LingeringVisitor {
    fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    fn resume(self: Box<Self>) {
        if self.discard() {
            self.park();
        }
    }

    fn expire(self: Box<Self>) {}
}
