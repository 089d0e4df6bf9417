//! The Auth call (protocol 4): checks the request, identifies the client, registers the
//! session. The limits are kept in [`super::table`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::identity::AgentIdentity;
use super::info::AgentInfo;
use super::revocation;
use super::session::AgentSession;
use crate::edge::accounts::wall_clock;
use crate::edge::config::EdgeConfig;
use crate::edge::context::REGION;
use crate::edge::restrictions::IpVerdict;
use crate::edge::{Edge, token};
use crate::event;
use crate::mux::Code;
use crate::proto::codes::Refusal;
use crate::proto::messages::{AuthRequest, AuthResponse, AuthResponseExtra};
use crate::session::Session;

/// Most streams of a session with an agent that sends the number that it carries.
const MAX_STREAMS: usize = 4_096;

/// Those of them that are left to the agent's own calls and heartbeats.
const OWN_STREAMS: usize = 12;

/// Longest metadata of a session.
const MAX_METADATA_BYTES: usize = 4096;

/// Connections that one client may have at the same time.
const MAX_LEGS: u64 = 8;

/// Authenticates a session. On success it is registered and its heartbeat runs.
pub fn authenticate(
    edge: &Edge,
    agent: &Arc<AgentSession>,
    session: &Session,
    request: &[u8],
) -> Result<AuthResponse, AuthRefusal> {
    let request = AuthRequest::decode(request)
        .map_err(|e| Refusal::new(109, format!("The Auth request is malformed: {e}.")))?;
    let version = protocol_version(&request)?;
    let extra = &request.extra;
    if extra.metadata.len() > MAX_METADATA_BYTES {
        let len = extra.metadata.len();
        let text = format!("Invalid metadata length: {len} bytes, at most {MAX_METADATA_BYTES}.");
        return Err(Refusal::new(100, text).into());
    }
    let (interval, tolerance) = heartbeat(extra.heartbeat_interval, extra.heartbeat_tolerance)?;
    let config = edge.config();
    check_restrictions(edge, &config, agent.peer)?;
    let credential = config.credentials.find(&extra.authtoken, agent.peer.ip())?;
    let client = client_id(edge, &credential.id, &request)?;
    let leg = extra.leg_number;
    if leg >= MAX_LEGS {
        let number = leg + 1;
        let text = format!("A client may have {MAX_LEGS} connections, this is number {number}.");
        return Err(Refusal::new(9024, text).into());
    }
    let (account, hash) = (credential.id.clone(), credential.hash.clone());
    let https_is_scheme = version == "2";
    let session_number = agent.number;
    let identity =
        AgentIdentity { account, hash, client, session: session_number, leg, https_is_scheme };
    let started = wall_clock();
    let id =
        token::ksuid("ts", started).map_err(|e| Refusal::text(format!("The edge failed: {e}.")))?;
    let info = AgentInfo::new(id, &request, &version, started.as_secs());
    let info = Arc::new(info);
    agent.state.lock().info = Some(Arc::clone(&info));
    register(edge, agent, session, &identity, credential.max_sessions)?;
    // A reload that began before the session was registered has not seen it.
    if let Err(refusal) = revocation::check_session(&edge.config(), agent) {
        session.close(Code::NO_ERROR, &refusal.message);
        return Err(refusal.into());
    }
    session.start_heartbeat(interval, tolerance);
    if let Some(streams) = usize::try_from(extra.max_streams).ok().filter(|streams| *streams > 0) {
        session.set_max_streams(streams.saturating_sub(OWN_STREAMS).clamp(1, MAX_STREAMS));
    }
    if let Some(count) = edge.count_agent_line("agent connected", &identity.account) {
        event!(
            info,
            obj = "edge",
            "agent connected",
            r = agent.peer,
            account = identity.account,
            agent = extra.user_agent,
            count = count,
        );
    }
    Ok(response(edge, version, identity, info.id.clone()))
}

/// Checks the IP restrictions of the edge.
fn check_restrictions(edge: &Edge, config: &EdgeConfig, peer: SocketAddr) -> Result<(), Refusal> {
    let verdict = config.restrictions.agents.check(peer.ip());
    if verdict == IpVerdict::Unenforced {
        edge.warn_unenforced(peer);
    }
    revocation::check_address(config, peer.ip())
}

