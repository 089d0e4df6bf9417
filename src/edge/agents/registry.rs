//! Which endpoints are online: hosts and ports, each with the agents that serve
//! it. Decides conflicts, take-overs and pools; knows nothing of how bytes flow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::Kind;
use super::options::Options;
use crate::edge::visitors::conn::Conn;
use crate::proto::codes::Refusal;
use crate::proto::proxy_header::ProxyHeader;
use crate::proto::proxy_protocol;
use crate::session::Session;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::time::Instant;

/// An endpoint that an agent serves.
pub struct Endpoint {
    /// Bind id: the `Id` of each proxy header.
    pub id: String,
    /// Id for the calls about it.
    pub tunnel: String,
    /// What its visitors speak.
    pub kind: Kind,
    /// Its host (perhaps `*.x`); empty for TCP.
    pub host: String,
    /// Its port; 0 unless TCP.
    pub port: u16,
    /// Its public URL.
    pub url: String,
    /// Whose it is: the credential.
    pub account: String,
    /// The client that bound it; the same over reconnects.
    pub client: String,
    /// Whether the agent showed the right to the name that an earlier Bind gave it.
    pub right: bool,
    /// What happens to its visitors.
    pub options: Options,
    /// Whether it shares its URL.
    pub pooling: bool,
    /// Where its streams go. `None` in tests.
    pub session: Option<Session>,
    /// Number of the session: the same client may have an older one.
    pub session_number: u64,
    /// Which of its client's connections that is.
    pub leg: u64,
    /// What people call it. Guards nothing else.
    pub texts: Mutex<Texts>,
}

/// What people call an endpoint.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// Its name in the agent's configuration.
    pub name: String,
    /// Free text.
    pub description: String,
    /// Free text.
    pub metadata: String,
}

impl Endpoint {
    /// The session of its agent.
    pub fn session(&self) -> &Session {
        // Reason: only tests make endpoints without one, and they open no streams.
        self.session.as_ref().unwrap_or_else(|| unreachable!("endpoint without session"))
    }

    /// Its public URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether a visitor from there may connect.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.options.restriction.as_ref().is_none_or(|r| r.admits(ip))
    }

    /// What stands in front of a visitor's bytes (protocol 6.1, 6.3).
    pub fn prefix(&self, conn: &Conn) -> Vec<u8> {
        let peer = conn.peer();
        let peer = std::net::SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let (proto, edge_type) = match self.kind {
            Kind::Http if conn.is_tls() => ("https", "3"),
            Kind::Http => ("http", "3"),
            Kind::Tls => ("tls", "2"),
            Kind::Tcp => ("tcp", "1"),
        };
        let header = ProxyHeader {
            id: self.id.clone(),
            client_addr: peer.to_string(),
            proto: proto.into(),
            edge_type: edge_type.into(),
            passthrough_tls: self.kind == Kind::Tls && !self.options.terminate,
        };
        let mut bytes = header.encode();
        if self.options.proxy_proto != 0 {
            bytes.extend(proxy_protocol::encode(self.options.proxy_proto, peer, conn.local()));
        }
        bytes
    }

    /// Whether its URL is for HTTP over TLS, or else for HTTP in clear.
    fn is_for(&self, tls: bool) -> bool {
        self.kind == Kind::Http && self.url.starts_with("https://") == tls
    }

    fn key(&self) -> Key {
        match self.kind {
            Kind::Tcp => Key::Port(self.port),
            Kind::Http | Kind::Tls => Key::Host(self.host.clone()),
        }
    }
}

/// Under what an endpoint is found. HTTP and TLS endpoints share the names: both
/// are asked for on the https port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A host, lower case.
    Host(String),
    /// A TCP port.
    Port(u16),
}

/// What is there under a name.
pub enum Found {
    /// An endpoint that is online.
    Endpoint(Arc<Endpoint>),
    /// Its agent has gone a moment ago.
    Away,
    /// Nothing.
    Unknown,
}

