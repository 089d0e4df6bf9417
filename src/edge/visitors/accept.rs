//! Start of a visitor's connection: the place, the thread, TLS, and which code serves it.
//! No HTTP is read here.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

use super::conn::VisitorConn;
use super::pages::{ErrorPage, PageFormat};
use super::sni::{self, Hello};
use super::visitor::{self, Visitor};
use super::{http, passthrough};
use crate::edge::Edge;
use crate::edge::agents::address::Protocol;
use crate::edge::agents::registry::{Lookup, OnlineEndpoint};
use crate::edge::listeners::ListenerKind;
use crate::edge::parking::Parked;
use crate::event;
use crate::sys::{self, poll};
use crate::time::Deadline;

/// Time until the kernel gives up a visitor that acknowledges nothing. It also counts while a
/// visitor reads nothing: [`crate::edge::config::Limits::stall`] comes first.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(300);

/// Least time between the edge's own limit and the kernel's.
const KEEPALIVE_MARGIN: Duration = Duration::from_secs(60);

/// Serves a visitor on a thread, or refuses it. A visitor that has sent nothing waits without a
/// thread. Does not block.
pub fn spawn(edge: &Arc<Edge>, kind: ListenerKind, socket: TcpStream, peer: SocketAddr) {
    let limits = edge.config().limits;
    let Some(place) = edge.visitors.admit(visitor::owner(peer.ip()), limits.visitors) else {
        edge.warn_full("visitors");
        if kind == ListenerKind::Http {
            let page = ErrorPage::new(503, 702, "The edge has as many visitors as it may.");
            let _ = sys::send_now(socket.as_raw_fd(), &page.render(PageFormat::CLOSE));
        }
        return;
    };
    sys::keep_alive(socket.as_raw_fd(), keepalive_timeout(limits.stall));
    let socket = Arc::new(socket);
    let visitor = Visitor::new(peer, place, &socket);
    let new = NewVisitor { edge: Arc::clone(edge), kind, socket, visitor };
    let speaks_first = !matches!(kind, ListenerKind::Tcp(_));
    if speaks_first && !poll::readable(&new.socket, Some(Duration::ZERO)).unwrap_or(true) {
        new.visitor.set_idle();
        if let Err(e) = edge.parking.park(Box::new(new), sys::clock() + limits.head) {
            edge.warn_park_failed(&e);
        }
    } else {
        new.start();
    }
}

/// A visitor's connection before its first byte was read.
struct NewVisitor {
    edge: Arc<Edge>,
    kind: ListenerKind,
    socket: Arc<TcpStream>,
    visitor: Arc<Visitor>,
}

impl NewVisitor {
    fn start(self) {
        if self.visitor.set_busy() {
            let edge = Arc::clone(&self.edge);
            edge.run_visitor(Box::new(move || self.serve()));
        }
    }

    fn serve(self) {
        let NewVisitor { edge, kind, socket, visitor } = self;
        let peer = visitor.peer();
        if let Err(e) = serve(&edge, kind, socket, visitor) {
            event!(debug, obj = "edge", "visitor disconnected", r = peer, err = e);
        }
    }
}

/// Returns the kernel's limit for a visitor: longer than the edge's own.
fn keepalive_timeout(stall: Duration) -> Duration {
    KEEPALIVE_TIMEOUT.max(stall.saturating_add(KEEPALIVE_MARGIN))
}

impl Parked for NewVisitor {
    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn resume(self: Box<Self>) {
        self.start();
    }

    fn expire(self: Box<Self>) {}
}

fn serve(
    edge: &Arc<Edge>,
    kind: ListenerKind,
    socket: Arc<TcpStream>,
    visitor: Arc<Visitor>,
) -> io::Result<()> {
    match kind {
        ListenerKind::Http => {
            let conn = Arc::new(VisitorConn::plain(socket, visitor)?);
            http::serve(edge, conn, None);
        }
        ListenerKind::Https => tls(edge, socket, visitor)?,
        ListenerKind::Tcp(port) => {
            let conn = Arc::new(VisitorConn::plain(socket, visitor)?);
            match edge.registry.find_port(port, sys::clock()) {
                Lookup::Online(endpoint) => serve_passthrough(edge, &conn, &endpoint, &[]),
                // An orderly end would be an empty response in protocols that end with FIN.
                Lookup::AgentAway(_) | Lookup::Unknown => conn.abort(),
            }
        }
        ListenerKind::Agent => {}
    }
    Ok(())
}

