//! State that all threads of the edge share, and the decisions that depend on all of it.
//! What belongs to one part (agents, visitors, listeners) is in the type of that part.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::accounts::Accounts;
use super::agents::late_replies::LateReplies;
use super::agents::registry::{EndpointRegistry, Lookup, OnlineEndpoint};
use super::agents::table::AgentTable;
use super::certificates::CertResolver;
use super::config::EdgeConfig;
use super::fetch::EdgeFetcher;
use super::listeners::Listeners;
use super::login::LoginServices;
use super::parking::Parking;
use super::places::Places;
use super::policy::rate_limit::RateTable;
use super::policy::request_places::RequestPlaces;
use super::rest::state::ApiState;
use super::restrictions::IpVerdict;
use super::settings::{EdgeSettings, EdgeTls};
use super::state::EdgeStateDir;
use super::token::TokenKey;
use super::visitors::visitor::{self, Visitor};
use super::workers::{Job, Workers};
use crate::event;
use crate::logging::rate_limit::LineQuota;
use crate::proto::codes::Refusal;
use crate::session::{BufferLimits, ProcessBuffers};
use crate::sys;
use crate::sys::sync::{Mutex, RwLock};

/// Region that agents see.
pub const REGION: &str = "self";

/// Log lines of one kind about the agents of one account.
const AGENT_LINES_PER_MINUTE: u32 = 10;

/// Shared state of an edge.
pub struct Edge {
    /// What a reload replaces.
    pub(super) settings: RwLock<EdgeSettings>,
    /// State directory.
    pub(super) dir: EdgeStateDir,
    /// Key of bind tokens and cookies.
    pub key: TokenKey,
    /// Requests of the edge to other servers.
    pub fetcher: Arc<EdgeFetcher>,
    /// Logins of visitors.
    pub logins: Arc<LoginServices>,
    /// Objects of the REST API.
    pub accounts: Accounts,
    /// State of the REST API.
    pub api: ApiState,
    /// Endpoints that are online.
    pub registry: Arc<EndpointRegistry>,
    /// Responses to agents that are late.
    pub late_replies: Arc<LateReplies>,
    /// Agent sessions.
    pub agents: AgentTable,
    /// Connections of agents without an authtoken.
    pub strangers: Arc<Places>,
    /// Visitors' connections.
    pub visitors: Arc<Places>,
    /// Connections of visitors that were refused and read the reason.
    pub refused: Arc<Places>,
    /// Connections that wait without a thread.
    pub parking: Parking,
    /// Visitors that a thread serves.
    pub threads: Arc<Places>,
    /// Threads of visitors.
    pub workers: Arc<Workers>,
    /// Bytes that wait in all sessions.
    pub buffers: Arc<ProcessBuffers>,
    /// Bytes of bodies that are read before their requests go on.
    pub bodies: Arc<ProcessBuffers>,
    /// Requests of policies that are under way.
    pub policy_requests: Arc<RequestPlaces>,
    /// Bytes of responses to the requests of policies. They have a part of their own, so that slow
    /// internal endpoints of one account do not cause a refusal of the bodies of visitors.
    pub policy_responses: Arc<ProcessBuffers>,
    /// Counters of the policies' rate limits.
    pub rates: Arc<RateTable>,
    /// Listening sockets.
    pub listeners: Listeners,
    /// Port of the http listener.
    pub http_port: u16,
    /// Port of the https listener.
    pub https_port: u16,
    /// Set when the edge begins to stop.
    pub(super) draining: AtomicBool,
    /// Log lines of the last minute for each kind, and for each account where they are about
    /// its agents. Accounts are those of the configuration.
    pub(super) line_quotas: Mutex<HashMap<(&'static str, String), LineQuota>>,
}

impl Edge {
    /// Returns the configuration now.
    pub fn config(&self) -> Arc<EdgeConfig> {
        Arc::clone(&self.settings.read().config)
    }

    /// Returns the TLS configurations now.
    pub fn tls(&self) -> Arc<EdgeTls> {
        Arc::clone(&self.settings.read().tls)
    }

