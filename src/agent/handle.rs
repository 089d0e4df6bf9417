//! The agent as the rest of the program sees it: where it stands, and asking it for
//! endpoints. A request is a note to the supervisor with a place for the answer:
//! whoever asks waits, nobody else does. No sessions here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use super::events::{Event, EventQueue};
use super::preflight::{FETCH_TIMEOUT, preflight};
use crate::config;
use crate::inspect::Inspector;
use crate::metrics;
use crate::proto::codes::Refusal;
use crate::proxy::{Pool, PoolNumbers};
use crate::sys;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Instant;

/// How long a request may take in all. The supervisor answers sooner: it waits for a
/// session, and then for the edge, for a bounded time each.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// A handle on the running agent. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<AgentShared>);

/// Whether there is a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// There has been none yet.
    Connecting,
    /// At least one.
    Online,
    /// There was one.
    Reconnecting,
}

impl AgentState {
    /// The state's name: `online`.
    pub fn name(self) -> &'static str {
        match self {
            AgentState::Connecting => "connecting",
            AgentState::Online => "online",
            AgentState::Reconnecting => "reconnecting",
        }
    }
}

/// One of the connections to the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegStatus {
    /// `host:port` of the edge.
    pub address: String,
    /// Where the edge says it is.
    pub region: String,
    /// The time of the last heartbeat's way there and back.
    pub latency: Option<Duration>,
    /// Whether it serves.
    pub online: bool,
}

/// Where the agent stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether there is a session.
    pub state: AgentState,
    /// Since when.
    pub since: Instant,
    /// Why there is none; empty while online.
    pub why: String,
    /// Name of the account, as the edge says.
    pub account: String,
    /// Its plan.
    pub plan: String,
    /// A text of the edge for the user.
    pub banner: String,
    /// What the edge says about the age of this version.
    pub deprecation: String,
    /// The connections, the first one first.
    pub legs: Vec<LegStatus>,
    /// Sessions set up since the start.
    pub sessions: u32,
    /// When the next attempt is, while there is a wait.
    pub next_try: Option<Instant>,
}

/// Where an endpoint stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// The edge sends visitors.
    Up,
    /// Not yet, or not at the moment, and why.
    Waiting(String),
    /// Not any more, and why.
    Down(String),
}

/// An endpoint as others see it.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Its name.
    pub name: String,
    /// The edge's public id of it, else its bind id; empty until it was bound.
    pub id: String,
    /// Its public URL; empty until it was bound, and for labels.
    pub url: String,
    /// `https`, `http`, `tcp`, `tls`.
    pub proto: String,
    /// What was asked for.
    pub config: Arc<config::Endpoint>,
    /// Where it stands.
    pub standing: EndpointState,
    /// What it has done.
    pub metrics: Arc<metrics::EndpointMetrics>,
}

/// Why a request was not carried out.
#[derive(Clone, Debug)]
pub enum StartError {
    /// There is an endpoint of that name.
    NameTaken,
    /// There is no endpoint of that name.
    Unknown,
    /// There is no session.
    NotReady,
    /// It cannot work, whatever the edge says.
    Invalid(Refusal),
    /// The edge refused.
    Refused(Refusal),
    /// No answer in time, or too many requests at once, or the program is ending.
    Late,
}

/// What is asked of the supervisor.
pub(super) enum Request {
    Start(Box<config::Endpoint>),
    Put(Box<config::Endpoint>),
    Stop(String),
}

/// What came of it: the endpoint, and whether it is new. `None` after a stop.
pub(super) type RequestResult = Result<Option<(EndpointView, bool)>, StartError>;

/// Where the answer goes.
#[derive(Default)]
pub(super) struct ReplySlot {
    answer: Mutex<Option<RequestResult>>,
    answered: Condvar,
    /// Nobody waits any more.
    abandoned: AtomicBool,
}

impl ReplySlot {
    pub(super) fn set(&self, answer: RequestResult) {
        self.answer.lock().get_or_insert(answer);
        self.answered.notify_all();
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    fn wait(&self) -> RequestResult {
        let until = sys::clock() + REQUEST_TIMEOUT;
        let mut answer = self.answer.lock();
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            let left = until.since(sys::clock());
            if left.is_zero() {
                self.abandoned.store(true, Ordering::Relaxed);
                return Err(StartError::Late);
            }
            let waited = self.answered.wait_timeout(answer, left);
            answer = waited.0;
        }
    }
}

/// What the supervisor shows, as a whole at a time.
pub(super) struct View {
    pub(super) status: Status,
    /// Beside the legs of the status: what changes with every heartbeat.
    pub(super) latencies: Vec<Arc<Latency>>,
    pub(super) endpoints: Vec<EndpointView>,
}

