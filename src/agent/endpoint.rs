//! State of one endpoint: its configuration, its binding on each leg, and its upstream. State
//! of several endpoints belongs to `endpoints`.

use std::io;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::options;
use super::requests::ReplySlot;
use super::status::{EndpointState, EndpointView};
use crate::config::{self, EndpointKind, UpstreamScheme};
use crate::event;
use crate::features;
use crate::inspect::Inspector;
use crate::logging::rate_limit::OutageThrottle;
use crate::metrics;
use crate::proto::messages::{BindExtra, BindRequest, BindResponse, StartTunnelWithLabelRequest};
use crate::proto::secret::Secret;
use crate::proxy::files::path::Root;
use crate::proxy::{self, ProxyTarget};
use crate::time::Instant;

/// Response of the edge to a Bind. It is needed to get the same URL again (protocol 7.2).
#[derive(Clone)]
pub(super) struct Binding {
    pub(super) id: String,
    pub(super) url: String,
    /// The edge's public id, for changes in place.
    pub(super) tunnel: String,
    proto: String,
    opts: Map<String, Value>,
    token: Secret,
}

/// State of an endpoint on one leg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BindState {
    /// Waits for its turn.
    Queued,
    /// A Bind is under way.
    Binding,
    /// Refused, and to be bound again at this time.
    RetryAt(Instant),
    /// Visitors are served.
    Bound,
    /// Refused. A further Bind cannot succeed.
    Refused,
}

/// An endpoint on one leg.
pub(super) struct LegBinding {
    pub(super) state: BindState,
    /// The last response of the edge, also after the session was lost.
    pub(super) binding: Option<Binding>,
    /// Number of consecutive refusals. It limits their log lines.
    pub(super) failures: u32,
    pub(super) outage: OutageThrottle,
}

impl LegBinding {
    fn new() -> Self {
        LegBinding {
            state: BindState::Queued,
            binding: None,
            failures: 0,
            outage: OutageThrottle::default(),
        }
    }
}

/// A request that waits until its endpoint is up.
pub(super) struct Waiter {
    pub(super) slot: Arc<ReplySlot>,
    /// Time until which it waits for a session.
    pub(super) until: Instant,
    /// The endpoint is new.
    pub(super) created: bool,
}

/// An endpoint of the configuration or of a request.
pub(super) struct ManagedEndpoint {
    /// Number of the endpoint in this run. Names can occur again.
    pub(super) key: u32,
    pub(super) config: Arc<config::Endpoint>,
    /// State on each leg.
    pub(super) legs: Vec<LegBinding>,
    /// Reason why the edge took it down. It stays down (protocol 7.4).
    pub(super) down: Option<String>,
    /// Reason why it is not up.
    pub(super) why: String,
    /// It comes from the configuration, and a reload may remove it.
    pub(super) configured: bool,
    pub(super) waiter: Option<Waiter>,
    /// The URL that was announced to the user.
    pub(super) announced: Option<String>,
    tls: Option<Arc<proxy::UpstreamTlsConfig>>,
    /// Store of its visitors' requests.
    pub(super) inspector: Option<Arc<Inspector>>,
    metrics: Arc<metrics::EndpointMetrics>,
    visitor_tls: Option<Arc<rustls::ServerConfig>>,
}

impl ManagedEndpoint {
    /// Opens the files that the endpoint needs. An error names the file.
    pub(super) fn new(key: u32, config: config::Endpoint, legs: usize) -> io::Result<Self> {
        let mut endpoint = ManagedEndpoint {
            key,
            config: Arc::new(config),
            legs: Vec::new(),
            down: None,
            why: String::new(),
            configured: true,
            waiter: None,
            announced: None,
            tls: None,
            inspector: None,
            metrics: Arc::default(),
            visitor_tls: None,
        };
        endpoint.add_legs(legs);
        endpoint.prepare()?;
        Ok(endpoint)
    }

