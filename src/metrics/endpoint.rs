//! Metrics of one endpoint, shared by its connections and the readers.

use std::time::Duration;

use super::counter::Counter;
use super::series::{Series, Summary};
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// Metrics of one endpoint. They exist as long as the endpoint, across all binds.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    conns: Mutex<Series>,
    http: Mutex<Series>,
    received: Counter,
    sent: Counter,
}

impl EndpointMetrics {
    /// Counts the begin of a connection.
    pub fn connection_began(&self, now: Instant) {
        self.conns.lock().began(now);
    }

    /// Counts the end of a connection that began at `since`.
    pub fn connection_ended(&self, since: Instant, now: Instant) {
        self.conns.lock().ended(now.since(since));
    }

    /// Counts a request with its duration.
    pub fn http_request(&self, took: Duration, now: Instant) {
        let mut http = self.http.lock();
        http.happened(now);
        http.took(took);
    }

    /// Counts bytes from a visitor.
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes);
    }

    /// Counts bytes to a visitor.
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes);
    }

    /// Returns the summary of its connections.
    pub fn conns(&self, now: Instant) -> Summary {
        self.conns.lock().summary(now)
    }

    /// Appends the durations of its last connections, in nanoseconds.
    pub fn durations(&self, all: &mut Vec<f32>) {
        all.extend_from_slice(self.conns.lock().durations());
    }

    /// Returns the summary of its HTTP requests; zeros unless they are inspected.
    pub fn http(&self, now: Instant) -> Summary {
        self.http.lock().summary(now)
    }

    /// Returns the numbers of bytes from visitors and to visitors.
    pub fn bytes(&self) -> (u64, u64) {
        (self.received.sum(), self.sent.sum())
    }
}
