//! A visitor's first moments: a place, a thread, and what the connection is for.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};

use super::conn::Conn;
use super::pages::{Form, Page};
use super::slots::{Place, Slot};
use super::sni::{self, Hello};
use super::{http, passthrough};
use crate::edge::Edge;
use crate::edge::agents::address::Kind;
use crate::edge::agents::ports::Door;
use crate::edge::agents::registry::{Endpoint, Found};
use crate::edge::agents::session;
use crate::event;
use crate::sys::{self, threads};
use crate::time::Deadline;

/// How long the kernel tries to reach a visitor who is silent.
const SILENT: Duration = Duration::from_secs(300);

/// A connection was accepted. Does not block.
pub fn enter(edge: &Arc<Edge>, door: Door, socket: TcpStream, peer: SocketAddr) {
    let _ = socket.set_nodelay(true);
    if door == Door::Agent {
        let (edge, told) = (Arc::clone(edge), edge);
        let spawned = threads::AGENT.spawn(Box::new(move || session::serve(&edge, socket, peer)));
        if let Err(e) = spawned {
            no_thread(told, "an agent", &e);
        }
        return;
    }
    let Some(place) = edge.visitors().enter(edge.limits().visitors) else {
        edge.warn_full("visitors");
        if door == Door::Http {
            let page = Page::new(503, 702, "The edge has as many visitors as it may.");
            let _ = sys::send_now(
                socket.as_raw_fd(),
                &page.render(Form { close: true, ..Form::default() }),
            );
        }
        return;
    };
    sys::keep_alive(socket.as_raw_fd(), SILENT);
    let (edge, told) = (Arc::clone(edge), edge);
    let spawned = threads::VISITOR.spawn(Box::new(move || {
        if let Err(e) = serve(&edge, door, socket, peer, &place) {
            event!(debug, obj = "edge", "visitor gone", r = peer, err = e);
        }
    }));
    if let Err(e) = spawned {
        no_thread(told, "a visitor", &e);
    }
}

fn no_thread(edge: &Edge, whom: &'static str, error: &io::Error) {
    if let Some(count) = edge.complain(whom, 1) {
        event!(error, obj = "edge", "no thread", name = whom, count = count, err = error);
    }
}

fn serve(
    edge: &Arc<Edge>,
    door: Door,
    socket: TcpStream,
    peer: SocketAddr,
    place: &Place,
) -> io::Result<()> {
    match door {
        Door::Http => {
            let conn = Arc::new(Conn::plain(socket, peer)?);
            place.slot().is_on(&conn);
            http::serve(edge, &conn, place.slot());
        }
        Door::Https => tls(edge, socket, peer, place.slot())?,
        Door::Tcp(port) => {
            let conn = Arc::new(Conn::plain(socket, peer)?);
            place.slot().is_on(&conn);
            match edge.routes().find_port(port, sys::clock()) {
                Found::Endpoint(endpoint) => pipe(edge, &conn, &endpoint, &[]),
                Found::Away | Found::Unknown => conn.finish(),
            }
        }
        Door::Agent => {}
    }
    Ok(())
}

fn pipe(edge: &Edge, conn: &Arc<Conn>, endpoint: &Endpoint, first: &[u8]) {
    if endpoint.admits(conn.peer().ip()) {
        passthrough::serve(edge, conn, endpoint, first);
    } else {
        event!(info, obj = "edge", "visitor not allowed", r = conn.peer(), url = endpoint.url());
        conn.finish();
    }
}

/// A visitor of the https port: by the name in his first message he goes to a
/// TLS endpoint, or the TLS ends here.
fn tls(edge: &Edge, socket: TcpStream, peer: SocketAddr, slot: &Slot) -> io::Result<()> {
    let deadline = Deadline::At(sys::clock() + edge.limits().head);
    let (hello, first) = read_hello(&socket, deadline)?;
    if hello == Hello::Other {
        // Mostly a browser that was given http:// and the wrong port.
        let page = Page::new(400, 0, "This port speaks https only. Use an https:// address.");
        let conn = Conn::plain(socket, peer)?;
        if first.first().is_some_and(u8::is_ascii_uppercase) {
            conn.write_all(&page.render(Form { close: true, ..Form::default() }))?;
            conn.finish();
            conn.linger(Duration::from_secs(1));
        }
        return Ok(());
    }
    let found = match &hello {
        Hello::Name(name) => edge.routes().find_host(name, true, sys::clock()),
        _ => Found::Unknown,
    };
    match found {
        Found::Endpoint(endpoint) if endpoint.kind == Kind::Tls => {
            let conn = if endpoint.options.terminate {
                terminate(edge.plain_tls(), socket, peer, first, deadline)?
            } else {
                let conn = Arc::new(Conn::plain(socket, peer)?);
                slot.is_on(&conn);
                pipe(edge, &conn, &endpoint, &first);
                return Ok(());
            };
            slot.is_on(&conn);
            pipe(edge, &conn, &endpoint, &[]);
        }
        _ => {
            let conn = terminate(edge.visitor_tls(), socket, peer, first, deadline)?;
            slot.is_on(&conn);
            http::serve(edge, &conn, slot);
        }
    }
    Ok(())
}

fn terminate(
    config: Arc<ServerConfig>,
    socket: TcpStream,
    peer: SocketAddr,
    first: Vec<u8>,
    deadline: Deadline,
) -> io::Result<Arc<Conn>> {
    let state = ServerConnection::new(config).map_err(io::Error::other)?;
    Conn::tls(socket, peer, state, first, deadline).map(Arc::new)
}

/// Reads until the ClientHello is complete; returns what was read, too.
fn read_hello(mut socket: &TcpStream, deadline: Deadline) -> io::Result<(Hello, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        match sni::read(&bytes) {
            Hello::Incomplete if bytes.len() < 2 * sni::MAX_HELLO => {}
            Hello::Incomplete => return Ok((Hello::Other, bytes)),
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
