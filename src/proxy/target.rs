//! What a connection needs to know of its endpoint: where it goes, and what its visitors
//! may see and do. Values only: no connection and no policy of the agent.

use std::sync::Arc;

use rustls::ServerConfig;

use super::files::path::Root;
use super::upstream_tls::UpstreamTlsConfig;
use crate::config::Upstream;
use crate::inspect;
use crate::metrics;

/// What a connection needs to know of its endpoint.
pub struct ProxyTarget {
    /// The endpoint's name.
    pub name: String,
    /// Its public URL.
    pub url: String,
    /// Where its connections go.
    pub upstream: Upstream,
    /// Visitors speak HTTP/1.1, so that they may be answered with a page.
    pub pages: bool,
    /// How to speak TLS to the upstream, if at all.
    pub tls: Option<Arc<UpstreamTlsConfig>>,
    /// Who we are to visitors whose TLS ends here, if it does.
    pub visitor_tls: Option<Arc<ServerConfig>>,
    /// The directory of a `file://` upstream.
    pub root: Option<Root>,
    /// Version of the PROXY header that the edge puts in front (protocol 6.3); 0 for none.
    pub proxy_protocol: u8,
    /// What its visitors are watched with, if they are.
    pub source: Option<inspect::TapSource>,
    /// What its connections count into.
    pub metrics: Arc<metrics::EndpointMetrics>,
}
