//! The handle by which other threads read the agent's status and request endpoints. A
//! request is an event for the supervisor; the calling thread waits for the answer. No
//! sessions here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::events::{AgentEvent, EventQueue};
use super::preflight::{FETCH_TIMEOUT, preflight};
use super::requests::{ReplySlot, Request, RequestResult, StartError};
use super::status::{AgentState, EndpointView, Status, View};
use crate::config;
use crate::inspect::Inspector;
use crate::proxy::{Pool, PoolNumbers};
use crate::replay::Replayer;
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};

/// A handle on the running agent. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<AgentShared>);

/// What the supervisor and its handles share.
pub(super) struct AgentShared {
    pub(super) config: config::Agent,
    pub(super) events: Arc<EventQueue>,
    pub(super) pool: Arc<Pool>,
    pub(super) replayer: Option<Arc<Replayer>>,
    view: Mutex<View>,
    changes: Arc<AtomicU32>,
    shutting_down: AtomicBool,
}

impl AgentShared {
    pub(super) fn new(
        config: config::Agent,
        events: Arc<EventQueue>,
        pool: Arc<Pool>,
        replayer: Option<Arc<Replayer>>,
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
            replayer,
            view: Mutex::new(view),
            changes: Arc::default(),
            shutting_down: AtomicBool::new(false),
        }
    }

    pub(super) fn inspector(&self) -> Option<&Arc<Inspector>> {
        self.replayer.as_ref().map(|replayer| replayer.inspector())
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
        self.0.inspector()
    }

    /// Sends captured requests again, if anything is captured.
    pub fn replayer(&self) -> Option<&Arc<Replayer>> {
        self.0.replayer.as_ref()
    }

    /// The options as read. The endpoints are not among them: see [`Self::endpoints`].
    pub fn config(&self) -> &config::Agent {
        &self.0.config
    }

    fn submit(&self, request: Request) -> RequestResult {
        let slot = Arc::<ReplySlot>::default();
        let event = AgentEvent::Request(request, Arc::clone(&slot));
        if self.0.shutting_down.load(Ordering::Relaxed) || !self.0.events.push(event) {
            return Err(StartError::Late);
        }
        slot.wait()
    }
}
