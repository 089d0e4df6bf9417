//! Names to addresses, by every way there is (`docs/connectivity.md`): the hosts
//! file, the resolvers that were set or the system's, public resolvers over UDP,
//! TCP and TLS.
//!
//! Ours and not the C library's, because that one cannot be given a deadline: with
//! a silent resolver it holds its thread for 10 s and more, and a helper thread for
//! it costs memory and cannot be ended. The files of `/etc` are read anew at each
//! attempt, so a resolver that came with the network is used at once.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::dns::{Fault, Kind, MAX_REPLY, Query, Reply};
use super::resolv_conf::{Conf, hosts};
use super::wire::Wire;
use super::{dial, tls};
use crate::sys;
use crate::sys::net::{self, Watch};
use crate::time::{Deadline, Instant};

/// After so long an unanswered question is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the second family may come after the first (RFC 8305 section 3).
const GRACE: Duration = Duration::from_millis(50);
/// Most time that one resolution takes; shorter attempts get a share of theirs.
const WHOLE: Duration = Duration::from_secs(10);
/// Most bytes of a file of `/etc`.
const MAX_FILE: usize = 256 * 1024;
/// Port of DNS.
const PORT: u16 = 53;
/// Port of DNS over TLS (RFC 7858).
const TLS_PORT: u16 = 853;

/// How names are resolved.
pub struct Resolver {
    /// In place of the system's, if there are any.
    pub instead: Vec<SocketAddr>,
    /// Asked when those have no answer.
    pub public: Vec<SocketAddr>,
    /// The network interface that questions go out by; empty for any.
    pub interface: String,
    /// Where `hosts` and `resolv.conf` are.
    etc: PathBuf,
    /// Port of the system's resolvers.
    port: u16,
}

/// One resolver that is asked for both kinds of addresses.
struct Ask {
    server: SocketAddr,
    socket: UdpSocket,
    queries: [(Query, Option<Reply>); 2],
}

/// What comes of one round of questions.
struct Round {
    found: Vec<IpAddr>,
    /// Why there is nothing, of each resolver.
    notes: Vec<String>,
    /// Somebody said that there is no such name or address.
    denied: bool,
}

impl Resolver {
    /// A resolver of this system.
    pub fn new(instead: Vec<SocketAddr>, public: Vec<SocketAddr>, interface: &str) -> Self {
        let (etc, port) = (PathBuf::from("/etc"), PORT);
        Resolver { instead, public, interface: interface.to_owned(), etc, port }
    }

    /// The addresses of `name`, at least one. `far`: public resolvers may be asked
    /// about it. An answer that has only addresses of `avoid` in it is taken when
    /// there is no other.
    pub fn resolve(
        &self,
        name: &str,
        far: bool,
        avoid: &[IpAddr],
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, String> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let listed = hosts(&self.file("hosts"), name);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let bare = name.trim_end_matches('.').to_ascii_lowercase();
        // Never asked about in the DNS (RFC 6761 section 6.3).
        if bare == "localhost" || bare.ends_with(".localhost") {
            return Ok(vec![[127, 0, 0, 1].into(), IpAddr::from(1u128.to_be_bytes())]);
        }
        let begin = sys::clock();
        let whole = deadline.left(begin).unwrap_or(WHOLE).min(WHOLE);
        // Shares of the whole, in twentieths; the rest is for the connection.
        let share = |twentieths: u32| begin + whole / 20 * twentieths;
        let public: &[SocketAddr] = if far && is_public(&bare) { &self.public } else { &[] };
        let (near, candidates) = self.near(name);
        let mut reserve = Vec::new();
        let mut notes = Vec::new();
        for candidate in candidates {
            let same = candidate.eq_ignore_ascii_case(name.trim_end_matches('.'));
            let (more, until) = match same && !public.is_empty() {
                true => (public, share(8)),
                false => (&[][..], share(13)),
            };
            let round = self.round(&candidate, &near, more, share(5), until, avoid, &mut reserve);
            if !round.found.is_empty() {
                return Ok(round.found);
            }
            notes.extend(round.notes);
            // Who does not answer will not answer about another name either.
            if !round.denied {
                break;
            }
        }
        for (secure, until) in [(false, share(10)), (true, share(13))] {
            if public.is_empty() {
                break;
            }
            let found = self.over_stream(&bare, public, secure, Deadline::At(until).min(deadline));
            match found {
                Ok(found) if found.iter().all(|ip| avoid.contains(ip)) => {
                    reserve.extend(found);
                }
                Ok(found) => return Ok(found),
                Err(note) => notes.push(note),
            }
        }
        if !reserve.is_empty() {
            return Ok(reserve);
        }
        notes.dedup();
        Err(format!("cannot resolve '{name}': {}", notes.join("; ")))
    }

