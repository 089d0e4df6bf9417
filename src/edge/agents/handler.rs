//! The calls of an agent (protocol 5) and the end of its session. Runs on the session's
//! reactor thread and never blocks: what must wait returns a deferred reply.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::auth::{self, AuthRefusal};
use super::bind::{self, BindRefusal};
use super::encoded_reply::EncodedReply;
use super::identity::AgentIdentity;
use super::labels;
use super::late_replies::LateReply;
use super::options;
use super::registry::OnlineEndpoint;
use super::rpc::{AgentCall, RpcHandler, RpcReply};
use super::session::AgentSession;
use crate::edge::Edge;
use crate::edge::context::REGION;
use crate::edge::visitors::stream_target::StreamTarget;
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::mux::{StreamId, StreamType};
use crate::proto::codes::Refusal;
use crate::proto::messages::{
    AuthResponse, BindRequest, BindResponse, CommandResponse, PatchRequest, SrvInfoResponse,
    StartTunnelWithLabelRequest, StartTunnelWithLabelResponse, UnbindRequest,
};
use crate::session::{End, Handler, Session, Sink};
use crate::sys;
use crate::sys::sync::Mutex;
use crate::time::{Deadline, Instant};

/// Longest metadata of an endpoint.
const MAX_METADATA_BYTES: usize = 4096;

/// Calls of one session under way at the same time, after Auth and before it. As many Binds
/// may wait for their names.
const MAX_CALLS: usize = 16;
const MAX_CALLS_BEFORE_AUTH: usize = 4;

/// Time for the request of a call to arrive.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for a session to answer a probe when another agent of the same credential binds its
/// name. Four times its latency is added.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Upper bound of that time.
const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the end of a session to free its names.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Log lines about streams that are refused.
static REFUSED_STREAM_LINES: Mutex<LineQuota> = Mutex::new(LineQuota::per_minute(10));

/// Codes of refusals that are not failed logins: 108 (too many sessions), 111 and 112
/// (heartbeat), 115 (IP restriction), 811 (version).
const NO_LOGIN_CODES: [u32; 5] = [108, 111, 112, 115, 811];

/// Handler of a session's events.
pub struct AgentSessionHandler {
    rpc: Arc<AgentRpc>,
    calls: Vec<Weak<AgentCall>>,
}

/// What the calls of one session work on.
struct AgentRpc {
    edge: Weak<Edge>,
    agent: Arc<AgentSession>,
    /// Held by each Bind that waits for its name.
    late_binds: Arc<()>,
}

impl AgentSessionHandler {
    /// Creates the handler of one session.
    pub fn new(edge: &Arc<Edge>, agent: Arc<AgentSession>) -> Self {
        let rpc = AgentRpc { edge: Arc::downgrade(edge), agent, late_binds: Arc::new(()) };
        AgentSessionHandler { rpc: Arc::new(rpc), calls: Vec::new() }
    }
}

/// Probed sessions that hold a place, names or ports which another session of the same account
/// requests. A dead session ends and releases them.
struct ProbedSessions {
    sessions: Vec<Session>,
    end: Instant,
}

impl ProbedSessions {
    fn probe(sessions: Vec<Session>) -> Self {
        let mut longest = Duration::ZERO;
        for session in &sessions {
            let usual = session.latency().unwrap_or_default();
            let timeout = (PROBE_TIMEOUT + 4 * usual).min(MAX_PROBE_TIMEOUT);
            session.probe(timeout);
            longest = longest.max(timeout);
        }
        ProbedSessions { sessions, end: sys::clock() + longest + CLEANUP_TIMEOUT }
    }

    /// Returns whether nothing more can become free: all are alive, or their time is over.
    fn is_decided(&self, now: Instant) -> bool {
        now >= self.end || self.sessions.iter().all(Session::has_answered)
    }
}

