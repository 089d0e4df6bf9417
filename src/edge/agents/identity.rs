//! Identity that an agent proved with Auth. Data only: authentication is in [`super::auth`].

/// Owner of a session.
#[derive(Clone, Debug)]
pub struct AgentIdentity {
    /// Id of the credential.
    pub account: String,
    /// Hash of its authtoken.
    pub hash: String,
    /// Id of the client. It stays the same over reconnects.
    pub client: String,
    /// Number of the session. Later sessions have higher numbers.
    pub session: u64,
    /// Index of the connection among those of its client (protocol 1). All serve at the same
    /// time. A new connection replaces the older one with the same index.
    pub leg: u64,
    /// Whether `https` in a Bind request is a scheme. Clients of protocol version 3 send it
    /// for every HTTP endpoint without a scheme of its own.
    pub https_is_scheme: bool,
}