    /// Returns the certificates now.
    pub(super) fn certificates(&self) -> Arc<CertResolver> {
        Arc::clone(&self.settings.read().certificates)
    }

    /// Returns whether a connection that was made for `name` may carry requests for an endpoint
    /// of `host`: one certificate and one account have both (RFC 9110 7.4).
    pub fn serves_together(&self, name: &str, host: &str, endpoint: &OnlineEndpoint) -> bool {
        name.eq_ignore_ascii_case(host)
            || self.certificates().has_both(&name.to_ascii_lowercase(), host)
                && matches!(
                    self.registry.find_http(&name.to_ascii_lowercase(), true, sys::clock()),
                    Lookup::Online(other) if other.account == endpoint.account
                )
    }

    /// Adds the accounts to the settings again. What they no longer allow is ended by
    /// [`super::agents::revocation`].
    pub fn apply_accounts(&self) {
        // The lock orders concurrent changes: the last one sees the newest table.
        let mut settings = self.settings.write();
        settings.set_accounts(&self.accounts.table(), &self.key);
    }

    /// Returns whether a visitor may connect to an endpoint: the IP restrictions of the edge
    /// and of the endpoint admit its address.
    pub fn admits_visitor(&self, endpoint: &OnlineEndpoint, visitor: SocketAddr) -> bool {
        let verdict = self.config().restrictions.endpoints.check(visitor.ip());
        if verdict == IpVerdict::Unenforced {
            self.warn_unenforced(visitor);
        }
        verdict != IpVerdict::Refused && endpoint.admits(visitor.ip())
    }

    /// Returns the limits of the bytes that a session may hold.
    pub fn buffer_limits(&self) -> BufferLimits {
        let limits = self.config().limits;
        BufferLimits {
            session: limits.session_buffer,
            process: Some(Arc::clone(&self.buffers)),
            stall: Some(limits.stall),
        }
    }

