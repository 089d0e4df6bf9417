//! Stands for the figures of an endpoint in a build where nobody reads them.

use std::time::Duration;

use crate::time::Instant;

/// Counts nothing.
#[derive(Debug, Default)]
pub struct EndpointMetrics;

impl EndpointMetrics {
    /// A connection began.
    pub fn connection_began(&self, _now: Instant) {}

    /// A connection that began at `since` is over.
    pub fn connection_ended(&self, _since: Instant, _now: Instant) {}

    /// A request was answered.
    pub fn http_request(&self, _took: Duration, _now: Instant) {}

    /// Bytes came from a visitor.
    pub fn received(&self, _bytes: usize) {}

    /// Bytes went to a visitor.
    pub fn sent(&self, _bytes: usize) {}
}
