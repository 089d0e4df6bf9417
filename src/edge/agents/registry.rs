//! Endpoints that are online, by host and port. Decides conflicts, take-overs and pools. No
//! bytes of visitors are forwarded here.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::{self, Protocol};
use super::options::EndpointOptions;
use super::unsent_binds::UnsentBinds;
use crate::edge::places::Places;
use crate::edge::policy::phases::EndpointInfo;
use crate::edge::routes::Labels;
use crate::edge::visitors::stream_target::StreamTarget;
use crate::proto::codes::Refusal;
use crate::proto::proxy_header::ProxyHeader;
use crate::proto::proxy_protocol;
use crate::session::Session;
use crate::sys::sync::{Condvar, Mutex};
use crate::time::Instant;

/// An endpoint that an agent serves.
pub struct OnlineEndpoint {
    /// Bind id: the `Id` of each proxy header.
    pub id: String,
    /// Id that the agent's calls use for this endpoint.
    pub tunnel_id: String,
    /// Protocol of its visitors.
    pub protocol: Protocol,
    /// Its host (perhaps `*.x`); empty for TCP.
    pub host: String,
    /// Its TCP port at this edge; 0 for endpoints that are found by host.
    pub port: u16,
    /// Port in the URL of an internal endpoint; `None`: the endpoint is public.
    pub internal: Option<u16>,
    /// Its URL.
    pub url: String,
    /// Id of the credential that owns it.
    pub account: String,
    /// Client that bound it. The id stays the same over reconnects.
    pub client: String,
    /// Whether the agent presented the valid bind token of an earlier Bind of this name.
    pub has_bind_token: bool,
    /// Options of the edge.
    pub options: EndpointOptions,
    /// Whether it shares its URL with other endpoints.
    pub pooling: bool,
    /// Labels of a labelled tunnel; empty for other endpoints.
    pub labels: Labels,
    /// Session that carries its streams. `None` in tests.
    pub session: Option<Session>,
    /// The visitors' streams of the session.
    pub streams: Arc<Places>,
    /// The endpoints of the session that its agent may not know yet.
    pub unsent_binds: Arc<UnsentBinds>,
    /// Number of the session: the same client may have an older one.
    pub session_number: u64,
    /// Index of that connection among those of its client.
    pub leg: u64,
    /// Texts that describe it. The lock guards nothing else.
    pub details: Mutex<EndpointDetails>,
}

/// Texts that describe an endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointDetails {
    /// Its name in the agent's configuration.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Free text.
    pub metadata: String,
    /// Address that the agent forwards to.
    pub forwards_to: String,
    /// Protocol there; empty for the usual one.
    pub forwards_proto: String,
    /// Text of its traffic policy; empty without one.
    pub traffic_policy: String,
    /// When it went online, in seconds since 1970.
    pub started_at: u64,
}

impl OnlineEndpoint {
    /// The session of its agent.
    pub fn session(&self) -> &Session {
        // Reason: only tests make endpoints without one, and they open no streams.
        self.session.as_ref().unwrap_or_else(|| unreachable!("endpoint without session"))
    }

    /// Waits until the agent knows its endpoints. Returns where its streams are opened. Blocks.
    pub fn wait_for_target(&self) -> StreamTarget {
        self.unsent_binds.wait();
        self.target()
    }

    /// Returns where its streams are opened.
    pub fn target(&self) -> StreamTarget {
        StreamTarget { session: self.session().clone(), streams: Arc::clone(&self.streams) }
    }

