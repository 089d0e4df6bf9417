//! Agent sessions and their endpoints as the REST API shows them. Copies: nothing is changed
//! through them.

use std::net::SocketAddr;
use std::sync::Arc;

use super::info::AgentInfo;
use super::registry::OnlineEndpoint;
use super::session::AgentSession;
use super::table::AgentTable;
use crate::session::Session;

/// An authenticated session.
#[derive(Clone)]
pub struct SessionOverview {
    /// What the agent reported.
    pub info: Arc<AgentInfo>,
    /// Id of its credential in the configuration.
    pub account: String,
    /// Address of the agent.
    pub peer: SocketAddr,
    /// Endpoints that it has online.
    pub endpoints: Vec<Arc<OnlineEndpoint>>,
    /// The session.
    pub session: Session,
}

impl SessionOverview {
    fn of(agent: &AgentSession) -> Option<Self> {
        let state = agent.state.lock();
        Some(SessionOverview {
            info: Arc::clone(state.info.as_ref()?),
            account: state.identity.as_ref()?.account.clone(),
            peer: agent.peer,
            endpoints: state.endpoints.clone(),
            session: state.session.clone()?,
        })
    }
}

impl AgentTable {
    /// Returns the authenticated sessions.
    pub fn overview(&self) -> Vec<SessionOverview> {
        self.sessions().iter().filter_map(|agent| SessionOverview::of(agent)).collect()
    }
}