fn serve_passthrough(
    edge: &Edge,
    conn: &Arc<VisitorConn>,
    endpoint: &OnlineEndpoint,
    first: &[u8],
) {
    if endpoint.admits(conn.peer().ip()) {
        passthrough::serve(edge, conn, endpoint, first);
    } else {
        if let Some(count) = edge.count_warning("visitor not allowed", 10) {
            let (peer, url) = (conn.peer(), &endpoint.url);
            event!(info, obj = "edge", "visitor not allowed", r = peer, url = url, count = count);
        }
        conn.abort();
    }
}

/// Serves a connection to the https port: the server name in the ClientHello selects a TLS
/// endpoint, else TLS ends here and HTTP is served.
fn tls(edge: &Arc<Edge>, socket: Arc<TcpStream>, visitor: Arc<Visitor>) -> io::Result<()> {
    let deadline = Deadline::At(sys::clock() + edge.config().limits.head);
    let (hello, first) = read_hello(&socket, deadline)?;
    if hello == Hello::NotTls {
        // The usual cause: a browser with an http:// URL and the wrong port.
        let page = ErrorPage::new(400, 0, "This port speaks https only. Use an https:// address.");
        let conn = VisitorConn::plain(socket, visitor)?;
        if first.first().is_some_and(u8::is_ascii_uppercase) {
            conn.write_all(&page.render(PageFormat::CLOSE))?;
            conn.finish();
            conn.linger(Duration::from_secs(1));
        }
        return Ok(());
    }
    let found = match &hello {
        Hello::ServerName(name) => edge.registry.find_host(name, true, sys::clock()),
        _ => Lookup::Unknown,
    };
    match found {
        Lookup::Online(endpoint) if endpoint.protocol == Protocol::Tls => {
            let conn = if endpoint.options.terminate {
                terminate(Arc::clone(&edge.tls().opaque), socket, visitor, first, deadline)?
            } else {
                let conn = Arc::new(VisitorConn::plain(socket, visitor)?);
                serve_passthrough(edge, &conn, &endpoint, &first);
                return Ok(());
            };
            serve_passthrough(edge, &conn, &endpoint, &[]);
        }
        // TLS that ended here would show another certificate and another protocol.
        Lookup::AgentAway(Protocol::Tls) => VisitorConn::plain(socket, visitor)?.abort(),
        _ => {
            let conn = terminate(Arc::clone(&edge.tls().http), socket, visitor, first, deadline)?;
            http::serve(edge, conn, None);
        }
    }
    Ok(())
}

fn terminate(
    config: Arc<ServerConfig>,
    socket: Arc<TcpStream>,
    visitor: Arc<Visitor>,
    first: Vec<u8>,
    deadline: Deadline,
) -> io::Result<Arc<VisitorConn>> {
    let state = ServerConnection::new(config).map_err(io::Error::other)?;
    VisitorConn::tls(socket, visitor, state, first, deadline).map(Arc::new)
}

/// Reads until the ClientHello is complete. Also returns the bytes that were read.
fn read_hello(mut socket: &TcpStream, deadline: Deadline) -> io::Result<(Hello, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        match sni::read(&bytes) {
            Hello::Incomplete if bytes.len() < 2 * sni::MAX_HELLO_BYTES => {}
            Hello::Incomplete => return Ok((Hello::NotTls, bytes)),
            hello => return Ok((hello, bytes)),
        }
        let left = deadline.left(sys::clock()).unwrap_or_default();
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let used = bytes.len();
        bytes.resize(used + 4096, 0);
        let n = socket.read(&mut bytes[used..])?;
        bytes.truncate(used + n);
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::config::Limits;

    #[test]
    fn the_kernel_gives_up_a_visitor_after_the_edge() {
        let stalls = [1, 240, 300, 3_600, u64::MAX].map(Duration::from_secs);
        for stall in stalls.into_iter().chain([Limits::default().stall]) {
            let timeout = keepalive_timeout(stall);
            assert!(timeout > stall || timeout == Duration::MAX, "{stall:?}: {timeout:?}");
        }
    }
}