    /// Returns whether a visitor with this address may connect.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.options.actions.admits(ip)
    }

    /// Returns whether a request that this endpoint's options allow may go to `other` without
    /// another decision.
    pub fn decides_as(&self, other: &OnlineEndpoint) -> bool {
        self.options.actions.is_same_as(&other.options.actions)
    }

    /// Returns the headers before a visitor's bytes (protocol 6.1, 6.3). `tls`: the visitor of an
    /// HTTP endpoint uses TLS; the edge has terminated the TLS of another visitor.
    pub fn prefix(&self, visitor: SocketAddr, local: SocketAddr, tls: bool) -> Vec<u8> {
        let peer = SocketAddr::new(visitor.ip().to_canonical(), visitor.port());
        let (proto, edge_type) = match self.protocol {
            Protocol::Http if tls => ("https", "3"),
            Protocol::Http => ("http", "3"),
            Protocol::Tls => ("tls", "2"),
            Protocol::Tcp => ("tcp", "1"),
        };
        let header = ProxyHeader {
            id: self.id.clone(),
            client_addr: peer.to_string(),
            proto: proto.into(),
            edge_type: edge_type.into(),
            // By the connection: another endpoint, whose policy forwards to this one, may have
            // terminated TLS.
            passthrough_tls: self.protocol == Protocol::Tls && !tls,
        };
        let mut bytes = header.encode();
        if self.options.proxy_proto != 0 {
            bytes.extend(proxy_protocol::encode(self.options.proxy_proto, peer, local));
        }
        bytes
    }

    /// Returns whether its URL has the scheme of visitors with (`tls`) or without TLS.
    fn serves_scheme(&self, tls: bool) -> bool {
        self.protocol == Protocol::Http && self.url.starts_with("https://") == tls
    }

    /// Returns the same endpoint with other options and texts.
    pub fn with(&self, options: EndpointOptions, details: EndpointDetails) -> Self {
        OnlineEndpoint {
            id: self.id.clone(),
            tunnel_id: self.tunnel_id.clone(),
            protocol: self.protocol,
            host: self.host.clone(),
            port: self.port,
            internal: self.internal,
            url: self.url.clone(),
            account: self.account.clone(),
            client: self.client.clone(),
            has_bind_token: self.has_bind_token,
            options,
            pooling: self.pooling,
            labels: self.labels.clone(),
            session: self.session.clone(),
            streams: Arc::clone(&self.streams),
            unsent_binds: Arc::clone(&self.unsent_binds),
            session_number: self.session_number,
            leg: self.leg,
            details: Mutex::new(details),
        }
    }

    fn key(&self) -> EndpointKey {
        match (self.protocol, self.internal) {
            (_, Some(port)) => internal_key(&self.account, &self.host, port),
            (Protocol::Tcp, None) => EndpointKey::Port(self.port),
            (Protocol::Http | Protocol::Tls, None) => EndpointKey::Host(self.host.clone()),
        }
    }

    /// Returns what policies see of it.
    pub fn info(&self) -> EndpointInfo<'_> {
        let OnlineEndpoint { tunnel_id, url, account, protocol, .. } = self;
        EndpointInfo { tunnel_id, url, account, protocol: *protocol }
    }
}

/// Key of an endpoint. HTTP and TLS endpoints share the host names: both are reached on the
/// https port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointKey {
    /// A host, lower case.
    Host(String),
    /// A TCP port.
    Port(u16),
    /// An internal endpoint. No listener uses this key.
    Internal(Box<InternalKey>),
}

/// Key of an internal endpoint. Each account has its own names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InternalKey {
    account: String,
    host: String,
    port: u16,
}

fn internal_key(account: &str, host: &str, port: u16) -> EndpointKey {
    let (account, host) = (account.to_owned(), host.to_owned());
    EndpointKey::Internal(Box::new(InternalKey { account, host, port }))
}

/// Result of a lookup.
pub enum Lookup {
    /// An endpoint that is online.
    Online(Arc<OnlineEndpoint>),
    /// The session of its agent ended and the name is reserved.
    AgentAway(Protocol),
    /// No endpoint has the name.
    Unknown,
}

/// A name that was online, for its reservation after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedName {
    /// Host, empty for a TCP port of this edge.
    pub host: String,
    /// Port, 0 for public endpoints with a host.
    pub port: u16,
    /// Protocol of its visitors.
    pub protocol: Protocol,
    /// Id of the credential that it is reserved for.
    pub account: String,
}

/// All endpoints.
#[derive(Default)]
pub struct EndpointRegistry {
    table: Mutex<HashMap<EndpointKey, RegistryEntry>>,
    /// Whether names were added or removed since the last [`EndpointRegistry::take_names`].
    changed: AtomicBool,
    /// Called at the first change after it.
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Notified when an endpoint goes offline.
    unbound: Condvar,
}

#[derive(Default)]
struct RegistryEntry {
    members: Vec<Arc<OnlineEndpoint>>,
    last_picked: usize,
    reserved: Option<Reservation>,
}

/// What a Bind has replaced.
pub struct Displaced {
    members: Vec<Arc<OnlineEndpoint>>,
    reserved: Option<Reservation>,
}

impl fmt::Debug for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Displaced").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

/// A name that is kept for the account of a lost agent.
struct Reservation {
    account: String,
    protocol: Protocol,
    until: Instant,
}

impl EndpointRegistry {
    /// Finds the HTTP endpoint of `host` for visitors with or without TLS. The host of a TLS
    /// endpoint is unknown here.
    pub fn find_http(&self, host: &str, tls: bool, now: Instant) -> Lookup {
        match self.find_host(host, tls, now) {
            Lookup::Online(e) if e.protocol != Protocol::Http => Lookup::Unknown,
            Lookup::AgentAway(protocol) if protocol != Protocol::Http => Lookup::Unknown,
            found => found,
        }
    }

    /// Finds the endpoint of `host`: the exact name, else the longest wildcard.
    pub fn find_host(&self, host: &str, tls: bool, now: Instant) -> Lookup {
        let mut routes = self.table.lock();
        let mut away = None;
        let mut key = EndpointKey::Host(host.to_owned());
        let mut rest = host;
        loop {
            match pick(&mut routes, &key, tls, now) {
                Lookup::Unknown => {}
                Lookup::AgentAway(protocol) => away = away.or(Some(protocol)),
                found => return found,
            }
            let Some((_, parent)) = rest.split_once('.') else { break };
            rest = parent;
            key = EndpointKey::Host(format!("*.{parent}"));
        }
        away.map_or(Lookup::Unknown, Lookup::AgentAway)
    }