    /// Sets the number of legs.
    pub(super) fn add_legs(&mut self, legs: usize) {
        self.legs.resize_with(legs, LegBinding::new);
    }

    /// Applies a configuration that the edge does not need or already has.
    pub(super) fn change(&mut self, config: config::Endpoint) -> io::Result<()> {
        let before = std::mem::replace(&mut self.config, Arc::new(config));
        let changed = self.prepare();
        if changed.is_err() {
            self.config = before;
            return changed;
        }
        for binding in self.legs.iter_mut().filter_map(|on| on.binding.as_mut()) {
            let policy = self.config.traffic_policy.as_str();
            if !policy.is_empty() {
                binding.opts.insert("TrafficPolicy".into(), policy.into());
            } else if binding.opts.contains_key("TrafficPolicy") {
                binding.opts.insert("TrafficPolicy".into(), Value::Null);
            }
        }
        changed
    }

    fn prepare(&mut self) -> io::Result<()> {
        let config = &self.config;
        let tls = match config.upstream.scheme {
            UpstreamScheme::Https | UpstreamScheme::Tls => {
                let http2 = config.upstream_protocol == "http2";
                Some(Arc::new(proxy::UpstreamTlsConfig::new(&config.verify, http2)?))
            }
            _ => None,
        };
        let visitor_tls = proxy::server_config(&config.tls_termination)?;
        self.root()?;
        if let Some(lack) = tls.as_ref().and_then(|client| client.missing_roots()) {
            event!(
                warn,
                obj = "tunnels",
                "cannot verify upstream certificates yet",
                name = config.name,
                addr = config.upstream,
                err = lack
            );
        }
        (self.tls, self.visitor_tls) = (tls, visitor_tls);
        Ok(())
    }

    /// Returns the first binding of all legs.
    pub(super) fn binding(&self) -> Option<&Binding> {
        self.legs.iter().find_map(|on| on.binding.as_ref())
    }

    /// Returns whether visitors come.
    pub(super) fn is_up(&self) -> bool {
        self.legs.iter().any(|on| on.state == BindState::Bound)
    }

    /// Returns whether it stays down.
    pub(super) fn is_down(&self) -> bool {
        self.down.is_some() || self.legs.iter().all(|on| on.state == BindState::Refused)
    }

    /// Returns whether a Bind is under way.
    pub(super) fn is_binding(&self) -> bool {
        self.legs.iter().any(|on| on.state == BindState::Binding)
    }

    /// Returns the endpoint for the local API and the console.
    pub(super) fn view(&self) -> EndpointView {
        let state = match &self.down {
            Some(why) => EndpointState::Down(why.clone()),
            None if self.is_up() => EndpointState::Up,
            None if self.legs.iter().all(|on| on.state == BindState::Refused) => {
                EndpointState::Down(self.why.clone())
            }
            None => EndpointState::Waiting(self.why.clone()),
        };
        let binding = self.binding();
        let id = binding.map(|b| if b.tunnel.is_empty() { &b.id } else { &b.tunnel });
        let proto = match binding.map(|b| b.proto.as_str()) {
            None | Some("") => self.wire_proto(),
            Some(proto) => proto,
        };
        EndpointView {
            name: self.config.name.clone(),
            id: id.cloned().unwrap_or_default(),
            url: binding.map(|b| b.url.clone()).unwrap_or_default(),
            proto: proto.to_owned(),
            config: Arc::clone(&self.config),
            state,
            metrics: Arc::clone(&self.metrics),
        }
    }

    fn root(&self) -> io::Result<Option<Root>> {
        let upstream = &self.config.upstream;
        if upstream.scheme != UpstreamScheme::File || !features::FILES {
            return Ok(None);
        }
        Root::open(&upstream.dir).map(Some).map_err(|e| {
            let dir = upstream.dir.display();
            io::Error::new(e.kind(), format!("cannot serve the directory {dir}: {e}"))
        })
    }

