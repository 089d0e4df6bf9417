//! The agents: accepts their connections, answers their calls, and frees what
//! they leave behind. One handler a session, on the session's reactor thread:
//! nothing in it blocks.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::bind;
use super::registry::OnlineEndpoint;
use super::rpc::AgentCall;
use crate::edge::{Edge, token};
use crate::event;
use crate::mux::{self, Code, Role, StreamId, StreamType};
use crate::proto::codes::Refusal;
use crate::proto::messages::{
    AuthRequest, AuthResponse, AuthResponseExtra, BindRequest, BindResponse, CommandResponse,
    PatchRequest, SrvInfoResponse, StartTunnelWithLabelResponse, UnbindRequest,
};
use crate::session::{self, End, Handler, Session, Sink};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::time::{Deadline, Instant};
use crate::tls::client;

/// Longest metadata of a session, in bytes.
const MAX_METADATA_BYTES: usize = 4096;

/// Calls of one session that may be under way at the same time, with Auth and
/// before it.
const MAX_CALLS: usize = 16;
const MAX_CALLS_BEFORE_AUTH: usize = 4;

/// Connections that one client may have at the same time.
const MAX_LEGS: u64 = 8;

/// How long a call may take to arrive.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an agent that was refused may take to read why.
const REFUSED_LINGER: Duration = Duration::from_secs(3);

/// How long the kernel tries to reach a silent agent.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Failures of Auth that one address may make in a minute before it waits.
const MAX_FAILURES: u32 = 10;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Addresses whose failures are remembered.
const MAX_FAILURE_ADDRESSES: usize = 4096;

/// How long whoever has a name may take to show that he lives, when an agent of the same
/// credential wants it; on a slow link a few times its usual latency more.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest that this may be.
const MAX_PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end of a session takes, at most, to free its names.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks those who are in an endpoint's way whether they live. How long they may take.
fn probe_conflicting_sessions(edge: &Edge, endpoint: &OnlineEndpoint) -> Duration {
    let mut longest = Duration::ZERO;
    for session in edge.registry().conflicting_sessions(endpoint) {
        let usual = session.latency().unwrap_or_default();
        let timeout = (PROBE_TIMEOUT + 4 * usual).min(MAX_PROBE_TIMEOUT);
        session.probe(timeout);
        longest = longest.max(timeout);
    }
    longest
}

/// The answer to a call.
pub enum RpcReply {
    /// Its bytes.
    Ready(Vec<u8>),
    /// What makes them; it may block for a second or two.
    Deferred(Box<dyn FnOnce() -> Vec<u8> + Send>),
}

/// Who opened a session.
#[derive(Clone, Debug)]
pub struct AgentIdentity {
    /// The credential.
    pub account: String,
    /// The client; the same over reconnects.
    pub client: String,
    /// Number of this session, rising.
    pub session: u64,
    /// Which of the client's connections it is (protocol 1). They serve together; a
    /// newer connection with the same number comes in place of the older one.
    pub leg: u64,
}

/// All sessions.
#[derive(Default)]
pub struct Agents {
    table: Mutex<AgentTable>,
}

#[derive(Default)]
struct AgentTable {
    next: u64,
    /// Connections that have not shown an authtoken yet, by address.
    unauthenticated: HashMap<IpAddr, usize>,
    sessions: HashMap<u64, Arc<AgentSession>>,
    failures: HashMap<IpAddr, (u32, Instant)>,
}

/// One session.
pub struct AgentSession {
    edge: Weak<Edge>,
    peer: SocketAddr,
    number: u64,
    state: Mutex<AgentSessionState>,
    /// Told when Auth was decided or the session ended.
    changed: Condvar,
}

#[derive(Default)]
struct AgentSessionState {
    session: Option<Session>,
    identity: Option<AgentIdentity>,
    /// Auth was refused: the session ends soon.
    refused: bool,
    ended: bool,
    endpoints: Vec<Arc<OnlineEndpoint>>,
    calls: Vec<Weak<AgentCall>>,
}

