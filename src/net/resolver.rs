//! Names to addresses, by every way there is (`docs/connectivity.md`): the hosts
//! file, the resolvers that were set or the system's, public resolvers over UDP,
//! TCP and TLS.
//!
//! Ours and not the C library's, because that one cannot be given a deadline: with
//! a silent resolver it holds its thread for 10 s and more, and a helper thread for
//! it costs memory and cannot be ended. The files of `/etc` are read anew at each
//! attempt, so a resolver that came with the network is used at once.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::dial;
use super::dns::{DnsReply, MAX_REPLY_BYTES, Query, RecordType, ReplyError};
use super::resolv_conf::{ResolvConf, hosts};
use super::timed_stream::TimedStream;
use crate::features;
use crate::sys;
use crate::sys::poll::{self, PollFd};
use crate::sys::socket;
use crate::time::{Deadline, Instant};
use crate::tls::client;

/// After so long an unanswered question is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the second family may come after the first (RFC 8305 section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Most time that one resolution takes; shorter attempts get a share of theirs.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a file of `/etc`.
const MAX_FILE_BYTES: usize = 256 * 1024;
/// Port of DNS.
const DNS_PORT: u16 = 53;
/// Port of DNS over TLS (RFC 7858).
const DOT_PORT: u16 = 853;

/// How names are resolved.
pub struct Resolver {
    /// In place of the system's, if there are any.
    pub configured: Vec<SocketAddr>,
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
struct ServerQuery {
    server: SocketAddr,
    socket: UdpSocket,
    queries: [(Query, Option<DnsReply>); 2],
}

/// What comes of one round of questions.
struct RoundResult {
    found: Vec<IpAddr>,
    /// Why there is nothing, of each resolver.
    failures: Vec<String>,
    /// Somebody said that there is no such name or address.
    negative: bool,
}

impl Resolver {
    /// A resolver of this system.
    pub fn new(configured: Vec<SocketAddr>, public: Vec<SocketAddr>, interface: &str) -> Self {
        let (etc, port) = (PathBuf::from("/etc"), DNS_PORT);
        Resolver { configured, public, interface: interface.to_owned(), etc, port }
    }

    /// The addresses of `name`, at least one. `allow_public`: public resolvers may be asked
    /// about it. An answer that has only addresses of `avoid` in it is taken when
    /// there is no other.
    pub fn resolve(
        &self,
        name: &str,
        allow_public: bool,
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
        let complete = deadline.left(begin).unwrap_or(RESOLVE_TIMEOUT).min(RESOLVE_TIMEOUT);
        // Shares of the whole, in twentieths; the rest is for the connection.
        let share = |twentieths: u32| begin + complete / 20 * twentieths;
        let public: &[SocketAddr] =
            if allow_public && is_public(&bare) { &self.public } else { &[] };
        let (local, candidates, is_configured) = self.local_servers(name);
        let mut fallback = Vec::new();
        let mut failures = Vec::new();
        for candidate in candidates {
            let same = candidate.eq_ignore_ascii_case(name.trim_end_matches('.'));
            let (more, until) = match same && !public.is_empty() {
                true => (public, share(8)),
                false => (&[][..], share(13)),
            };
            let round = self.round(&candidate, &local, more, share(5), until, avoid, &mut fallback);
            if !round.found.is_empty() {
                return Ok(round.found);
            }
            failures.extend(round.failures);
            // Who does not answer will not answer about another name either.
            if !round.negative {
                break;
            }
        }
        for (secure, until) in [(false, share(10)), (true, share(13))] {
            if public.is_empty() || !features::FETCH {
                break;
            }
            let found =
                self.resolve_over_stream(&bare, public, secure, Deadline::At(until).min(deadline));
            match found {
                Ok(found) if found.iter().all(|ip| avoid.contains(ip)) => {
                    fallback.extend(found);
                }
                Ok(found) => return Ok(found),
                Err(failure) => failures.push(failure),
            }
        }
        if !fallback.is_empty() {
            return Ok(fallback);
        }
        let hint = match is_configured {
            true => "",
            false => " (/etc/resolv.conf names no resolver, dns_resolver_ips can)",
        };
        Err(format!("cannot resolve '{name}': {}{hint}", dial::join_failures(&failures)))
    }