    fn file(&self, name: &str) -> String {
        // A file that is not there says nothing.
        let file = fs::File::open(self.etc.join(name));
        let mut bytes = Vec::new();
        let _ = file.and_then(|f| f.take(MAX_FILE as u64).read_to_end(&mut bytes));
        String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// Who is asked first, and about which names.
    fn near(&self, name: &str) -> (Vec<SocketAddr>, Vec<String>) {
        let conf = Conf::parse(&self.file("resolv.conf"));
        let candidates = conf.candidates(name);
        if !self.instead.is_empty() {
            return (self.instead.clone(), candidates);
        }
        let servers = conf.servers.into_iter().map(|(ip, zone)| {
            let mut address = SocketAddr::new(ip, self.port);
            if let (SocketAddr::V6(v6), false) = (&mut address, zone.is_empty()) {
                v6.set_scope_id(net::interface_number(&zone).unwrap_or(0));
            }
            address
        });
        (servers.collect(), candidates)
    }

    /// A resolver on this machine is not beyond any interface.
    fn interface_to(&self, server: SocketAddr) -> &str {
        if server.ip().is_loopback() { "" } else { &self.interface }
    }

    /// Asks all of `near` about `name` over UDP, and all of `public` too when those
    /// have said no or when it is `later`; up to `until`.
    #[allow(clippy::too_many_arguments)] // Reason: one use; a struct would only rename them.
    fn round(
        &self,
        name: &str,
        near: &[SocketAddr],
        public: &[SocketAddr],
        later: Instant,
        until: Instant,
        avoid: &[IpAddr],
        reserve: &mut Vec<IpAddr>,
    ) -> Round {
        let mut round = Round { found: Vec::new(), notes: Vec::new(), denied: false };
        let mut asks = Vec::new();
        self.begin(name, near, &mut asks, &mut round.notes);
        let mut waiting = Some(public).filter(|p| !p.is_empty());
        let mut again = sys::clock() + AGAIN;
        let mut grace: Option<Instant> = None;
        let mut buffer = [0; MAX_REPLY];
        loop {
            let now = sys::clock();
            if let Some(servers) = waiting
                && (asks.is_empty() || later <= now)
            {
                waiting = None;
                self.begin(name, servers, &mut asks, &mut round.notes);
            }
            if asks.is_empty() && waiting.is_none() {
                return round;
            }
            if until <= now || grace.is_some_and(|end| end <= now) {
                let silent = asks.iter().map(|ask| format!("{}: no answer", ask.server));
                round.notes.extend(silent);
                return round;
            }
            if again <= now {
                again = now + AGAIN;
                asks.retain(|ask| ask.send(&mut round.notes));
            }
            let mut next = until.min(again).min(grace.unwrap_or(until));
            if waiting.is_some() {
                next = next.min(later);
            }
            let mut watches: Vec<_> = asks.iter().map(|ask| Watch::read(&ask.socket)).collect();
            if net::wait_any(&mut watches, Some(next.since(now))).is_err() {
                return round;
            }
            for at in (0..asks.len()).rev().filter(|at| watches[*at].ready) {
                if let Err(e) = self.hear(&mut asks[at], &mut buffer, until) {
                    let server = asks.swap_remove(at).server;
                    round.notes.push(format!("{server}: {e}"));
                    continue;
                }
                let (found, whole) = asks[at].addresses();
                if !found.is_empty() && found.iter().all(|ip| avoid.contains(ip)) {
                    if whole {
                        let server = asks.swap_remove(at).server;
                        round.notes.push(format!("{server}: an address that does not work"));
                        reserve.extend(found);
                    }
                } else if !found.is_empty() {
                    round.found = found;
                    if whole {
                        return round;
                    }
                    grace.get_or_insert(sys::clock() + GRACE);
                } else if whole {
                    let ask = asks.swap_remove(at);
                    let (note, denied) = ask.verdict();
                    round.denied |= denied;
                    round.notes.push(format!("{}: {note}", ask.server));
                }
            }
        }
    }

    /// Sends the questions to each of `servers`.
    fn begin(
        &self,
        name: &str,
        servers: &[SocketAddr],
        asks: &mut Vec<Ask>,
        notes: &mut Vec<String>,
    ) {
        for server in servers {
            let Some(queries) = queries(name) else {
                notes.push(format!("'{name}' cannot be a host's name"));
                return;
            };
            match net::datagrams(*server, self.interface_to(*server)) {
                Ok(socket) => {
                    let ask = Ask { server: *server, socket, queries: queries.map(|q| (q, None)) };
                    if ask.send(notes) {
                        asks.push(ask);
                    }
                }
                Err(e) => notes.push(format!("{server}: {e}")),
            }
        }
    }

    /// Takes what a resolver sent. Messages that do not fit the question are passed
    /// over: the right answer may be behind them.
    fn hear(&self, ask: &mut Ask, buffer: &mut [u8], until: Instant) -> Result<(), String> {
        loop {
            let n = match ask.socket.recv(buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.to_string()),
            };
            // Reason for the index: a socket returns at most the length it was given.
            let message = &buffer[..n];
            for at in 0..ask.queries.len() {
                let (query, reply) = &mut ask.queries[at];
                if reply.is_some() {
                    continue;
                }
                match query.read(message) {
                    Err(Fault::NotOurs | Fault::Malformed) => {}
                    Ok(Reply::Truncated) => {
                        let query = query.clone();
                        let deadline = Deadline::At(until);
                        ask.queries[at].1 = Some(self.once_more(&query, ask.server, deadline)?);
                    }
                    Ok(said) => *reply = Some(said),
                }
            }
        }
    }

