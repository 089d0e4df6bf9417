//! All legs: which one connects when, the consequence of a failure or a loss, and the resulting
//! status. Methods return decisions; the supervisor carries them out. Sockets and threads do
//! not belong here.

use std::ops::{Index, IndexMut};
use std::time::Duration;

use super::backoff::Backoff;
use super::failure::LegFailure;
use super::leg::{CallKind, Leg, LegSession, LegState, PendingCall};
use super::rpc::CallError;
use super::status::{AgentState, Status};
use crate::config;
use crate::logging::rate_limit::OutageThrottle;
use crate::net::dial::split_address;
use crate::proto::codes::{Refusal, When};
use crate::proto::messages::{AuthResponseExtra, Deprecation};
use crate::proto::secret::Secret;
use crate::session::Session;
use crate::time::{Deadline, Instant};

/// Maximum number of legs that an edge may announce, the first one included.
const MAX_LEGS: usize = 8;
/// Length of a session after which an outage has ended.
const OUTAGE_RESET: Duration = Duration::from_secs(60);

/// The legs, in order. `S` is the handle of a session.
pub(super) struct Legs<S = Session> {
    list: Vec<Leg<S>>,
    /// Whether the first session was set up.
    started: bool,
    /// Number of sessions that were set up since the start.
    sessions: u32,
    state: (AgentState, Instant),
    /// Data of the account, from the edge.
    about: AuthResponseExtra,
    /// Whether the log has that announced legs are ignored.
    ignored_legs_logged: bool,
    /// Silence after which a session is given up.
    silence_limit: Duration,
    seed: u64,
}

/// Next step of a leg.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LegStep {
    /// Nothing.
    Wait,
    /// Begin an attempt.
    Dial,
    /// End the session: a call has no response.
    GiveUp(String),
    /// Make the next call.
    Call,
}

/// Consequence of a failed attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextAttempt {
    /// A further attempt after this wait. `log`: the error is logged.
    In { wait: Duration, log: bool },
    /// None: the edge refuses this leg. The other legs continue.
    LegRefused(Refusal),
    /// None on any leg: the program ends.
    Exit(Refusal),
}

/// Work that remains when the session of a leg ends.
pub(super) struct Disconnected<S> {
    pub(super) session: S,
    pub(super) going_away: bool,
    pub(super) set_up: Option<Instant>,
    pub(super) calls: Vec<PendingCall>,
}

/// Changes that a response to Auth brings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AuthNews {
    pub(super) banner: bool,
    pub(super) deprecation: Option<Deprecation>,
}

/// Result for the legs that an edge announces.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FurtherLegs {
    /// They are unchanged, and nothing is logged.
    None,
    /// This number is ignored, because `memory_limit` was divided among the others.
    Ignored(usize),
    /// They were added, except for these invalid addresses.
    Added { invalid: Vec<String> },
}

impl<S> Index<usize> for Legs<S> {
    type Output = Leg<S>;

    fn index(&self, at: usize) -> &Leg<S> {
        &self.list[at]
    }
}

impl<S> IndexMut<usize> for Legs<S> {
    fn index_mut(&mut self, at: usize) -> &mut Leg<S> {
        &mut self.list[at]
    }
}

impl<S> Legs<S> {
    /// Creates the legs of a configuration. The first one connects at once. The others begin
    /// after its first attempt, because they bind what it has bound.
    pub(super) fn new(config: &config::Agent, seed: u64, now: Instant) -> Self {
        let mut legs = Legs {
            list: Vec::new(),
            started: false,
            sessions: 0,
            state: (AgentState::Connecting, now),
            about: AuthResponseExtra::default(),
            ignored_legs_logged: false,
            silence_limit: config.heartbeat_interval + config.heartbeat_tolerance,
            seed,
        };
        for address in std::iter::once(&config.connect_url).chain(&config.further_urls) {
            legs.add(address, false);
        }
        legs[0].state = LegState::Waiting(Deadline::At(Instant::ZERO));
        legs
    }

