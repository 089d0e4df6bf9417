//! Carries out the decisions of legs: attempts on threads of their own, sessions, calls and
//! their responses, and the end of a session.

use std::sync::Arc;

use super::{Supervisor, keep_descriptors, seconds};
use crate::agent::auth;
use crate::agent::events::AgentEvent;
use crate::agent::failure::LegFailure;
use crate::agent::handler::SessionHandler;
use crate::agent::leg::{CallKind, OpenCall};
use crate::agent::legs::{Disconnected, FurtherLegs, LegStep, NextAttempt};
use crate::agent::path::{self, PathState};
use crate::agent::rpc::{self, CallResult};
use crate::event;
use crate::mux::{self, Code, Role, StreamType};
use crate::proto::codes::{Refusal, When};
use crate::proto::messages::{AuthResponse, AuthResponseExtra};
use crate::session;
use crate::sys::{self, threads};
use crate::time::{Deadline, Instant};
use crate::tls::Established;

/// Receives the bytes of a response on the reactor thread.
type OnReactor = Box<dyn FnOnce(&[u8]) + Send>;

impl Supervisor {
    /// Carries out the next step of a leg.
    pub(super) fn advance_leg(&mut self, at: usize, now: Instant) -> Result<(), Refusal> {
        match self.legs.step(at, now) {
            LegStep::Wait => {}
            LegStep::Dial => self.dial(at, now),
            LegStep::GiveUp(why) => self.lost(at, &why),
            LegStep::Call => self.next_call(at, now)?,
        }
        Ok(())
    }

    /// Begins an attempt on a thread: name resolution, TCP and TLS may use their whole time,
    /// and nothing else waits for them.
    fn dial(&mut self, at: usize, now: Instant) {
        let number = self.new_id();
        let leg = &mut self.legs[at];
        let until = leg.dialling(number, self.shared.config.connect_timeout, now);
        let (address, dialer) = (leg.address.clone(), Arc::clone(&self.dialer));
        let events = Arc::clone(&self.shared.events);
        let work = move || {
            let reached = dialer.connect(&address, Deadline::At(until)).map_err(LegFailure::from);
            events.push(AgentEvent::Dialled(number, Box::new(reached)));
        };
        if threads::DIAL.spawn(Box::new(work)).is_err() {
            let failure = LegFailure::Retry(threads::NO_THREAD.into());
            self.shared.events.push(AgentEvent::Dialled(number, Box::new(Err(failure))));
        }
        self.dirty = true;
    }

    /// Handles the result of the attempt with this number.
    pub(super) fn dialled(
        &mut self,
        number: u32,
        reached: Result<Established, LegFailure>,
    ) -> Result<(), Refusal> {
        let Some((at, until)) = self.legs.find_dialling(number) else { return Ok(()) };
        if reached.is_ok() {
            self.updates.reached(sys::clock());
        }
        match reached.and_then(|link| self.open(at, number, until, link)) {
            Ok(()) => Ok(()),
            Err(failure) => self.failed(at, failure),
        }
    }

    /// Starts the session on an established connection, and sends Auth.
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
        let handler = SessionHandler {
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
        let max_streams = self.budget.max_streams();
        mux.max_streams = max_streams;
        let session = session::start(
            link,
            mux,
            session::BufferLimits::session(self.budget.buffered),
            Box::new(handler),
        )
        .map_err(|e| LegFailure::Retry(format!("no session: {}", sys::fd_budget::words(&e))))?;
        session.start_heartbeat(config.heartbeat_interval, config.heartbeat_tolerance);
        leg.connected(number, session, addresses);
        let request = auth::request(config, &self.dialer, &self.legs, at, max_streams).encode();
        self.call(at, StreamType::AUTH, &request, CallKind::Auth, until, None);
        Ok(())
    }

    /// Makes a call on a leg. `on_reactor` receives the response on the reactor thread, before
    /// any visitor that may follow it.
    pub(super) fn call(
        &mut self,
        at: usize,
        stream: StreamType,
        request: &[u8],
        kind: CallKind,
        until: Instant,
        on_reactor: Option<OnReactor>,
    ) {
        let number = self.new_id();
        let Some(live) = self.legs[at].live() else { return };
        live.call = Some(OpenCall { number, until, kind });
        let events = Arc::clone(&self.shared.events);
        let on_answer = Box::new(move |result: CallResult| {
            if let (Ok(bytes), Some(on_reactor)) = (&result, on_reactor) {
                on_reactor(bytes);
            }
            events.push(AgentEvent::Answered(number, result));
        });
        if let Err(e) = rpc::begin(&live.session, stream, request, on_answer) {
            self.shared.events.push(AgentEvent::Answered(number, Err(e)));
        }
    }

    /// Handles the result of a leg's current call.
    pub(super) fn answered(&mut self, at: usize, result: CallResult) -> Result<(), Refusal> {
        let Some(call) = self.legs[at].live().and_then(|live| live.call.take()) else {
            return Ok(());
        };
        let name = call.kind.name();
        match (call.kind, result) {
            (CallKind::Pending(call), result) => self.pending_call_done(at, call, result),
            (_, Err(e)) => self.lost(at, &format!("{name}: {e}")),
            (CallKind::Bind(key, config), Ok(bytes)) => {
                return self.bind_answered(at, key, &config, &bytes);
            }
            (CallKind::Auth, Ok(bytes)) => match auth::response(&bytes, self.legs.when()) {
                Ok(response) => self.authenticated(at, response),
                Err(LegFailure::Retry(why)) => self.lost(at, &why),
                Err(failure) => {
                    self.disconnect(at);
                    return self.failed(at, failure);
                }
            },
        }
        Ok(())
    }

