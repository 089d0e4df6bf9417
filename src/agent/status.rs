//! What the agent shows of itself: plain values, and the latency that changes between two
//! of them. Nothing is decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config;
use crate::metrics;
use crate::time::Instant;

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

    pub(super) fn read(&self) -> Option<Duration> {
        let us = self.0.load(Ordering::Relaxed);
        (us > 0).then(|| Duration::from_micros(us.into()))
    }
}
