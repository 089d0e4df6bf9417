//! Properties of an endpoint that its connections need: the upstream and the options for
//! visitors. Values only.

use std::sync::Arc;

use rustls::ServerConfig;

use super::files::path::Root;
use super::upstream_tls::UpstreamTlsConfig;
use crate::config::Upstream;
use crate::inspect;
use crate::metrics;

/// Properties of an endpoint that its connections need.
pub struct ProxyTarget {
    /// The endpoint's name.
    pub name: String,
    /// Its public URL.
    pub url: String,
    /// Destination of its connections.
    pub upstream: Upstream,
    /// Visitors speak HTTP/1.1, so they may be answered with a page.
    pub pages: bool,
    /// TLS configuration for the upstream, if it uses TLS.
    pub tls: Option<Arc<UpstreamTlsConfig>>,
    /// TLS configuration for visitors, if the agent terminates their TLS.
    pub visitor_tls: Option<Arc<ServerConfig>>,
    /// The directory of a `file://` upstream.
    pub root: Option<Root>,
    /// Version of the PROXY protocol header from the edge (protocol 6.3); 0: no header.
    pub proxy_protocol: u8,
    /// Source of the taps for its connections, if requests are captured.
    pub source: Option<inspect::TapSource>,
    /// Counters for its connections.
    pub metrics: Arc<metrics::EndpointMetrics>,
}