    /// Returns whether it has labels instead of a URL.
    pub(super) fn is_labelled(&self) -> bool {
        !self.config.labels.is_empty()
    }

    /// Returns the Bind for a leg: the first time as configured, later with the edge's response
    /// on that leg, else on another leg (protocol 1, 5.5, 7.2).
    pub(super) fn bind_request(&self, leg: usize) -> BindRequest {
        let c = &self.config;
        let binding = self.legs[leg].binding.as_ref().or_else(|| self.binding());
        let (id, proto, opts, token) = match binding {
            Some(b) => (b.id.clone(), b.proto.clone(), b.opts.clone(), b.token.clone()),
            None => {
                let proto = self.wire_proto().to_owned();
                (String::new(), proto, options::of(&self.config), Secret::default())
            }
        };
        BindRequest {
            id,
            proto,
            forwards_to: c.upstream.to_string(),
            forwards_proto: c.upstream_protocol.clone(),
            opts,
            extra: BindExtra {
                name: c.name.clone(),
                description: c.description.clone(),
                token,
                metadata: c.metadata.clone(),
                bindings: c.bindings.clone(),
                pooling_enabled: c.pooling,
            },
        }
    }

    /// Returns the request that starts it as a labelled tunnel (protocol 5.7).
    pub(super) fn label_request(&self) -> StartTunnelWithLabelRequest {
        let c = &self.config;
        StartTunnelWithLabelRequest {
            labels: c.labels.clone(),
            forwards_to: c.upstream.to_string(),
            forwards_proto: c.upstream_protocol.clone(),
            metadata: c.metadata.clone(),
        }
    }

    fn wire_proto(&self) -> &'static str {
        match self.config.kind {
            EndpointKind::Tcp => "tcp",
            EndpointKind::Tls => "tls",
            EndpointKind::Http if self.config.url.starts_with("http://") => "http",
            EndpointKind::Http => "https",
        }
    }

    /// Stores a successful bind on a leg. Returns the endpoint's former id there, unless
    /// another leg has it. A labelled tunnel has only an id.
    pub(super) fn bound(&mut self, leg: usize, response: BindResponse) -> Option<String> {
        let BindResponse { id, url, proto, opts, extra, .. } = response;
        let binding = Binding { id, url, tunnel: extra.tunnel_id, proto, opts, token: extra.token };
        let before = self.legs[leg].binding.take();
        self.legs[leg] =
            LegBinding { state: BindState::Bound, binding: Some(binding), ..LegBinding::new() };
        self.why.clear();
        let before = before?.id;
        (!self.ids().any(|id| *id == before)).then_some(before)
    }

    /// Returns the legs where it is bound.
    pub(super) fn bound_legs(&self) -> impl Iterator<Item = (usize, &Binding)> {
        let bound = self.legs.iter().enumerate().filter(|(_, on)| on.state == BindState::Bound);
        bound.filter_map(|(leg, on)| Some((leg, on.binding.as_ref()?)))
    }

    /// Returns the bind ids of its visitors.
    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        self.legs.iter().filter_map(|on| on.binding.as_ref()).map(|b| &b.id)
    }

    /// Returns the target of its visitors' connections.
    pub(super) fn target(&self) -> io::Result<ProxyTarget> {
        let c = &self.config;
        let pages = c.kind == EndpointKind::Http && c.upstream_protocol != "http2";
        let proxied = c.proxy_protocol != 0;
        let inspector = self.inspector.as_ref().filter(|_| pages && c.inspect);
        Ok(ProxyTarget {
            name: c.name.clone(),
            url: self.binding().map(|b| b.url.clone()).unwrap_or_default(),
            upstream: c.upstream.clone(),
            pages,
            tls: self.tls.clone(),
            visitor_tls: self.visitor_tls.clone(),
            root: self.root()?,
            proxy_protocol: c.proxy_protocol,
            source: inspector.map(|i| i.source(&c.name, proxied, &self.metrics)),
            metrics: Arc::clone(&self.metrics),
        })
    }
}