    fn file(&self, name: &str) -> String {
        // A file that is not there says nothing.
        let file = fs::File::open(self.etc.join(name));
        let mut bytes = Vec::new();
        let _ = file.and_then(|f| f.take(MAX_FILE_BYTES as u64).read_to_end(&mut bytes));
        String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// Who is asked first, and about which names; and whether anybody says that it is
    /// to be them.
    fn local_servers(&self, name: &str) -> (Vec<SocketAddr>, Vec<String>, bool) {
        let conf = ResolvConf::parse(&self.file("resolv.conf"));
        let candidates = conf.candidates(name);
        if !self.configured.is_empty() {
            return (self.configured.clone(), candidates, true);
        }
        if conf.servers.is_empty() {
            // As C libraries do.
            let here = SocketAddr::from(([127, 0, 0, 1], self.port));
            return (vec![here], candidates, false);
        }
        let servers = conf.servers.into_iter().map(|(ip, zone)| {
            let mut address = SocketAddr::new(ip, self.port);
            if let (SocketAddr::V6(v6), false) = (&mut address, zone.is_empty()) {
                v6.set_scope_id(socket::interface_number(&zone).unwrap_or(0));
            }
            address
        });
        (servers.collect(), candidates, true)
    }

    /// A resolver on this machine is not beyond any interface.
    fn interface_to(&self, server: SocketAddr) -> &str {
        if server.ip().is_loopback() { "" } else { &self.interface }
    }

    /// Asks all of `local` about `name` over UDP, and all of `public` too when those
    /// have said no or when it is `later`; up to `until`.
    #[allow(clippy::too_many_arguments)] // Reason: one use; a struct would only rename them.
    fn round(
        &self,
        name: &str,
        local: &[SocketAddr],
        public: &[SocketAddr],
        later: Instant,
        until: Instant,
        avoid: &[IpAddr],
        fallback: &mut Vec<IpAddr>,
    ) -> RoundResult {
        let mut round = RoundResult { found: Vec::new(), failures: Vec::new(), negative: false };
        let mut pending = Vec::new();
        self.send_queries(name, local, &mut pending, &mut round.failures);
        let mut waiting = Some(public).filter(|p| !p.is_empty());
        let mut again = sys::clock() + RETRY_INTERVAL;
        let mut grace: Option<Instant> = None;
        let mut buffer = [0; MAX_REPLY_BYTES];
        loop {
            let now = sys::clock();
            if let Some(servers) = waiting
                && (pending.is_empty() || later <= now)
            {
                waiting = None;
                self.send_queries(name, servers, &mut pending, &mut round.failures);
            }
            if pending.is_empty() && waiting.is_none() {
                return round;
            }
            if until <= now || grace.is_some_and(|end| end <= now) {
                let silent = pending.iter().map(|query| format!("{}: no answer", query.server));
                round.failures.extend(silent);
                return round;
            }
            if again <= now {
                again = now + RETRY_INTERVAL;
                pending.retain(|query| query.send(&mut round.failures));
            }
            let mut next = until.min(again).min(grace.unwrap_or(until));
            if waiting.is_some() {
                next = next.min(later);
            }
            let mut fds: Vec<_> =
                pending.iter().map(|query| PollFd::readable(&query.socket)).collect();
            if poll::wait(&mut fds, Some(next.since(now))).is_err() {
                return round;
            }
            for at in (0..pending.len()).rev().filter(|at| fds[*at].is_ready()) {
                if let Err(e) = self.receive(&mut pending[at], &mut buffer, until) {
                    let server = pending.swap_remove(at).server;
                    round.failures.push(format!("{server}: {e}"));
                    continue;
                }
                let (found, complete) = pending[at].addresses();
                if !found.is_empty() && found.iter().all(|ip| avoid.contains(ip)) {
                    if complete {
                        let server = pending.swap_remove(at).server;
                        round.failures.push(format!("{server}: an address that does not work"));
                        fallback.extend(found);
                    }
                } else if !found.is_empty() {
                    round.found = found;
                    if complete {
                        return round;
                    }
                    grace.get_or_insert(sys::clock() + RESOLUTION_DELAY);
                } else if complete {
                    let query = pending.swap_remove(at);
                    let (failure, negative) = query.failure();
                    round.negative |= negative;
                    round.failures.push(format!("{}: {failure}", query.server));
                }
            }
        }
    }

    /// Sends the questions to each of `servers`.
    fn send_queries(
        &self,
        name: &str,
        servers: &[SocketAddr],
        pending: &mut Vec<ServerQuery>,
        failures: &mut Vec<String>,
    ) {
        for server in servers {
            let Some(queries) = queries(name) else {
                failures.push(format!("'{name}' cannot be a host's name"));
                return;
            };
            match socket::datagrams(*server, self.interface_to(*server)) {
                Ok(socket) => {
                    let query = ServerQuery {
                        server: *server,
                        socket,
                        queries: queries.map(|q| (q, None)),
                    };
                    if query.send(failures) {
                        pending.push(query);
                    }
                }
                Err(e) => failures.push(format!("{server}: {}", sys::fd_budget::words(&e))),
            }
        }
    }

    /// Takes what a resolver sent. Messages that do not fit the question are passed
    /// over: the right answer may be behind them.
    fn receive(
        &self,
        pending: &mut ServerQuery,
        buffer: &mut [u8],
        until: Instant,
    ) -> Result<(), String> {
        loop {
            let n = match pending.socket.recv(buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e.to_string()),
            };
            // Reason for the index: a socket returns at most the length it was given.
            let message = &buffer[..n];
            for at in 0..pending.queries.len() {
                let (query, reply) = &mut pending.queries[at];
                if reply.is_some() {
                    continue;
                }
                match query.read(message) {
                    Err(ReplyError::NotOurs | ReplyError::Malformed) => {}
                    Ok(DnsReply::Truncated) => {
                        let query = query.clone();
                        let deadline = Deadline::At(until);
                        pending.queries[at].1 =
                            Some(self.retry_over_tcp(&query, pending.server, deadline)?);
                    }
                    Ok(answer) => *reply = Some(answer),
                }
            }
        }
    }

