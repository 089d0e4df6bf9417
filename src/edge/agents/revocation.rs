//! Ends what a new configuration no longer allows: sessions of credentials that were removed
//! or have another authtoken, and endpoints that the rules of a credential no longer permit.
//! What a credential may bind is decided in [`super::bind`].

use std::net::IpAddr;
use std::sync::Arc;

use super::bind;
use super::registry::OnlineEndpoint;
use super::session::AgentSession;
use crate::edge::Edge;
use crate::edge::config::EdgeConfig;
use crate::event;
use crate::mux::{Code, StreamType};
use crate::proto::codes::Refusal;
use crate::proto::messages::StopTunnel;
use crate::session::{Reset, Session, Sink};

/// Numbers of what was ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Agent sessions.
    pub sessions: usize,
    /// Endpoints of sessions that stay.
    pub endpoints: usize,
}

/// Ends what the configuration does not allow. A session that authenticates or binds at the
/// same time compares itself with the configuration again after it is visible here.
pub fn enforce(edge: &Edge) -> Revoked {
    let config = edge.config();
    let mut revoked = Revoked::default();
    edge.registry.release_unknown_accounts(|account| config.credentials.by_id(account).is_some());
    for agent in edge.agents.sessions() {
        match check_session(&config, &agent) {
            Ok(()) => revoked.endpoints += stop_endpoints(edge, &config, &agent),
            Err(refusal) => {
                let (session, endpoints) = {
                    let mut state = agent.state.lock();
                    (state.session.clone(), std::mem::take(&mut state.endpoints))
                };
                let Some(session) = session else { continue };
                // Here and not at the end of the session, which would keep the names for it.
                endpoints.iter().for_each(|endpoint| edge.take_offline(endpoint));
                // Not bounded: the operator changed the configuration.
                event!(warn, obj = "edge", "session revoked", r = agent.peer, err = refusal);
                session.close(Code::NO_ERROR, &refusal.message);
                revoked.sessions += 1;
            }
        }
    }
    revoked
}

/// Returns whether the credential of a session still allows it.
pub(super) fn check_session(config: &EdgeConfig, agent: &AgentSession) -> Result<(), Refusal> {
    check_address(config, agent.peer.ip())?;
    match &agent.state.lock().identity {
        Some(identity) => config.credentials.check_identity(identity, agent.peer.ip()).map(|_| ()),
        None => Ok(()),
    }
}

/// Returns whether the IP restrictions of the edge allow an agent with this address.
pub(super) fn check_address(config: &EdgeConfig, ip: IpAddr) -> Result<(), Refusal> {
    if config.restrictions.agents.admits(ip) {
        return Ok(());
    }
    Err(Refusal::new(115, format!("An IP restriction of this edge refuses agents from {ip}.")))
}

/// Takes the endpoints offline that the credential is no longer allowed to bind. Returns
/// their number.
fn stop_endpoints(edge: &Edge, config: &EdgeConfig, agent: &AgentSession) -> usize {
    let mut stopped = Vec::new();
    let (session, kept) = {
        let mut state = agent.state.lock();
        let Some(identity) = state.identity.clone() else { return 0 };
        let Some(credential) = config.credentials.by_id(&identity.account) else { return 0 };
        state.endpoints.retain(|endpoint| {
            match bind::check_permitted(config, credential, endpoint) {
                Ok(()) => true,
                Err(refusal) => {
                    stopped.push((Arc::clone(endpoint), refusal));
                    false
                }
            }
        });
        // A labelled tunnel goes on while it has another host.
        let kept: Vec<String> = state.endpoints.iter().map(|e| e.id.clone()).collect();
        (state.session.clone(), kept)
    };
    for (endpoint, refusal) in &stopped {
        edge.take_offline(endpoint);
        let (url, peer) = (&endpoint.url, agent.peer);
        // Not bounded: the operator changed the configuration.
        event!(warn, obj = "edge", "endpoint revoked", url = url, r = peer, err = refusal);
        if let Some(session) = session.as_ref().filter(|_| !kept.contains(&endpoint.id)) {
            send_stop(session, endpoint, refusal);
        }
    }
    stopped.len()
}

/// Reports to the agent that its endpoint has ended (protocol 5.7). It takes no answer.
fn send_stop(session: &Session, endpoint: &OnlineEndpoint, refusal: &Refusal) {
    let message = StopTunnel {
        id: endpoint.id.clone(),
        message: refusal.message.clone(),
        error_code: refusal.code.map(|code| format!("ERR_NGROK_{code}")).unwrap_or_default(),
    };
    // A session without a free stream has ended, or the next visitor is refused.
    if let Ok(stream) = session.open(StreamType::STOP_TUNNEL, &message.encode(), Arc::new(NoAnswer))
    {
        session.finish(stream);
        session.release(stream);
    }
}

/// Discards what comes on a stream without an answer.
struct NoAnswer;

impl Sink for NoAnswer {
    fn data(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }

    fn finished(&self) {}

    fn reset(&self, _reset: Reset) {}
}
