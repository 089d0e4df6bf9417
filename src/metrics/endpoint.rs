//! The figures of one endpoint, shared by its connections and those who ask.

use std::time::Duration;

use super::counter::Counter;
use super::series::{Series, Summary};
use crate::sys::sync::Mutex;
use crate::time::Instant;

/// The figures of one endpoint. They live as long as it does, however often it
/// is bound anew.
#[derive(Debug, Default)]
pub struct EndpointMetrics {
    conns: Mutex<Series>,
    http: Mutex<Series>,
    received: Counter,
    sent: Counter,
}

impl EndpointMetrics {
    /// A connection began.
    pub fn connection_began(&self, now: Instant) {
        self.conns.lock().began(now);
    }

    /// A connection that began at `since` is over.
    pub fn connection_ended(&self, since: Instant, now: Instant) {
        self.conns.lock().ended(now.since(since));
    }

    /// A request was answered; it took so long.
    pub fn http_request(&self, took: Duration, now: Instant) {
        let mut http = self.http.lock();
        http.happened(now);
        http.took(took);
    }

    /// Bytes came from a visitor.
    pub fn received(&self, bytes: usize) {
        self.received.add(bytes);
    }

    /// Bytes went to a visitor.
    pub fn sent(&self, bytes: usize) {
        self.sent.add(bytes);
    }

    /// Its connections so far.
    pub fn conns(&self, now: Instant) -> Summary {
        self.conns.lock().summary(now)
    }

    /// Adds how long its last connections took, in nanoseconds.
    pub fn durations(&self, all: &mut Vec<f32>) {
        all.extend_from_slice(self.conns.lock().durations());
    }

    /// Its HTTP requests so far; nothing but zeros unless they are inspected.
    pub fn http(&self, now: Instant) -> Summary {
        self.http.lock().summary(now)
    }

    /// Bytes from visitors and bytes to visitors.
    pub fn bytes(&self) -> (u64, u64) {
        (self.received.sum(), self.sent.sum())
    }
}
