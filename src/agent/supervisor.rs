//! The supervisor: the main thread's loop around sessions. What is retried, what
//! is final, and how long to wait is decided here.
//!
//! It sleeps until something happens and never waits for the network: attempts to
//! connect are made by threads of their own, answers to calls come as notes, and
//! everything that may not come has a deadline here.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::budget::{self, Budget};
use super::commands;
use super::endpoints::{Endpoint, Place};
use super::events::{Note, Notes, Reader};
use super::handle::{self, Answer, Shared, Slot, State, Status, View};
use super::handler::Handler;
use super::host_events::Machine;
use super::leg::{Call, Failure, Leg, Link, Live, What};
use super::routes::Table;
use super::rpc::{self, Outcome};
use crate::config;
use crate::event;
use crate::features;
use crate::inspect::Inspector;
use crate::logging::outage::Outage;
use crate::mux::{self, Code, Role, StreamType};
use crate::net::Dialer;
use crate::proto::codes::{self, Refusal, When};
use crate::proto::messages::AuthResponseExtra;
use crate::proto::secret::Secret;
use crate::proxy::Pool;
use crate::session::{self, End};
use crate::sys::sync::Mutex;
use crate::sys::{self, signals};
use crate::time::{Deadline, Instant};
use crate::tls::client::Established;

/// How long the edge may take to answer a call.
pub(super) const CALL: Duration = Duration::from_secs(10);
/// How a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// By a signal, or by a stop from the edge.
    Stopped,
    /// The edge asked for a restart.
    Restart,
}

/// What reads the configuration again. The text of a failure is for the user.
pub(super) type Reread = Box<dyn FnMut() -> Result<config::Agent, String> + Send>;

/// What is done with an answer's bytes on the reactor thread.
type AtOnce = Box<dyn FnOnce(&[u8]) + Send>;

