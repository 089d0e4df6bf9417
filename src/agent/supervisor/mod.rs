//! The supervisor: the loop of the main thread. It waits for events, gets decisions from
//! `legs`, `endpoints`, `host_events` and `reload`, and carries them out. Decisions do not
//! belong here.
//!
//! It never waits for the network: threads make the attempts to connect, responses to calls are
//! events, and every wait has a deadline.

mod binds;
mod changes;
mod reload;
mod sessions;
mod shutdown;

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use super::budget::{self, Budget};
use super::commands;
use super::endpoint::ManagedEndpoint;
use super::endpoints::Endpoints;
use super::events::{AgentEvent, EventQueue, ReloadReason};
use super::handle::{AgentShared, Handle};
use super::host_events::HostEvents;
use super::legs::Legs;
use super::reload::{ReadConfig, Reload};
use super::requests::{ReplySlot, RequestResult};
use super::routes::RouteTable;
use super::service_manager::ServiceManager;
use super::state_command::{STOPPED, StateCommand};
use super::status::View;
use super::updates::{UpdateHandle, Updates};
use crate::config;
use crate::event;
use crate::features;
use crate::inspect::Inspector;
use crate::mux::StreamType;
use crate::net::Dialer;
use crate::proto::codes::{self, Refusal};
use crate::proxy::Pool;
use crate::replay::Replayer;
use crate::session::End;
use crate::sys::netlink;
use crate::sys::poll::{self, PollFd};
use crate::sys::sync::Mutex;
use crate::sys::{self, signals};
use crate::time::Instant;

/// Time for the edge to answer a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Reason why a run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// By a signal, or by a stop from the edge.
    Stopped,
    /// The edge requested a restart.
    Restart,
}

/// The agent across its sessions.
pub(super) struct Supervisor {
    shared: Arc<AgentShared>,
    dialer: Arc<Dialer>,
    budget: Budget,
    legs: Legs,
    endpoints: Endpoints,
    routes: Arc<RouteTable>,
    reload: Reload,
    host: HostEvents,
    manager: ServiceManager,
    updates: Updates,
    state_command: StateCommand,
    /// Responses that are sent when the status shows their effect.
    answers: Vec<(Arc<ReplySlot>, RequestResult)>,
    /// The last number that an attempt, a call or an endpoint got.
    last_id: u32,
    /// The published status is out of date.
    dirty: bool,
    seed: u64,
}

impl Supervisor {
    /// Checks everything that can be checked before a packet is sent.
    pub(super) fn new(mut config: config::Agent) -> Result<Self, Refusal> {
        let failed = |e: std::io::Error| {
            Refusal::text(format!("cannot start: {}", sys::fd_budget::words(&e)))
        };
        check_token(&config)?;
        let (now, seed) = (sys::clock(), sys::random_seed());
        let mut legs = Legs::new(&config, seed, now);
        let dialer = Arc::new(Dialer::new(&config)?);
        let updates = UpdateHandle::new(&config, &dialer).map_err(Refusal::text)?;
        let budget = budget_of(&config)?;
        let inspector = Inspector::new(&config, budget.store);
        let configured = std::mem::take(&mut config.endpoints);
        let (endpoints, last_id) = prepare_endpoints(configured, legs.len(), &inspector)?;
        let wakeup = signals::install().map_err(failed)?;
        sys::protect_memory();
        // Before any other descriptor is opened. Processes that share the limit do the same.
        sys::fd_budget::raise_limit();
        keep_descriptors(legs.len());
        let pool = Pool::new(budget.workers, budget.waiting).map_err(failed)?;
        let events = Arc::new(EventQueue::new(wakeup));
        let replayer = inspector.map(Replayer::new);
        let status = legs.status(now);
        let state_command = StateCommand::new(&config.on_state_change);
        let mut supervisor = Supervisor {
            routes: Arc::new(RouteTable::new(replayer.clone())),
            updates: Updates::new(updates.clone()),
            shared: Arc::new(AgentShared::new(config, events, pool, replayer, updates, status)),
            dialer,
            budget,
            legs,
            endpoints,
            reload: Reload::default(),
            host: HostEvents::open(now),
            manager: ServiceManager::find(now),
            state_command,
            answers: Vec::new(),
            last_id,
            dirty: true,
            seed: seed.rotate_left(32),
        };
        supervisor.show(now);
        Ok(supervisor)
    }

