//! The self-hosted edge: accepts agents, gives their endpoints public URLs, and
//! passes visitors on. One process on one machine.
//!
//! The way of a visitor's bytes is in [`visitors`], the way of an agent in [`agents`].

pub mod agents;
pub mod args;
pub mod certificates;
pub mod config;
pub mod listeners;
pub mod run;
pub mod state;
pub mod token;
pub mod visitors;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::ServerConfig;

use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::sys;
use crate::sys::sync::Mutex;

/// What all threads of the edge share.
pub struct Edge {
    config: config::EdgeConfig,
    key: token::TokenKey,
    registry: agents::registry::EndpointRegistry,
    agents: agents::table::AgentTable,
    visitors: Arc<visitors::tracker::VisitorTracker>,
    listeners: listeners::Listeners,
    http_port: u16,
    https_port: u16,
    agent_tls: Arc<ServerConfig>,
    visitor_tls: Arc<ServerConfig>,
    opaque_tls: Arc<ServerConfig>,
    draining: AtomicBool,
    /// When each bound was last complained about.
    warning_counts: Mutex<HashMap<&'static str, LineQuota>>,
}

impl Edge {
    /// An edge without agents. `tls`: for agents, for visitors, for TLS endpoints
    /// that end here.
    pub fn new(
        config: config::EdgeConfig,
        key: token::TokenKey,
        listeners: listeners::Listeners,
        (http_port, https_port): (u16, u16),
        [agent_tls, visitor_tls, opaque_tls]: [Arc<ServerConfig>; 3],
    ) -> Self {
        Edge {
            config,
            key,
            registry: agents::registry::EndpointRegistry::default(),
            agents: agents::table::AgentTable::default(),
            visitors: Arc::default(),
            listeners,
            http_port,
            https_port,
            agent_tls,
            visitor_tls,
            opaque_tls,
            draining: AtomicBool::new(false),
            warning_counts: Mutex::default(),
        }
    }

    /// Who is online.
    pub fn registry(&self) -> &agents::registry::EndpointRegistry {
        &self.registry
    }

    /// The sessions.
    pub fn agents(&self) -> &agents::table::AgentTable {
        &self.agents
    }

    /// The visitors.
    pub fn visitors(&self) -> &Arc<visitors::tracker::VisitorTracker> {
        &self.visitors
    }

    /// The listeners.
    pub fn listeners(&self) -> &listeners::Listeners {
        &self.listeners
    }

    /// The bounds.
    pub fn limits(&self) -> &config::Limits {
        &self.config.limits
    }

    /// Who may connect.
    pub fn credentials(&self) -> &agents::credentials::Credentials {
        &self.config.credentials
    }

    /// The key of all rights.
    pub fn key(&self) -> &token::TokenKey {
        &self.key
    }

    /// Endpoints get names below it.
    pub fn domain(&self) -> &str {
        &self.config.domain
    }

    /// Hosts outside of it that may be bound.
    pub fn domains(&self) -> &[String] {
        &self.config.domains
    }

    /// Whether it runs for trying it.
    pub fn is_dev(&self) -> bool {
        self.config.dev
    }

    /// What agents are told about where it is.
    pub fn region(&self) -> &str {
        "self"
    }

    /// The scheme of an HTTP endpoint that named this one, or none.
    pub fn scheme(&self, named: Option<&'static str>) -> &'static str {
        named.unwrap_or(if self.config.dev { "http" } else { "https" })
    }

    /// The host of TCP endpoints' URLs.
    pub fn tcp_host(&self) -> &str {
        &self.config.domain
    }

    /// Whether `host` is an address of the TCP endpoints.
    pub fn is_tcp_ip(&self, host: &str) -> bool {
        let ours = self.config.tcp;
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip == ours || ours.is_unspecified())
    }

    /// The port of the http listener.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// The port of the https listener.
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// TLS towards agents.
    pub fn agent_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.agent_tls)
    }

    /// TLS towards visitors who speak HTTP.
    pub fn visitor_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.visitor_tls)
    }

    /// TLS towards visitors who speak anything.
    pub fn opaque_tls(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.opaque_tls)
    }

    /// Begins to stop: no visitor's connection takes another request.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Closes the port of a TCP endpoint that went, if nobody else has it.
    pub fn close_unused_port(&self, port: u16) {
        if port != 0 && !self.registry.ports().contains(&port) {
            self.listeners.close_port(port);
        }
    }

    /// Logs that a bound is reached; not more than once a minute.
    pub fn warn_full(&self, what: &'static str) {
        if let Some(count) = self.count_warning(what, 1) {
            event!(warn, obj = "edge", "refused, the limit is reached", name = what, count = count);
        }
    }

    /// Of how many troubles of this kind a line is to tell now, if there is to be one:
    /// `most` a minute.
    pub fn count_warning(&self, what: &'static str, most: u32) -> Option<u32> {
        let mut warning_counts = self.warning_counts.lock();
        warning_counts.entry(what).or_insert(LineQuota::per_minute(most)).record(sys::clock())
    }
}