    /// Returns the members of the endpoint's pool on other agents, at most `max`.
    pub fn pool_members(&self, of: &OnlineEndpoint, max: usize) -> Vec<Arc<OnlineEndpoint>> {
        let routes = self.table.lock();
        let Some(entry) = routes.get(&of.key()) else { return Vec::new() };
        let other = |m: &&Arc<OnlineEndpoint>| {
            m.pooling
                && m.client != of.client
                && m.protocol == of.protocol
                && m.url == of.url
                && m.decides_as(of)
                && m.session.as_ref().is_none_or(|s| !s.is_over())
        };
        entry.members.iter().filter(other).take(max).map(Arc::clone).collect()
    }

    /// Finds an internal endpoint of an account.
    pub fn find_internal(&self, account: &str, host: &str, port: u16, now: Instant) -> Lookup {
        pick(&mut self.table.lock(), &internal_key(account, host, port), true, now)
    }

    /// Finds the endpoint of a TCP port.
    pub fn find_port(&self, port: u16, now: Instant) -> Lookup {
        pick(&mut self.table.lock(), &EndpointKey::Port(port), false, now)
    }

    /// Puts an endpoint online. It replaces the older endpoint of the same client and name,
    /// whose session is dead or which is bound again. Returns what it displaced.
    pub fn bind(&self, new: Arc<OnlineEndpoint>, now: Instant) -> Result<Displaced, Refusal> {
        let mut routes = self.table.lock();
        let entry = routes.entry(new.key()).or_default();
        entry.admits(&new, now)?;
        let is_replaced = |old: &mut Arc<OnlineEndpoint>| replaces(&new, old);
        let members = entry.members.extract_if(.., is_replaced).collect();
        entry.members.push(new);
        let reserved = entry.reserved.take();
        drop(routes);
        self.notify_change();
        Ok(Displaced { members, reserved })
    }

    /// Takes an endpoint offline that could not be served, and puts back what it displaced.
    pub fn undo_bind(&self, endpoint: &OnlineEndpoint, displaced: Displaced) {
        let Displaced { mut members, reserved } = displaced;
        // A session that ended meanwhile did not find its endpoint.
        members.retain(|member| member.session.as_ref().is_none_or(|s| !s.is_over()));
        let mut routes = self.table.lock();
        if let Some(entry) = routes.get_mut(&endpoint.key()) {
            entry.members.retain(|m| !same(m, endpoint));
            entry.members.append(&mut members);
            entry.reserved = entry.reserved.take().or(reserved);
            if entry.members.is_empty() && entry.reserved.is_none() {
                routes.remove(&endpoint.key());
            }
        }
        drop(routes);
        self.notify_change();
        self.unbound.notify_all();
    }

    /// Puts another version of an endpoint in its place.
    pub fn replace(&self, old: &OnlineEndpoint, new: &Arc<OnlineEndpoint>) {
        let mut routes = self.table.lock();
        if let Some(entry) = routes.get_mut(&old.key())
            && let Some(member) = entry.members.iter_mut().find(|member| same(member, old))
        {
            *member = Arc::clone(new);
        }
    }