    /// Sets the function that reads the configuration again.
    pub(super) fn reread_with(&mut self, read: ReadConfig) {
        self.reload.read = Some(Arc::new(Mutex::new(read)));
    }

    /// Puts a new program on trial.
    #[cfg(feature = "update")]
    pub(super) fn on_trial(&mut self, trial: crate::update::Trial) {
        self.updates.on_trial(trial);
    }

    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Runs sessions, one after another, until the program ends.
    pub(super) fn run(mut self) -> Result<Exit, Refusal> {
        signals::graceful(true);
        // Before the first session: the network may be available later, and a service manager
        // must not stop the program for that.
        self.manager.ready();
        let exit = loop {
            self.shared.events.wakeup().clear();
            match self.turn() {
                Ok(None) => self.sleep(),
                Ok(Some(exit)) => break Ok(exit),
                Err(refusal) => break Err(refusal),
            }
        };
        self.shared.end();
        if !matches!(exit, Ok(Exit::Restart)) {
            self.state_command.report(STOPPED);
            self.state_command.advance(sys::clock());
        }
        match &exit {
            // A manager that is notified of a stop completes it.
            Ok(Exit::Restart) => self.manager.reloading(),
            _ => self.manager.stopping(),
        }
        match exit {
            Ok(_) => self.wind_down(),
            Err(_) => self.close_sessions(),
        }
        self.state_command.finish();
        // No further minute reports them.
        self.shared.pool.report_suppressed(Instant::END);
        exit
    }

