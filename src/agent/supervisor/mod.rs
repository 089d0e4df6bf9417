//! The supervisor: the main thread's loop around sessions. What is retried, what
//! is final, and how long to wait is decided here.
//!
//! It sleeps until something happens and never waits for the network: attempts to
//! connect are made by threads of their own, answers to calls come as notes, and
//! everything that may not come has a deadline here.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

mod binds;
mod changes;
mod reload;
mod shutdown;

use crate::agent::backoff::Backoff;
use crate::agent::budget::{self, Budget};
use crate::agent::commands;
use crate::agent::endpoint::{BindState, ManagedEndpoint};
use crate::agent::events::{AgentEvent, EventQueue, ReloadReason};
use crate::agent::failure::LegFailure;
use crate::agent::handle::AgentShared;
use crate::agent::handler::AgentHandler;
use crate::agent::host_events::HostEvents;
use crate::agent::leg::{CallKind, Leg, LegSession, LegState, OpenCall};
use crate::agent::requests::{ReplySlot, RequestResult};
use crate::agent::routes::RouteTable;
use crate::agent::rpc::{self, CallResult};
use crate::agent::status::{AgentState, LegStatus, Status, View};
use crate::config;
use crate::event;
use crate::features;
use crate::inspect::Inspector;
use crate::logging::rate_limit::OutageThrottle;
use crate::mux::{self, Code, Role, StreamType};
use crate::net::Dialer;
use crate::proto::codes::{self, Refusal, When};
use crate::proto::messages::AuthResponseExtra;
use crate::proto::secret::Secret;
use crate::proxy::Pool;
use crate::replay::Replayer;
use crate::session::{self, End};
use crate::sys::poll::{self, PollFd};
use crate::sys::sync::Mutex;
use crate::sys::{self, signals};
use crate::time::{Deadline, Instant};
use crate::tls::client::Established;

/// How long the edge may take to answer a call.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// By a signal, or by a stop from the edge.
    Stopped,
    /// The edge asked for a restart.
    Restart,
}

/// What reads the configuration again. The text of a failure is for the user.
pub(super) type ReadConfig = Box<dyn FnMut() -> Result<config::Agent, String> + Send>;

/// What is done with an answer's bytes on the reactor thread.
type OnReactor = Box<dyn FnOnce(&[u8]) + Send>;

/// The agent's state across sessions.
pub(super) struct Supervisor {
    pub(super) shared: Arc<AgentShared>,
    pub(super) dialer: Arc<Dialer>,
    budget: Budget,
    pub(super) legs: Vec<Leg>,
    pub(super) endpoints: Vec<ManagedEndpoint>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) reread: Option<Arc<Mutex<ReadConfig>>>,
    /// The configuration is being read, and whether it is to be read again then.
    pub(super) reading: bool,
    pub(super) read_again: bool,
    pub(super) host_events: HostEvents,
    /// Answers to be given when what they tell of is shown.
    answers: Vec<(Arc<ReplySlot>, RequestResult)>,
    /// Counts attempts, calls and endpoints.
    last_id: u32,
    /// Sessions that were set up.
    sessions: u32,
    /// The first session was set up.
    started: bool,
    /// The log has that there are fewer legs than the edge announces.
    pub(super) ignored_legs_logged: bool,
    /// What is shown is not how it is.
    pub(super) dirty: bool,
    state: (AgentState, Instant),
    pub(super) about: AuthResponseExtra,
    pub(super) seed: u64,
}