    /// Sets the function that is called after names are added or removed. It must not block.
    pub fn on_change(&self, notify: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(notify));
    }

    fn notify_change(&self) {
        if !self.changed.swap(true, Ordering::Relaxed)
            && let Some(notify) = self.on_change.get()
        {
            notify();
        }
    }

    /// Returns whether names were added or removed since [`EndpointRegistry::take_names`].
    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// Returns the names that are online or reserved, at most `max`.
    pub fn take_names(&self, max: usize) -> Vec<ReservedName> {
        // Before the read, so that a concurrent change is part of the next call.
        self.changed.store(false, Ordering::Relaxed);
        let routes = self.table.lock();
        routes.iter().filter_map(|(key, entry)| entry.name(key)).take(max).collect()
    }

    /// Reserves a name that was online before a restart, unless it is in use.
    pub fn restore(&self, name: ReservedName, until: Instant) {
        let ReservedName { host, port, protocol, account } = name;
        let key = match port {
            _ if address::is_internal(&host) => internal_key(&account, &host, port),
            0 => EndpointKey::Host(host),
            port => EndpointKey::Port(port),
        };
        let reserved = Some(Reservation { account, protocol, until });
        let entry = RegistryEntry { reserved, ..RegistryEntry::default() };
        self.table.lock().entry(key).or_insert(entry);
    }

    /// Returns the sessions of the same account that have the endpoint's name online.
    pub fn conflicting_sessions(&self, endpoint: &OnlineEndpoint) -> Vec<Session> {
        let routes = self.table.lock();
        let members = routes.get(&endpoint.key()).map(|entry| entry.members.as_slice());
        let members = members.unwrap_or_default().iter();
        let same = members.filter(|m| m.account == endpoint.account);
        same.filter_map(|m| m.session.clone()).collect()
    }

    /// Waits until an endpoint goes offline, at most `time`.
    pub fn wait_for_unbind(&self, time: Duration) {
        let _ = self.unbound.wait_timeout(self.table.lock(), time);
    }

    /// Takes an endpoint offline for good.
    pub fn unbind(&self, endpoint: &OnlineEndpoint) {
        let mut routes = self.table.lock();
        let key = endpoint.key();
        if let Some(entry) = routes.get_mut(&key) {
            entry.members.retain(|m| !same(m, endpoint));
            if entry.members.is_empty() {
                routes.remove(&key);
            }
        }
        drop(routes);
        self.notify_change();
        self.unbound.notify_all();
    }

    /// Takes an endpoint of an ended session offline. Its name is reserved for its account.
    pub fn reserve(&self, endpoint: &OnlineEndpoint, until: Instant) {
        let mut routes = self.table.lock();
        if let Some(entry) = routes.get_mut(&endpoint.key()) {
            let before = entry.members.len();
            entry.members.retain(|m| !same(m, endpoint));
            if entry.members.is_empty() && before > 0 {
                let (account, protocol) = (endpoint.account.clone(), endpoint.protocol);
                entry.reserved = Some(Reservation { account, protocol, until });
            }
        }
        self.unbound.notify_all();
    }

    #[cfg(test)]
    fn contains(&self, endpoint: &OnlineEndpoint) -> bool {
        let routes = self.table.lock();
        routes.get(&endpoint.key()).is_some_and(|s| s.members.iter().any(|m| same(m, endpoint)))
    }

    /// Frees names whose reservation is over.
    pub fn expire_reservations(&self, now: Instant) {
        let mut routes = self.table.lock();
        let before = routes.len();
        routes.retain(|_, entry| {
            !entry.members.is_empty() || entry.reserved.as_ref().is_some_and(|r| r.until > now)
        });
        let expired = routes.len() < before;
        drop(routes);
        if expired {
            self.notify_change();
        }
    }

    /// Ends the reservations of removed accounts.
    pub fn release_unknown_accounts(&self, exists: impl Fn(&str) -> bool) {
        let mut routes = self.table.lock();
        let is_kept = |entry: &RegistryEntry| {
            !entry.members.is_empty() || entry.reserved.as_ref().is_none_or(|r| exists(&r.account))
        };
        routes.retain(|_, entry| is_kept(entry));
        drop(routes);
        self.notify_change();
    }

    /// Returns whether a TCP port is in use or reserved.
    pub fn has_port(&self, port: u16) -> bool {
        self.table.lock().contains_key(&EndpointKey::Port(port))
    }

    /// Returns a TCP port that is reserved for the account and not online, and ends the
    /// reservation. The one that ends first is taken first.
    pub fn take_reserved_port(&self, account: &str) -> Option<u16> {
        let mut routes = self.table.lock();
        let reserved = routes.iter().filter_map(|(key, entry)| match (key, &entry.reserved) {
            (EndpointKey::Port(port), Some(r)) if r.account == account => Some((r.until, *port)),
            _ => None,
        });
        let (_, port) = reserved.min()?;
        routes.remove(&EndpointKey::Port(port));
        Some(port)
    }

    /// Returns the sessions of an account that have a TCP port online.
    pub fn sessions_with_ports(&self, account: &str) -> Vec<Session> {
        let routes = self.table.lock();
        let members = routes.values().flat_map(|entry| &entry.members);
        let same = members.filter(|m| m.protocol == Protocol::Tcp && m.account == account);
        same.filter_map(|m| m.session.clone()).collect()
    }
}

impl RegistryEntry {
    /// Returns the name of this entry, whose key is `key`.
    fn name(&self, key: &EndpointKey) -> Option<ReservedName> {
        let (account, protocol) = match (self.members.first(), &self.reserved) {
            (Some(member), _) => (member.account.clone(), member.protocol),
            (None, Some(reserved)) => (reserved.account.clone(), reserved.protocol),
            (None, None) => return None,
        };
        let (host, port) = match key {
            EndpointKey::Host(host) => (host.clone(), 0),
            EndpointKey::Port(port) => (String::new(), *port),
            EndpointKey::Internal(key) => (key.host.clone(), key.port),
        };
        Some(ReservedName { host, port, protocol, account })
    }

    fn admits(&self, new: &OnlineEndpoint, now: Instant) -> Result<(), Refusal> {
        let online = || {
            Refusal::new(
                334,
                format!(
                    "The endpoint '{}' is already online. Stop the other one first, or start \
                     both with pooling enabled.",
                    new.url
                ),
            )
        };
        if let Some(reserved) = &self.reserved
            && reserved.account != new.account
            && reserved.until > now
        {
            return Err(online());
        }
        let others =
            self.members.iter().filter(|old| !replaces(new, old) && !has_other_scheme(new, old));
        for old in others {
            let shared = is_other_leg(new, old)
                || old.pooling
                    && new.pooling
                    && old.protocol == new.protocol
                    && old.account == new.account;
            if !shared {
                return Err(online());
            }
            if !old.decides_as(new) {
                let text = format!(
                    "The endpoint '{}' is online with other options. Endpoints that share a URL \
                     need the same ones: stop the other one first.",
                    new.url
                );
                return Err(Refusal::new(334, text));
            }
        }
        Ok(())
    }
}

