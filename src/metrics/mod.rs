//! What an endpoint has done: connections and requests counted, their rates and
//! durations, bytes each way (agent 10.4). Constant memory however much happens,
//! and plain numbers: time comes in as an argument, nobody is asked for anything.
//!
//! [`EndpointMetrics`] is what a connection holds and counts into. A build without a
//! reader of the figures (features `web`, `console`) has one that counts nothing.

mod counter;
mod endpoint;
mod series;

pub use endpoint::EndpointMetrics;
pub use series::{Summary, percentiles};
