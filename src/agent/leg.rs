//! State of one leg: the agent's connection to one address of the edge, from the first attempt
//! to the end of its session, and again. Sockets and threads do not belong here. State of
//! several legs belongs to `legs`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::requests::ReplySlot;
use super::status::{Latency, LegStatus};
use crate::config;
use crate::logging::rate_limit::OutageThrottle;
use crate::proto::messages::PatchRequest;
use crate::proto::secret::Secret;
use crate::session::Session;
use crate::time::{Deadline, Instant};

/// One leg. `S` is the handle of its session, which is not used here.
pub(super) struct Leg<S = Session> {
    /// `host:port`.
    pub(super) address: String,
    /// The edge announced this address (protocol 1). Otherwise the configuration has it.
    pub(super) announced: bool,
    pub(super) state: LegState<S>,
    pub(super) backoff: Backoff,
    /// Limits the log lines about errors.
    pub(super) outage: OutageThrottle,
    /// An error was logged, and its end was not logged yet.
    pub(super) outage_logged: bool,
    /// Reason why it is not set up; empty while it is.
    pub(super) why: String,
    /// The agent's identity at this edge, from its last response.
    pub(super) client_id: String,
    pub(super) cookie: Secret,
    /// The edge refused that identity.
    pub(super) as_new_client: bool,
    pub(super) region: String,
    pub(super) latency: Arc<Latency>,
    /// The next attempt does not wait, because something changed during the current one.
    pub(super) retry_now: bool,
}

pub(super) enum LegState<S = Session> {
    /// It waits for its next attempt.
    Waiting(Deadline),
    /// A thread connects: number of the attempt, and the time by which Auth must be complete.
    Dialling(u32, Instant),
    /// A session is open.
    Connected(Box<LegSession<S>>),
    /// The edge refused the leg for good.
    Refused,
}

/// A session and its calls.
pub(super) struct LegSession<S = Session> {
    pub(super) number: u32,
    pub(super) session: S,
    /// Local and peer address of its connection.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    pub(super) authenticated: bool,
    /// Time at which Auth and the first round of binds were complete.
    pub(super) set_up: Option<Instant>,
    /// Current call. There is one at a time, as in all clients of this protocol.
    pub(super) call: Option<OpenCall>,
    /// Calls that are made before the next bind.
    pub(super) pending_calls: VecDeque<PendingCall>,
    /// Number of turns of the reactor at the last watchdog message.
    pub(super) reactor_turns: u32,
    /// The edge announced its end: open streams may finish.
    pub(super) going_away: bool,
}

/// A call without a response yet.
pub(super) struct OpenCall {
    pub(super) number: u32,
    pub(super) until: Instant,
    pub(super) kind: CallKind,
}

pub(super) enum CallKind {
    Auth,
    /// Key of the endpoint, and its configuration at the time of the call.
    Bind(u32, Arc<config::Endpoint>),
    Pending(PendingCall),
}

/// A call that waits for its turn.
pub(super) enum PendingCall {
    /// Bind id, and the request that it completes.
    Unbind(String, Option<Arc<ReplySlot>>),
    /// Key of the endpoint, and the configuration and request that it completes.
    Patch(u32, Box<PatchRequest>, Option<(Box<config::Endpoint>, Arc<ReplySlot>)>),
}

impl CallKind {
    /// Returns the name of the call in the protocol.
    pub(super) fn name(&self) -> &'static str {
        match self {
            CallKind::Auth => "Auth",
            CallKind::Bind(..) => "Bind",
            CallKind::Pending(PendingCall::Unbind(..)) => "Unbind",
            CallKind::Pending(PendingCall::Patch(..)) => "PatchTunnelState",
        }
    }
}

impl<S> LegSession<S> {
    /// Returns whether the current call has this number.
    pub(super) fn is_call(&self, number: u32) -> bool {
        self.call.as_ref().is_some_and(|call| call.number == number)
    }
}

impl<S> Leg<S> {
    pub(super) fn new(address: &str, announced: bool, first: Deadline, backoff: Backoff) -> Self {
        let mut backoff = backoff;
        // The first attempt begins at once. The wait after its failure is a normal one.
        let _ = backoff.next_wait();
        Leg {
            address: address.to_owned(),
            announced,
            state: LegState::Waiting(first),
            backoff,
            outage: OutageThrottle::default(),
            outage_logged: false,
            why: String::new(),
            client_id: String::new(),
            cookie: Secret::default(),
            as_new_client: false,
            region: String::new(),
            latency: Arc::default(),
            retry_now: false,
        }
    }

    /// Returns the session, if one is open.
    pub(super) fn live(&mut self) -> Option<&mut LegSession<S>> {
        match &mut self.state {
            LegState::Connected(live) => Some(live),
            _ => None,
        }
    }

    /// Returns the session, if endpoints can be bound on it.
    pub(super) fn ready(&mut self) -> Option<&mut LegSession<S>> {
        self.live().filter(|live| live.authenticated)
    }

    /// Returns whether it serves visitors.
    pub(super) fn is_set_up(&self) -> bool {
        matches!(&self.state, LegState::Connected(live) if live.set_up.is_some())
    }

    pub(super) fn status(&self) -> LegStatus {
        LegStatus {
            address: self.address.clone(),
            region: self.region.clone(),
            latency: None,
            online: self.is_set_up(),
        }
    }

    /// Begins an attempt. Returns the time by which Auth must be complete.
    pub(super) fn dialling(&mut self, number: u32, timeout: Duration, now: Instant) -> Instant {
        self.backoff.attempt(now);
        let until = now + timeout;
        self.state = LegState::Dialling(number, until);
        until
    }

    pub(super) fn connected(
        &mut self,
        number: u32,
        session: S,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) {
        self.state = LegState::Connected(Box::new(LegSession {
            number,
            session,
            addresses,
            authenticated: false,
            set_up: None,
            call: None,
            pending_calls: VecDeque::new(),
            reactor_turns: u32::MAX,
            going_away: false,
        }));
    }

    /// Schedules the next attempt. Returns the time until then.
    pub(super) fn wait(&mut self, wait: Duration, why: &str, now: Instant) -> Duration {
        let until = self.backoff.earliest(now + wait);
        self.state = LegState::Waiting(Deadline::At(until));
        why.clone_into(&mut self.why);
        until.since(now)
    }

    /// Returns whether the current error is logged.
    pub(super) fn log_error(&mut self, now: Instant) -> bool {
        let log = self.outage.allows(now);
        self.outage_logged |= log;
        log
    }

    /// Ends a wait. `force` also bypasses the limit of one attempt per second.
    pub(super) fn wake(&mut self, force: bool, now: Instant) {
        self.backoff.start_over();
        match &mut self.state {
            LegState::Waiting(until) => {
                let sooner = if force { now } else { self.backoff.earliest(now) };
                *until = (*until).min(Deadline::At(sooner));
            }
            LegState::Dialling(..) => self.retry_now = true,
            LegState::Connected(_) | LegState::Refused => {}
        }
    }
}