impl Supervisor {
    /// Checks what can be checked before a packet is sent.
    pub(super) fn new(mut config: config::Agent) -> Result<Self, Refusal> {
        let told = |e: std::io::Error| {
            Refusal::text(format!("cannot start: {}", sys::fd_budget::words(&e)))
        };
        if config.authtoken.is_empty() {
            return Err(Refusal::new(
                codes::NO_TOKEN,
                format!(
                    "no authtoken: add it with '{} config add-authtoken TOKEN', --authtoken or \
                     NGROK_AUTHTOKEN",
                    sys::argv::program()
                ),
            ));
        }
        let mut seed = sys::random_seed();
        let mut legs = Vec::new();
        for address in std::iter::once(&config.connect_url).chain(&config.further_urls) {
            // The first one first: the others bind what it has bound.
            let first = match legs.is_empty() {
                true => Deadline::At(Instant::ZERO),
                false => Deadline::Never,
            };
            seed = seed.rotate_left(9);
            legs.push(Leg::new(address, false, first, backoff(&config, seed)));
        }
        let dialer = Arc::new(Dialer::new(&config)?);
        let budget = budget::for_config(&config).map_err(Refusal::text)?;
        if config.memory_limit.is_some() {
            event!(
                info,
                obj = "app",
                "memory_limit is shared out",
                workers = budget.workers,
                store = budget.store
            );
        }
        let inspector = Inspector::new(&config, budget.store);
        let mut endpoints = Vec::new();
        let mut last_id = 0;
        for endpoint in std::mem::take(&mut config.endpoints) {
            let name = endpoint.name.clone();
            last_id += 1;
            let mut endpoint = ManagedEndpoint::new(last_id, endpoint, legs.len())
                .map_err(|e| Refusal::text(format!("endpoint '{name}': {e}")))?;
            endpoint.inspector = inspector.clone();
            endpoints.push(endpoint);
        }
        let wakeup = signals::install().map_err(told)?;
        sys::protect_memory();
        // Before anything is opened in earnest; also by those who share it.
        sys::fd_budget::raise_limit();
        keep_descriptors(legs.len());
        let pool = Pool::new(budget.workers, budget.waiting).map_err(told)?;
        let events = Arc::new(EventQueue::new(wakeup));
        let replayer = inspector.map(Replayer::new);
        let mut supervisor = Supervisor {
            routes: Arc::new(RouteTable::new(replayer.clone())),
            shared: Arc::new(AgentShared::new(config, events, pool, replayer)),
            budget,
            dialer,
            legs,
            endpoints,
            reread: None,
            reading: false,
            read_again: false,
            host_events: HostEvents::new(sys::clock()),
            answers: Vec::new(),
            last_id,
            sessions: 0,
            started: false,
            ignored_legs_logged: false,
            dirty: true,
            state: (AgentState::Connecting, sys::clock()),
            about: AuthResponseExtra::default(),
            seed,
        };
        supervisor.show(sys::clock());
        Ok(supervisor)
    }

    /// Sessions one after another, until something ends the program.
    pub(super) fn run(mut self) -> Result<Exit, Refusal> {
        signals::graceful(true);
        // Not only when there is a session: the network may come later, and a manager
        // that gives up on that is no help.
        self.host_events.notify("READY=1");
        let exit = loop {
            self.shared.events.wakeup().clear();
            match self.turn() {
                Ok(None) => self.sleep(),
                Ok(Some(exit)) => break Ok(exit),
                Err(refusal) => break Err(refusal),
            }
        };
        self.shared.end();
        match &exit {
            // A manager that hears of an end sees to it that it comes.
            Ok(Exit::Restart) => self.host_events.notify_reloading(),
            _ => self.host_events.notify("STOPPING=1"),
        }
        match exit {
            Ok(_) => self.wind_down(),
            Err(_) => self.close_all(),
        }
        // No other minute begins that would tell of them.
        self.shared.pool.report_suppressed(Instant::END);
        exit
    }

    /// One turn: what was noted, what is due, and what others are to see of it.
    fn turn(&mut self) -> Result<Option<Exit>, Refusal> {
        if signals::stops() > 0 {
            event!(info, obj = "app", "received stop request", reason = "signal");
            return Ok(Some(Exit::Stopped));
        }
        while let Some(event) = self.shared.events.pop() {
            if let Some(exit) = self.event(event)? {
                return Ok(Some(exit));
            }
        }
        if signals::take_reload() {
            // The file may have been moved away.
            crate::logging::reopen();
            self.read(ReloadReason::Hangup);
        }
        let now = sys::clock();
        self.check_host(now);
        for at in 0..self.legs.len() {
            self.advance_leg(at, now)?;
        }
        self.expire_waiters(now);
        self.show(now);
        for (slot, answer) in self.answers.drain(..) {
            slot.set(answer);
        }
        Ok(None)
    }

