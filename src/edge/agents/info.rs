//! What an agent reported about itself in Auth, for the REST API. Nothing is decided by it.

use crate::proto::messages::AuthRequest;

/// Properties of an agent session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentInfo {
    /// Id of the session in the REST API, `ts_…`.
    pub id: String,
    /// Version of the agent.
    pub version: String,
    /// Go's name of its system.
    pub os: String,
    /// Free text of its user.
    pub metadata: String,
    /// Version of the protocol.
    pub protocol: String,
    /// Start of the session, in seconds since 1970.
    pub started_at: u64,
    /// Remote stop: `None` unknown, empty supported, else the reason why it is not.
    pub stop_unsupported: Option<String>,
    /// Remote restart, likewise.
    pub restart_unsupported: Option<String>,
    /// Remote update, likewise.
    pub update_unsupported: Option<String>,
}

impl AgentInfo {
    /// Returns the properties in an Auth request.
    pub fn new(id: String, request: &AuthRequest, protocol: &str, started_at: u64) -> Self {
        let extra = &request.extra;
        AgentInfo {
            id,
            version: extra.version.clone(),
            os: extra.os.clone(),
            metadata: extra.metadata.clone(),
            protocol: protocol.to_owned(),
            started_at,
            stop_unsupported: extra.stop_unsupported.clone(),
            restart_unsupported: extra.restart_unsupported.clone(),
            update_unsupported: extra.update_unsupported.clone(),
        }
    }
}