/// Returns whether `new` replaces `old`: a newer session of the same client, or the same
/// endpoint again, proved by the client's id or the bind token.
fn replaces(new: &OnlineEndpoint, old: &OnlineEndpoint) -> bool {
    if old.account != new.account {
        return false;
    }
    let same_client = old.client == new.client;
    if same_client && old.leg != new.leg {
        return false;
    }
    if old.id == new.id {
        return same_client || new.has_bind_token;
    }
    same_client && old.session_number != new.session_number && !new.pooling
}

/// Returns whether both are one endpoint on two legs of one client. These share the load.
fn is_other_leg(new: &OnlineEndpoint, old: &OnlineEndpoint) -> bool {
    old.account == new.account
        && old.client == new.client
        && old.leg != new.leg
        && old.id == new.id
        && old.protocol == new.protocol
}

/// Returns whether one is for `http://` and one for `https://`. In one account these are two
/// endpoints.
fn has_other_scheme(new: &OnlineEndpoint, old: &OnlineEndpoint) -> bool {
    new.account == old.account
        && (new.protocol, old.protocol) == (Protocol::Http, Protocol::Http)
        && new.serves_scheme(true) != old.serves_scheme(true)
}

fn same(a: &OnlineEndpoint, b: &OnlineEndpoint) -> bool {
    a.session_number == b.session_number && a.id == b.id
}

fn pick(
    routes: &mut HashMap<EndpointKey, RegistryEntry>,
    key: &EndpointKey,
    tls: bool,
    now: Instant,
) -> Lookup {
    let Some(entry) = routes.get_mut(key) else { return Lookup::Unknown };
    if entry.members.is_empty() {
        let reserved = entry.reserved.as_ref().filter(|r| r.until > now);
        return reserved.map_or(Lookup::Unknown, |r| Lookup::AgentAway(r.protocol));
    }
    // Members with the visitor's scheme are preferred.
    let by_scheme = entry.members.iter().any(|member| member.serves_scheme(tls));
    let count = entry.members.len();
    let turns = (1..=count).map(|step| (entry.last_picked + step) % count);
    let mut turns =
        turns.filter(|at| !by_scheme || entry.members[*at].serves_scheme(tls)).peekable();
    let next = turns.peek().copied().unwrap_or_default();
    // A member whose session has ended is removed soon: the next one is used.
    let open = |at: &usize| entry.members[*at].session.as_ref().is_none_or(|s| !s.is_over());
    entry.last_picked = turns.find(open).unwrap_or(next);
    Lookup::Online(Arc::clone(&entry.members[entry.last_picked]))
}

#[cfg(test)]
mod tests {
    use super::super::options;
    use super::*;
    use crate::edge::actions::login::LoginContext;
    use crate::edge::login::LoginServices;

    const NOW: Instant = Instant::ZERO;
    const HOUR: Duration = Duration::from_secs(3_600);

    fn endpoint(host: &str, account: &str, client: &str, session_number: u64) -> OnlineEndpoint {
        OnlineEndpoint {
            id: format!("{client}-{host}"),
            tunnel_id: String::new(),
            protocol: Protocol::Http,
            host: host.into(),
            port: 0,
            internal: None,
            url: format!("http://{host}"),
            account: account.into(),
            client: client.into(),
            has_bind_token: false,
            options: EndpointOptions::default(),
            pooling: false,
            labels: Labels::new(),
            session: None,
            streams: Arc::default(),
            unsent_binds: Arc::default(),
            session_number,
            leg: 0,
            details: Mutex::default(),
        }
    }

    fn found(routes: &EndpointRegistry, host: &str) -> Option<String> {
        match routes.find_http(host, false, NOW) {
            Lookup::Online(e) => Some(e.host.clone()),
            _ => None,
        }
    }

