//! Stub of an endpoint's metrics in a build without a reader.

use std::time::Duration;

use crate::time::Instant;

/// Counts nothing.
#[derive(Debug, Default)]
pub struct EndpointMetrics;

impl EndpointMetrics {
    /// Does nothing.
    pub fn connection_began(&self, _now: Instant) {}

    /// Does nothing.
    pub fn connection_ended(&self, _since: Instant, _now: Instant) {}

    /// Does nothing.
    pub fn http_request(&self, _took: Duration, _now: Instant) {}

    /// Does nothing.
    pub fn received(&self, _bytes: usize) {}

    /// Does nothing.
    pub fn sent(&self, _bytes: usize) {}
}