    /// The same question over TCP, after an answer that was cut.
    fn retry_over_tcp(
        &self,
        query: &Query,
        server: SocketAddr,
        deadline: Deadline,
    ) -> Result<DnsReply, String> {
        let retry = || -> io::Result<DnsReply> {
            let tcp = dial::race(&[server], self.interface_to(server), deadline)?;
            let mut stream = TimedStream::new(tcp, deadline);
            stream.write_all(&query.tcp_message())?;
            stream.flush()?;
            let message = read_tcp_message(&mut stream)?;
            Ok(query.read(&message).unwrap_or(DnsReply::Failed(0)))
        };
        retry().map_err(|e| format!("over TCP: {e}"))
    }

    /// Asks whichever of `servers` answers first, over TCP or over TLS. Who it is
    /// that answers over TLS is not checked: small machines have no roots to check
    /// with, and the edge proves its own name later. TLS is here because networks
    /// that bend DNS leave it alone.
    fn resolve_over_stream(
        &self,
        name: &str,
        servers: &[SocketAddr],
        secure: bool,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, String> {
        let port = |server: &SocketAddr| match (secure, server.port()) {
            (true, DNS_PORT) => SocketAddr::new(server.ip(), DOT_PORT),
            _ => *server,
        };
        let mut servers: Vec<SocketAddr> = servers.iter().map(port).collect();
        let mut failures = Vec::new();
        while let Some(first) = servers.first().copied() {
            let now = sys::clock();
            let left = deadline.left(now).unwrap_or(RESOLVE_TIMEOUT);
            if left.is_zero() {
                break;
            }
            let interface = self.interface_to(first);
            let server = match dial::race(&servers, interface, deadline) {
                Ok(tcp) => {
                    // One that takes connections and says nothing leaves time for another.
                    let patience = if servers.len() > 1 { left / 2 } else { left };
                    let until = Deadline::At(now + patience);
                    let server = tcp.peer_addr().unwrap_or(first);
                    match query_over_stream(tcp, server, name, secure, until) {
                        Ok(found) => return Ok(found),
                        Err(e) => failures.push(format!("{server}: {e}")),
                    }
                    server
                }
                Err(e) => {
                    failures.push(e.to_string());
                    break;
                }
            };
            servers.retain(|s| *s != server);
        }
        let over = if secure { "TLS" } else { "TCP" };
        Err(format!("public resolvers over {over}: {}", failures.join(", ")))
    }
}

/// Asks for both kinds of addresses on a connection.
fn query_over_stream(
    tcp: TcpStream,
    server: SocketAddr,
    name: &str,
    secure: bool,
    deadline: Deadline,
) -> io::Result<Vec<IpAddr>> {
    let queries = queries(name).ok_or_else(|| io::Error::other("not a host's name"))?;
    let mut stream = TimedStream::new(tcp, deadline);
    if secure {
        stream = stream.secure(&server.ip().to_string(), client::unverified_config()?)?;
    }
    let both = queries.iter().flat_map(Query::tcp_message).collect::<Vec<u8>>();
    stream.write_all(&both)?;
    stream.flush()?;
    let mut found = Vec::new();
    for _ in 0..queries.len() {
        let message = match read_tcp_message(&mut stream) {
            Ok(message) => message,
            Err(_) if !found.is_empty() => break,
            Err(e) => return Err(e),
        };
        for reply in queries.iter().filter_map(|q| q.read(&message).ok()) {
            if let DnsReply::Addresses(list) = reply {
                found.extend(list);
            }
        }
    }
    if found.is_empty() {
        return Err(io::Error::other("no such address"));
    }
    sort(&mut found);
    Ok(found)
}

impl ServerQuery {
    /// Sends what has no answer yet. `false`: there is no way to this resolver, or
    /// nobody listens there; then a note says so.
    fn send(&self, failures: &mut Vec<String>) -> bool {
        for (query, _) in self.queries.iter().filter(|(_, reply)| reply.is_none()) {
            if let Err(e) = self.socket.send(query.message()) {
                failures.push(format!("{}: {e}", self.server));
                return false;
            }
        }
        true
    }