/// Chooses the protocol version: the first one of the client that is supported.
fn protocol_version(request: &AuthRequest) -> Result<String, Refusal> {
    let supported = |v: &&String| matches!(v.as_str(), "3" | "2");
    request.versions.iter().find(supported).cloned().ok_or_else(|| {
        let given = request.versions.join(", ");
        let text = format!("No common protocol version. Requested: '{given}', supported: '3, 2'.");
        Refusal::new(811, text)
    })
}

/// Returns the id that the client proves with its cookie, or a new one.
fn client_id(edge: &Edge, account: &str, request: &AuthRequest) -> Result<String, Refusal> {
    let id = &request.client_id;
    if !id.is_empty() && edge.key.verify_cookie(&request.extra.cookie, account, id) {
        return Ok(id.clone());
    }
    token::id("cl").map_err(|e| Refusal::text(format!("The edge failed: {e}.")))
}

/// A refused session.
pub struct AuthRefusal {
    /// For the agent.
    pub refusal: Refusal,
    /// The sessions of the credential, if it may not have more. They may be dead without a
    /// sign of it.
    pub holders: Vec<Session>,
}

impl From<Refusal> for AuthRefusal {
    fn from(refusal: Refusal) -> Self {
        AuthRefusal { refusal, holders: Vec::new() }
    }
}

fn full(edge: &Edge, identity: &AgentIdentity, refusal: Refusal) -> AuthRefusal {
    let holds = |other: &Arc<AgentSession>| {
        let state = other.state.lock();
        let same = state.identity.as_ref().is_some_and(|i| i.account == identity.account);
        state.session.clone().filter(|_| same)
    };
    let holders = match refusal.code {
        Some(108) => edge.agents.sessions().iter().filter_map(holds).collect(),
        _ => Vec::new(),
    };
    AuthRefusal { refusal, holders }
}

/// Registers the session and closes the older ones that it replaces.
fn register(
    edge: &Edge,
    agent: &Arc<AgentSession>,
    session: &Session,
    identity: &AgentIdentity,
    max_clients: usize,
) -> Result<(), AuthRefusal> {
    let max_sessions = edge.config().limits.agents;
    let older = edge
        .agents
        .register(agent, session, identity, max_clients, max_sessions)
        .map_err(|refusal| full(edge, identity, refusal))?;
    for old in older {
        if let Some(count) = edge.count_agent_line("session replaced", &identity.account) {
            event!(info, obj = "edge", "session replaced", r = old.peer, count = count);
        }
        if let Some(session) = old.state.lock().session.clone() {
            session.close(Code::NO_ERROR, "replaced by a newer session");
        }
    }
    Ok(())
}

fn response(edge: &Edge, version: String, identity: AgentIdentity, id: String) -> AuthResponse {
    AuthResponse {
        version,
        error: None,
        extra: AuthResponseExtra {
            version: env!("CARGO_PKG_VERSION").into(),
            region: REGION.into(),
            cookie: edge.key.cookie(&identity.account, &identity.client),
            account_name: identity.account,
            plan_name: String::new(),
            banner: String::new(),
            session_duration: Duration::ZERO,
            deprecation: None,
            connect_addresses: Vec::new(),
            agent_session_id: id,
        },
        client_id: identity.client,
    }
}

/// Returns interval and tolerance of the client, or the defaults (protocol 4).
fn heartbeat(interval: Duration, tolerance: Duration) -> Result<(Duration, Duration), Refusal> {
    let or = |given: Duration, default: u64| {
        if given.is_zero() { Duration::from_secs(default) } else { given }
    };
    let (interval, tolerance) = (or(interval, 10), or(tolerance, 15));
    let second = Duration::from_secs(1);
    if interval < second {
        return Err(Refusal::new(111, "The heartbeat interval must be at least 1s."));
    }
    if tolerance < second {
        return Err(Refusal::new(112, "The heartbeat tolerance must be at least 1s."));
    }
    let hour = Duration::from_secs(3_600);
    Ok((interval.min(hour), tolerance.min(hour)))
}
