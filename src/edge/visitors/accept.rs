//! Start of a visitor's connection: the place, the thread, TLS, and which code serves it.
//! No HTTP is read here.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

use super::conn::VisitorConn;
use super::origin::ConnectionOrigin;
use super::pages::{ErrorPage, PageFormat};
use super::preface::{read_hello, read_proxy_header};
use super::sni::Hello;
use super::visitor::{self, Visitor};
use super::{http, internal, linger, passthrough};
use crate::edge::Edge;
use crate::edge::actions::tls::TlsOptions;
use crate::edge::agents::address::Protocol;
use crate::edge::agents::registry::{Lookup, OnlineEndpoint};
use crate::edge::listeners::ListenerKind;
use crate::edge::parking::Parked;
use crate::edge::policy::phases::ConnectionInfo;
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
        return refuse(edge, kind, Arc::new(socket), peer);
    };
    // Without an address the connection has ended already.
    let Ok(local) = socket.local_addr() else { return };
    let origin = ConnectionOrigin::direct(&edge.config().trusted_proxies, peer, local);
    sys::keep_alive(socket.as_raw_fd(), keepalive_timeout(limits.stall));
    let socket = Arc::new(socket);
    let visitor = Visitor::new(origin, place, &socket);
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

/// Refuses a visitor without a place: HTTP gets a page, other protocols a reset, because an
/// orderly end would be an empty response.
fn refuse(edge: &Arc<Edge>, kind: ListenerKind, socket: Arc<TcpStream>, peer: SocketAddr) {
    match kind {
        ListenerKind::Http => linger::refuse(edge, socket, peer),
        _ => sys::reset_on_close(socket.as_raw_fd()),
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
        if !self.visitor.set_busy() {
            return;
        }
        let (edge, visitor) = (Arc::clone(&self.edge), Arc::clone(&self.visitor));
        let (kind, socket) = (self.kind, Arc::clone(&self.socket));
        if !edge.run_visitor(&visitor, Box::new(move || self.serve())) {
            refuse(&edge, kind, socket, visitor.origin().peer);
        }
    }

    fn serve(self) {
        let NewVisitor { edge, kind, socket, visitor } = self;
        let peer = visitor.origin().peer;
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
    let Some(first) = identify(edge, kind, &socket, &visitor)? else { return Ok(()) };
    match kind {
        ListenerKind::Http => {
            let conn = Arc::new(VisitorConn::plain(socket, visitor));
            http::serve(edge, conn, None, first);
        }
        ListenerKind::Https => tls(edge, socket, visitor, first)?,
        ListenerKind::Tcp(port) => {
            let conn = Arc::new(VisitorConn::plain(socket, visitor));
            match edge.registry.find_port(port, sys::clock()) {
                Lookup::Online(endpoint) => serve_passthrough(edge, &conn, &endpoint, &first),
                // An orderly end would be an empty response in protocols that end with FIN.
                Lookup::AgentAway(_) | Lookup::Unknown => conn.abort(),
            }
        }
        ListenerKind::Agent | ListenerKind::Api => {}
    }
    Ok(())
}

/// Reads the PROXY header of a trusted proxy. Returns the bytes behind it. `None`: the header
/// is malformed, and the connection ends with a reset.
fn identify(
    edge: &Edge,
    kind: ListenerKind,
    socket: &TcpStream,
    visitor: &Visitor,
) -> io::Result<Option<Vec<u8>>> {
    let config = edge.config();
    let proxies = &config.trusted_proxies;
    let origin = visitor.origin();
    let mut first = Vec::new();
    let with_header = match kind {
        ListenerKind::Http => proxies.header_on_http,
        ListenerKind::Https => proxies.header_on_https,
        ListenerKind::Tcp(_) => proxies.header_on_tcp,
        ListenerKind::Agent | ListenerKind::Api => false,
    };
    if !with_header || !origin.trusted {
        return Ok(Some(first));
    }
    let deadline = Deadline::At(sys::clock() + config.limits.head);
    match read_proxy_header(socket, origin, proxies, deadline, &mut first) {
        Ok(origin) => {
            visitor.set_origin(origin);
            Ok(Some(first))
        }
        // A proxy that only checks whether the port is open.
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && first.is_empty() => Err(e),
        Err(e) => {
            if let Some(count) = edge.count_warning("invalid PROXY header", 10) {
                let peer = origin.peer;
                event!(
                    warn,
                    obj = "edge",
                    "invalid PROXY header",
                    r = peer,
                    count = count,
                    err = e
                );
            }
            sys::reset_on_close(socket.as_raw_fd());
            Ok(None)
        }
    }
}

/// Serves a connection whose endpoint was found. Its policy may refuse the visitor, or forward
/// it to an internal endpoint.
fn serve_passthrough(
    edge: &Edge,
    conn: &Arc<VisitorConn>,
    endpoint: &Arc<OnlineEndpoint>,
    first: &[u8],
) {
    if edge.admits_visitor(endpoint, conn.peer()) {
        let connection = ConnectionInfo {
            client: conn.peer(),
            server: conn.origin().local,
            tls: conn.is_tls(),
            server_name: None,
            handshake: None,
        };
        match internal::connect(edge, endpoint, connection) {
            Some(endpoint) => passthrough::serve(edge, conn, &endpoint, first),
            None => conn.abort(),
        }
    } else {
        refuse_visitor(edge, endpoint, conn);
    }
}

/// Closes the connection of a visitor whose address is not allowed.
fn refuse_visitor(edge: &Edge, endpoint: &OnlineEndpoint, conn: &VisitorConn) {
    if let Some(count) = edge.count_warning("visitor not allowed", 10) {
        let (peer, url) = (conn.peer(), &endpoint.url);
        event!(info, obj = "edge", "visitor not allowed", r = peer, url = url, count = count);
    }
    conn.abort();
}

/// Serves a connection to the https port: the server name in the ClientHello selects a TLS
/// endpoint, else TLS ends here and HTTP is served.
fn tls(
    edge: &Arc<Edge>,
    socket: Arc<TcpStream>,
    visitor: Arc<Visitor>,
    mut first: Vec<u8>,
) -> io::Result<()> {
    let deadline = Deadline::At(sys::clock() + edge.config().limits.head);
    let hello = read_hello(&socket, deadline, &mut first)?;
    if hello == Hello::NotTls {
        // The usual cause: a browser with an http:// URL and the wrong port.
        let page = ErrorPage::new(400, 0, "This port speaks https only. Use an https:// address.");
        let conn = Arc::new(VisitorConn::plain(socket, visitor));
        if first.first().is_some_and(u8::is_ascii_uppercase) {
            conn.write_all(&page.render(PageFormat::CLOSE))?;
            conn.finish();
            linger::close(edge, conn);
        }
        return Ok(());
    }
    let found = match &hello {
        Hello::ServerName(name) => edge.registry.find_host(name, true, sys::clock()),
        _ => Lookup::Unknown,
    };
    match found {
        Lookup::Online(endpoint) if endpoint.protocol == Protocol::Tls => {
            serve_tls(edge, &endpoint, (socket, visitor), first, (&hello, deadline))?;
        }
        // TLS that ended here would show another certificate and another protocol.
        Lookup::AgentAway(Protocol::Tls) => VisitorConn::plain(socket, visitor).abort(),
        other => {
            let options = match &other {
                Lookup::Online(endpoint) => endpoint.options.actions.tls(),
                Lookup::AgentAway(_) | Lookup::Unknown => None,
            };
            let conn = terminate(&edge.tls().http, options, socket, visitor, first, deadline)?;
            http::serve(edge, conn, None, Vec::new());
        }
    }
    Ok(())
}

/// Serves a connection to a TLS endpoint. The rules for connections run before the handshake.
fn serve_tls(
    edge: &Arc<Edge>,
    endpoint: &Arc<OnlineEndpoint>,
    (socket, visitor): (Arc<TcpStream>, Arc<Visitor>),
    first: Vec<u8>,
    (hello, deadline): (&Hello, Deadline),
) -> io::Result<()> {
    let ConnectionOrigin { peer, local, .. } = visitor.origin();
    let server_name = match hello {
        Hello::ServerName(name) => Some(name.as_str()),
        _ => None,
    };
    let handshake = None;
    let connection =
        ConnectionInfo { client: peer, server: local, tls: true, server_name, handshake };
    let plain = || Arc::new(VisitorConn::plain(Arc::clone(&socket), Arc::clone(&visitor)));
    if !edge.admits_visitor(endpoint, peer) {
        refuse_visitor(edge, endpoint, &plain());
        return Ok(());
    }
    let Some(served) = internal::connect(edge, endpoint, connection) else {
        plain().abort();
        return Ok(());
    };
    let terminating = [endpoint, &served].map(|e| &e.options.actions);
    match terminating.into_iter().find(|actions| actions.terminates_tls()) {
        Some(actions) => {
            let opaque = &edge.tls().opaque;
            let conn = terminate(opaque, actions.tls(), socket, visitor, first, deadline)?;
            passthrough::serve(edge, &conn, &served, &[]);
        }
        None => passthrough::serve(edge, &plain(), &served, &first),
    }
    Ok(())
}

/// Makes the handshake with `usual`, or with what `options` change in it.
fn terminate(
    usual: &Arc<ServerConfig>,
    options: Option<&Arc<TlsOptions>>,
    socket: Arc<TcpStream>,
    visitor: Arc<Visitor>,
    first: Vec<u8>,
    deadline: Deadline,
) -> io::Result<Arc<VisitorConn>> {
    let config = match options {
        Some(options) => options.server_config(usual).map_err(io::Error::other)?,
        None => Arc::clone(usual),
    };
    let state = ServerConnection::new(config).map_err(io::Error::other)?;
    VisitorConn::tls(socket, visitor, state, options.cloned(), first, deadline).map(Arc::new)
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
