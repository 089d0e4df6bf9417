//! Status of the agent for other threads: plain values, and the latency, which changes more
//! often. Decisions do not belong here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::config;
use crate::metrics;
use crate::time::Instant;

/// Whether a session is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentState {
    /// No session has been set up yet.
    Connecting,
    /// At least one session is set up.
    Online,
    /// A session was set up before, and none is now.
    Reconnecting,
}

impl AgentState {
    /// Returns the name of the state, such as `online`.
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
    /// State of the sessions.
    pub state: AgentState,
    /// Time of the last change of the state.
    pub since: Instant,
    /// Reason why no session is set up; empty while online.
    pub why: String,
    /// Name of the account, from the edge.
    pub account: String,
    /// Plan of the account.
    pub plan: String,
    /// A text of the edge for the user.
    pub banner: String,
    /// Warning of the edge about the age of this version.
    pub deprecation: String,
    /// Connections to the edge, in order.
    pub legs: Vec<LegStatus>,
    /// Number of sessions set up since the start.
    pub sessions: u32,
    /// Time of the next attempt, during a wait.
    pub next_try: Option<Instant>,
}

/// Whether visitors reach an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// The edge forwards visitors.
    Up,
    /// Not up yet or at the moment, with the reason.
    Waiting(String),
    /// Down for good, with the reason.
    Down(String),
}

/// An endpoint for the local API and the console.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// Its name.
    pub name: String,
    /// The edge's public id, else the bind id; empty before the first bind.
    pub id: String,
    /// Its public URL; empty before the first bind, and for labels.
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
    /// Latencies of the legs, beside the status because each heartbeat changes them.
    pub(super) latencies: Vec<Arc<Latency>>,
    pub(super) endpoints: Vec<EndpointView>,
}

/// The last latency of a leg in microseconds; 0: not known yet.
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