impl Agents {
    fn lock(&self) -> MutexGuard<'_, AgentTable> {
        self.table.lock()
    }

    /// Says goodbye to all, and waits until they have gone.
    pub fn close(&self, text: &str) {
        let sessions: Vec<_> = self.lock().sessions.values().cloned().collect();
        for agent in &sessions {
            if let Some(session) = agent.lock().session.clone() {
                session.close(Code::NO_ERROR, text);
            }
        }
        for agent in sessions {
            agent.wait(Deadline::At(sys::clock() + Duration::from_secs(1)), |s| s.ended);
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn record_failure(&self, ip: IpAddr, now: Instant) {
        let mut table = self.lock();
        if table.failures.len() >= MAX_FAILURE_ADDRESSES {
            table.failures.retain(|_, (_, since)| now.since(*since) < FAILURE_WINDOW);
            if table.failures.len() >= MAX_FAILURE_ADDRESSES {
                return;
            }
        }
        let (count, since) = table.failures.entry(ip).or_insert((0, now));
        if now.since(*since) >= FAILURE_WINDOW {
            (*count, *since) = (0, now);
        }
        *count += 1;
    }

    fn is_rate_limited(&self, ip: IpAddr, now: Instant) -> bool {
        self.lock().failures.get(&ip).is_some_and(|(count, since)| {
            *count >= MAX_FAILURES && now.since(*since) < FAILURE_WINDOW
        })
    }
}

/// Serves a connection to the agents' port until it has shown its authtoken;
/// then the session lives on its own.
pub fn serve(edge: &Arc<Edge>, socket: TcpStream, peer: SocketAddr) {
    let agents = edge.agents();
    // Trying it on one machine means failing from one address.
    if !edge.is_dev() && agents.is_rate_limited(peer.ip(), sys::clock()) {
        return;
    }
    let number = {
        let mut table = agents.lock();
        let most = edge.limits().unauthenticated;
        // One address does not get all places, or it could keep everybody out.
        let share = if edge.is_dev() { most } else { most.div_ceil(4) };
        let here = table.unauthenticated.get(&peer.ip()).copied().unwrap_or(0);
        if here >= share || table.unauthenticated.values().sum::<usize>() >= most {
            drop(table);
            edge.warn_full("connections of agents without an authtoken");
            return;
        }
        table.unauthenticated.insert(peer.ip(), here + 1);
        table.next += 1;
        table.next
    };
    let agent = Arc::new(AgentSession {
        edge: Arc::downgrade(edge),
        peer,
        number,
        state: Mutex::default(),
        changed: Condvar::new(),
    });
    // Whoever finds the port can do this: not a line for each of a flood.
    if let Err(e) = agent.start(edge, socket)
        && let Some(count) = edge.count_warning("agents", 10)
    {
        event!(info, obj = "edge", "agent not accepted", r = peer, count = count, err = e);
    }
    let mut table = agents.lock();
    if let Some(count) = table.unauthenticated.get_mut(&peer.ip()) {
        *count -= 1;
        if *count == 0 {
            table.unauthenticated.remove(&peer.ip());
        }
    }
}

impl AgentSession {
    fn lock(&self) -> MutexGuard<'_, AgentSessionState> {
        self.state.lock()
    }

    fn wait(&self, deadline: Deadline, done: impl Fn(&AgentSessionState) -> bool) -> bool {
        let mut state = self.lock();
        while !done(&state) {
            let left = deadline.left(sys::clock()).unwrap_or(CALL_TIMEOUT);
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).0;
        }
        true
    }

    fn start(self: &Arc<Self>, edge: &Arc<Edge>, socket: TcpStream) -> std::io::Result<()> {
        let deadline = Deadline::At(sys::clock() + edge.limits().auth);
        sys::keep_alive(socket.as_raw_fd(), KEEPALIVE_TIMEOUT);
        let link = client::accept(socket, edge.agent_tls(), deadline)?;
        let config = mux::Config::new(Role::Edge, sys::random_seed());
        let session = session::start(
            link,
            config,
            session::BUFFERED,
            Box::new(AgentHandler(Arc::clone(self))),
        )?;
        self.lock().session.get_or_insert_with(|| session.clone());
        if !self.wait(deadline, |s| s.identity.is_some() || s.refused || s.ended) {
            event!(info, obj = "edge", "agent did not authenticate in time", r = self.peer);
            session.close(Code::NO_ERROR, "authentication took too long");
        } else if self.lock().refused {
            // The agent reads the reason and goes; this is for those that do not.
            let deadline = Deadline::At(sys::clock() + REFUSED_LINGER);
            self.wait(deadline, |s| s.ended);
            session.close(Code::NO_ERROR, "authentication refused");
        }
        Ok(())
    }

    /// Answers a call. Does not block.
    pub fn answer(
        self: &Arc<Self>,
        session: &Session,
        kind: StreamType,
        request: &[u8],
    ) -> RpcReply {
        let Some(edge) = self.edge.upgrade() else {
            let stopping = Refusal::text("The edge is stopping.");
            return RpcReply::Ready(CommandResponse::refused(stopping).encode());
        };
        let (identity, refused) = {
            let state = self.lock();
            (state.identity.clone(), state.refused)
        };
        RpcReply::Ready(match (kind, identity) {
            // One try a session: guessing costs a connection each time.
            (StreamType::AUTH, None) if refused => {
                let again = Refusal::text("Authentication was refused. Connect again.");
                AuthResponse::refused(again).encode()
            }
            (StreamType::AUTH, None) => self.auth(&edge, session, request),
            (StreamType::AUTH, Some(_)) => {
                let twice = Refusal::text("This session is authenticated already.");
                AuthResponse::refused(twice).encode()
            }
            (StreamType::SRV_INFO, _) => SrvInfoResponse { region: edge.region().into() }.encode(),
            (_, None) => {
                let first = Refusal::new(4018, "This session is not authenticated.");
                CommandResponse::refused(first).encode()
            }
            (StreamType::BIND, Some(who)) => return self.bind(&edge, session, &who, request),
            (StreamType::UNBIND, Some(_)) => self.unbind(&edge, request),
            (StreamType::START_TUNNEL_WITH_LABEL, Some(who)) => refuse_labels(&edge, &who),
            (StreamType::PATCH_TUNNEL_STATE, Some(_)) => self.patch(request),
            (other, Some(_)) => {
                let unknown = Refusal::text(format!("This edge does not know the call {other}."));
                CommandResponse::refused(unknown).encode()
            }
        })
    }

    fn auth(self: &Arc<Self>, edge: &Arc<Edge>, session: &Session, request: &[u8]) -> Vec<u8> {
        match self.authenticate(edge, session, request) {
            Ok(response) => response.encode(),
            Err(refusal) => {
                event!(warn, obj = "edge", "authentication refused", r = self.peer, err = refusal);
                edge.agents().record_failure(self.peer.ip(), sys::clock());
                self.lock().refused = true;
                self.changed.notify_all();
                AuthResponse::refused(refusal).encode()
            }
        }
    }

    fn authenticate(
        self: &Arc<Self>,
        edge: &Arc<Edge>,
        session: &Session,
        request: &[u8],
    ) -> Result<AuthResponse, Refusal> {
        let request = AuthRequest::decode(request)
            .map_err(|e| Refusal::new(109, format!("The Auth request is malformed: {e}.")))?;
        let Some(version) = request.versions.iter().find(|v| matches!(v.as_str(), "3" | "2"))
        else {
            let given = request.versions.join(", ");
            return Err(Refusal::new(
                811,
                format!("No common protocol version. Requested: '{given}', supported: '3, 2'."),
            ));
        };
        let extra = &request.extra;
        if extra.metadata.len() > MAX_METADATA_BYTES {
            let len = extra.metadata.len();
            return Err(Refusal::new(
                100,
                format!("Invalid metadata length: {len} bytes, at most {MAX_METADATA_BYTES}."),
            ));
        }
        let (interval, tolerance) = heartbeat(extra.heartbeat_interval, extra.heartbeat_tolerance)?;
        let credentials = edge.credentials();
        let credential = credentials.find(&extra.authtoken, self.peer.ip())?;
        let account = credential.id.clone();

        let key = edge.key();
        let known = !request.client_id.is_empty()
            && key.verify_cookie(&extra.cookie, &account, &request.client_id);
        let client = if known {
            request.client_id.clone()
        } else {
            token::id("cl").map_err(|e| Refusal::text(format!("The edge failed: {e}.")))?
        };
        let leg = extra.leg_number;
        if leg >= MAX_LEGS {
            return Err(Refusal::new(
                9024,
                format!("A client may have {MAX_LEGS} connections, this is number {}.", leg + 1),
            ));
        }
        let identity = AgentIdentity { account, client, session: self.number, leg };
        let older = self.register(edge, session, &identity, credential.max_sessions)?;
        for old in older {
            event!(info, obj = "edge", "session replaced by a newer one", r = old.peer);
            if let Some(session) = old.lock().session.clone() {
                session.close(Code::NO_ERROR, "replaced by a newer session");
            }
        }
        session.start_heartbeat(interval, tolerance);
        event!(
            info,
            obj = "edge",
            "agent connected",
            r = self.peer,
            account = identity.account,
            agent = extra.user_agent,
        );
        Ok(AuthResponse {
            version: version.clone(),
            client_id: identity.client.clone(),
            error: None,
            extra: AuthResponseExtra {
                version: env!("CARGO_PKG_VERSION").into(),
                region: edge.region().into(),
                cookie: key.cookie(&identity.account, &identity.client),
                account_name: identity.account.clone(),
                plan_name: String::new(),
                banner: String::new(),
                session_duration: Duration::ZERO,
                deprecation: None,
                connect_addresses: Vec::new(),
                agent_session_id: token::id("ts").unwrap_or_default(),
            },
        })
    }

    /// Makes it one of the sessions, within the bounds. Returns the older ones of
    /// the same client's leg: they are dead, or as good as. The legs of a client
    /// count as one session of its credential.
    fn register(
        self: &Arc<Self>,
        edge: &Edge,
        session: &Session,
        identity: &AgentIdentity,
        most: usize,
    ) -> Result<Vec<Arc<AgentSession>>, Refusal> {
        let mut table = edge.agents().lock();
        let (mut older, mut others) = (Vec::new(), HashSet::new());
        for agent in table.sessions.values() {
            if let Some(who) = agent.lock().identity.as_ref()
                && who.account == identity.account
            {
                if who.client != identity.client {
                    others.insert(who.client.clone());
                } else if who.leg == identity.leg {
                    older.push(Arc::clone(agent));
                }
            }
        }
        if others.len() >= most || table.sessions.len() >= edge.limits().agents + older.len() {
            return Err(Refusal::new(
                108,
                format!(
                    "The credential '{}' is limited to {} simultaneous sessions.",
                    identity.account,
                    most.min(edge.limits().agents)
                ),
            ));
        }
        {
            let mut state = self.lock();
            if state.ended {
                return Err(Refusal::text("The session has ended."));
            }
            state.identity = Some(identity.clone());
            state.session.get_or_insert_with(|| session.clone());
        }
        table.sessions.insert(self.number, Arc::clone(self));
        self.changed.notify_all();
        Ok(older)
    }

    fn bind(
        self: &Arc<Self>,
        edge: &Arc<Edge>,
        session: &Session,
        who: &AgentIdentity,
        request: &[u8],
    ) -> RpcReply {
        let decided = BindRequest::decode(request)
            .map_err(|e| Refusal::new(301, format!("The bind request is malformed: {e}.")))
            .and_then(|request| {
                let most = edge.limits().endpoints;
                // A rebind of what is there takes no further place.
                let others = self.lock().endpoints.iter().filter(|e| e.id != request.id).count();
                if others >= most {
                    return Err(Refusal::new(
                        324,
                        format!("A session may have at most {most} endpoints."),
                    ));
                }
                bind::decide(edge, who, session, request)
            })
            .map(|(endpoint, response)| (Arc::new(endpoint), response));
        let (endpoint, response) = match decided {
            Ok(decided) => decided,
            Err(refusal) => return RpcReply::Ready(self.bind_refused(refusal)),
        };
        match self.put_online(edge, &endpoint) {
            Ok(()) => RpcReply::Ready(response.encode()),
            // Perhaps its owner has died and that is not known yet: an agent that was
            // started again, from another address after a loss of power, must not be
            // told that it is in its own way.
            Err(_) => {
                let (agent, edge) = (Arc::clone(self), Arc::clone(edge));
                RpcReply::Deferred(Box::new(move || {
                    let end = sys::clock()
                        + probe_conflicting_sessions(&edge, &endpoint)
                        + CLEANUP_TIMEOUT;
                    loop {
                        let left = end.since(sys::clock());
                        edge.registry().wait_for_unbind(left);
                        match agent.put_online(&edge, &endpoint) {
                            Ok(()) => return response.encode(),
                            Err(refusal) if left.is_zero() => return agent.bind_refused(refusal),
                            Err(_) => {}
                        }
                    }
                }))
            }
        }
    }

    fn put_online(&self, edge: &Edge, endpoint: &Arc<OnlineEndpoint>) -> Result<(), Refusal> {
        // Under this lock: an endpoint of a session that ends is taken offline.
        let mut state = self.lock();
        if state.ended {
            return Err(Refusal::text("The session has ended."));
        }
        edge.registry().bind(Arc::clone(endpoint), sys::clock())?;
        state.endpoints.retain(|e| e.id != endpoint.id);
        state.endpoints.push(Arc::clone(endpoint));
        drop(state);
        event!(info, obj = "edge", "endpoint up", url = endpoint.url, r = self.peer);
        Ok(())
    }

    fn bind_refused(&self, refusal: Refusal) -> Vec<u8> {
        event!(info, obj = "edge", "bind refused", r = self.peer, err = refusal);
        BindResponse::refused(refusal).encode()
    }

    /// Idempotent: an unknown id is no error (protocol 5.7).
    fn unbind(&self, edge: &Edge, request: &[u8]) -> Vec<u8> {
        let request = match UnbindRequest::decode(request) {
            Ok(request) => request,
            Err(e) => return CommandResponse::refused(Refusal::text(e.to_string())).encode(),
        };
        // It goes on all connections of the client at once (protocol 1).
        let client = self.lock().identity.as_ref().map(|who| who.client.clone());
        let table = edge.agents().lock();
        let legs: Vec<_> = table.sessions.values().cloned().collect();
        drop(table);
        for leg in legs {
            let mut state = leg.lock();
            if state.identity.as_ref().map(|who| &who.client) != client.as_ref() {
                continue;
            }
            if let Some(at) = state.endpoints.iter().position(|e| e.id == request.id) {
                let endpoint = state.endpoints.remove(at);
                drop(state);
                edge.registry().unbind(&endpoint);
                edge.close_unused_port(endpoint.port);
                event!(info, obj = "edge", "endpoint down", url = endpoint.url, r = leg.peer);
            }
        }
        CommandResponse { error: None }.encode()
    }

    fn patch(&self, request: &[u8]) -> Vec<u8> {
        let result = PatchRequest::decode(request)
            .map_err(|e| Refusal::text(e.to_string()))
            .and_then(|request| self.apply_patch(request));
        CommandResponse { error: result.err() }.encode()
    }

    fn apply_patch(&self, request: PatchRequest) -> Result<(), Refusal> {
        let state = self.lock();
        let endpoint = state.endpoints.iter().find(|e| e.tunnel_id == request.tunnel_id);
        let endpoint = endpoint.ok_or_else(|| Refusal::text("There is no such endpoint."))?;
        if request.traffic_policy.as_ref().is_some_and(|p| !p.is_empty()) {
            return Err(Refusal::new(9026, "This edge does not support traffic policies."));
        }
        if request.pooling_enabled.is_some_and(|p| p != endpoint.pooling) {
            return Err(Refusal::text(
                "Pooling cannot be changed while the endpoint is online. Start it again.",
            ));
        }
        if request.metadata.as_ref().is_some_and(|m| m.len() > MAX_METADATA_BYTES) {
            return Err(Refusal::new(
                100,
                format!("Metadata may have {MAX_METADATA_BYTES} bytes."),
            ));
        }
        let mut guard = endpoint.details.lock();
        let texts = &mut *guard;
        for (text, new) in
            [(&mut texts.name, request.name), (&mut texts.description, request.description)]
        {
            if let Some(new) = new {
                *text = new.chars().take(MAX_METADATA_BYTES / 4).collect();
            }
        }
        if let Some(metadata) = request.metadata {
            texts.metadata = metadata;
        }
        Ok(())
    }
}

