//! The local API, the web page and the metrics.

pub mod page;
