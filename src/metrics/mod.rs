//! Metrics of endpoints: counts, rates and durations of connections and requests, and bytes in
//! each direction (agent 10.4). Constant memory. Plain numbers: time is an argument.
//!
//! Connections count into [`EndpointMetrics`]. A build without a reader of the metrics
//! (features `web`, `console`) has a stub that counts nothing.

mod counter;
mod endpoint;
mod series;

pub use endpoint::EndpointMetrics;
pub use series::{Summary, percentiles};