    fn add(&mut self, address: &str, announced: bool) {
        self.seed = self.seed.rotate_left(9);
        let backoff = Backoff::new(self.seed, self.silence_limit);
        self.list.push(Leg::new(address, announced, Deadline::Never, backoff));
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Leg<S>> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Leg<S>> {
        self.list.iter_mut()
    }

    /// Returns whether the program still starts, or reconnects.
    pub(super) fn when(&self) -> When {
        if self.started { When::Reconnect } else { When::Start }
    }

    /// Returns the leg whose session meets a condition.
    pub(super) fn find(&self, is: impl Fn(&LegSession<S>) -> bool) -> Option<usize> {
        self.list.iter().position(|leg| matches!(&leg.state, LegState::Connected(live) if is(live)))
    }

    /// Returns the leg that makes the attempt with this number, and the time by which Auth must
    /// be complete.
    pub(super) fn find_dialling(&self, number: u32) -> Option<(usize, Instant)> {
        self.list.iter().enumerate().find_map(|(at, leg)| match leg.state {
            LegState::Dialling(n, until) if n == number => Some((at, until)),
            _ => None,
        })
    }

    /// Returns whether an endpoint can be bound on any leg.
    pub(super) fn any_ready(&mut self) -> bool {
        self.list.iter_mut().any(|leg| leg.ready().is_some())
    }

    pub(super) fn step(&self, at: usize, now: Instant) -> LegStep {
        match &self.list[at].state {
            LegState::Waiting(until) if until.due(now) => LegStep::Dial,
            LegState::Connected(live) => match &live.call {
                Some(call) if call.until <= now => {
                    let hint = match call.kind {
                        CallKind::Auth => "; connect_url must be the edge's port for agents",
                        _ => "",
                    };
                    LegStep::GiveUp(format!("{}: {}{hint}", call.kind.name(), CallError::Late))
                }
                None if live.authenticated => LegStep::Call,
                _ => LegStep::Wait,
            },
            _ => LegStep::Wait,
        }
    }

    /// Returns the time at which [`Self::step`] has a step for any leg. `next_rebind`: time at
    /// which an endpoint is bound again on a leg.
    pub(super) fn deadline(&self, next_rebind: impl Fn(usize) -> Deadline) -> Deadline {
        let legs = self.list.iter().enumerate().map(|(at, leg)| match &leg.state {
            LegState::Waiting(until) => *until,
            LegState::Connected(live) => match &live.call {
                Some(call) => Deadline::At(call.until),
                None if live.set_up.is_some() => next_rebind(at),
                None => Deadline::Never,
            },
            LegState::Dialling(..) | LegState::Refused => Deadline::Never,
        });
        legs.min().unwrap_or(Deadline::Never)
    }

    /// Handles an attempt that failed before a session was set up.
    pub(super) fn failed(&mut self, at: usize, failure: LegFailure, now: Instant) -> NextAttempt {
        let leg = &mut self.list[at];
        let (why, wait) = match failure {
            LegFailure::Final(refusal) => return self.refused(at, refusal),
            LegFailure::Retry(why) => (why, leg.backoff.next_wait()),
            LegFailure::RetrySlowly(why) => (why, leg.backoff.slow_wait()),
            LegFailure::ForgetCookie(why) => {
                leg.client_id = String::new();
                leg.cookie = Secret::default();
                let again = std::mem::replace(&mut leg.as_new_client, true);
                (why, if again { leg.backoff.next_wait() } else { Duration::ZERO })
            }
        };
        let at_once = std::mem::take(&mut leg.retry_now);
        let wait = leg.wait(if at_once { Duration::ZERO } else { wait }, &why, now);
        let log = leg.log_error(now);
        self.start_other_legs();
        NextAttempt::In { wait, log }
    }

    fn refused(&mut self, at: usize, refusal: Refusal) -> NextAttempt {
        let leg = &mut self.list[at];
        leg.why = refusal.to_string();
        leg.state = LegState::Refused;
        let must_work = !self.started && !leg.announced;
        let others = self.list.iter().any(|leg| !matches!(leg.state, LegState::Refused));
        if !others || must_work {
            return NextAttempt::Exit(refusal);
        }
        self.start_other_legs();
        NextAttempt::LegRefused(refusal)
    }

    /// Removes the session of a leg. The leg has no next attempt until [`Self::failed`] or
    /// [`Self::lost`] is called.
    pub(super) fn disconnect(&mut self, at: usize) -> Option<Disconnected<S>> {
        let leg = &mut self.list[at];
        leg.live()?;
        let rest = LegState::Waiting(Deadline::Never);
        let LegState::Connected(live) = std::mem::replace(&mut leg.state, rest) else {
            return None;
        };
        leg.latency.set(None);
        let LegSession { session, going_away, set_up, call, pending_calls, .. } = *live;
        let under_way = call.and_then(|call| match call.kind {
            CallKind::Pending(pending) => Some(pending),
            _ => None,
        });
        let calls = under_way.into_iter().chain(pending_calls).collect();
        Some(Disconnected { session, going_away, set_up, calls })
    }

    /// Handles the loss of a session that was set up at `set_up`. Returns whether it is logged.
    pub(super) fn lost(&mut self, at: usize, set_up: Instant, why: &str, now: Instant) -> bool {
        let leg = &mut self.list[at];
        if now.since(set_up) >= OUTAGE_RESET {
            leg.outage = OutageThrottle::default();
        }
        leg.backoff.session_ended(set_up, now);
        let wait = leg.backoff.next_wait();
        leg.wait(wait, why, now);
        leg.log_error(now)
    }

    /// Records that Auth and the first round of binds are complete. Returns whether this ends
    /// an outage that was logged.
    pub(super) fn set_up(&mut self, at: usize, now: Instant) -> bool {
        let leg = &mut self.list[at];
        if let Some(live) = leg.live() {
            live.set_up = Some(now);
        }
        leg.why.clear();
        let after_outage = std::mem::take(&mut leg.outage_logged);
        self.sessions = self.sessions.saturating_add(1);
        self.started = true;
        self.start_other_legs();
        after_outage
    }

    /// Starts the other legs after the first attempt of the first leg.
    fn start_other_legs(&mut self) {
        for leg in &mut self.list {
            if let LegState::Waiting(until @ Deadline::Never) = &mut leg.state {
                *until = Deadline::At(Instant::ZERO);
            }
        }
    }

    /// Records that the edge has accepted a leg's Auth.
    pub(super) fn authenticated(
        &mut self,
        at: usize,
        client_id: String,
        about: &AuthResponseExtra,
    ) -> AuthNews {
        let deprecation = about.deprecation.as_ref();
        let news = AuthNews {
            banner: !about.banner.is_empty() && about.banner != self.about.banner,
            deprecation: deprecation
                .filter(|new| self.about.deprecation.as_ref() != Some(*new))
                .cloned(),
        };
        // The newest cookie is valid for all legs of one client.
        for leg in self.list.iter_mut().filter(|leg| leg.client_id == client_id) {
            leg.cookie = about.cookie.clone();
        }
        let leg = &mut self.list[at];
        leg.client_id = client_id;
        leg.cookie = about.cookie.clone();
        leg.region.clone_from(&about.region);
        leg.as_new_client = false;
        if let Some(live) = leg.live() {
            live.authenticated = true;
        }
        if at == 0 || self.about.account_name.is_empty() {
            self.about = about.clone();
        }
        news
    }

    /// Adds the legs that the edge announces in its first answer to Auth (protocol 1):
    /// region and address each, this leg's first.
    pub(super) fn announced(
        &mut self,
        list: &[(String, String)],
        config: &config::Agent,
    ) -> FurtherLegs {
        if self.list.len() > 1 || list.len() < 2 {
            return FurtherLegs::None;
        }
        if config.connect_url == config::DEFAULT_EDGE {
            // Used from the next attempt on.
            self.list[0].address.clone_from(&list[0].1);
        }
        // Memory within the limit has been divided among the configured legs.
        if config.memory_limit.is_some() {
            // Each session of that edge announces them again.
            return match std::mem::replace(&mut self.ignored_legs_logged, true) {
                true => FurtherLegs::None,
                false => FurtherLegs::Ignored(list.len() - 1),
            };
        }
        let mut invalid = Vec::new();
        for (_, address) in list.iter().take(MAX_LEGS).skip(1) {
            match split_address(address) {
                Ok(_) => self.add(address, true),
                Err(_) => invalid.push(address.clone()),
            }
        }
        FurtherLegs::Added { invalid }
    }

    /// Returns the identity for the Auth of a leg. A leg that is new to its edge belongs to the
    /// same client as the others. `None`: a new client.
    pub(super) fn identity(&self, at: usize) -> Option<&Leg<S>> {
        let leg = &self.list[at];
        let known = |leg: &&Leg<S>| !leg.client_id.is_empty();
        let identity = Some(leg).filter(known).or_else(|| self.list.iter().find(known));
        identity.filter(|_| !leg.as_new_client)
    }

    /// Ends the waits of all legs.
    pub(super) fn wake(&mut self, force: bool, now: Instant) {
        self.list.iter_mut().for_each(|leg| leg.wake(force, now));
    }

    pub(super) fn status(&mut self, now: Instant) -> Status {
        let online = self.list.iter().any(Leg::is_set_up);
        let state = match (online, self.started) {
            (true, _) => AgentState::Online,
            (false, false) => AgentState::Connecting,
            (false, true) => AgentState::Reconnecting,
        };
        if state != self.state.0 {
            self.state = (state, now);
        }
        let why = self.list.iter().map(|leg| &leg.why).find(|why| !online && !why.is_empty());
        let next = self.list.iter().filter_map(|leg| match leg.state {
            LegState::Waiting(Deadline::At(until)) if !online => Some(until),
            _ => None,
        });
        let about = &self.about;
        let deprecation = about.deprecation.as_ref();
        Status {
            state,
            since: self.state.1,
            why: why.cloned().unwrap_or_default(),
            account: about.account_name.clone(),
            plan: about.plan_name.clone(),
            banner: about.banner.clone(),
            deprecation: deprecation.map(|d| d.message.clone()).unwrap_or_default(),
            legs: self.list.iter().map(Leg::status).collect(),
            sessions: self.sessions,
            next_try: next.min(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::leg::OpenCall;

    const NOW: Instant = Instant::ZERO;

    /// Returns legs whose sessions are numbers.
    fn legs(addresses: usize) -> Legs<u32> {
        let further = (1..addresses).map(|n| format!("edge{n}.example:443")).collect();
        let config = config::Agent { further_urls: further, ..Default::default() };
        Legs::new(&config, 7, NOW)
    }

    fn at(seconds: u64) -> Instant {
        NOW + Duration::from_secs(seconds)
    }

    fn connect(legs: &mut Legs<u32>, leg: usize, now: Instant) {
        legs[leg].dialling(1, Duration::from_secs(10), now);
        legs[leg].connected(1, 1, None);
    }

    fn set_up(legs: &mut Legs<u32>, leg: usize, now: Instant) -> bool {
        connect(legs, leg, now);
        legs.authenticated(leg, "client".into(), &AuthResponseExtra::default());
        legs.set_up(leg, now)
    }

    fn steps(legs: &Legs<u32>, now: Instant) -> Vec<LegStep> {
        (0..legs.len()).map(|at| legs.step(at, now)).collect()
    }

    fn retry() -> LegFailure {
        LegFailure::Retry("refused".into())
    }

    fn is_logged(next: &NextAttempt) -> bool {
        matches!(next, NextAttempt::In { log: true, .. })
    }

    #[test]
    fn the_other_legs_begin_when_the_first_has_had_its_chance() {
        let mut failing = legs(3);
        assert_eq!(steps(&failing, NOW), [LegStep::Dial, LegStep::Wait, LegStep::Wait]);
        failing[0].dialling(1, Duration::from_secs(10), NOW);
        assert_eq!(steps(&failing, NOW), [LegStep::Wait, LegStep::Wait, LegStep::Wait]);
        assert!(is_logged(&failing.failed(0, retry(), NOW)));
        assert_eq!(steps(&failing, NOW)[1..], [LegStep::Dial, LegStep::Dial]);
        let mut working = legs(2);
        set_up(&mut working, 0, NOW);
        assert_eq!(steps(&working, NOW), [LegStep::Call, LegStep::Dial]);
    }

    #[test]
    fn a_final_refusal_ends_the_program_at_the_start_and_one_leg_later() {
        let refusal = || LegFailure::Final(Refusal::text("no such account"));
        let mut starting = legs(2);
        assert!(matches!(starting.failed(0, refusal(), NOW), NextAttempt::Exit(_)));
        let mut running = legs(2);
        set_up(&mut running, 0, NOW);
        assert!(matches!(running.failed(1, refusal(), NOW), NextAttempt::LegRefused(_)));
        assert_eq!(running.status(NOW).state, AgentState::Online);
        assert_eq!(running.step(1, at(3_600)), LegStep::Wait);
        running.disconnect(0);
        assert!(matches!(running.failed(0, refusal(), NOW), NextAttempt::Exit(_)));
    }

    #[test]
    fn an_announced_leg_that_is_refused_does_not_end_the_program() {
        let mut legs = legs(1);
        let list = ["", "edge1.example:443"].map(|a| (String::new(), a.to_owned()));
        let added = legs.announced(&list, &config::Agent::default());
        assert_eq!(added, FurtherLegs::Added { invalid: Vec::new() });
        let refusal = LegFailure::Final(Refusal::text("no such account"));
        assert!(matches!(legs.failed(1, refusal, NOW), NextAttempt::LegRefused(_)));
    }

    #[test]
    fn announced_legs_are_added_once_and_not_under_a_memory_limit() {
        let list: Vec<(String, String)> = (0..20)
            .map(|n| match n {
                3 => "no port".to_owned(),
                n => format!("edge{n}.example:443"),
            })
            .map(|address| ("eu".to_owned(), address))
            .collect();
        let config = config::Agent::default();
        let mut free = legs(1);
        assert_eq!(free.announced(&list[..1], &config), FurtherLegs::None);
        let added = free.announced(&list, &config);
        assert_eq!(added, FurtherLegs::Added { invalid: vec!["no port".into()] });
        assert_eq!(free.len(), MAX_LEGS - 1);
        assert_eq!(free[0].address, "edge0.example:443", "the default address gives way");
        assert_eq!(free.announced(&list, &config), FurtherLegs::None);
        let config = config::Agent { memory_limit: Some(8 << 20), ..config };
        let mut limited = legs(1);
        assert_eq!(limited.announced(&list, &config), FurtherLegs::Ignored(19));
        assert_eq!(limited.announced(&list, &config), FurtherLegs::None);
        assert_eq!(limited.len(), 1);
    }

    #[test]
    fn a_refused_cookie_is_forgotten_and_the_next_attempt_is_at_once() {
        let mut legs = legs(2);
        set_up(&mut legs, 0, NOW);
        assert_eq!(legs.identity(1).map(|leg| leg.client_id.as_str()), Some("client"));
        legs.disconnect(0);
        let forget = || LegFailure::ForgetCookie("unknown client".into());
        let next = legs.failed(0, forget(), at(10));
        assert_eq!(next, NextAttempt::In { wait: Duration::ZERO, log: true });
        assert!(legs.identity(0).is_none(), "a new client");
        let NextAttempt::In { wait: first, .. } = legs.failed(0, forget(), at(20)) else {
            panic!("no further attempt");
        };
        let NextAttempt::In { wait: second, .. } = legs.failed(0, forget(), at(30)) else {
            panic!("no further attempt");
        };
        assert!(first + second > Duration::ZERO, "only once at once");
    }

    #[test]
    fn a_call_without_an_answer_ends_the_session() {
        let mut legs = legs(1);
        connect(&mut legs, 0, NOW);
        let live = legs[0].live().unwrap();
        live.call = Some(OpenCall { number: 2, until: at(10), kind: CallKind::Auth });
        assert_eq!(legs.step(0, at(9)), LegStep::Wait);
        assert_eq!(legs.deadline(|_| Deadline::Never), Deadline::At(at(10)));
        let LegStep::GiveUp(why) = legs.step(0, at(10)) else { panic!("waits for ever") };
        assert!(why.starts_with("Auth: ") && why.contains("connect_url"), "{why}");
    }

    #[test]
    fn calls_under_way_are_returned_when_the_session_ends() {
        let mut legs = legs(1);
        connect(&mut legs, 0, NOW);
        let live = legs[0].live().unwrap();
        let unbind = |id: &str| PendingCall::Unbind(id.into(), None);
        let kind = CallKind::Pending(unbind("a"));
        live.call = Some(OpenCall { number: 2, until: at(10), kind });
        live.pending_calls.push_back(unbind("b"));
        let gone = legs.disconnect(0).unwrap();
        let ids = gone.calls.iter().map(|call| match call {
            PendingCall::Unbind(id, _) => id.as_str(),
            PendingCall::Patch(..) => "",
        });
        assert_eq!(ids.collect::<Vec<_>>(), ["a", "b"]);
        assert!(legs.disconnect(0).is_none());
    }

    #[test]
    fn the_end_of_an_outage_is_logged_if_the_outage_was() {
        let mut legs = legs(1);
        assert!(!set_up(&mut legs, 0, NOW), "nothing was wrong");
        legs.disconnect(0);
        assert!(legs.lost(0, NOW, "reset", at(1)));
        assert_eq!(legs.status(at(1)).why, "reset");
        assert!(set_up(&mut legs, 0, at(2)));
        assert!(!set_up(&mut legs, 0, at(3)), "only once");
    }

    #[test]
    fn the_status_follows_the_sessions() {
        let mut legs = legs(2);
        let status = legs.status(at(1));
        assert_eq!((status.state, status.since), (AgentState::Connecting, NOW));
        set_up(&mut legs, 0, at(2));
        let status = legs.status(at(2));
        assert_eq!((status.state, status.since), (AgentState::Online, at(2)));
        assert_eq!((status.sessions, status.next_try), (1, None));
        legs.disconnect(0);
        legs.lost(0, at(2), "reset", at(5));
        let status = legs.status(at(6));
        assert_eq!((status.state, status.since), (AgentState::Reconnecting, at(6)));
        assert!(status.next_try.is_some() && status.legs.iter().all(|leg| !leg.online));
    }

    #[test]
    fn a_banner_is_new_once() {
        let mut legs = legs(1);
        let about = AuthResponseExtra { banner: "hello".into(), ..Default::default() };
        assert!(legs.authenticated(0, "client".into(), &about).banner);
        assert!(!legs.authenticated(0, "client".into(), &about).banner);
    }
}