/// The last latency of a leg in microseconds; 0: none yet.
#[derive(Default)]
pub(super) struct Latency(AtomicU32);

impl Latency {
    pub(super) fn set(&self, latency: Option<Duration>) {
        let us = latency.map_or(0, |l| u32::try_from(l.as_micros()).unwrap_or(u32::MAX).max(1));
        self.0.store(us, Ordering::Relaxed);
    }

    fn read(&self) -> Option<Duration> {
        let us = self.0.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us.into()))
    }
}

/// What the supervisor and its handles share.
pub(super) struct AgentShared {
    pub(super) config: config::Agent,
    pub(super) events: Arc<EventQueue>,
    pub(super) pool: Arc<Pool>,
    pub(super) inspector: Option<Arc<Inspector>>,
    view: Mutex<View>,
    changes: Arc<AtomicU32>,
    shutting_down: AtomicBool,
}

impl AgentShared {
    pub(super) fn new(
        config: config::Agent,
        events: Arc<EventQueue>,
        pool: Arc<Pool>,
        inspector: Option<Arc<Inspector>>,
    ) -> Self {
        let status = Status {
            state: AgentState::Connecting,
            since: sys::clock(),
            why: String::new(),
            account: String::new(),
            plan: String::new(),
            banner: String::new(),
            deprecation: String::new(),
            legs: Vec::new(),
            sessions: 0,
            next_try: None,
        };
        let view = View { status, latencies: Vec::new(), endpoints: Vec::new() };
        AgentShared {
            config,
            events,
            pool,
            inspector,
            view: Mutex::new(view),
            changes: Arc::default(),
            shutting_down: AtomicBool::new(false),
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock()
    }

    pub(super) fn show(&self, view: View) {
        *self.view() = view;
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// What counts the changes.
    pub(super) fn changes(&self) -> &Arc<AtomicU32> {
        &self.changes
    }

    /// From now on nothing is asked any more.
    pub(super) fn end(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
        self.pool.close();
    }
}

impl Handle {
    /// Where the agent stands.
    pub fn status(&self) -> Status {
        let view = self.0.view();
        let mut status = view.status.clone();
        for (leg, latency) in status.legs.iter_mut().zip(&view.latencies) {
            leg.latency = latency.read();
        }
        status
    }

    /// The endpoints, in the order they were asked for.
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.0.view().endpoints.clone()
    }

    /// Brings an endpoint up. Waits until it is up or refused; for a session a few
    /// seconds, for the edge's answer a few more.
    pub fn start(&self, mut endpoint: config::Endpoint) -> Result<EndpointView, StartError> {
        preflight(&mut endpoint, FETCH_TIMEOUT).map_err(StartError::Invalid)?;
        match self.submit(Request::Start(Box::new(endpoint)))? {
            Some((view, _)) => Ok(view),
            None => Err(StartError::Late),
        }
    }

    /// Has an endpoint be as given: changes the one of that name, or brings it up. Tells
    /// whether it is new. What the edge need not know of, and what it can change in
    /// place, leaves visitors and URL alone; else the endpoint goes and comes again.
    pub fn put(&self, mut endpoint: config::Endpoint) -> Result<(EndpointView, bool), StartError> {
        preflight(&mut endpoint, FETCH_TIMEOUT).map_err(StartError::Invalid)?;
        self.submit(Request::Put(Box::new(endpoint)))?.ok_or(StartError::Late)
    }

    /// Takes an endpoint down, here and at the edge.
    pub fn stop(&self, name: &str) -> Result<(), StartError> {
        self.submit(Request::Stop(name.to_owned())).map(|_| ())
    }

    /// Counts the changes of all that is shown here.
    pub fn changed(&self) -> u32 {
        self.0.changes.load(Ordering::Relaxed)
    }

    /// How busy the workers are.
    pub fn pool(&self) -> PoolNumbers {
        self.0.pool.numbers()
    }

    /// What visitors asked, if anything is captured.
    pub fn inspector(&self) -> Option<&Arc<Inspector>> {
        self.0.inspector.as_ref()
    }

    /// The options as read. The endpoints are not among them: see [`Self::endpoints`].
    pub fn config(&self) -> &config::Agent {
        &self.0.config
    }

    fn submit(&self, request: Request) -> RequestResult {
        let slot = Arc::<ReplySlot>::default();
        let event = Event::Request(request, Arc::clone(&slot));
        if self.0.shutting_down.load(Ordering::Relaxed) || !self.0.events.push(event) {
            return Err(StartError::Late);
        }
        slot.wait()
    }
}