impl RpcHandler for AgentRpc {
    fn handle(self: Arc<Self>, session: &Session, kind: StreamType, request: &[u8]) -> RpcReply {
        let Some(edge) = self.edge.upgrade() else {
            let refusal = Refusal::text("The edge is stopping.");
            return RpcReply::Ready(encode_refused(refusal).into());
        };
        let (identity, refused) = {
            let state = self.agent.state.lock();
            (state.identity.clone(), state.refused)
        };
        let response = match (kind, identity) {
            // One attempt for each session: each guess costs a connection.
            (StreamType::AUTH, None) if refused => {
                let again = Refusal::text("Authentication was refused. Connect again.");
                AuthResponse::refused(again).encode()
            }
            (StreamType::AUTH, None) => return self.auth(edge, session, request),
            (StreamType::AUTH, Some(_)) => {
                let twice = Refusal::text("This session is authenticated already.");
                AuthResponse::refused(twice).encode()
            }
            (StreamType::SRV_INFO, _) => SrvInfoResponse { region: REGION.into() }.encode(),
            (_, None) => encode_refused(Refusal::new(4018, "This session is not authenticated.")),
            (StreamType::BIND, Some(identity)) => {
                return self.bind(edge, session, &identity, request);
            }
            (StreamType::UNBIND, Some(_)) => self.unbind(&edge, request),
            (StreamType::START_TUNNEL_WITH_LABEL, Some(identity)) => {
                return RpcReply::Ready(self.start_labelled(&edge, session, &identity, request));
            }
            (StreamType::PATCH_TUNNEL_STATE, Some(_)) => {
                // A policy takes milliseconds to compile.
                let request = request.to_vec();
                return RpcReply::Deferred(Box::new(move |_| {
                    Some(self.patch(&edge, &request).into())
                }));
            }
            (other, Some(_)) => encode_refused(Refusal::text(format!(
                "This edge does not support the call {other}."
            ))),
        };
        RpcReply::Ready(response.into())
    }

    fn reply_later(&self, reply: LateReply) {
        let Some(edge) = self.edge.upgrade() else { return };
        if let Err(e) = edge.late_replies.push(&edge.registry, reply) {
            edge.warn_spawn_failed("a late response", &e);
        }
    }
}

/// The calls. They are not inlined: each session's thread keeps the pages of its deepest stack,
/// and an edge has a thousand sessions.
impl AgentRpc {
    #[inline(never)]
    fn auth(self: Arc<Self>, edge: Arc<Edge>, session: &Session, request: &[u8]) -> RpcReply {
        let refusal = match auth::authenticate(&edge, &self.agent, session, request) {
            Ok(response) => return RpcReply::Ready(response.encode().into()),
            Err(AuthRefusal { refusal, holders }) if holders.is_empty() => refusal,
            Err(AuthRefusal { holders, .. }) => {
                return self.auth_when_free(edge, session, request, holders);
            }
        };
        RpcReply::Ready(self.auth_refused(&edge, refusal).into())
    }

    /// Authenticates when one of `holders`, which are all sessions that the credential may
    /// have, turns out to be dead. The same agent started again after a power loss has lost
    /// the id that would replace its former session.
    fn auth_when_free(
        self: Arc<Self>,
        edge: Arc<Edge>,
        session: &Session,
        request: &[u8],
        holders: Vec<Session>,
    ) -> RpcReply {
        if std::mem::replace(&mut self.agent.state.lock().auth_pending, true) {
            let twice = Refusal::text("This session is being authenticated already.");
            return RpcReply::Ready(AuthResponse::refused(twice).encode().into());
        }
        let probed = ProbedSessions::probe(holders);
        let (session, request) = (session.clone(), request.to_vec());
        RpcReply::Deferred(Box::new(move |now| {
            // Before the attempt: what becomes free after it is not lost.
            let last = probed.is_decided(now);
            match auth::authenticate(&edge, &self.agent, &session, &request) {
                Ok(response) => Some(response.encode().into()),
                Err(refused) if !refused.holders.is_empty() && !last => None,
                Err(refused) => Some(self.auth_refused(&edge, refused.refusal).into()),
            }
        }))
    }

