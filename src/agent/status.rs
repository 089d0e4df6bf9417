//! What the agent shows of itself: plain values, and the latency that changes between two
//! of them. Nothing is decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config;
use crate::metrics;
use crate::time::Instant;

/// Whether a session is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// None has been set up yet.
    Connecting,
    /// At least one is set up.
    Online,
    /// One was set up before.
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
    /// The edge's region.
    pub region: String,
    /// Round trip of the last heartbeat.
    pub latency: Option<Duration>,
    /// Whether it serves visitors.
    pub online: bool,
}

/// Status of the agent.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whether there is a session.
    pub state: AgentState,
    /// Since when.
    pub since: Instant,
    /// Why no session is set up; empty while online.
    pub why: String,
    /// Name of the account, from the edge.
    pub account: String,
    /// Its plan.
    pub plan: String,
    /// A text of the edge for the user.
    pub banner: String,
    /// Warning of the edge about the age of this version.
    pub deprecation: String,
    /// The connections, the first one first.
    pub legs: Vec<LegStatus>,
    /// Sessions set up since the start.
    pub sessions: u32,
    /// When the next attempt is, while there is a wait.
    pub next_try: Option<Instant>,
}

/// Whether visitors reach an endpoint.
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
    /// The edge's public id, else the bind id; empty until it was bound.
    pub id: String,
    /// Its public URL; empty until it was bound, and for labels.
    pub url: String,
    /// `https`, `http`, `tcp`, `tls`.
    pub proto: String,
    /// Its configuration.
    pub config: Arc<config::Endpoint>,
    /// Whether visitors reach it.
    pub state: EndpointState,
    /// Its figures.
    pub metrics: Arc<metrics::EndpointMetrics>,
}

/// The status and the endpoints, replaced as a whole.
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

    pub(super) fn read(&self) -> Option<Duration> {
        let us = self.0.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us.into()))
    }
}