    /// Makes one turn: events, due work, and the published status.
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
            // The log file may have been moved away.
            crate::logging::reopen();
            self.read(ReloadReason::Hangup);
        }
        let now = sys::clock();
        self.check_host(now);
        self.check_watchdog(now);
        for at in 0..self.legs.len() {
            self.advance_leg(at, now)?;
        }
        self.expire_waiters(now);
        if self.updates.turn(now) {
            return Ok(Some(Exit::Restart));
        }
        self.show(now);
        self.state_command.advance(now);
        for (slot, answer) in self.answers.drain(..) {
            slot.set(answer);
        }
        Ok(None)
    }

    /// Answers a request at the end of this turn.
    fn reply(&mut self, slot: Arc<ReplySlot>, answer: RequestResult) {
        self.answers.push((slot, answer));
    }

    fn new_id(&mut self) -> u32 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }

    fn sleep(&mut self) {
        let now = sys::clock();
        let due = self.legs.deadline(|leg| self.endpoints.next_rebind(leg));
        let due = due.min(self.endpoints.waiter_deadline());
        let due = due.min(self.host.deadline(now)).min(self.manager.deadline());
        let due = due.min(self.updates.deadline()).min(self.state_command.deadline());
        let [changes, clock] = self.host.fds(now);
        let wakeup = self.shared.events.wakeup().as_raw_fd();
        let mut fds = [wakeup, changes, clock].map(|fd| PollFd::readable(&fd));
        if poll::wait(&mut fds, due.left(now)).is_ok() {
            let [_, changes, clock] = fds.map(|fd| fd.is_ready());
            self.host.ready([changes, clock], sys::clock());
        }
    }

    fn event(&mut self, event: AgentEvent) -> Result<Option<Exit>, Refusal> {
        match event {
            AgentEvent::Dialled(number, reached) => self.dialled(number, *reached)?,
            AgentEvent::Ended(number, end) => {
                if let Some(at) = self.legs.find(|live| live.number == number) {
                    if let (End::GoneAway(..), Some(live)) = (&end, self.legs[at].live()) {
                        live.going_away = true;
                    }
                    self.lost(at, &end.to_string());
                }
            }
            AgentEvent::Answered(number, result) => {
                if let Some(at) = self.legs.find(|live| live.is_call(number)) {
                    self.answered(at, result)?;
                    // Before the end of the session, which may be a further event.
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
            AgentEvent::Update(request, session, stream) => {
                self.updates.remote(request, session, stream);
            }
            AgentEvent::Read(reason, read) => {
                if let Some(exit) = self.was_read(reason, *read) {
                    return Ok(Some(exit));
                }
            }
            AgentEvent::Request(request, slot) if features::WEB => self.requested(request, slot),
            AgentEvent::Request(..) => {}
        }
        self.dirty = true;
        Ok(None)
    }

    /// Carries out what signals and events of the host require.
    fn check_host(&mut self, now: Instant) {
        if signals::take_hurry() {
            event!(info, obj = "app", "reconnecting now (SIGUSR1)");
            self.reconnect_now(true, now);
        }
        let changes = self.host.take(netlink::asleep(), now);
        if changes.resumed {
            event!(info, obj = "app", "resumed from suspend");
            self.reconnect_now(false, now);
        }
        if changes.clock_set {
            // A certificate that was not valid yet may be valid now: a machine without a
            // battery starts in 1970. Sessions do not depend on the time of day.
            self.legs.wake(false, now);
        }
        if changes.network {
            self.reconnect_now(false, now);
        }
    }

    fn check_watchdog(&mut self, now: Instant) {
        if !self.manager.watchdog_due(now) {
            return;
        }
        if self.reactors_turn() {
            self.manager.alive();
        } else {
            event!(crit, obj = "app", "session reactor is stuck");
        }
    }

    /// Publishes the status.
    fn show(&mut self, now: Instant) {
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let status = self.legs.status(now);
        let up = self.endpoints.iter().filter(|e| e.is_up()).count();
        self.manager.status(status.state, &status.why, up);
        self.state_command.report(status.state.name());
        let latencies = self.legs.iter().map(|leg| Arc::clone(&leg.latency)).collect();
        let endpoints = self.endpoints.iter().map(ManagedEndpoint::view).collect();
        self.shared.show(View { status, latencies, endpoints });
    }
}

fn budget_of(config: &config::Agent) -> Result<Budget, Refusal> {
    let budget = budget::for_config(config).map_err(Refusal::text)?;
    if config.memory_limit.is_some() {
        event!(
            info,
            obj = "app",
            "applied memory_limit",
            workers = budget.workers,
            store = budget.store
        );
    }
    Ok(budget)
}

/// Creates the endpoints of the configuration. Also returns the last of their numbers.
fn prepare_endpoints(
    configured: Vec<config::Endpoint>,
    legs: usize,
    inspector: &Option<Arc<Inspector>>,
) -> Result<(Endpoints, u32), Refusal> {
    let mut endpoints = Endpoints::default();
    let mut last_id = 0;
    for config in configured {
        let name = config.name.clone();
        last_id += 1;
        let mut endpoint = ManagedEndpoint::new(last_id, config, legs)
            .map_err(|e| Refusal::text(format!("endpoint '{name}': {e}")))?;
        endpoint.inspector = inspector.clone();
        endpoints.push(endpoint);
    }
    Ok((endpoints, last_id))
}

pub(super) fn check_token(config: &config::Agent) -> Result<(), Refusal> {
    if !config.authtoken.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(
        codes::NO_TOKEN,
        format!(
            "no authtoken; add it with '{} config add-authtoken TOKEN', --authtoken or \
             NGROK_AUTHTOKEN",
            sys::argv::program()
        ),
    ))
}

/// Checks a configuration without starting anything.
pub(super) fn check(config: &config::Agent) -> Result<(), Refusal> {
    check_token(config)?;
    Dialer::new(config)?;
    prepare_endpoints(config.endpoints.clone(), 1, &None).map(|_| ())
}

/// Reserves the descriptors with which `legs` legs can reconnect, independent of visitors.
fn keep_descriptors(legs: usize) {
    sys::fd_budget::keep(budget::descriptors(legs, sys::fd_budget::limit()));
}

fn seconds(wait: Duration) -> String {
    // Without floating point, which would add 2 KB of code.
    let tenths = wait.as_secs() * 10 + u64::from((wait.subsec_millis() + 50) / 100);
    format!("{}.{}s", tenths / 10, tenths % 10)
}
