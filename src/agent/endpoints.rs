//! Endpoints: what should be bound, what is, and where its visitors go.

use std::io;
use std::sync::{Arc, RwLock};

use serde_json::{Map, Value};

use super::options;
use crate::config::{self, Kind, Scheme};
use crate::proto::messages::{BindExtra, BindRequest, BindResponse, StartTunnelWithLabelRequest};
use crate::proto::secret::Secret;
use crate::proxy::files::path::Root;
use crate::proxy::{self, Routes, Target};
use crate::time::Instant;

/// What the edge said when it bound an endpoint: needed to get the same URL
/// again (protocol 7.2).
pub(super) struct Binding {
    pub(super) id: String,
    pub(super) url: String,
    proto: String,
    opts: Map<String, Value>,
    token: Secret,
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// To be bound now.
    Wanted,
    /// To be bound again at this time.
    Later(Instant),
    /// Bound.
    Up,
    /// Taken down or refused for good.
    Down,
}

/// An endpoint of the configuration.
pub(super) struct Endpoint {
    pub(super) config: config::Endpoint,
    pub(super) standing: Standing,
    pub(super) binding: Option<Binding>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Endpoint {
    /// Prepares what needs files. Errors name the file.
    pub(super) fn new(config: config::Endpoint) -> io::Result<Self> {
        let tls = match config.upstream.scheme {
            Scheme::Https | Scheme::Tls => {
                let http2 = config.upstream_protocol == "http2";
                Some(proxy::client_config(&config.verify, http2)?)
            }
            _ => None,
        };
        let endpoint = Endpoint { config, standing: Standing::Wanted, binding: None, tls };
        endpoint.root()?;
        Ok(endpoint)
    }

    fn root(&self) -> io::Result<Option<Root>> {
        let upstream = &self.config.upstream;
        if upstream.scheme != Scheme::File {
            return Ok(None);
        }
        Root::open(&upstream.dir).map(Some).map_err(|e| {
            let dir = upstream.dir.display();
            io::Error::new(e.kind(), format!("cannot serve the directory {dir}: {e}"))
        })
    }

    /// Whether it has labels instead of a URL.
    pub(super) fn is_labelled(&self) -> bool {
        !self.config.labels.is_empty()
    }

    /// What to send to bind it: the first time as configured, then with what the
    /// edge answered (protocol 5.5, 7.2).
    pub(super) fn bind_request(&self) -> BindRequest {
        let c = &self.config;
        let (id, proto, opts, token) = match &self.binding {
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

    /// What to send to start it as a labelled tunnel (protocol 5.7).
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
            Kind::Tcp => "tcp",
            Kind::Tls => "tls",
            Kind::Http if self.config.url.starts_with("http://") => "http",
            Kind::Http => "https",
        }
    }

    /// Takes note of a successful bind. The first id, token and options are kept
    /// for as long as the edge does not change them.
    pub(super) fn bound(&mut self, response: BindResponse) {
        let BindResponse { id, url, proto, opts, extra, .. } = response;
        self.standing = Standing::Up;
        self.binding = Some(Binding { id, url, proto, opts, token: extra.token });
    }

    /// The same for a labelled tunnel, which has only an id.
    pub(super) fn started(&mut self, id: String) {
        self.standing = Standing::Up;
        self.binding = Some(Binding {
            id,
            url: String::new(),
            proto: String::new(),
            opts: Map::new(),
            token: Secret::default(),
        });
    }

    /// Where its visitors' connections go.
    pub(super) fn target(&self) -> io::Result<Target> {
        let c = &self.config;
        Ok(Target {
            name: c.name.clone(),
            url: self.binding.as_ref().map(|b| b.url.clone()).unwrap_or_default(),
            upstream: c.upstream.clone(),
            pages: c.kind == Kind::Http && c.upstream_protocol != "http2",
            tls: self.tls.clone(),
            root: self.root()?,
            proxy_protocol: c.proxy_protocol != 0,
        })
    }
}

/// Who serves which bind id: read by the reactor for each visitor, written by
/// the supervisor.
#[derive(Default)]
pub(super) struct Table(RwLock<Vec<(String, Arc<Target>)>>);

impl Table {
    pub(super) fn set(&self, id: &str, target: Arc<Target>) {
        let mut table = self.0.write().unwrap_or_else(|p| p.into_inner());
        match table.iter_mut().find(|(known, _)| known == id) {
            Some((_, old)) => *old = target,
            None => table.push((id.to_owned(), target)),
        }
    }

    pub(super) fn remove(&self, id: &str) {
        self.0.write().unwrap_or_else(|p| p.into_inner()).retain(|(known, _)| known != id);
    }

    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(|p| p.into_inner()).clear();
    }
}

impl Routes for Table {
    fn target(&self, id: &str) -> Option<Arc<Target>> {
        let table = self.0.read().unwrap_or_else(|p| p.into_inner());
        table.iter().find(|(known, _)| known == id).map(|(_, target)| Arc::clone(target))
    }
}