    #[test]
    fn requests_are_decided_again_for_other_options() {
        let with = |opts: serde_json::Value| {
            let opts = opts.as_object().unwrap();
            let services = Arc::new(LoginServices::for_tests());
            let logins = LoginContext { account: "c", services: &services, clients: &[] };
            let options = options::read(Protocol::Http, opts, "", logins).unwrap();
            OnlineEndpoint { options, ..endpoint("a.example", "u", "c", 1) }
        };
        let open = with(serde_json::json!({}));
        let closed = with(serde_json::json!({ "Auth": "user:password" }));
        let converted = with(serde_json::json!({ "WebsocketTCPConverter": {} }));
        assert!(open.decides_as(&with(serde_json::json!({}))));
        assert!(closed.decides_as(&with(serde_json::json!({ "auth": "user:password" }))));
        assert!(!open.decides_as(&closed) && !open.decides_as(&converted));
        let routes = EndpointRegistry::default();
        let pooled = |client: &str, of: &OnlineEndpoint| OnlineEndpoint {
            options: of.options.clone(),
            pooling: true,
            ..endpoint("a.example", "u", client, 1)
        };
        routes.bind(pooled("c1", &open).into(), NOW).unwrap();
        routes.bind(pooled("c2", &open).into(), NOW).unwrap();
        for (client, other) in [("c3", &closed), ("c4", &converted)] {
            let Err(e) = routes.bind(pooled(client, other).into(), NOW) else { panic!("{client}") };
            assert_eq!(e.code, Some(334));
            assert!(e.message.contains("other options"), "{e}");
        }
        // A second leg of a client serves the same endpoint, and has its options.
        let leg = |of: &OnlineEndpoint, leg, id: &str| OnlineEndpoint {
            options: of.options.clone(),
            leg,
            id: id.into(),
            ..endpoint("b.example", "u", "c5", leg)
        };
        routes.bind(leg(&open, 0, "ep").into(), NOW).unwrap();
        routes.bind(leg(&open, 1, "ep").into(), NOW).unwrap();
        let Err(e) = routes.bind(leg(&closed, 2, "ep").into(), NOW) else { panic!("bound") };
        assert_eq!(e.code, Some(334));
        assert!(e.message.contains("other options"), "{e}");
    }

    #[test]
    fn what_a_failed_bind_displaced_comes_back() {
        let routes = EndpointRegistry::default();
        let tcp = |client: &str, n| {
            let tcp =
                OnlineEndpoint { protocol: Protocol::Tcp, port: 7, ..endpoint("", "u", client, n) };
            Arc::new(tcp)
        };
        let first = tcp("c", 1);
        routes.bind(Arc::clone(&first), NOW).unwrap();
        let second = tcp("c", 2);
        let displaced = routes.bind(Arc::clone(&second), NOW).unwrap();
        assert!(!routes.contains(&first));
        routes.undo_bind(&second, displaced);
        assert!(routes.contains(&first) && !routes.contains(&second));
        // A reservation comes back too.
        routes.reserve(&first, NOW + HOUR);
        let displaced = routes.bind(Arc::clone(&second), NOW).unwrap();
        routes.undo_bind(&second, displaced);
        assert!(matches!(routes.find_port(7, NOW), Lookup::AgentAway(Protocol::Tcp)));
        let other =
            OnlineEndpoint { protocol: Protocol::Tcp, port: 8, ..endpoint("", "u", "c", 1) };
        let other = Arc::new(other);
        let displaced = routes.bind(Arc::clone(&other), NOW).unwrap();
        routes.undo_bind(&other, displaced);
        assert!(!routes.has_port(8), "nothing was there before");
    }

    #[test]
    fn the_most_specific_name_wins() {
        let routes = EndpointRegistry::default();
        for host in ["a.x.example", "*.x.example", "*.example"] {
            routes.bind(endpoint(host, "u", "c", 1).into(), NOW).unwrap();
        }
        assert_eq!(found(&routes, "a.x.example").as_deref(), Some("a.x.example"));
        assert_eq!(found(&routes, "b.x.example").as_deref(), Some("*.x.example"));
        assert_eq!(found(&routes, "c.b.x.example").as_deref(), Some("*.x.example"));
        assert_eq!(found(&routes, "y.example").as_deref(), Some("*.example"));
        assert_eq!(found(&routes, "example"), None);
    }

    #[test]
    fn a_name_is_bound_once() {
        let routes = EndpointRegistry::default();
        routes.bind(endpoint("a", "u", "c1", 1).into(), NOW).unwrap();
        for (account, client, number) in [("u", "c2", 2), ("v", "c3", 3)] {
            let e = routes.bind(endpoint("a", account, client, number).into(), NOW).unwrap_err();
            assert_eq!(e.code, Some(334));
        }
        // A new connection of the same client replaces the dead one.
        let newer = Arc::new(endpoint("a", "u", "c1", 4));
        routes.bind(Arc::clone(&newer), NOW).unwrap();
        assert!(routes.contains(&newer));
        let old = endpoint("a", "u", "c1", 1);
        routes.reserve(&old, NOW);
        routes.unbind(&old);
        assert!(routes.contains(&newer), "the old session's end does not hurt the new one");
        routes.unbind(&newer);
        assert_eq!(found(&routes, "a"), None);
    }

    #[test]
    fn the_right_to_a_name_is_good_for_the_same_endpoint_only() {
        let routes = EndpointRegistry::default();
        let first = Arc::new(endpoint("a", "u", "c1", 1));
        routes.bind(Arc::clone(&first), NOW).unwrap();
        let again = |has_bind_token: bool, id: &str, account: &str| OnlineEndpoint {
            has_bind_token,
            id: id.into(),
            ..endpoint("a", account, "forgotten", 2)
        };
        for wrong in
            [again(false, &first.id, "u"), again(true, "other", "u"), again(true, &first.id, "v")]
        {
            assert!(routes.bind(wrong.into(), NOW).is_err());
        }
        routes.bind(again(true, &first.id, "u").into(), NOW).unwrap();
        assert!(!routes.contains(&first));
    }