    fn authenticated(&mut self, at: usize, response: AuthResponse) {
        let about = response.extra;
        let news = self.legs.authenticated(at, response.client_id, &about);
        event!(
            info,
            obj = "tunnels.session",
            "client session established",
            region = about.region,
            account = about.account_name
        );
        if news.banner {
            event!(info, obj = "tunnels.session", "edge banner", text = about.banner);
        }
        if let Some(deprecation) = news.deprecation {
            event!(
                warn,
                obj = "tunnels.session",
                "agent version is deprecated",
                text = deprecation.message,
                version = deprecation.next_min,
                date = deprecation.next_date
            );
        }
        if at == 0 {
            self.announced(&about);
        }
    }

    fn announced(&mut self, about: &AuthResponseExtra) {
        match self.legs.announced(&about.connect_addresses, &self.shared.config) {
            FurtherLegs::None => {}
            FurtherLegs::Ignored(count) => {
                let why = "memory_limit has no room for them; add them to connect_url";
                event!(info, obj = "csess", "further legs ignored", count = count, err = why);
            }
            FurtherLegs::Added { invalid } => {
                for address in invalid {
                    event!(warn, obj = "csess", "invalid leg address", addr = address);
                }
                keep_descriptors(self.legs.len());
                self.endpoints.add_legs(self.legs.len());
            }
        }
    }

    /// Handles the end of Auth and the first round of binds.
    pub(super) fn set_up(&mut self, at: usize, now: Instant) {
        let after_outage = self.legs.set_up(at, now);
        self.updates.online(now);
        self.dirty = true;
        // A program that reads the log and then requests the status must get the new one.
        self.show(now);
        let addr = &self.legs[at].address;
        event!(info, obj = "tunnels.session", "tunnel session started", addr = addr);
        if after_outage {
            event!(warn, obj = "tunnels.session", "session is back", addr = addr);
        }
    }

    /// Handles an attempt that failed before a session was set up.
    fn failed(&mut self, at: usize, failure: LegFailure) -> Result<(), Refusal> {
        self.dirty = true;
        let next = self.legs.failed(at, failure, sys::clock());
        let leg = &self.legs[at];
        match next {
            NextAttempt::Exit(refusal) => return Err(refusal),
            NextAttempt::LegRefused(refusal) => event!(
                error,
                obj = "tunnels.session",
                "session refused, not retried",
                addr = leg.address,
                err = refusal
            ),
            NextAttempt::In { wait, log: true } => {
                let (why, addr, retry) = (&leg.why, &leg.address, seconds(wait));
                // Before the first session there is nothing to come back to.
                if self.legs.when() == When::Reconnect {
                    event!(
                        error,
                        obj = "tunnels.session",
                        "failed to reconnect session",
                        err = why,
                        addr = addr,
                        retry = retry
                    );
                } else {
                    event!(
                        error,
                        obj = "tunnels.session",
                        "failed to connect session",
                        err = why,
                        addr = addr,
                        retry = retry
                    );
                }
            }
            NextAttempt::In { .. } => {}
        }
        Ok(())
    }

    /// Handles a session that has ended, or that is given up.
    pub(super) fn lost(&mut self, at: usize, why: &str) {
        let Some(set_up) = self.disconnect(at) else {
            // Reason: only a final failure is an error here.
            let _ = self.failed(at, LegFailure::Retry(why.to_owned()));
            return;
        };
        self.dirty = true;
        if self.legs.lost(at, set_up, why, sys::clock()) {
            event!(
                error,
                obj = "tunnels.session",
                "session closed, starting reconnect loop",
                err = why,
                addr = self.legs[at].address
            );
        }
    }

    /// Releases a leg's session. Returns the time at which it was set up, if it was.
    fn disconnect(&mut self, at: usize) -> Option<Instant> {
        let Disconnected { session, going_away, set_up, calls } = self.legs.disconnect(at)?;
        if !going_away {
            session.close(Code::NO_ERROR, "no error");
        }
        self.endpoints.leg_lost(at);
        for call in calls {
            self.pending_call_lost(call);
        }
        set_up
    }

    /// Handles a possible change of the network: waits end, and sessions are probed. `force`:
    /// the user requests it.
    pub(super) fn reconnect_now(&mut self, force: bool, now: Instant) {
        let probe = force || self.host.may_probe(now);
        let tolerance = self.shared.config.heartbeat_tolerance;
        for at in 0..self.legs.len() {
            self.legs[at].wake(force, now);
            let Some(live) = self.legs[at].live() else { continue };
            match path::state(live.addresses) {
                PathState::Dead => self.lost(at, "the address of this machine has changed"),
                PathState::Doubtful if probe => {
                    live.session.probe(path::probe_timeout(live.session.latency(), tolerance));
                    self.host.probed(now);
                }
                _ => {}
            }
        }
    }

    /// Returns whether all reactors have made a turn since the last call.
    pub(super) fn reactors_turn(&mut self) -> bool {
        let mut all = true;
        for live in self.legs.iter_mut().filter_map(|leg| leg.live()) {
            let turns = live.session.turns();
            all &= turns != live.reactor_turns || live.session.is_over();
            live.reactor_turns = turns;
            // An idle reactor makes a turn after this wakeup.
            live.session.wake_reactor();
        }
        all
    }

    pub(super) fn close_sessions(&mut self) {
        for live in self.legs.iter_mut().filter_map(|leg| leg.live()) {
            live.session.close(Code::NO_ERROR, "no error");
        }
    }
}
