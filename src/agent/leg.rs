//! One leg: the agent's connection to one address of the edge, from dialling to its
//! end, over and over. What is here knows of one leg; what legs have to do with each
//! other, and with endpoints, is the supervisor's.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::events::{AgentEvent, EventQueue};
use super::failure::LegFailure;
use super::requests::ReplySlot;
use super::status::Latency;
use crate::config;
use crate::logging::rate_limit::OutageThrottle;
use crate::net::Dialer;
use crate::proto::messages::PatchRequest;
use crate::proto::secret::Secret;
use crate::session::Session;
use crate::sys::{self, threads};
use crate::time::{Deadline, Instant};

/// A leg.
pub(super) struct Leg {
    /// `host:port`.
    pub(super) address: String,
    /// The edge asked for it (protocol 1); otherwise the configuration did.
    pub(super) announced: bool,
    /// Where it stands.
    pub(super) state: LegState,
    pub(super) backoff: Backoff,
    /// What goes wrong, and how often that is said.
    pub(super) outage: OutageThrottle,
    /// Trouble was told of, and its end was not.
    pub(super) outage_logged: bool,
    /// Why it is not up.
    pub(super) why: String,
    /// Who we are to this edge, from its last answer.
    pub(super) client_id: String,
    pub(super) cookie: Secret,
    /// It does not want to know us as who we were.
    pub(super) as_new_client: bool,
    pub(super) region: String,
    pub(super) latency: Arc<Latency>,
    /// Something happened while dialling that makes the next attempt worth no wait.
    pub(super) retry_now: bool,
}

/// Where a leg stands.
pub(super) enum LegState {
    /// Waits for its next attempt.
    Waiting(Deadline),
    /// A thread is at it. The number of the attempt, and until when Auth must be over.
    Dialling(u32, Instant),
    /// There is a session.
    Connected(Box<LegSession>),
    /// Refused for good.
    Refused,
}

/// A session, and what is under way on it.
pub(super) struct LegSession {
    pub(super) number: u32,
    pub(super) session: Session,
    /// Our end and the next hop's, for what a change of addresses means.
    pub(super) addresses: Option<(SocketAddr, SocketAddr)>,
    pub(super) authenticated: bool,
    /// Auth and the first round of binds are over, since then.
    pub(super) set_up: Option<Instant>,
    /// One at a time, as clients of this protocol do.
    pub(super) call: Option<OpenCall>,
    /// What is to be called before the next bind.
    pub(super) pending_calls: VecDeque<PendingCall>,
    /// The reactor's count of turns when it was last looked at.
    pub(super) reactor_turns: u32,
    /// The edge said goodbye: it ends by itself when its streams have.
    pub(super) going_away: bool,
}

/// A call that has no answer yet.
pub(super) struct OpenCall {
    pub(super) number: u32,
    pub(super) until: Instant,
    pub(super) what: CallKind,
}

/// What was called for.
pub(super) enum CallKind {
    Auth,
    /// Of the endpoint with this key, as it was configured then.
    Bind(u32, Arc<config::Endpoint>),
    Pending(PendingCall),
}

impl CallKind {
    /// The step, for a user.
    pub(super) fn name(&self) -> &'static str {
        match self {
            CallKind::Auth => "Auth",
            CallKind::Bind(..) => "Bind",
            CallKind::Pending(PendingCall::Unbind(..)) => "Unbind",
            CallKind::Pending(PendingCall::Patch(..)) => "PatchTunnelState",
        }
    }
}

/// A call that is made for somebody.
pub(super) enum PendingCall {
    /// Of this bind id. Who waits for it.
    Unbind(String, Option<Arc<ReplySlot>>),
    /// Of the endpoint with this key, which is to be so then.
    Patch(u32, Box<PatchRequest>, Option<(Box<config::Endpoint>, Arc<ReplySlot>)>),
}

impl Leg {
    pub(super) fn new(address: &str, announced: bool, first: Deadline, backoff: Backoff) -> Self {
        let mut backoff = backoff;
        // The very first attempt is at once; the wait after its failure is not.
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

    /// The session, if there is one.
    pub(super) fn live(&mut self) -> Option<&mut LegSession> {
        match &mut self.state {
            LegState::Connected(live) => Some(live),
            _ => None,
        }
    }

    /// The session, if it lets endpoints be bound.
    pub(super) fn ready(&mut self) -> Option<&mut LegSession> {
        self.live().filter(|live| live.authenticated)
    }

    /// Whether it serves.
    pub(super) fn is_set_up(&self) -> bool {
        matches!(&self.state, LegState::Connected(live) if live.set_up.is_some())
    }

    /// Begins an attempt on a thread of its own, which leaves a note: the name, TCP and
    /// TLS may take as long as they are allowed to, and nobody else waits.
    pub(super) fn dial(
        &mut self,
        number: u32,
        dialer: &Arc<Dialer>,
        events: &Arc<EventQueue>,
        timeout: Duration,
        now: Instant,
    ) {
        self.backoff.attempt(now);
        let until = now + timeout;
        self.state = LegState::Dialling(number, until);
        let address = self.address.clone();
        let (dialer, theirs) = (Arc::clone(dialer), Arc::clone(events));
        let work = move || {
            let reached = dialer.connect(&address, Deadline::At(until)).map_err(LegFailure::from);
            theirs.push(AgentEvent::Dialled(number, Box::new(reached)));
        };
        if threads::DIAL.spawn(Box::new(work)).is_err() {
            let failure = LegFailure::Retry(threads::NO_THREAD.into());
            events.push(AgentEvent::Dialled(number, Box::new(Err(failure))));
        }
    }

    /// Cuts a wait short. `force`: somebody asks for it who knows what he does.
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

/// What a change of the machine's addresses or routes means for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathState {
    /// There is no way to the edge now: a further change will come.
    Unknown,
    /// The way may be another one: ask for an echo.
    Doubtful,
    /// Its address is not ours any more, and there is another way.
    Dead,
}

impl LegSession {
    /// Looks whether the session can still work.
    pub(super) fn path_state(&self) -> PathState {
        let Some((ours, theirs)) = self.addresses else { return PathState::Doubtful };
        // A datagram socket asks the kernel for the way and sends nothing.
        let any = sys::socket::any_like(theirs);
        let way =
            UdpSocket::bind(any).and_then(|s| s.connect(theirs).and_then(|()| s.local_addr()));
        match way {
            Err(_) => PathState::Unknown,
            Ok(way) if way.ip() == ours.ip() => PathState::Doubtful,
            Ok(_) => {
                let mut place = ours;
                place.set_port(0);
                match TcpListener::bind(place) {
                    Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => PathState::Dead,
                    _ => PathState::Doubtful,
                }
            }
        }
    }

    /// How long an echo may take that is asked for now: a way that works answers soon,
    /// and who lost his way wants to know.
    pub(super) fn probe_timeout(&self, tolerance: Duration) -> Duration {
        let usual = self.session.latency().unwrap_or(Duration::from_millis(500));
        (Duration::from_secs(3) + 4 * usual).min(tolerance)
    }
}