    /// The same question over TCP, after an answer that was cut.
    fn once_more(
        &self,
        query: &Query,
        server: SocketAddr,
        deadline: Deadline,
    ) -> Result<Reply, String> {
        let ask = || -> std::io::Result<Reply> {
            let tcp = dial::race(&[server], self.interface_to(server), deadline)?;
            let mut wire = Wire::new(tcp, deadline);
            wire.write_all(&query.on_stream())?;
            wire.flush()?;
            let message = stream_message(&mut wire)?;
            Ok(query.read(&message).unwrap_or(Reply::Failed(0)))
        };
        ask().map_err(|e| format!("over TCP: {e}"))
    }

    /// Asks whichever of `servers` answers first, over TCP or over TLS. Who it is
    /// that answers over TLS is not checked: small machines have no roots to check
    /// with, and the edge proves its own name later. TLS is here because networks
    /// that bend DNS leave it alone.
    fn over_stream(
        &self,
        name: &str,
        servers: &[SocketAddr],
        secure: bool,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, String> {
        let port = |server: &SocketAddr| match (secure, server.port()) {
            (true, PORT) => SocketAddr::new(server.ip(), TLS_PORT),
            _ => *server,
        };
        let servers: Vec<SocketAddr> = servers.iter().map(port).collect();
        let ask = || -> std::io::Result<Vec<IpAddr>> {
            let wrong = |text: &str| std::io::Error::other(text.to_owned());
            let queries = queries(name).ok_or_else(|| wrong("not a host's name"))?;
            let first = servers.first().ok_or_else(|| wrong("nobody to ask"))?;
            let tcp = dial::race(&servers, self.interface_to(*first), deadline)?;
            let server = tcp.peer_addr()?;
            let mut wire = Wire::new(tcp, deadline);
            if secure {
                wire = wire.secure(&server.ip().to_string(), tls::unverified_config()?)?;
            }
            // One write: some servers read one question only if they come apart.
            let both = queries.iter().flat_map(Query::on_stream).collect::<Vec<u8>>();
            wire.write_all(&both)?;
            wire.flush()?;
            let mut found = Vec::new();
            for _ in 0..queries.len() {
                let message = match stream_message(&mut wire) {
                    Ok(message) => message,
                    Err(_) if !found.is_empty() => break,
                    Err(e) => return Err(e),
                };
                let replies = queries.iter().filter_map(|q| q.read(&message).ok());
                for reply in replies {
                    if let Reply::Addresses(list) = reply {
                        found.extend(list);
                    }
                }
            }
            if found.is_empty() {
                return Err(wrong("no such address"));
            }
            sort(&mut found);
            Ok(found)
        };
        let over = if secure { "TLS" } else { "TCP" };
        ask().map_err(|e| format!("public resolvers over {over}: {e}"))
    }
}

impl Ask {
    /// Sends what has no answer yet. `false`: there is no way to this resolver, or
    /// nobody listens there; then a note says so.
    fn send(&self, notes: &mut Vec<String>) -> bool {
        for (query, _) in self.queries.iter().filter(|(_, reply)| reply.is_none()) {
            if let Err(e) = self.socket.send(query.message()) {
                notes.push(format!("{}: {e}", self.server));
                return false;
            }
        }
        true
    }