/// All endpoints.
#[derive(Default)]
pub struct Routes {
    table: Mutex<HashMap<Key, Slot>>,
    /// Told when an endpoint goes.
    freed: Condvar,
}

#[derive(Default)]
struct Slot {
    members: Vec<Arc<Endpoint>>,
    turn: usize,
    /// For whom the name is kept, and until when.
    held: Option<(String, Instant)>,
}

impl Routes {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        self.table.lock()
    }

    /// Who serves HTTP for `host`, to visitors who came over TLS or not. A TLS endpoint's
    /// name is nobody's here.
    pub fn find_http(&self, host: &str, tls: bool, now: Instant) -> Found {
        match self.find_host(host, tls, now) {
            Found::Endpoint(e) if e.kind != Kind::Http => Found::Unknown,
            found => found,
        }
    }

    /// Who has `host`: exactly, else by the longest wildcard.
    pub fn find_host(&self, host: &str, tls: bool, now: Instant) -> Found {
        let mut routes = self.lock();
        let mut away = false;
        let mut key = Key::Host(host.to_owned());
        let mut rest = host;
        loop {
            match pick(&mut routes, &key, tls, now) {
                Found::Unknown => {}
                Found::Away => away = true,
                found => return found,
            }
            let Some((_, parent)) = rest.split_once('.') else { break };
            rest = parent;
            key = Key::Host(format!("*.{parent}"));
        }
        if away { Found::Away } else { Found::Unknown }
    }

    /// Who has the TCP port.
    pub fn find_port(&self, port: u16, now: Instant) -> Found {
        pick(&mut self.lock(), &Key::Port(port), false, now)
    }

    /// Puts an endpoint online. The same client's older endpoint of that name goes:
    /// its session is dead, or this is the same endpoint bound again.
    pub fn bind(&self, new: Arc<Endpoint>, now: Instant) -> Result<(), Refusal> {
        let mut routes = self.lock();
        let slot = routes.entry(new.key()).or_default();
        slot.admits(&new, now)?;
        slot.members.retain(|old| !replaces(&new, old));
        slot.members.push(new);
        slot.held = None;
        Ok(())
    }

    /// The sessions that have the endpoint's name online for the same account.
    pub fn rivals(&self, endpoint: &Endpoint) -> Vec<Session> {
        let routes = self.lock();
        let members = routes.get(&endpoint.key()).map(|slot| slot.members.as_slice());
        let members = members.unwrap_or_default().iter();
        let same = members.filter(|m| m.account == endpoint.account);
        same.filter_map(|m| m.session.clone()).collect()
    }

    /// Waits until an endpoint goes, or the time is over.
    pub fn wait_freed(&self, time: Duration) {
        let _ = self.freed.wait_timeout(self.lock(), time);
    }

    /// Takes an endpoint offline for good.
    pub fn unbind(&self, endpoint: &Endpoint) {
        let mut routes = self.lock();
        let key = endpoint.key();
        if let Some(slot) = routes.get_mut(&key) {
            slot.members.retain(|m| !same(m, endpoint));
            if slot.members.is_empty() {
                routes.remove(&key);
            }
        }
        self.freed.notify_all();
    }

    /// The agent of an endpoint has gone: the name is kept for its account.
    pub fn lose(&self, endpoint: &Endpoint, until: Instant) {
        let mut routes = self.lock();
        if let Some(slot) = routes.get_mut(&endpoint.key()) {
            let before = slot.members.len();
            slot.members.retain(|m| !same(m, endpoint));
            if slot.members.is_empty() && before > 0 {
                slot.held = Some((endpoint.account.clone(), until));
            }
        }
        self.freed.notify_all();
    }

    /// Whether an endpoint is the one that is online.
    pub fn has(&self, endpoint: &Endpoint) -> bool {
        let routes = self.lock();
        routes.get(&endpoint.key()).is_some_and(|s| s.members.iter().any(|m| same(m, endpoint)))
    }

    /// Forgets names that were kept long enough.
    pub fn expire(&self, now: Instant) {
        self.lock().retain(|_, slot| {
            !slot.members.is_empty() || slot.held.as_ref().is_some_and(|(_, until)| *until > now)
        });
    }

    /// The ports that are in use or kept.
    pub fn ports(&self) -> Vec<u16> {
        let routes = self.lock();
        routes
            .keys()
            .filter_map(|k| match k {
                Key::Port(p) => Some(*p),
                Key::Host(_) => None,
            })
            .collect()
    }
}

