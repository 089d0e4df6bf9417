//! What an endpoint has done: connections and requests counted, their rates and
//! durations, bytes each way (agent 10.4). Constant memory however much happens,
//! and plain numbers: time comes in as an argument, nobody is asked for anything.
//!
//! [`EndpointMetrics`] is what a connection holds and counts into. A build without a
//! reader of the figures (features `web`, `console`) has one that counts nothing.

#[cfg(any(feature = "web", feature = "console", test))]
mod counter;
#[cfg(any(feature = "web", feature = "console", test))]
mod endpoint;
#[cfg(not(any(feature = "web", feature = "console", test)))]
#[path = "stub.rs"]
mod endpoint;
#[cfg(any(feature = "web", feature = "console", test))]
mod series;

pub use endpoint::EndpointMetrics;
#[cfg(any(feature = "web", feature = "console", test))]
pub use series::{Summary, percentiles};