    /// Answers a request at the end of this turn.
    pub(super) fn reply(&mut self, slot: Arc<ReplySlot>, answer: RequestResult) {
        self.answers.push((slot, answer));
    }

    fn sleep(&mut self) {
        let now = sys::clock();
        let left = self.deadline().min(self.host_events.deadline()).left(now);
        let [changes, clock] = self.host_events.fds(now);
        let wakeup = self.shared.events.wakeup().as_raw_fd();
        let mut fds = [wakeup, changes, clock].map(|fd| PollFd::readable(&fd));
        if poll::wait(&mut fds, left).is_ok() {
            let [_, changes, clock] = fds.map(|fd| fd.is_ready());
            self.host_events.ready([changes, clock], sys::clock());
        }
    }

    /// When something is due without anything happening before.
    fn deadline(&self) -> Deadline {
        let legs = self.legs.iter().enumerate().map(|(at, leg)| match &leg.state {
            LegState::Waiting(until) => *until,
            LegState::Connected(live) => match &live.call {
                Some(call) => Deadline::At(call.until),
                None if live.set_up.is_some() => self.next_rebind(at),
                None => Deadline::Never,
            },
            LegState::Dialling(..) | LegState::Refused => Deadline::Never,
        });
        let askers = self.endpoints.iter().filter(|e| !e.is_binding());
        let askers = askers.filter_map(|e| Some(Deadline::At(e.waiter.as_ref()?.until)));
        legs.chain(askers).min().unwrap_or(Deadline::Never)
    }

    fn event(&mut self, event: AgentEvent) -> Result<Option<Exit>, Refusal> {
        match event {
            AgentEvent::Dialled(number, reached) => self.dialled(number, *reached)?,
            AgentEvent::Ended(number, end) => {
                if let Some(at) = self.leg_of(|live| live.number == number) {
                    if let (End::GoneAway(..), Some(live)) = (&end, self.legs[at].live()) {
                        // What runs on it may finish.
                        live.going_away = true;
                    }
                    self.lost(at, &end.to_string());
                }
            }
            AgentEvent::Answered(number, outcome) => {
                let is = |live: &LegSession| live.call.as_ref().is_some_and(|c| c.number == number);
                if let Some(at) = self.leg_of(is) {
                    self.answered(at, outcome)?;
                    // Before the end of the session, should that be noted too.
                    self.advance_leg(at, sys::clock())?;
                }
            }
            AgentEvent::StopTunnel(stop) => self.taken_down(&stop),
            AgentEvent::Command(kind, session, stream) => {
                if kind == StreamType::STOP {
                    commands::answer(kind, &session, stream, None);
                    return Ok(Some(Exit::Stopped));
                }
                self.read(ReloadReason::Restart(session, stream));
            }
            AgentEvent::Read(reason, read) => {
                if let Some(exit) = self.was_read(reason, *read) {
                    return Ok(Some(exit));
                }
            }
            AgentEvent::Request(request, slot) if features::WEB => self.asked(request, slot),
            AgentEvent::Request(..) => {}
        }
        self.dirty = true;
        Ok(None)
    }

    fn leg_of(&self, is: impl Fn(&LegSession) -> bool) -> Option<usize> {
        self.legs.iter().position(|leg| matches!(&leg.state, LegState::Connected(live) if is(live)))
    }