impl Slot {
    fn admits(&self, new: &Endpoint, now: Instant) -> Result<(), Refusal> {
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
        if let Some((account, until)) = &self.held
            && *account != new.account
            && *until > now
        {
            return Err(online());
        }
        let others = self
            .members
            .iter()
            .filter(|old| !replaces(new, old) && !joins(new, old) && !has_other_scheme(new, old));
        for old in others {
            let pool = old.pooling
                && new.pooling
                && old.kind == new.kind
                && old.account == new.account
                && old.options.restriction == new.options.restriction;
            if !pool {
                return Err(online());
            }
        }
        Ok(())
    }
}

/// Whether binding `new` ends `old`: the same client on another connection, or
/// the same endpoint again, which the client's id or the right to the name shows.
fn replaces(new: &Endpoint, old: &Endpoint) -> bool {
    if old.account != new.account {
        return false;
    }
    let same_client = old.client == new.client;
    if same_client && old.leg != new.leg {
        return false;
    }
    if old.id == new.id {
        return same_client || new.right;
    }
    same_client && old.session_number != new.session_number && !new.pooling
}

/// Whether both are one endpoint on two connections of one client: they take turns.
fn joins(new: &Endpoint, old: &Endpoint) -> bool {
    old.account == new.account
        && old.client == new.client
        && old.leg != new.leg
        && old.id == new.id
        && old.kind == new.kind
}

/// Whether one is for `http://` and one for `https://`: of one account they are two
/// endpoints.
fn has_other_scheme(new: &Endpoint, old: &Endpoint) -> bool {
    new.account == old.account
        && (new.kind, old.kind) == (Kind::Http, Kind::Http)
        && new.is_for(true) != old.is_for(true)
}

fn same(a: &Endpoint, b: &Endpoint) -> bool {
    a.session_number == b.session_number && a.id == b.id
}

fn pick(routes: &mut HashMap<Key, Slot>, key: &Key, tls: bool, now: Instant) -> Found {
    let Some(slot) = routes.get_mut(key) else { return Found::Unknown };
    if slot.members.is_empty() {
        let kept = slot.held.as_ref().is_some_and(|(_, until)| *until > now);
        return if kept { Found::Away } else { Found::Unknown };
    }
    // Those of the visitor's scheme, if it has any of its own.
    let parted = slot.members.iter().any(|member| member.is_for(tls));
    let count = slot.members.len();
    let turns = (1..=count).map(|step| (slot.turn + step) % count);
    let mut turns = turns.filter(|at| !parted || slot.members[*at].is_for(tls)).peekable();
    let next = turns.peek().copied().unwrap_or_default();
    // One whose session has just ended is on its way out: somebody else's turn.
    let open = |at: &usize| slot.members[*at].session.as_ref().is_none_or(|s| !s.is_over());
    slot.turn = turns.find(open).unwrap_or(next);
    Found::Endpoint(Arc::clone(&slot.members[slot.turn]))
}