    /// Returns the URL scheme of an HTTP endpoint: the requested one or the default.
    pub fn scheme(&self, requested: Option<&'static str>) -> &'static str {
        requested.unwrap_or(if self.config().dev { "http" } else { "https" })
    }

    /// Returns the URL of an endpoint with a host.
    pub fn host_url(&self, scheme: &str, host: &str) -> String {
        let (port, default) =
            if scheme == "http" { (self.http_port, 80) } else { (self.https_port, 443) };
        if port == default {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }

    /// Returns whether `host` is an IP address on which TCP endpoints listen.
    pub fn is_tcp_ip(&self, host: &str) -> bool {
        let ours = self.config().tcp;
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip == ours || ours.is_unspecified())
    }

    /// Begins to stop: each visitor's connection closes after the response under way.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns whether the edge is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Puts an endpoint online. The port of a TCP endpoint listens then.
    pub fn put_online(&self, endpoint: &Arc<OnlineEndpoint>) -> Result<(), Refusal> {
        let displaced = self.registry.bind(Arc::clone(endpoint), sys::clock())?;
        let port = endpoint.port;
        if port == 0 {
            return Ok(());
        }
        // After the step before: the end of the former endpoint may have closed the port, and
        // sees from now on that it is in use.
        self.listeners.open_port(port).map_err(|e| {
            self.registry.undo_bind(endpoint, displaced);
            Refusal::new(307, format!("The port {port} cannot be used: {e}."))
        })
    }

    /// Takes an endpoint offline for good. The port of a TCP endpoint is closed, unless another
    /// endpoint uses it.
    pub fn take_offline(&self, endpoint: &OnlineEndpoint) {
        self.registry.unbind(endpoint);
        let port = endpoint.port;
        if port != 0 {
            self.listeners.close_port_unless(port, || self.registry.has_port(port));
        }
    }

    /// Has a thread serve a visitor. If all are in use, another visitor gives way. Returns
    /// `false` if the visitor is refused. Does not block.
    pub fn run_visitor(&self, visitor: &Arc<Visitor>, job: Job) -> bool {
        let limit = self.config().limits.threads;
        let Some(place) = self.threads.admit(visitor::owner(visitor.client()), limit) else {
            self.warn_full("threads for visitors");
            return false;
        };
        let place = Arc::new(place);
        if !visitor.set_thread(&place) {
            return false;
        }
        self.queue(Box::new(move || {
            job();
            drop(place);
        }))
    }

    /// Has another thread do work for a visitor with this address, whose own thread may be
    /// elsewhere. It takes a place of the visitor's share. Returns `false` if it is refused. Does
    /// not block, and takes no lock of a visitor that gives way.
    pub fn run_for_visitor(&self, client: IpAddr, job: Job) -> bool {
        let limit = self.config().limits.threads;
        let Some((place, leaving)) = self.threads.choose(visitor::owner(client), limit) else {
            self.warn_full("threads for visitors");
            return false;
        };
        self.queue(Box::new(move || {
            // On its own thread: the caller may hold the lock of the exchange that ends.
            if let Some(leaving) = leaving {
                leaving.close();
            }
            job();
            drop(place);
        }))
    }

    fn queue(&self, job: Job) -> bool {
        // Those that give way still run.
        let most = self.config().limits.threads.saturating_mul(2);
        let queued = self.workers.run(job, most);
        if let Err(e) = &queued {
            self.warn_spawn_failed("a visitor", e);
        }
        queued.is_ok()
    }

    /// Logs that a limit is reached, at most once a minute.
    pub fn warn_full(&self, what: &'static str) {
        if let Some(count) = self.count_warning(what, 1) {
            event!(warn, obj = "edge", "limit reached", name = what, count = count);
        }
    }

    /// Logs that a thread could not be started, at most once a minute.
    pub fn warn_spawn_failed(&self, purpose: &'static str, error: &io::Error) {
        if let Some(count) = self.count_warning(purpose, 1) {
            event!(
                error,
                obj = "edge",
                "cannot start a thread",
                name = purpose,
                count = count,
                err = error
            );
        }
    }

    /// Logs an address that an IP restriction would refuse if it was enforced, at most ten times
    /// a minute.
    pub fn warn_unenforced(&self, peer: SocketAddr) {
        if let Some(count) = self.count_warning("restriction not enforced", 10) {
            event!(warn, obj = "edge", "restriction not enforced", r = peer, count = count);
        }
    }

    /// Logs that a connection cannot wait for its peer, at most once a minute.
    pub fn warn_park_failed(&self, error: &io::Error) {
        if let Some(count) = self.count_warning("parking", 1) {
            event!(error, obj = "edge", "cannot park a connection", count = count, err = error);
        }
    }

    /// Logs that a connection to the agents' port was closed before Auth, at most ten times a
    /// minute.
    pub fn count_not_accepted(&self, peer: SocketAddr, why: &str) {
        if let Some(count) = self.count_warning("agents", 10) {
            event!(info, obj = "edge", "agent not accepted", r = peer, count = count, err = why);
        }
    }

    /// Counts a warning of this kind. Returns how many the next log line stands for, or
    /// `None` when `max_lines` were logged in this minute.
    pub fn count_warning(&self, kind: &'static str, max_lines: u32) -> Option<u32> {
        self.count_line(kind, "", max_lines)
    }

    /// Counts a log line about an authenticated agent. Each account has ten of this kind a
    /// minute, so that one cannot hide those of another. Returns as
    /// [`Edge::count_warning`] does.
    pub fn count_agent_line(&self, kind: &'static str, account: &str) -> Option<u32> {
        self.count_line(kind, account, AGENT_LINES_PER_MINUTE)
    }

    /// Counts a log line about an endpoint. An agent may have all of its endpoints started and
    /// stopped once a minute.
    pub fn count_endpoint_line(&self, kind: &'static str, account: &str) -> Option<u32> {
        let endpoints = u32::try_from(self.config().limits.endpoints).unwrap_or(u32::MAX);
        self.count_line(kind, account, endpoints.max(AGENT_LINES_PER_MINUTE))
    }

    fn count_line(&self, kind: &'static str, account: &str, max_lines: u32) -> Option<u32> {
        let mut quotas = self.line_quotas.lock();
        let quota = quotas.entry((kind, account.to_owned()));
        quota.or_insert(LineQuota::per_minute(max_lines)).record(sys::clock())
    }
}
