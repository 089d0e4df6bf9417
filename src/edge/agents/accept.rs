//! Connections to the agents' port: TLS, the session, and the wait for Auth. What an agent
//! calls is in [`super::handler`].

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use super::handler::AgentSessionHandler;
use super::session::AgentSession;
use crate::edge::Edge;
use crate::event;
use crate::mux::{self, Code, Role};
use crate::session;
use crate::sys::{self, threads};
use crate::time::Deadline;
use crate::tls::server;

/// Time for a refused agent to read the reason.
const REFUSED_LINGER: Duration = Duration::from_secs(3);

/// Time until the kernel gives up a silent agent.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Starts the thread of an agent's connection. Does not block.
pub fn spawn(edge: &Arc<Edge>, socket: TcpStream, peer: SocketAddr) {
    let shared = Arc::clone(edge);
    if let Err(e) = threads::AGENT.spawn(Box::new(move || serve(&shared, socket, peer))) {
        edge.warn_spawn_failed("an agent", &e);
    }
}

/// Serves a connection until it is authenticated. After that the session's reactor serves it.
fn serve(edge: &Arc<Edge>, socket: TcpStream, peer: SocketAddr) {
    let (agents, config) = (&edge.agents, edge.config());
    // In dev all agents share one address.
    if !config.dev && agents.is_rate_limited(peer.ip(), sys::clock()) {
        return;
    }
    let max = config.limits.unauthenticated;
    // A quarter for each address: one client cannot lock out all others.
    let max_per_address = if config.dev { max } else { max.div_ceil(4) };
    let Some(number) = agents.enter(peer.ip(), max, max_per_address) else {
        edge.warn_full("connections of agents without an authtoken");
        return;
    };
    let agent = Arc::new(AgentSession::new(peer, number));
    // Any client can cause this: the number of log lines is limited.
    if let Err(e) = start(edge, &agent, socket)
        && let Some(count) = edge.count_warning("agents", 10)
    {
        event!(info, obj = "edge", "agent not accepted", r = peer, count = count, err = e);
    }
    agents.leave(peer.ip());
}

/// Starts the session and waits until Auth is decided.
fn start(edge: &Arc<Edge>, agent: &Arc<AgentSession>, socket: TcpStream) -> io::Result<()> {
    let deadline = Deadline::At(sys::clock() + edge.config().limits.auth);
    sys::keep_alive(socket.as_raw_fd(), KEEPALIVE_TIMEOUT);
    let link = server::accept(socket, Arc::clone(&edge.tls().agent), deadline)?;
    let config = mux::Config::new(Role::Edge, sys::random_seed());
    let handler = AgentSessionHandler::new(edge, Arc::clone(agent));
    let session = session::start(link, config, edge.buffer_limits(), Box::new(handler))?;
    agent.state.lock().session.get_or_insert_with(|| session.clone());
    if !agent.wait(deadline, |s| s.identity.is_some() || s.refused || s.ended) {
        event!(info, obj = "edge", "agent authentication timed out", r = agent.peer);
        session.close(Code::NO_ERROR, "authentication took too long");
    } else if agent.state.lock().refused {
        // An agent closes the session when it has read the reason. Some do not.
        let deadline = Deadline::At(sys::clock() + REFUSED_LINGER);
        agent.wait(deadline, |s| s.ended);
        session.close(Code::NO_ERROR, "authentication refused");
    }
    Ok(())
}