/// When the names of an agent that goes now are free for others.
pub fn until(now: Instant, hold: Duration) -> Instant {
    now + hold
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn endpoint(host: &str, account: &str, client: &str, session_number: u64) -> Endpoint {
        Endpoint {
            id: format!("{client}-{host}"),
            tunnel: String::new(),
            kind: Kind::Http,
            host: host.into(),
            port: 0,
            url: format!("http://{host}"),
            account: account.into(),
            client: client.into(),
            right: false,
            options: Options::default(),
            pooling: false,
            session: None,
            session_number,
            leg: 0,
            texts: Mutex::default(),
        }
    }

    fn found(routes: &Routes, host: &str) -> Option<String> {
        match routes.find_http(host, false, NOW) {
            Found::Endpoint(e) => Some(e.host.clone()),
            _ => None,
        }
    }

    #[test]
    fn the_most_specific_name_wins() {
        let routes = Routes::default();
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
        let routes = Routes::default();
        routes.bind(endpoint("a", "u", "c1", 1).into(), NOW).unwrap();
        for (account, client, number) in [("u", "c2", 2), ("v", "c3", 3)] {
            let e = routes.bind(endpoint("a", account, client, number).into(), NOW).unwrap_err();
            assert_eq!(e.code, Some(334));
        }
        // The same client on a new connection takes it over from its dead one.
        let newer = Arc::new(endpoint("a", "u", "c1", 4));
        routes.bind(Arc::clone(&newer), NOW).unwrap();
        assert!(routes.has(&newer));
        let old = endpoint("a", "u", "c1", 1);
        routes.lose(&old, NOW);
        routes.unbind(&old);
        assert!(routes.has(&newer), "the old session's end does not hurt the new one");
        routes.unbind(&newer);
        assert_eq!(found(&routes, "a"), None);
    }

    #[test]
    fn the_right_to_a_name_is_good_for_the_same_endpoint_only() {
        let routes = Routes::default();
        let first = Arc::new(endpoint("a", "u", "c1", 1));
        routes.bind(Arc::clone(&first), NOW).unwrap();
        let again = |right: bool, id: &str, account: &str| Endpoint {
            right,
            id: id.into(),
            ..endpoint("a", account, "forgotten", 2)
        };
        for wrong in
            [again(false, &first.id, "u"), again(true, "other", "u"), again(true, &first.id, "v")]
        {
            assert!(routes.bind(wrong.into(), NOW).is_err());
        }
        routes.bind(again(true, &first.id, "u").into(), NOW).unwrap();
        assert!(!routes.has(&first));
    }

    #[test]
    fn the_legs_of_a_client_serve_together() {
        let routes = Routes::default();
        let leg = |n, leg| Arc::new(Endpoint { leg, ..endpoint("a", "u", "c1", n) });
        let (first, second) = (leg(1, 0), leg(2, 1));
        routes.bind(Arc::clone(&first), NOW).unwrap();
        routes.bind(Arc::clone(&second), NOW).unwrap();
        assert!(routes.has(&first) && routes.has(&second));
        // A newer connection takes the place of its own predecessor only.
        let newer = leg(3, 1);
        routes.bind(Arc::clone(&newer), NOW).unwrap();
        assert!(routes.has(&first) && routes.has(&newer) && !routes.has(&second));
        // Another endpoint of the same client does not slip in, nor another client.
        let other = Endpoint { id: "other".into(), leg: 2, ..endpoint("a", "u", "c1", 4) };
        assert!(routes.bind(other.into(), NOW).is_err());
        let other = Endpoint { id: first.id.clone(), leg: 2, ..endpoint("a", "u", "c2", 5) };
        assert!(routes.bind(other.into(), NOW).is_err());
        // Started again, with the right to the name, the client takes all of it over.
        let again = Endpoint { id: first.id.clone(), right: true, ..endpoint("a", "u", "c3", 6) };
        let again = Arc::new(again);
        routes.bind(Arc::clone(&again), NOW).unwrap();
        assert!(routes.has(&again) && !routes.has(&first) && !routes.has(&newer));
    }

    #[test]
    fn a_lost_name_is_kept_for_its_account() {
        let routes = Routes::default();
        let first = Arc::new(endpoint("a", "u", "c1", 1));
        routes.bind(Arc::clone(&first), NOW).unwrap();
        let later = until(NOW, Duration::from_secs(60));
        routes.lose(&first, later);
        assert!(matches!(routes.find_http("a", false, NOW), Found::Away));
        assert!(routes.bind(endpoint("a", "v", "c2", 2).into(), NOW).is_err());
        routes.expire(NOW);
        assert!(matches!(routes.find_http("a", false, NOW), Found::Away));
        assert!(matches!(routes.find_http("a", false, later), Found::Unknown));
        routes.bind(endpoint("a", "u", "c3", 3).into(), NOW).unwrap();
        routes.lose(&endpoint("a", "u", "c1", 3), later);
        assert!(routes.bind(endpoint("a", "v", "c2", 2).into(), NOW).is_err());
    }

    #[test]
    fn both_schemes_of_a_host_are_two_endpoints_of_one_account() {
        let routes = Routes::default();
        let secure = |account: &str, n| Endpoint {
            url: "https://a".into(),
            ..endpoint("a", account, "c", n)
        };
        let met = |tls| match routes.find_http("a", tls, NOW) {
            Found::Endpoint(e) => e.url.clone(),
            _ => String::new(),
        };
        let https = Arc::new(Endpoint { id: "https".into(), ..secure("u", 1) });
        routes.bind(Arc::clone(&https), NOW).unwrap();
        // Alone it is there for all visitors.
        assert_eq!((met(false), met(true)), ("https://a".into(), "https://a".into()));
        assert!(routes.bind(endpoint("a", "v", "d", 2).into(), NOW).is_err());
        routes.bind(endpoint("a", "u", "c", 1).into(), NOW).unwrap();
        for _ in 0..3 {
            assert_eq!((met(false), met(true)), ("http://a".into(), "https://a".into()));
        }
        // Each is bound once, and goes alone.
        assert!(routes.bind(endpoint("a", "u", "d", 3).into(), NOW).is_err());
        routes.unbind(&https);
        assert_eq!((met(false), met(true)), ("http://a".into(), "http://a".into()));
    }

    #[test]
    fn pools_take_turns() {
        let routes = Routes::default();
        let member = |client: &str, n| Endpoint { pooling: true, ..endpoint("a", "u", client, n) };
        routes.bind(member("c1", 1).into(), NOW).unwrap();
        routes.bind(member("c2", 2).into(), NOW).unwrap();
        assert!(routes.bind(endpoint("a", "u", "c3", 3).into(), NOW).is_err());
        let other = Endpoint { account: "v".into(), ..member("c4", 4) };
        assert!(routes.bind(other.into(), NOW).is_err());
        let mut clients = Vec::new();
        for _ in 0..4 {
            if let Found::Endpoint(e) = routes.find_http("a", false, NOW) {
                clients.push(e.client.clone());
            }
        }
        clients.sort();
        assert_eq!(clients, ["c1", "c1", "c2", "c2"]);
        // A member that comes back takes its own place, not another's.
        routes.bind(member("c1", 5).into(), NOW).unwrap();
        routes.unbind(&member("c2", 2));
        routes.unbind(&member("c1", 5));
        assert_eq!(found(&routes, "a"), None);
    }

    #[test]
    fn tls_names_are_not_http_names() {
        let routes = Routes::default();
        let tls = Endpoint { kind: Kind::Tls, ..endpoint("a", "u", "c", 1) };
        routes.bind(tls.into(), NOW).unwrap();
        assert_eq!(found(&routes, "a"), None);
        assert!(matches!(routes.find_host("a", true, NOW), Found::Endpoint(_)));
        assert!(routes.bind(endpoint("a", "u", "d", 2).into(), NOW).is_err());
        let tcp = Endpoint { kind: Kind::Tcp, port: 7, ..endpoint("", "u", "c", 1) };
        routes.bind(tcp.into(), NOW).unwrap();
        assert_eq!(routes.ports(), [7]);
        assert!(matches!(routes.find_port(7, NOW), Found::Endpoint(_)));
    }
}