    #[test]
    fn the_legs_of_a_client_serve_together() {
        let routes = EndpointRegistry::default();
        let leg = |n, leg| Arc::new(OnlineEndpoint { leg, ..endpoint("a", "u", "c1", n) });
        let (first, second) = (leg(1, 0), leg(2, 1));
        routes.bind(Arc::clone(&first), NOW).unwrap();
        routes.bind(Arc::clone(&second), NOW).unwrap();
        assert!(routes.contains(&first) && routes.contains(&second));
        // A newer connection replaces its own predecessor only.
        let newer = leg(3, 1);
        routes.bind(Arc::clone(&newer), NOW).unwrap();
        assert!(routes.contains(&first) && routes.contains(&newer) && !routes.contains(&second));
        // Another endpoint of the same client, or another client, does not replace it.
        let other = OnlineEndpoint { id: "other".into(), leg: 2, ..endpoint("a", "u", "c1", 4) };
        assert!(routes.bind(other.into(), NOW).is_err());
        let other = OnlineEndpoint { id: first.id.clone(), leg: 2, ..endpoint("a", "u", "c2", 5) };
        assert!(routes.bind(other.into(), NOW).is_err());
        // A restarted client with the bind token replaces all members.
        let again = OnlineEndpoint {
            id: first.id.clone(),
            has_bind_token: true,
            ..endpoint("a", "u", "c3", 6)
        };
        let again = Arc::new(again);
        routes.bind(Arc::clone(&again), NOW).unwrap();
        assert!(routes.contains(&again) && !routes.contains(&first) && !routes.contains(&newer));
    }

    #[test]
    fn a_lost_name_is_kept_for_its_account() {
        let routes = EndpointRegistry::default();
        let first = Arc::new(endpoint("a", "u", "c1", 1));
        routes.bind(Arc::clone(&first), NOW).unwrap();
        let later = NOW + Duration::from_secs(60);
        routes.reserve(&first, later);
        assert!(matches!(routes.find_http("a", false, NOW), Lookup::AgentAway(Protocol::Http)));
        assert!(routes.bind(endpoint("a", "v", "c2", 2).into(), NOW).is_err());
        routes.expire_reservations(NOW);
        assert!(matches!(routes.find_http("a", false, NOW), Lookup::AgentAway(Protocol::Http)));
        assert!(matches!(routes.find_http("a", false, later), Lookup::Unknown));
        routes.bind(endpoint("a", "u", "c3", 3).into(), NOW).unwrap();
        routes.reserve(&endpoint("a", "u", "c1", 3), later);
        assert!(routes.bind(endpoint("a", "v", "c2", 2).into(), NOW).is_err());
    }

    #[test]
    fn both_schemes_of_a_host_are_two_endpoints_of_one_account() {
        let routes = EndpointRegistry::default();
        let secure = |account: &str, n| OnlineEndpoint {
            url: "https://a".into(),
            ..endpoint("a", account, "c", n)
        };
        let met = |tls| match routes.find_http("a", tls, NOW) {
            Lookup::Online(e) => e.url.clone(),
            _ => String::new(),
        };
        let https = Arc::new(OnlineEndpoint { id: "https".into(), ..secure("u", 1) });
        routes.bind(Arc::clone(&https), NOW).unwrap();
        // A single endpoint serves both schemes.
        assert_eq!((met(false), met(true)), ("https://a".into(), "https://a".into()));
        assert!(routes.bind(endpoint("a", "v", "d", 2).into(), NOW).is_err());
        routes.bind(endpoint("a", "u", "c", 1).into(), NOW).unwrap();
        for _ in 0..3 {
            assert_eq!((met(false), met(true)), ("http://a".into(), "https://a".into()));
        }
        // Each scheme is bound once, and is unbound separately.
        assert!(routes.bind(endpoint("a", "u", "d", 3).into(), NOW).is_err());
        routes.unbind(&https);
        assert_eq!((met(false), met(true)), ("http://a".into(), "http://a".into()));
    }

    #[test]
    fn pools_take_turns() {
        let routes = EndpointRegistry::default();
        let member =
            |client: &str, n| OnlineEndpoint { pooling: true, ..endpoint("a", "u", client, n) };
        routes.bind(member("c1", 1).into(), NOW).unwrap();
        routes.bind(member("c2", 2).into(), NOW).unwrap();
        assert!(routes.bind(endpoint("a", "u", "c3", 3).into(), NOW).is_err());
        let other = OnlineEndpoint { account: "v".into(), ..member("c4", 4) };
        assert!(routes.bind(other.into(), NOW).is_err());
        let mut clients = Vec::new();
        for _ in 0..4 {
            if let Lookup::Online(e) = routes.find_http("a", false, NOW) {
                clients.push(e.client.clone());
            }
        }
        clients.sort();
        assert_eq!(clients, ["c1", "c1", "c2", "c2"]);
        // A member that reconnects replaces itself only.
        routes.bind(member("c1", 5).into(), NOW).unwrap();
        routes.unbind(&member("c2", 2));
        routes.unbind(&member("c1", 5));
        assert_eq!(found(&routes, "a"), None);
    }