    /// All addresses so far, and whether both questions are answered.
    fn addresses(&self) -> (Vec<IpAddr>, bool) {
        let mut found = Vec::new();
        for (_, reply) in &self.queries {
            if let Some(DnsReply::Addresses(list)) = reply {
                found.extend(list);
            }
        }
        sort(&mut found);
        (found, self.queries.iter().all(|(_, reply)| reply.is_some()))
    }

    /// What to say of a resolver that has no address, and whether it was sure.
    fn failure(&self) -> (String, bool) {
        let mut failure = ("no address".to_owned(), true);
        for (_, reply) in &self.queries {
            match reply {
                Some(DnsReply::NxDomain) => return ("no such name".to_owned(), true),
                Some(DnsReply::Failed(code)) => {
                    let why = match code {
                        2 => "it cannot find out (SERVFAIL)".to_owned(),
                        5 => "it refuses to say (REFUSED)".to_owned(),
                        n => format!("it fails (code {n})"),
                    };
                    failure = (why, false);
                }
                _ => {}
            }
        }
        failure
    }
}

/// IPv6 first, as the race of addresses wants it.
fn sort(addresses: &mut Vec<IpAddr>) {
    move_last(addresses, IpAddr::is_ipv4);
}

/// Moves those for which it holds behind the others; else the order stays. (The
/// standard library's sorting is some kilobytes for each kind of key.)
pub(super) fn move_last(addresses: &mut Vec<IpAddr>, holds: impl Fn(&IpAddr) -> bool) {
    let mut last = addresses.clone();
    last.retain(&holds);
    addresses.retain(|ip| !holds(ip));
    addresses.extend(last);
}

fn queries(name: &str) -> Option<[Query; 2]> {
    let seed = sys::random_seed();
    // Two ids that are not the same.
    let (a, b) = (seed as u16, (seed >> 16) as u16);
    let b = if a == b { !b } else { b };
    Some([Query::new(a, name, RecordType::A)?, Query::new(b, name, RecordType::Aaaa)?])
}

fn read_tcp_message(stream: &mut TimedStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(len)).min(MAX_REPLY_BYTES)];
    stream.read_exact(&mut message)?;
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

#[cfg(test)]
#[path = "../../tests/support/dns.rs"]
#[allow(dead_code, missing_docs)]
mod fake;

#[cfg(test)]
mod tests {
    use super::*;

    use super::fake::FakeDns;

    const NAME: &str = "edge.example";