    fn auth_refused(&self, edge: &Edge, refusal: Refusal) -> Vec<u8> {
        let peer = self.agent.peer;
        if let Some(count) = edge.count_warning("authentication refused", 10) {
            event!(
                warn,
                obj = "edge",
                "authentication refused",
                r = peer,
                count = count,
                err = refusal
            );
        }
        if refusal.code.is_none_or(|code| !NO_LOGIN_CODES.contains(&code)) {
            edge.agents.record_failure(peer.ip(), sys::clock());
        }
        self.agent.state.lock().refused = true;
        self.agent.notify();
        AuthResponse::refused(refusal).encode()
    }

    #[inline(never)]
    fn bind(
        self: Arc<Self>,
        edge: Arc<Edge>,
        session: &Session,
        identity: &AgentIdentity,
        request: &[u8],
    ) -> RpcReply {
        let request = BindRequest::decode(request)
            .map_err(|e| Refusal::new(301, format!("The bind request is malformed: {e}.")));
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                let response = self.bind_refused(&edge, &identity.account, refusal);
                return RpcReply::Ready(response.into());
            }
        };
        if options::has_policy(&request.opts) {
            return self.bind_with_policy(edge, session, identity, request);
        }
        let attempted = self.try_bind(&edge, session, identity, &request);
        let is_full = Arc::strong_count(&self.late_binds) > MAX_CALLS;
        match attempted {
            Ok(response) => RpcReply::Ready(response),
            Err(BindRefusal { refusal, holders }) if holders.is_empty() || is_full => {
                RpcReply::Ready(self.bind_refused(&edge, &identity.account, refusal).into())
            }
            // The session that has the name may be dead without a sign of it: the same agent
            // started again after a power loss, from another address, must get its name.
            Err(BindRefusal { holders, .. }) => {
                let probed = Some(ProbedSessions::probe(holders));
                self.bind_late(edge, session, identity, request, probed)
            }
        }
    }

    /// Binds on the thread of the late responses: a policy takes milliseconds to compile.
    fn bind_with_policy(
        self: Arc<Self>,
        edge: Arc<Edge>,
        session: &Session,
        identity: &AgentIdentity,
        request: BindRequest,
    ) -> RpcReply {
        if Arc::strong_count(&self.late_binds) > MAX_CALLS {
            let refusal = Refusal::text("The session has too many calls under way. Try again.");
            return RpcReply::Ready(self.bind_refused(&edge, &identity.account, refusal).into());
        }
        self.bind_late(edge, session, identity, request, None)
    }

    /// Tries until the name is free, or until it is decided that it does not become free.
    fn bind_late(
        self: Arc<Self>,
        edge: Arc<Edge>,
        session: &Session,
        identity: &AgentIdentity,
        request: BindRequest,
        mut probed: Option<ProbedSessions>,
    ) -> RpcReply {
        let counted = Arc::clone(&self.late_binds);
        let (session, identity) = (session.clone(), identity.clone());
        RpcReply::Deferred(Box::new(move |now| {
            let _ = &counted;
            // Before the attempt: what becomes free after it is not lost.
            let last = probed.as_ref().is_some_and(|probed| probed.is_decided(now));
            match self.try_bind(&edge, &session, &identity, &request) {
                Ok(response) => Some(response),
                Err(BindRefusal { holders, .. }) if !holders.is_empty() && !last => {
                    probed.get_or_insert_with(|| ProbedSessions::probe(holders));
                    None
                }
                Err(BindRefusal { refusal, .. }) => {
                    Some(self.bind_refused(&edge, &identity.account, refusal).into())
                }
            }
        }))
    }

    fn try_bind(
        &self,
        edge: &Arc<Edge>,
        session: &Session,
        identity: &AgentIdentity,
        request: &BindRequest,
    ) -> Result<EncodedReply, BindRefusal> {
        self.check_endpoint_limit(edge.config().limits.endpoints, &request.id, 1)?;
        let streams = Arc::clone(&self.agent.streams);
        let target = StreamTarget { session: session.clone(), streams };
        let (mut endpoint, response) = bind::decide(edge, identity, target, request.clone())?;
        endpoint.unsent_binds = Arc::clone(&self.agent.unsent_binds);
        let endpoint = Arc::new(endpoint);
        let bind = Some(endpoint.unsent_binds.begin());
        self.put_online(edge, std::slice::from_ref(&endpoint)).map_err(|refusal| {
            let holders = edge.registry.conflicting_sessions(&endpoint);
            BindRefusal { refusal, holders }
        })?;
        Ok(EncodedReply { bytes: response.encode(), bind })
    }

    fn check_endpoint_limit(&self, max: usize, id: &str, new: usize) -> Result<(), Refusal> {
        // A rebind replaces the endpoint with the same id.
        let others = self.agent.state.lock().endpoints.iter().filter(|e| e.id != id).count();
        if others.saturating_add(new) <= max {
            return Ok(());
        }
        Err(Refusal::new(324, format!("A session may have at most {max} endpoints.")))
    }

    /// Starts a tunnel with labels: an endpoint for each route that selects them.
    #[inline(never)]
    fn start_labelled(
        &self,
        edge: &Edge,
        session: &Session,
        identity: &AgentIdentity,
        request: &[u8],
    ) -> EncodedReply {
        let result = StartTunnelWithLabelRequest::decode(request)
            .map_err(|e| Refusal::new(301, format!("The request is malformed: {e}.")))
            .and_then(|request| self.try_start_labelled(edge, session, identity, request));
        result.unwrap_or_else(|refusal| {
            self.count_refused(edge, &identity.account, &refusal);
            let response = StartTunnelWithLabelResponse { id: String::new(), error: Some(refusal) };
            response.encode().into()
        })
    }

    fn try_start_labelled(
        &self,
        edge: &Edge,
        session: &Session,
        identity: &AgentIdentity,
        request: StartTunnelWithLabelRequest,
    ) -> Result<EncodedReply, Refusal> {
        let target =
            StreamTarget { session: session.clone(), streams: Arc::clone(&self.agent.streams) };
        let is_taken = |id: &str| self.agent.state.lock().endpoints.iter().any(|e| e.id == id);
        let mut endpoints = labels::decide(edge, identity, &target, request, &is_taken)?;
        for endpoint in &mut endpoints {
            endpoint.unsent_binds = Arc::clone(&self.agent.unsent_binds);
        }
        let endpoints: Vec<_> = endpoints.into_iter().map(Arc::new).collect();
        let id = endpoints.first().map(|endpoint| endpoint.id.clone()).unwrap_or_default();
        self.check_endpoint_limit(edge.config().limits.endpoints, &id, endpoints.len())?;
        let bind = Some(self.agent.unsent_binds.begin());
        self.put_online(edge, &endpoints)?;
        Ok(EncodedReply { bytes: StartTunnelWithLabelResponse { id, error: None }.encode(), bind })
    }

    /// Puts the endpoints with one id online, all or none.
    fn put_online(&self, edge: &Edge, endpoints: &[Arc<OnlineEndpoint>]) -> Result<(), Refusal> {
        // The lock is held until the endpoint is in `endpoints`: the end of the session takes
        // all of these offline.
        let mut state = self.agent.state.lock();
        if state.ended {
            return Err(Refusal::text("The session has ended."));
        }
        // A reload looks at `endpoints` under the same lock.
        let config = edge.config();
        let Some(identity) = &state.identity else {
            return Err(Refusal::new(4018, "This session is not authenticated."));
        };
        let credential = config.credentials.check_identity(identity, self.agent.peer.ip())?;
        for (n, endpoint) in endpoints.iter().enumerate() {
            let put = bind::check_permitted(&config, credential, endpoint)
                .and_then(|()| edge.put_online(endpoint));
            if let Err(refusal) = put {
                endpoints.iter().take(n).for_each(|done| edge.take_offline(done));
                return Err(refusal);
            }
        }
        state.endpoints.retain(|e| endpoints.iter().all(|new| e.id != new.id));
        state.endpoints.extend_from_slice(endpoints);
        drop(state);
        for endpoint in endpoints {
            if let Some(count) = edge.count_endpoint_line("endpoint up", &endpoint.account) {
                let (url, peer) = (&endpoint.url, self.agent.peer);
                event!(info, obj = "edge", "endpoint up", url = url, r = peer, count = count);
            }
        }
        Ok(())
    }

    fn bind_refused(&self, edge: &Edge, account: &str, refusal: Refusal) -> Vec<u8> {
        self.count_refused(edge, account, &refusal);
        BindResponse::refused(refusal).encode()
    }

    fn count_refused(&self, edge: &Edge, account: &str, refusal: &Refusal) {
        if let Some(count) = edge.count_agent_line("bind refused", account) {
            let peer = self.agent.peer;
            event!(info, obj = "edge", "bind refused", r = peer, count = count, err = refusal);
        }
    }

    /// Takes an endpoint offline. An unknown id is not an error (protocol 5.7).
    #[inline(never)]
    fn unbind(&self, edge: &Edge, request: &[u8]) -> Vec<u8> {
        let request = match UnbindRequest::decode(request) {
            Ok(request) => request,
            Err(e) => return encode_refused(Refusal::text(e.to_string())),
        };
        // On all connections of the client at the same time (protocol 1).
        let client = self.agent.state.lock().identity.as_ref().map(|i| i.client.clone());
        for leg in edge.agents.sessions() {
            let mut state = leg.state.lock();
            if state.identity.as_ref().map(|i| &i.client) != client.as_ref() {
                continue;
            }
            let (ended, others): (Vec<_>, Vec<_>) =
                state.endpoints.drain(..).partition(|endpoint| endpoint.id == request.id);
            state.endpoints = others;
            drop(state);
            for endpoint in ended {
                edge.take_offline(&endpoint);
                if let Some(count) = edge.count_endpoint_line("endpoint down", &endpoint.account) {
                    let (url, peer) = (&endpoint.url, leg.peer);
                    event!(info, obj = "edge", "endpoint down", url = url, r = peer, count = count);
                }
            }
        }
        CommandResponse { error: None }.encode()
    }

    #[inline(never)]
    fn patch(&self, edge: &Arc<Edge>, request: &[u8]) -> Vec<u8> {
        let result = PatchRequest::decode(request)
            .map_err(|e| Refusal::text(e.to_string()))
            .and_then(|request| self.apply_patch(edge, request));
        CommandResponse { error: result.err() }.encode()
    }

    fn apply_patch(&self, edge: &Arc<Edge>, request: PatchRequest) -> Result<(), Refusal> {
        let endpoint = self.endpoint(&request.tunnel_id)?;
        if request.pooling_enabled.is_some_and(|p| p != endpoint.pooling) {
            return Err(Refusal::text(
                "Pooling cannot be changed while the endpoint is online. Start it again.",
            ));
        }
        if request.metadata.as_ref().is_some_and(|m| m.len() > MAX_METADATA_BYTES) {
            return Err(Refusal::new(
                100,
                format!("Metadata may have at most {MAX_METADATA_BYTES} bytes."),
            ));
        }
        if let Some(text) = &request.traffic_policy {
            self.replace_policy(edge, endpoint, text)?;
        }
        // With the lock no other request replaces the endpoint meanwhile.
        let state = self.agent.state.lock();
        let endpoint = find_endpoint(&state.endpoints, &request.tunnel_id)?;
        let mut guard = endpoint.details.lock();
        let details = &mut *guard;
        for (text, new) in
            [(&mut details.name, request.name), (&mut details.description, request.description)]
        {
            if let Some(new) = new {
                *text = new.chars().take(MAX_METADATA_BYTES / 4).collect();
            }
        }
        if let Some(metadata) = request.metadata {
            details.metadata = metadata;
        }
        Ok(())
    }

    /// Returns an endpoint of this session.
    fn endpoint(&self, tunnel_id: &str) -> Result<Arc<OnlineEndpoint>, Refusal> {
        find_endpoint(&self.agent.state.lock().endpoints, tunnel_id).cloned()
    }

    /// Replaces the policy of an endpoint. It is compiled without the lock of the state, which
    /// the whole session needs.
    fn replace_policy(
        &self,
        edge: &Arc<Edge>,
        mut endpoint: Arc<OnlineEndpoint>,
        text: &str,
    ) -> Result<(), Refusal> {
        loop {
            let changed = Arc::new(bind::with_policy(edge, &endpoint, text.to_owned())?);
            let mut state = self.agent.state.lock();
            let current = state.endpoints.iter_mut().find(|e| Arc::ptr_eq(e, &endpoint));
            if let Some(current) = current {
                edge.registry.replace(current, &changed);
                *current = changed;
                return Ok(());
            }
            // Another request has replaced or ended the endpoint meanwhile.
            endpoint = find_endpoint(&state.endpoints, &endpoint.tunnel_id)?.clone();
        }
    }
}