    /// All addresses so far, and whether both questions are answered.
    fn addresses(&self) -> (Vec<IpAddr>, bool) {
        let mut found = Vec::new();
        for (_, reply) in &self.queries {
            if let Some(Reply::Addresses(list)) = reply {
                found.extend(list);
            }
        }
        sort(&mut found);
        (found, self.queries.iter().all(|(_, reply)| reply.is_some()))
    }

    /// What to say of a resolver that has no address, and whether it was sure.
    fn verdict(&self) -> (String, bool) {
        let mut note = ("no address".to_owned(), true);
        for (_, reply) in &self.queries {
            match reply {
                Some(Reply::NoName) => return ("no such name".to_owned(), true),
                Some(Reply::Failed(code)) => {
                    let why = match code {
                        2 => "it cannot find out (SERVFAIL)".to_owned(),
                        5 => "it refuses to say (REFUSED)".to_owned(),
                        n => format!("it fails (code {n})"),
                    };
                    note = (why, false);
                }
                _ => {}
            }
        }
        note
    }
}

/// IPv6 first, as the race of addresses wants it.
fn sort(addresses: &mut [IpAddr]) {
    addresses.sort_by_key(IpAddr::is_ipv4);
}

fn queries(name: &str) -> Option<[Query; 2]> {
    let chance = sys::random_seed();
    // Two ids that are not the same.
    let (a, b) = (chance as u16, (chance >> 16) as u16);
    let b = if a == b { !b } else { b };
    Some([Query::new(a, name, Kind::A)?, Query::new(b, name, Kind::Aaaa)?])
}

fn stream_message(wire: &mut Wire) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 2];
    wire.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len)).min(MAX_REPLY)];
    wire.read_exact(&mut message)?;
    Ok(message)
}

/// Whether strangers may be asked about a name: not about those that mean something
/// on a local network only.
fn is_public(name: &str) -> bool {
    const LOCAL: [&str; 9] =
        ["local", "lan", "home", "internal", "localdomain", "intranet", "corp", "private", "test"];
    match name.rsplit_once('.') {
        None => false,
        Some((rest, "arpa")) => !rest.ends_with("home"),
        Some((_, last)) => !LOCAL.contains(&last),
    }
}