    fn soon() -> Deadline {
        Deadline::At(sys::clock() + Duration::from_secs(10))
    }

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn resolver(configured: &[&FakeDns], public: &[&FakeDns]) -> Resolver {
        let of = |list: &[&FakeDns]| list.iter().map(|dns| dns.addr).collect::<Vec<_>>();
        let mut made = Resolver::new(of(configured), of(public), "");
        made.etc = PathBuf::from("/nonexistent");
        made
    }

    fn resolve(configured: &[&FakeDns], public: &[&FakeDns]) -> Result<Vec<IpAddr>, String> {
        resolver(configured, public).resolve(NAME, true, &[], soon())
    }

    fn good() -> FakeDns {
        FakeDns::start(|asked| vec![asked.addresses(&["192.0.2.1", "2001:db8::1"])])
    }

    fn silent() -> FakeDns {
        FakeDns::start(|_| Vec::new())
    }

    #[test]
    fn both_families_the_newer_one_first() {
        let found = resolve(&[&good()], &[]).unwrap();
        assert_eq!(found, ips(&["2001:db8::1", "192.0.2.1"]));
    }

    #[test]
    fn addresses_and_this_machine_are_no_question() {
        let dns = good();
        let made = resolver(&[&dns], &[]);
        for (name, expected) in [
            ("192.0.2.9", &["192.0.2.9"][..]),
            ("::1", &["::1"]),
            ("localhost", &["127.0.0.1", "::1"]),
            ("Edge.LOCALHOST.", &["127.0.0.1", "::1"]),
        ] {
            assert_eq!(made.resolve(name, true, &[], soon()), Ok(ips(expected)), "{name}");
        }
        assert_eq!(dns.asked(), 0);
    }

    #[test]
    fn whoever_answers_first() {
        let fails = FakeDns::start(|asked| vec![asked.code(2)]);
        for others in [[&silent(), &good()], [&good(), &fails], [&fails, &good()]] {
            assert_eq!(resolve(&others, &[]).unwrap().len(), 2);
        }
    }

    #[test]
    fn what_is_wrong_is_said_of_each() {
        let (no, fails) = (
            FakeDns::start(|asked| vec![asked.code(3)]),
            FakeDns::start(|asked| vec![asked.code(5)]),
        );
        let empty = FakeDns::start(|asked| vec![asked.addresses(&[])]);
        let error = resolve(&[&no, &fails, &empty], &[]).unwrap_err();
        for (dns, what) in [(&no, "no such name"), (&fails, "REFUSED"), (&empty, "no address")] {
            assert!(error.contains(&format!("{}: ", dns.addr)) && error.contains(what), "{error}");
        }
        assert!(error.contains(NAME), "{error}");
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = Resolver::new(vec![gone], Vec::new(), "");
        let error = nobody.resolve(NAME, true, &[], soon()).unwrap_err();
        assert!(error.contains("refused"), "{error}");
        let error = nobody.resolve("no host", true, &[], soon()).unwrap_err();
        assert!(error.contains("cannot be a host's name"), "{error}");
    }

    #[test]
    fn public_ones_are_asked_when_the_others_have_no_answer() {
        let no = FakeDns::start(|asked| vec![asked.code(3)]);
        for others in [&no, &silent()] {
            assert_eq!(resolve(&[others], &[&good()]).unwrap().len(), 2);
        }
        // Not about names that are nobody else's business, and not about a proxy's.
        let public = good();
        let made = resolver(&[&no], &[&public]);
        for name in ["edge", "edge.lan", "edge.local", "a.home.arpa", "edge.internal"] {
            assert!(made.resolve(name, true, &[], soon()).is_err(), "{name}");
        }
        assert!(made.resolve(NAME, false, &[], soon()).is_err());
        assert_eq!(public.asked(), 0);
    }

    #[cfg(feature = "fetch")]
    mod over_streams {
        use super::*;

        #[test]
        fn public_ones_over_tcp_when_datagrams_do_not_pass() {
            let no = FakeDns::start(|asked| vec![asked.code(2)]);
            let stream = FakeDns::start(|asked| match asked.stream {
                true => vec![asked.addresses(&["192.0.2.1"])],
                false => Vec::new(),
            });
            assert_eq!(resolve(&[&no], &[&silent(), &stream]), Ok(ips(&["192.0.2.1"])));
            let error = resolve(&[&no], &[&no]).unwrap_err();
            assert!(error.contains("over TCP") && error.contains("over TLS"), "{error}");
        }

