//! Connections to the agents' port: TLS, the session, and the wait for Auth. What an agent
//! calls is in [`super::handler`].

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::handler::AgentSessionHandler;
use super::session::AgentSession;
use super::stranger::Stranger;
use crate::edge::Edge;
use crate::edge::parking::Parked;
use crate::edge::shares::AddressOwner;
use crate::event;
use crate::mux::{self, Code, Role};
use crate::session;
use crate::sys::{self, threads};
use crate::time::{Deadline, Instant};
use crate::tls::server;

/// Time for a refused agent to read the reason.
const REFUSED_LINGER: Duration = Duration::from_secs(3);

/// Time until the kernel gives up a silent agent.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for the first byte of a connection. An agent sends it at once.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Leaves an agent's connection to the parking until its first byte. Does not block.
pub fn spawn(edge: &Arc<Edge>, socket: TcpStream, peer: SocketAddr) {
    let config = edge.config();
    // In dev all agents share one address.
    if !config.dev && edge.agents.is_rate_limited(peer.ip(), sys::clock()) {
        if let Some(count) = edge.count_warning("address locked", 1) {
            let ip = peer.ip();
            event!(warn, obj = "edge", "address locked after failed logins", r = ip, count = count);
        }
        return;
    }
    let owner = AddressOwner::of(peer.ip());
    let Some(place) = edge.strangers.admit(owner, config.limits.unauthenticated) else {
        edge.warn_full("connections of agents without an authtoken");
        return;
    };
    sys::keep_alive(socket.as_raw_fd(), KEEPALIVE_TIMEOUT);
    let socket = Arc::new(socket);
    let stranger = Stranger::new(place, &socket);
    let now = sys::clock();
    let deadline = now + FIRST_BYTE_TIMEOUT.min(config.limits.auth);
    let silent = SilentAgent { edge: Arc::clone(edge), socket, peer, stranger, accepted: now };
    if let Err(e) = edge.parking.park(Box::new(silent), deadline) {
        edge.warn_park_failed(&e);
    }
}

/// An agent's connection before its first byte.
struct SilentAgent {
    edge: Arc<Edge>,
    socket: Arc<TcpStream>,
    peer: SocketAddr,
    stranger: Arc<Stranger>,
    accepted: Instant,
}

impl Parked for SilentAgent {
    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn resume(self: Box<Self>) {
        let edge = Arc::clone(&self.edge);
        if let Err(e) = threads::AGENT.spawn(Box::new(move || self.serve())) {
            edge.warn_spawn_failed("an agent", &e);
        }
    }

    fn expire(self: Box<Self>) {
        self.edge.count_not_accepted(self.peer, "no byte came in time");
    }
}

impl SilentAgent {
    /// Serves the connection until it is authenticated. After that the session's reactor
    /// serves it.
    fn serve(self) {
        let SilentAgent { edge, socket, peer, stranger, accepted } = self;
        // Another owner of the socket is about to close it: it gives way.
        let Some(socket) = Arc::into_inner(socket) else { return };
        let Ok(handle) = socket.try_clone() else { return };
        if !stranger.begin_handshake(handle) {
            return;
        }
        let agent = Arc::new(AgentSession::new(peer, edge.agents.next_number()));
        let deadline = Deadline::At(accepted + edge.config().limits.auth);
        if let Err(e) = start(&edge, &agent, &stranger, socket, deadline) {
            edge.count_not_accepted(peer, &e.to_string());
        }
    }
}

/// Starts the session and waits until Auth is decided.
fn start(
    edge: &Arc<Edge>,
    agent: &Arc<AgentSession>,
    stranger: &Stranger,
    socket: TcpStream,
    deadline: Deadline,
) -> io::Result<()> {
    let link = server::accept(socket, Arc::clone(&edge.tls().agent), deadline)?;
    let config = mux::Config::new(Role::Edge, sys::random_seed());
    let handler = AgentSessionHandler::new(edge, Arc::clone(agent));
    let session = session::start(link, config, edge.buffer_limits(), Box::new(handler))?;
    stranger.begin_session(&session);
    agent.state.lock().session.get_or_insert_with(|| session.clone());
    if !agent.wait(deadline, |s| s.identity.is_some() || s.refused || s.ended) {
        edge.count_not_accepted(agent.peer, "no authentication came in time");
        session.close(Code::NO_ERROR, "authentication took too long");
    } else if agent.state.lock().refused {
        // An agent closes the session when it has read the reason. Some do not.
        let deadline = Deadline::At(sys::clock() + REFUSED_LINGER);
        agent.wait(deadline, |s| s.ended);
        session.close(Code::NO_ERROR, "authentication refused");
    }
    Ok(())
}