    #[test]
    fn names_are_reserved_for_their_accounts_after_a_restart() {
        let (before, after) = (EndpointRegistry::default(), EndpointRegistry::default());
        let tcp = OnlineEndpoint { protocol: Protocol::Tcp, port: 7, ..endpoint("", "u", "c", 1) };
        before.bind(tcp.into(), NOW).unwrap();
        let gone = Arc::new(endpoint("a", "u", "c", 1));
        before.bind(Arc::clone(&gone), NOW).unwrap();
        before.reserve(&gone, NOW + HOUR);
        assert!(before.has_changed());
        let names = before.take_names(10);
        assert!(names.len() == 2 && !before.has_changed() && before.take_names(1).len() == 1);
        for name in names {
            after.restore(name, NOW + HOUR);
        }
        assert!(matches!(after.find_http("a", false, NOW), Lookup::AgentAway(Protocol::Http)));
        assert!(matches!(after.find_http("b", false, NOW), Lookup::Unknown));
        assert!(matches!(after.find_port(7, NOW), Lookup::AgentAway(Protocol::Tcp)));
        assert!(after.bind(endpoint("a", "v", "d", 1).into(), NOW).is_err());
        after.bind(endpoint("a", "u", "d", 1).into(), NOW).unwrap();
        after.expire_reservations(NOW + HOUR);
        assert!(!after.has_port(7) && found(&after, "a").is_some());
    }

    #[test]
    fn a_reserved_port_goes_to_its_account_only() {
        let routes = EndpointRegistry::default();
        for (port, account, hours) in [(1, "u", 2), (2, "u", 1), (3, "v", 1)] {
            let tcp =
                OnlineEndpoint { protocol: Protocol::Tcp, port, ..endpoint("", account, "c", 1) };
            let tcp = Arc::new(tcp);
            routes.bind(Arc::clone(&tcp), NOW).unwrap();
            routes.reserve(&tcp, NOW + HOUR * hours);
        }
        let taken = [0; 3].map(|_| routes.take_reserved_port("u"));
        assert_eq!(taken, [Some(2), Some(1), None]);
        assert!(routes.has_port(3) && !routes.has_port(1));
        routes.release_unknown_accounts(|account| account == "v");
        assert!(routes.has_port(3));
        routes.release_unknown_accounts(|account| account == "u");
        assert!(!routes.has_port(3), "nothing is kept for a removed credential");
    }

    #[test]
    fn internal_names_are_separate_for_each_account() {
        let routes = EndpointRegistry::default();
        let internal = |account: &str, client: &str| OnlineEndpoint {
            internal: Some(443),
            url: "https://a.internal".into(),
            ..endpoint("a.internal", account, client, 1)
        };
        let found =
            |account: &str, port| match routes.find_internal(account, "a.internal", port, NOW) {
                Lookup::Online(e) => Some(e.client.clone()),
                _ => None,
            };
        routes.bind(internal("u", "c1").into(), NOW).unwrap();
        routes.bind(internal("v", "c2").into(), NOW).unwrap();
        assert!(routes.bind(internal("u", "c3").into(), NOW).is_err(), "one of each name");
        assert_eq!(found("u", 443).as_deref(), Some("c1"));
        assert_eq!(found("v", 443).as_deref(), Some("c2"));
        assert_eq!((found("u", 80), found("w", 443)), (None, None));
        // Visitors do not find them.
        for tls in [true, false] {
            assert!(matches!(routes.find_host("a.internal", tls, NOW), Lookup::Unknown));
        }
        assert!(!routes.has_port(443));
        // The names are reserved after a restart.
        let after = EndpointRegistry::default();
        for name in routes.take_names(10) {
            after.restore(name, NOW + HOUR);
        }
        assert!(matches!(after.find_internal("u", "a.internal", 443, NOW), Lookup::AgentAway(_)));
        assert!(matches!(after.find_host("a.internal", true, NOW), Lookup::Unknown));
    }

    #[test]
    fn tls_names_are_not_http_names() {
        let routes = EndpointRegistry::default();
        let tls = OnlineEndpoint { protocol: Protocol::Tls, ..endpoint("a", "u", "c", 1) };
        routes.bind(tls.into(), NOW).unwrap();
        assert_eq!(found(&routes, "a"), None);
        assert!(matches!(routes.find_host("a", true, NOW), Lookup::Online(_)));
        assert!(routes.bind(endpoint("a", "u", "d", 2).into(), NOW).is_err());
        let tcp = OnlineEndpoint { protocol: Protocol::Tcp, port: 7, ..endpoint("", "u", "c", 1) };
        routes.bind(tcp.into(), NOW).unwrap();
        assert!(routes.has_port(7) && !routes.has_port(8));
        assert!(matches!(routes.find_port(7, NOW), Lookup::Online(_)));
    }
}