        #[test]
        fn public_ones_over_tls_when_nothing_else_passes() {
            use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
            let cert = rcgen::generate_simple_self_signed(vec!["dns".into()]).unwrap();
            let key =
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(cert.signing_key.serialize_der()));
            let config = rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.cert.der().clone()], key)
            .unwrap();
            let config = std::sync::Arc::new(config);
            let no = FakeDns::start(|asked| vec![asked.code(2)]);
            let secret = FakeDns::over(
                Duration::ZERO,
                |asked| match asked.stream {
                    true => vec![asked.addresses(&["192.0.2.7"])],
                    false => vec![asked.code(5)],
                },
                move |tcp, serve| {
                    let mut first = [0];
                    // In clear it is cut off.
                    if tcp.peek(&mut first).is_ok_and(|_| first[0] == 22) {
                        let conn = rustls::ServerConnection::new(config.clone()).unwrap();
                        serve(&mut rustls::StreamOwned::new(conn, tcp));
                    }
                },
            );
            assert_eq!(resolve(&[&no], &[&secret]), Ok(ips(&["192.0.2.7"])));
        }
    }

    #[test]
    fn a_cut_answer_is_asked_for_again_over_tcp() {
        let large = FakeDns::start(|asked| match asked.stream {
            true => vec![asked.addresses(&["192.0.2.1"])],
            false => vec![asked.truncated()],
        });
        assert_eq!(resolve(&[&large], &[]), Ok(ips(&["192.0.2.1"])));
    }

    #[test]
    fn guesses_are_passed_over() {
        let spoofed = FakeDns::start(|asked| {
            let bad = asked.addresses(&["192.0.2.66", "2001:db8::66"]);
            let mut messages = Vec::new();
            // Id, kind of message, number of questions, the name, the type.
            for at in [0, 1, 2, 5, 14, 12 + asked.name.len() + 3] {
                let mut lie = bad.clone();
                lie[at] ^= 0x90;
                messages.push(lie);
            }
            messages.push(bad[..20].to_vec());
            messages.push(asked.addresses(&["192.0.2.1"]));
            messages
        });
        assert_eq!(resolve(&[&spoofed], &[]), Ok(ips(&["192.0.2.1"])));
    }

    #[test]
    fn addresses_that_do_not_work_are_taken_last() {
        let (lies, true_one) =
            (good(), FakeDns::start(|asked| vec![asked.addresses(&["192.0.2.5"])]));
        let avoid = ips(&["192.0.2.1", "2001:db8::1"]);
        let made = resolver(&[&lies], &[&true_one]);
        assert_eq!(made.resolve(NAME, true, &avoid, soon()), Ok(ips(&["192.0.2.5"])));
        let made = resolver(&[&lies], &[]);
        assert_eq!(made.resolve(NAME, true, &avoid, soon()).unwrap().len(), 2);
    }

    #[test]
    fn the_files_are_read_at_each_attempt() {
        let dir = std::env::temp_dir().join(format!("culvert-etc-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let dns = FakeDns::start(|asked| match asked.name.as_str() {
            "edge.lan.example" => vec![asked.addresses(&["192.0.2.1"])],
            _ => vec![asked.code(3)],
        });
        let mut made = resolver(&[], &[]);
        (made.etc, made.port) = (dir.clone(), dns.addr.port());
        let resolve = |name| made.resolve(name, true, &[], soon());
        // Missing and empty mean a resolver on this machine.
        assert!(resolve("edge.lan.example").is_ok());
        fs::write(dir.join("resolv.conf"), "").unwrap();
        assert!(resolve("edge.lan.example").is_ok());
        assert!(resolve("edge").unwrap_err().contains("no such name"));
        fs::write(dir.join("resolv.conf"), "nameserver 127.0.0.1\nsearch x lan.example\n").unwrap();
        assert_eq!(resolve("edge"), Ok(ips(&["192.0.2.1"])));
        fs::write(dir.join("hosts"), "192.0.2.9 edge\n").unwrap();
        assert_eq!(resolve("edge"), Ok(ips(&["192.0.2.9"])));
        fs::remove_dir_all(dir).unwrap();
    }
}
