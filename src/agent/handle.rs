//! Handle by which other threads read the agent's status and request endpoints. A request is an
//! event for the supervisor. The calling thread waits for the response.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::events::{AgentEvent, EventQueue};
use super::preflight::{FETCH_TIMEOUT, preflight};
use super::requests::{ReplySlot, Request, RequestResult, StartError};
use super::status::{EndpointView, Status, View};
use super::updates::UpdateHandle;
use crate::config;
use crate::inspect::Inspector;
use crate::net::resolver::listen_addresses;
use crate::proxy::{Pool, PoolNumbers};
use crate::replay::Replayer;
use crate::sys::sync::{Mutex, MutexGuard};

/// Handle of the running agent. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<AgentShared>);

/// State that the supervisor and its handles share.
pub(super) struct AgentShared {
    pub(super) config: config::Agent,
    pub(super) events: Arc<EventQueue>,
    pub(super) pool: Arc<Pool>,
    pub(super) replayer: Option<Arc<Replayer>>,
    pub(super) updates: UpdateHandle,
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
        updates: UpdateHandle,
        status: Status,
    ) -> Self {
        let view = View { status, latencies: Vec::new(), endpoints: Vec::new() };
        AgentShared {
            config,
            events,
            pool,
            replayer,
            updates,
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

    /// Returns the counter of changes.
    pub(super) fn changes(&self) -> &Arc<AtomicU32> {
        &self.changes
    }

    /// Rejects further requests.
    pub(super) fn end(&self) {
        self.shutting_down.store(true, Ordering::Relaxed);
        self.pool.close();
    }
}

impl Handle {
    /// Returns the status of the agent.
    pub fn status(&self) -> Status {
        let view = self.0.view();
        let mut status = view.status.clone();
        for (leg, latency) in status.legs.iter_mut().zip(&view.latencies) {
            leg.latency = latency.read();
        }
        status
    }

    /// Returns the endpoints, in the order of the requests for them.
    pub fn endpoints(&self) -> Vec<EndpointView> {
        self.0.view().endpoints.clone()
    }

    /// Starts an endpoint. Waits until it is up or refused: a few seconds for a session, and a
    /// few more for the edge's response.
    pub fn start(&self, mut endpoint: config::Endpoint) -> Result<EndpointView, StartError> {
        preflight(&mut endpoint, FETCH_TIMEOUT).map_err(StartError::Invalid)?;
        match self.submit(Request::Start(Box::new(endpoint)))? {
            Some((view, _)) => Ok(view),
            None => Err(StartError::Late),
        }
    }

    /// Applies a configuration to the endpoint of that name, or starts it. Returns whether it
    /// is new. Uses the least disruptive change: connections and URL stay if only this host is
    /// affected or if the edge can change it in place.
    pub fn put(&self, mut endpoint: config::Endpoint) -> Result<(EndpointView, bool), StartError> {
        preflight(&mut endpoint, FETCH_TIMEOUT).map_err(StartError::Invalid)?;
        self.submit(Request::Put(Box::new(endpoint)))?.ok_or(StartError::Late)
    }

    /// Stops an endpoint, here and at the edge.
    pub fn stop(&self, name: &str) -> Result<(), StartError> {
        self.submit(Request::Stop(name.to_owned())).map(|_| ())
    }

    /// Returns the number of changes of the status and the endpoints.
    pub fn changed(&self) -> u32 {
        self.0.changes.load(Ordering::Relaxed)
    }

    /// Returns how busy the workers are.
    pub fn pool(&self) -> PoolNumbers {
        self.0.pool.numbers()
    }

    /// Returns the captured requests, if any are captured.
    pub fn inspector(&self) -> Option<&Arc<Inspector>> {
        self.0.inspector()
    }

    /// Returns the replayer, if requests are captured.
    pub fn replayer(&self) -> Option<&Arc<Replayer>> {
        self.0.replayer.as_ref()
    }

    /// Returns the handle of updates.
    pub fn updates(&self) -> &UpdateHandle {
        &self.0.updates
    }

    /// Returns the options of the configuration. For endpoints see [`Self::endpoints`].
    pub fn config(&self) -> &config::Agent {
        &self.0.config
    }

    /// Returns the addresses of a `host:port` on which this machine listens.
    pub fn listen_addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
        listen_addresses(text)
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