fn find_endpoint<'a>(
    endpoints: &'a [Arc<OnlineEndpoint>],
    tunnel_id: &str,
) -> Result<&'a Arc<OnlineEndpoint>, Refusal> {
    let found = endpoints.iter().find(|endpoint| endpoint.tunnel_id == tunnel_id);
    found.ok_or_else(|| Refusal::text("The endpoint does not exist."))
}

fn encode_refused(refusal: Refusal) -> Vec<u8> {
    CommandResponse::refused(refusal).encode()
}

impl Handler for AgentSessionHandler {
    fn opened(
        &mut self,
        session: &Session,
        stream: StreamId,
        kind: StreamType,
    ) -> Option<Arc<dyn Sink>> {
        let known = matches!(
            kind,
            StreamType::AUTH
                | StreamType::BIND
                | StreamType::UNBIND
                | StreamType::START_TUNNEL_WITH_LABEL
                | StreamType::SRV_INFO
                | StreamType::PATCH_TUNNEL_STATE
        );
        let agent = &self.rpc.agent;
        let authenticated = {
            let mut state = agent.state.lock();
            state.session.get_or_insert_with(|| session.clone());
            state.identity.is_some()
        };
        self.calls.retain(|c| c.strong_count() > 0);
        let max = if authenticated { MAX_CALLS } else { MAX_CALLS_BEFORE_AUTH };
        if !known || self.calls.len() >= max {
            if let Some(count) = REFUSED_STREAM_LINES.lock().record(sys::clock()) {
                let peer = agent.peer;
                event!(
                    warn,
                    obj = "edge",
                    "stream refused",
                    r = peer,
                    id = stream,
                    kind = kind,
                    count = count
                );
            }
            return None;
        }
        let rpc: Arc<dyn RpcHandler> = Arc::<AgentRpc>::clone(&self.rpc);
        let call = Arc::new(AgentCall::new(rpc, session, stream, kind, authenticated));
        self.calls.push(Arc::downgrade(&call));
        Some(call)
    }

    fn tick(&mut self, now: Instant) -> Deadline {
        for call in self.calls.iter().filter_map(Weak::upgrade) {
            call.expire(now, CALL_TIMEOUT);
        }
        Deadline::At(now + CALL_TIMEOUT)
    }

    fn ended(&mut self, end: &End) {
        let agent = &self.rpc.agent;
        let (endpoints, account) = {
            let mut state = agent.state.lock();
            state.ended = true;
            state.session = None;
            let account = state.identity.as_ref().map(|i| i.account.clone());
            (std::mem::take(&mut state.endpoints), account)
        };
        agent.notify();
        let Some(edge) = self.rpc.edge.upgrade() else { return };
        edge.agents.remove(agent.number);
        let until = sys::clock() + edge.config().limits.hold;
        for endpoint in &endpoints {
            edge.registry.reserve(endpoint, until);
        }
        if let Some(account) = account
            && let Some(count) = edge.count_agent_line("agent disconnected", &account)
        {
            let peer = agent.peer;
            event!(info, obj = "edge", "agent disconnected", r = peer, count = count, err = end);
        }
    }
}