fn refuse_labels(edge: &Edge, who: &AgentIdentity) -> Vec<u8> {
    let limited = edge.credentials().by_id(&who.account).is_some_and(|c| c.acl.is_limited());
    let error = if limited {
        Refusal::new(395, "Bind rules in authtoken ACLs do not go with labeled tunnels.")
    } else {
        Refusal::new(
            358,
            "This edge does not support labeled tunnels. Start an endpoint with a URL instead.",
        )
    };
    StartTunnelWithLabelResponse { id: String::new(), error: Some(error) }.encode()
}

/// Interval and tolerance as announced, or the defaults (protocol 4).
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

/// A session's handler.
struct AgentHandler(Arc<AgentSession>);

impl Handler for AgentHandler {
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
        let mut state = self.0.lock();
        state.session.get_or_insert_with(|| session.clone());
        state.calls.retain(|c| c.strong_count() > 0);
        let authenticated = state.identity.is_some();
        let most = if authenticated { MAX_CALLS } else { MAX_CALLS_BEFORE_AUTH };
        if !known || state.calls.len() >= most {
            event!(warn, obj = "edge", "stream refused", r = self.0.peer, id = stream, kind = kind);
            return None;
        }
        let call = AgentCall::new(Arc::clone(&self.0), session, stream, kind, authenticated);
        let call = Arc::new(call);
        state.calls.push(Arc::downgrade(&call));
        Some(call)
    }

    fn tick(&mut self, now: Instant) -> Deadline {
        let calls: Vec<_> = self.0.lock().calls.iter().filter_map(Weak::upgrade).collect();
        for call in calls {
            call.expire(now, CALL_TIMEOUT);
        }
        Deadline::At(now + CALL_TIMEOUT)
    }

    fn ended(&mut self, end: &End) {
        let (endpoints, known) = {
            let mut state = self.0.lock();
            state.ended = true;
            state.session = None;
            (std::mem::take(&mut state.endpoints), state.identity.is_some())
        };
        self.0.changed.notify_all();
        let Some(edge) = self.0.edge.upgrade() else { return };
        edge.agents().lock().sessions.remove(&self.0.number);
        let until = sys::clock() + edge.limits().hold;
        for endpoint in &endpoints {
            edge.registry().reserve(endpoint, until);
        }
        if known {
            event!(info, obj = "edge", "agent gone", r = self.0.peer, err = end);
        }
    }
}