/// The agent's state across sessions.
pub(super) struct Supervisor {
    pub(super) shared: Arc<Shared>,
    pub(super) dialer: Arc<Dialer>,
    budget: Budget,
    pub(super) legs: Vec<Leg>,
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) table: Arc<Table>,
    pub(super) reread: Option<Arc<Mutex<Reread>>>,
    /// The configuration is being read, and whether it is to be read again then.
    pub(super) reading: bool,
    pub(super) read_again: bool,
    pub(super) machine: Machine,
    /// Answers to be given when what they tell of is shown.
    answers: Vec<(Arc<Slot>, Answer)>,
    /// Counts attempts, calls and endpoints.
    numbers: u32,
    /// Sessions that were set up.
    sessions: u32,
    /// The first session was set up.
    started: bool,
    /// The log has that there are fewer legs than the edge announces.
    pub(super) told_of_legs: bool,
    /// What is shown is not how it is.
    pub(super) dirty: bool,
    state: (State, Instant),
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
        let budget = budget::of(&config).map_err(Refusal::text)?;
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
        let mut numbers = 0;
        for endpoint in std::mem::take(&mut config.endpoints) {
            let name = endpoint.name.clone();
            numbers += 1;
            let mut endpoint = Endpoint::new(numbers, endpoint, legs.len())
                .map_err(|e| Refusal::text(format!("endpoint '{name}': {e}")))?;
            endpoint.inspector = inspector.clone();
            endpoints.push(endpoint);
        }
        let bell = signals::install().map_err(told)?;
        sys::protect_memory();
        // Before anything is opened in earnest; also by those who share it.
        sys::fd_budget::raise_limit();
        keep_descriptors(legs.len());
        let pool = Pool::new(budget.workers, budget.waiting).map_err(told)?;
        let notes = Arc::new(Notes::new(bell));
        let mut supervisor = Supervisor {
            shared: Arc::new(Shared::new(config, notes, pool, inspector)),
            budget,
            dialer,
            legs,
            endpoints,
            table: Arc::default(),
            reread: None,
            reading: false,
            read_again: false,
            machine: Machine::new(sys::clock()),
            answers: Vec::new(),
            numbers,
            sessions: 0,
            started: false,
            told_of_legs: false,
            dirty: true,
            state: (State::Connecting, sys::clock()),
            about: AuthResponseExtra::default(),
            seed,
        };
        supervisor.show(sys::clock());
        Ok(supervisor)
    }

    /// Sessions one after another, until something ends the program.
    pub(super) fn run(mut self) -> Result<Finish, Refusal> {
        signals::graceful(true);
        // Not only when there is a session: the network may come later, and a manager
        // that gives up on that is no help.
        self.machine.tell("READY=1");
        let finish = loop {
            self.shared.notes.bell().lower();
            match self.turn() {
                Ok(None) => self.sleep(),
                Ok(Some(finish)) => break Ok(finish),
                Err(refusal) => break Err(refusal),
            }
        };
        self.shared.end();
        match &finish {
            // A manager that hears of an end sees to it that it comes.
            Ok(Finish::Restart) => self.machine.tell_of_reload(),
            _ => self.machine.tell("STOPPING=1"),
        }
        match finish {
            Ok(_) => self.wind_down(),
            Err(_) => self.close_all(),
        }
        // No other minute begins that would tell of them.
        self.shared.pool.tell_rest(Instant::END);
        finish
    }

    /// One turn: what was noted, what is due, and what others are to see of it.
    fn turn(&mut self) -> Result<Option<Finish>, Refusal> {
        if signals::stops() > 0 {
            event!(info, obj = "app", "received stop request", reason = "signal");
            return Ok(Some(Finish::Stopped));
        }
        while let Some(note) = self.shared.notes.take() {
            if let Some(finish) = self.note(note)? {
                return Ok(Some(finish));
            }
        }
        if signals::take_reload() {
            // The file may have been moved away.
            crate::logging::reopen();
            self.read(Reader::Hangup);
        }
        let now = sys::clock();
        self.see_to_machine(now);
        for at in 0..self.legs.len() {
            self.advance(at, now)?;
        }
        self.expire_askers(now);
        self.show(now);
        for (slot, answer) in self.answers.drain(..) {
            slot.give(answer);
        }
        Ok(None)
    }

    /// Answers a request at the end of this turn.
    pub(super) fn tell_asker(&mut self, slot: Arc<Slot>, answer: Answer) {
        self.answers.push((slot, answer));
    }

    fn sleep(&mut self) {
        let now = sys::clock();
        let left = self.deadline().min(self.machine.deadline()).left(now);
        let [changes, clock] = self.machine.fds(now);
        let bell = self.shared.notes.bell().as_raw_fd();
        if let Ok([_, changes, clock]) = sys::wait_any([bell, changes, clock], left) {
            self.machine.ready([changes, clock], sys::clock());
        }
    }

    /// When something is due without anything happening before.
    fn deadline(&self) -> Deadline {
        let legs = self.legs.iter().enumerate().map(|(at, leg)| match &leg.link {
            Link::Resting(until) => *until,
            Link::Up(live) => match &live.call {
                Some(call) => Deadline::At(call.until),
                None if live.set_up.is_some() => self.next_rebind(at),
                None => Deadline::Never,
            },
            Link::Dialling(..) | Link::Dead => Deadline::Never,
        });
        let askers = self.endpoints.iter().filter(|e| !e.is_asked());
        let askers = askers.filter_map(|e| Some(Deadline::At(e.asker.as_ref()?.until)));
        legs.chain(askers).min().unwrap_or(Deadline::Never)
    }

    fn note(&mut self, note: Note) -> Result<Option<Finish>, Refusal> {
        match note {
            Note::Dialled(number, reached) => self.dialled(number, *reached)?,
            Note::Ended(number, end) => {
                if let Some(at) = self.leg_of(|live| live.number == number) {
                    if let (End::GoneAway(..), Some(live)) = (&end, self.legs[at].live()) {
                        // What runs on it may finish.
                        live.parted = true;
                    }
                    self.lost(at, &end.to_string());
                }
            }
            Note::Answered(number, outcome) => {
                let is = |live: &Live| live.call.as_ref().is_some_and(|c| c.number == number);
                if let Some(at) = self.leg_of(is) {
                    self.answered(at, outcome)?;
                    // Before the end of the session, should that be noted too.
                    self.advance(at, sys::clock())?;
                }
            }
            Note::StopTunnel(stop) => self.taken_down(&stop),
            Note::Command(kind, session, stream) => {
                if kind == StreamType::STOP {
                    commands::answer(kind, &session, stream, None);
                    return Ok(Some(Finish::Stopped));
                }
                self.read(Reader::Restart(session, stream));
            }
            Note::Read(reader, read) => {
                if let Some(finish) = self.was_read(reader, *read) {
                    return Ok(Some(finish));
                }
            }
            Note::Ask(ask, slot) if features::WEB => self.asked(ask, slot),
            Note::Ask(..) => {}
        }
        self.dirty = true;
        Ok(None)
    }

    fn leg_of(&self, is: impl Fn(&Live) -> bool) -> Option<usize> {
        self.legs.iter().position(|leg| matches!(&leg.link, Link::Up(live) if is(live)))
    }

    pub(super) fn number(&mut self) -> u32 {
        self.numbers = self.numbers.wrapping_add(1);
        self.numbers
    }

    /// Has a leg do what is its turn.
    fn advance(&mut self, at: usize, now: Instant) -> Result<(), Refusal> {
        match &self.legs[at].link {
            Link::Resting(until) if until.due(now) => {
                let number = self.number();
                let Shared { config, notes, .. } = &*self.shared;
                self.legs[at].dial(number, &self.dialer, notes, config.connect_timeout, now);
                self.dirty = true;
            }
            Link::Up(live) => match &live.call {
                Some(call) if call.until <= now => {
                    let hint = match call.what {
                        What::Auth => ": is connect_url the edge's port for agents?",
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
        reached: Result<Established, Failure>,
    ) -> Result<(), Refusal> {
        let dialling = |leg: &Leg| match leg.link {
            Link::Dialling(n, until) if n == number => Some(until),
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
    ) -> Result<(), Failure> {
        let ends = link.socket.local_addr().ok().zip(link.socket.peer_addr().ok());
        let leg = &mut self.legs[at];
        leg.latency.set(None);
        let config = &self.shared.config;
        let handler = Handler {
            number,
            notes: Arc::clone(&self.shared.notes),
            table: Arc::clone(&self.table),
            pool: Arc::clone(&self.shared.pool),
            remote: config.remote_management,
            latency: Arc::clone(&leg.latency),
            changes: Arc::clone(self.shared.changes()),
            beginning: Vec::new(),
            beaten: false,
            tidy: Deadline::Never,
        };
        self.seed = self.seed.rotate_left(7) ^ sys::random_seed();
        let mut mux = mux::Config::new(Role::Agent, self.seed);
        if let Some(streams) = self.budget.streams {
            mux.max_streams = mux.max_streams.min(streams);
        }
        let session = session::start(link, mux, self.budget.buffered, Box::new(handler))
            .map_err(|e| Failure::Retry(format!("no session: {}", sys::fd_budget::words(&e))))?;
        session.start_heartbeat(config.heartbeat_interval, config.heartbeat_tolerance);
        leg.link = Link::Up(Box::new(Live {
            number,
            session,
            ends,
            authenticated: false,
            set_up: None,
            call: None,
            errands: Default::default(),
            turns: u32::MAX,
            parted: false,
        }));
        let request = self.auth_request(at).encode();
        self.call(at, StreamType::AUTH, &request, What::Auth, until, None);
        Ok(())
    }

    /// Makes a call on a leg. `at_once` sees the answer on the reactor thread, before
    /// any visitor who may follow it.
    pub(super) fn call(
        &mut self,
        at: usize,
        kind: StreamType,
        request: &[u8],
        what: What,
        until: Instant,
        at_once: Option<AtOnce>,
    ) {
        let number = self.number();
        let notes = Arc::clone(&self.shared.notes);
        let Some(live) = self.legs[at].live() else { return };
        live.call = Some(Call { number, until, what });
        let theirs = Arc::clone(&notes);
        let done = Box::new(move |outcome: Outcome| {
            if let (Ok(bytes), Some(at_once)) = (&outcome, at_once) {
                at_once(bytes);
            }
            theirs.leave(Note::Answered(number, outcome));
        });
        if let Err(e) = rpc::begin(&live.session, kind, request, done) {
            notes.leave(Note::Answered(number, Err(e)));
        }
    }

    /// The call that a leg had under way is over.
    fn answered(&mut self, at: usize, outcome: Outcome) -> Result<(), Refusal> {
        let Some(call) = self.legs[at].live().and_then(|live| live.call.take()) else {
            return Ok(());
        };
        let name = call.what.name();
        let result = match (call.what, outcome) {
            (What::Errand(errand), outcome) => {
                self.errand_done(at, errand, outcome);
                Ok(())
            }
            (_, Err(e)) => Err(Failure::Retry(format!("{name}: {e}"))),
            (What::Auth, Ok(bytes)) => self.authenticated(at, &bytes),
            (What::Bind(key, config), Ok(bytes)) => self.bound(at, key, &config, &bytes)?,
        };
        match result {
            Ok(()) => Ok(()),
            Err(Failure::Retry(why)) => {
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
        let troubled = std::mem::take(&mut leg.troubled);
        self.sessions = self.sessions.saturating_add(1);
        self.started = true;
        self.dirty = true;
        // Who reads the log and then asks is not told the contrary.
        self.show(now);
        let addr = &self.legs[at].address;
        event!(info, obj = "tunnels.session", "tunnel session started", addr = addr);
        if troubled {
            // Who was told of the trouble is told of its end.
            event!(warn, obj = "tunnels.session", "session is back", addr = addr);
        }
        self.prime();
    }

    /// The first leg has had its first chance: the others begin.
    fn prime(&mut self) {
        for leg in &mut self.legs {
            if let Link::Resting(until @ Deadline::Never) = &mut leg.link {
                *until = Deadline::At(Instant::ZERO);
            }
        }
    }

    /// An attempt failed before there was a session.
    fn failed(&mut self, at: usize, failure: Failure) -> Result<(), Refusal> {
        let now = sys::clock();
        let leg = &mut self.legs[at];
        let (why, wait) = match failure {
            Failure::Final(refusal) => {
                leg.why = refusal.to_string();
                leg.link = Link::Dead;
                let others = self.legs.iter().any(|leg| !matches!(leg.link, Link::Dead));
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
                self.prime();
                return Ok(());
            }
            Failure::Retry(why) => (why, leg.backoff.next_wait()),
            Failure::RetrySlowly(why) => (why, leg.backoff.slow_wait()),
            Failure::ForgetCookie(why) => {
                leg.client_id = String::new();
                leg.cookie = Secret::default();
                let again = std::mem::replace(&mut leg.stranger, true);
                (why, if again { leg.backoff.next_wait() } else { Duration::ZERO })
            }
        };
        let hurry = std::mem::take(&mut leg.hurry);
        let wait = if hurry { Duration::ZERO } else { wait };
        let until = leg.backoff.earliest(now + wait);
        leg.link = Link::Resting(Deadline::At(until));
        if leg.outage.say(now) {
            leg.troubled = true;
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
        self.prime();
        Ok(())
    }

    /// A session is over, or as good as over.
    pub(super) fn lost(&mut self, at: usize, why: &str) {
        let set_up = self.close(at);
        let Some(began) = set_up else {
            // Reason: only a final failure is an error here.
            let _ = self.failed(at, Failure::Retry(why.to_owned()));
            return;
        };
        let now = sys::clock();
        let leg = &mut self.legs[at];
        if now.since(began) >= Duration::from_secs(60) {
            leg.outage = Outage::default();
        }
        leg.backoff.session_ended(began, now);
        let wait = leg.backoff.next_wait();
        let until = leg.backoff.earliest(now + wait);
        leg.link = Link::Resting(Deadline::At(until));
        leg.why = why.to_owned();
        if leg.outage.say(now) {
            leg.troubled = true;
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
        let rest = Link::Resting(Deadline::Never);
        let Link::Up(live) = std::mem::replace(&mut self.legs[at].link, rest) else {
            return None;
        };
        if !live.parted {
            live.session.close(Code::NO_ERROR, "no error");
        }
        self.legs[at].latency.set(None);
        for endpoint in &mut self.endpoints {
            let place = &mut endpoint.on[at].place;
            if *place != Place::Refused {
                *place = Place::Wanted;
            }
            if endpoint.why.is_empty() && !endpoint.is_up() {
                endpoint.why = "there is no session with the edge".into();
            }
        }
        let Live { set_up, call, errands, .. } = *live;
        let under_way = call.and_then(|call| match call.what {
            What::Errand(errand) => Some(errand),
            _ => None,
        });
        for errand in under_way.into_iter().chain(errands) {
            self.errand_lost(errand);
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
            (true, _) => State::Online,
            (false, false) => State::Connecting,
            (false, true) => State::Reconnecting,
        };
        if state != self.state.0 {
            self.state = (state, now);
        }
        let legs = self.legs.iter().map(|leg| handle::Leg {
            address: leg.address.clone(),
            region: leg.region.clone(),
            latency: None,
            online: leg.is_set_up(),
        });
        let why = self.legs.iter().map(|leg| &leg.why).find(|why| !online && !why.is_empty());
        let next = self.legs.iter().filter_map(|leg| match leg.link {
            Link::Resting(Deadline::At(until)) if !online => Some(until),
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
        self.tell_status(state, &status.why, up);
        let latencies = self.legs.iter().map(|leg| Arc::clone(&leg.latency)).collect();
        let endpoints = self.endpoints.iter().map(Endpoint::view).collect();
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