    pub(super) fn new_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    /// Has a leg do what is its turn.
    fn advance_leg(&mut self, at: usize, now: Instant) -> Result<(), Refusal> {
        match &self.legs[at].state {
            LegState::Waiting(until) if until.due(now) => {
                let number = self.new_id();
                let AgentShared { config, events, .. } = &*self.shared;
                self.legs[at].dial(number, &self.dialer, events, config.connect_timeout, now);
                self.dirty = true;
            }
            LegState::Connected(live) => match &live.call {
                Some(call) if call.until <= now => {
                    let hint = match call.what {
                        CallKind::Auth => ": is connect_url the edge's port for agents?",
                        _ => "",
                    };
                    let late = rpc::CallError::Late;
                    let why = format!("{}: {late}{hint}", call.what.name());
                    self.lost(at, &why);
                }
                None if live.authenticated => self.next_call(at, now)?,
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn dialled(
        &mut self,
        number: u32,
        reached: Result<Established, LegFailure>,
    ) -> Result<(), Refusal> {
        let dialling = |leg: &Leg| match leg.state {
            LegState::Dialling(n, until) if n == number => Some(until),
            _ => None,
        };
        let found = self.legs.iter().enumerate();
        let Some((at, until)) = found.filter_map(|(at, leg)| Some((at, dialling(leg)?))).next()
        else {
            return Ok(());
        };
        match reached.and_then(|link| self.open(at, number, until, link)) {
            Ok(()) => Ok(()),
            Err(failure) => self.failed(at, failure),
        }
    }

    /// Starts the session on an established link, and introduces us.
    fn open(
        &mut self,
        at: usize,
        number: u32,
        until: Instant,
        link: Established,
    ) -> Result<(), LegFailure> {
        let addresses = link.socket.local_addr().ok().zip(link.socket.peer_addr().ok());
        let leg = &mut self.legs[at];
        leg.latency.set(None);
        let config = &self.shared.config;
        let handler = AgentHandler {
            number,
            events: Arc::clone(&self.shared.events),
            routes: Arc::clone(&self.routes),
            pool: Arc::clone(&self.shared.pool),
            remote_management: config.remote_management,
            latency: Arc::clone(&leg.latency),
            changes: Arc::clone(self.shared.changes()),
            unread_streams: Vec::new(),
            heartbeat_seen: false,
            release_code_at: Deadline::Never,
        };
        self.seed = self.seed.rotate_left(7) ^ sys::random_seed();
        let mut mux = mux::Config::new(Role::Agent, self.seed);
        if let Some(streams) = self.budget.streams {
            mux.max_streams = mux.max_streams.min(streams);
        }
        let session = session::start(link, mux, self.budget.buffered, Box::new(handler))
            .map_err(|e| LegFailure::Retry(format!("no session: {}", sys::fd_budget::words(&e))))?;
        session.start_heartbeat(config.heartbeat_interval, config.heartbeat_tolerance);
        leg.state = LegState::Connected(Box::new(LegSession {
            number,
            session,
            addresses,
            authenticated: false,
            set_up: None,
            call: None,
            pending_calls: Default::default(),
            reactor_turns: u32::MAX,
            going_away: false,
        }));
        let request = self.auth_request(at).encode();
        self.call(at, StreamType::AUTH, &request, CallKind::Auth, until, None);
        Ok(())
    }

    /// Makes a call on a leg. `at_once` sees the answer on the reactor thread, before
    /// any visitor who may follow it.
    pub(super) fn call(
        &mut self,
        at: usize,
        kind: StreamType,
        request: &[u8],
        what: CallKind,
        until: Instant,
        on_reactor: Option<OnReactor>,
    ) {
        let number = self.new_id();
        let events = Arc::clone(&self.shared.events);
        let Some(live) = self.legs[at].live() else { return };
        live.call = Some(OpenCall { number, until, what });
        let theirs = Arc::clone(&events);
        let done = Box::new(move |outcome: CallResult| {
            if let (Ok(bytes), Some(on_reactor)) = (&outcome, on_reactor) {
                on_reactor(bytes);
            }
            theirs.push(AgentEvent::Answered(number, outcome));
        });
        if let Err(e) = rpc::begin(&live.session, kind, request, done) {
            events.push(AgentEvent::Answered(number, Err(e)));
        }
    }

    /// The call that a leg had under way is over.
    fn answered(&mut self, at: usize, outcome: CallResult) -> Result<(), Refusal> {
        let Some(call) = self.legs[at].live().and_then(|live| live.call.take()) else {
            return Ok(());
        };
        let name = call.what.name();
        let result = match (call.what, outcome) {
            (CallKind::Pending(pending), outcome) => {
                self.pending_call_done(at, pending, outcome);
                Ok(())
            }
            (_, Err(e)) => Err(LegFailure::Retry(format!("{name}: {e}"))),
            (CallKind::Auth, Ok(bytes)) => self.authenticated(at, &bytes),
            (CallKind::Bind(key, config), Ok(bytes)) => self.bound(at, key, &config, &bytes)?,
        };
        match result {
            Ok(()) => Ok(()),
            Err(LegFailure::Retry(why)) => {
                self.lost(at, &why);
                Ok(())
            }
            Err(failure) => {
                self.close(at);
                self.failed(at, failure)
            }
        }
    }

    pub(super) fn when(&self) -> When {
        if self.started { When::Reconnect } else { When::Start }
    }

    /// Auth and the first round of binds are over.
    pub(super) fn is_set_up(&mut self, at: usize, now: Instant) {
        let leg = &mut self.legs[at];
        if let Some(live) = leg.live() {
            live.set_up = Some(now);
        }
        leg.why.clear();
        let outage_logged = std::mem::take(&mut leg.outage_logged);
        self.sessions = self.sessions.saturating_add(1);
        self.started = true;
        self.dirty = true;
        // Who reads the log and then asks is not told the contrary.
        self.show(now);
        let addr = &self.legs[at].address;
        event!(info, obj = "tunnels.session", "tunnel session started", addr = addr);
        if outage_logged {
            // Who was told of the trouble is told of its end.
            event!(warn, obj = "tunnels.session", "session is back", addr = addr);
        }
        self.start_other_legs();
    }

    /// The first leg has had its first chance: the others begin.
    fn start_other_legs(&mut self) {
        for leg in &mut self.legs {
            if let LegState::Waiting(until @ Deadline::Never) = &mut leg.state {
                *until = Deadline::At(Instant::ZERO);
            }
        }
    }

    /// An attempt failed before there was a session.
    fn failed(&mut self, at: usize, failure: LegFailure) -> Result<(), Refusal> {
        let now = sys::clock();
        let leg = &mut self.legs[at];
        let (why, wait) = match failure {
            LegFailure::Final(refusal) => {
                leg.why = refusal.to_string();
                leg.state = LegState::Refused;
                let others = self.legs.iter().any(|leg| !matches!(leg.state, LegState::Refused));
                let leg = &self.legs[at];
                if !others || !self.started && !leg.announced {
                    return Err(refusal);
                }
                event!(
                    error,
                    obj = "tunnels.session",
                    "the edge refuses a session for good",
                    addr = leg.address,
                    err = refusal
                );
                self.start_other_legs();
                return Ok(());
            }
            LegFailure::Retry(why) => (why, leg.backoff.next_wait()),
            LegFailure::RetrySlowly(why) => (why, leg.backoff.slow_wait()),
            LegFailure::ForgetCookie(why) => {
                leg.client_id = String::new();
                leg.cookie = Secret::default();
                let again = std::mem::replace(&mut leg.as_new_client, true);
                (why, if again { leg.backoff.next_wait() } else { Duration::ZERO })
            }
        };
        let retry_now = std::mem::take(&mut leg.retry_now);
        let wait = if retry_now { Duration::ZERO } else { wait };
        let until = leg.backoff.earliest(now + wait);
        leg.state = LegState::Waiting(Deadline::At(until));
        if leg.outage.allows(now) {
            leg.outage_logged = true;
            event!(
                error,
                obj = "tunnels.session",
                "failed to reconnect session",
                err = why,
                addr = leg.address,
                retry = seconds(until.since(now))
            );
        }
        leg.why = why;
        self.dirty = true;
        self.start_other_legs();
        Ok(())
    }

    /// A session is over, or as good as over.
    pub(super) fn lost(&mut self, at: usize, why: &str) {
        let set_up = self.close(at);
        let Some(began) = set_up else {
            // Reason: only a final failure is an error here.
            let _ = self.failed(at, LegFailure::Retry(why.to_owned()));
            return;
        };
        let now = sys::clock();
        let leg = &mut self.legs[at];
        if now.since(began) >= Duration::from_secs(60) {
            leg.outage = OutageThrottle::default();
        }
        leg.backoff.session_ended(began, now);
        let wait = leg.backoff.next_wait();
        let until = leg.backoff.earliest(now + wait);
        leg.state = LegState::Waiting(Deadline::At(until));
        leg.why = why.to_owned();
        if leg.outage.allows(now) {
            leg.outage_logged = true;
            event!(
                error,
                obj = "tunnels.session",
                "session closed, starting reconnect loop",
                err = why,
                addr = leg.address
            );
        }
        self.dirty = true;
    }

    /// Lets go of a leg's session. Since when it was set up, if it was.
    fn close(&mut self, at: usize) -> Option<Instant> {
        let rest = LegState::Waiting(Deadline::Never);
        let LegState::Connected(live) = std::mem::replace(&mut self.legs[at].state, rest) else {
            return None;
        };
        if !live.going_away {
            live.session.close(Code::NO_ERROR, "no error");
        }
        self.legs[at].latency.set(None);
        for endpoint in &mut self.endpoints {
            let place = &mut endpoint.legs[at].state;
            if *place != BindState::Refused {
                *place = BindState::Queued;
            }
            if endpoint.why.is_empty() && !endpoint.is_up() {
                endpoint.why = "there is no session with the edge".into();
            }
        }
        let LegSession { set_up, call, pending_calls, .. } = *live;
        let under_way = call.and_then(|call| match call.what {
            CallKind::Pending(pending) => Some(pending),
            _ => None,
        });
        for pending in under_way.into_iter().chain(pending_calls) {
            self.pending_call_lost(pending);
        }
        set_up
    }

    fn close_all(&mut self) {
        for leg in &mut self.legs {
            if let Some(live) = leg.live() {
                live.session.close(Code::NO_ERROR, "no error");
            }
        }
    }

    /// Shows others how things are.
    fn show(&mut self, now: Instant) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let online = self.legs.iter().any(Leg::is_set_up);
        let state = match (online, self.started) {
            (true, _) => AgentState::Online,
            (false, false) => AgentState::Connecting,
            (false, true) => AgentState::Reconnecting,
        };
        if state != self.state.0 {
            self.state = (state, now);
        }
        let legs = self.legs.iter().map(|leg| LegStatus {
            address: leg.address.clone(),
            region: leg.region.clone(),
            latency: None,
            online: leg.is_set_up(),
        });
        let why = self.legs.iter().map(|leg| &leg.why).find(|why| !online && !why.is_empty());
        let next = self.legs.iter().filter_map(|leg| match leg.state {
            LegState::Waiting(Deadline::At(until)) if !online => Some(until),
            _ => None,
        });
        let about = &self.about;
        let deprecation = about.deprecation.as_ref();
        let status = Status {
            state,
            since: self.state.1,
            why: why.cloned().unwrap_or_default(),
            account: about.account_name.clone(),
            plan: about.plan_name.clone(),
            banner: about.banner.clone(),
            deprecation: deprecation.map(|d| d.message.clone()).unwrap_or_default(),
            legs: legs.collect(),
            sessions: self.sessions,
            next_try: next.min(),
        };
        let up = self.endpoints.iter().filter(|e| e.is_up()).count();
        self.notify_status(state, &status.why, up);
        let latencies = self.legs.iter().map(|leg| Arc::clone(&leg.latency)).collect();
        let endpoints = self.endpoints.iter().map(ManagedEndpoint::view).collect();
        self.shared.show(View { status, latencies, endpoints });
    }
}

/// Keeps for so many legs what they need to come back, whatever visitors hold.
pub(super) fn keep_descriptors(legs: usize) {
    sys::fd_budget::keep(budget::descriptors(legs, sys::fd_budget::limit()));
}

pub(super) fn backoff(config: &config::Agent, seed: u64) -> Backoff {
    Backoff::new(seed, config.heartbeat_interval + config.heartbeat_tolerance)
}

pub(super) fn seconds(wait: Duration) -> String {
    format!("{:.1}s", wait.as_secs_f32())
}
