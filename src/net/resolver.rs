//! Resolves names (`docs/internals/connectivity.md`): the hosts file, the configured resolvers
//! or those of the system, then public resolvers over UDP, TCP and TLS. Decides the order and
//! the time of each. The transports are `dns_udp` and `dns_stream`.
//!
//! The C library's resolver has no deadline: a silent server blocks its thread for 10 s and
//! more, and a helper thread for it costs memory and cannot be ended. The files of `/etc` are
//! read at each attempt, so a resolver of a new network is used at once.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::dns_udp::UdpRound;
use super::resolv_conf::{ResolvConf, hosts};
use super::{dial, dns_stream};
use crate::features;
use crate::sys;
use crate::sys::socket;
use crate::time::Deadline;

/// Maximum time of one resolution; shorter attempts get a share of their own time.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a file of `/etc`.
const MAX_FILE_BYTES: usize = 256 * 1024;
/// Port of DNS.
const DNS_PORT: u16 = 53;
/// Port of DNS over TLS (RFC 7858).
const DOT_PORT: u16 = 853;

/// Resolver of host names.
pub struct Resolver {
    /// Resolvers that replace those of the system, if there are any.
    pub configured: Vec<SocketAddr>,
    /// Public resolvers, which are queried when the others have no result.
    pub public: Vec<SocketAddr>,
    /// Network interface for the queries; empty: any.
    pub interface: String,
    /// Directory of `hosts` and `resolv.conf`.
    etc: PathBuf,
    /// Port of the system's resolvers.
    port: u16,
}

impl Resolver {
    /// Returns a resolver of this system.
    pub fn new(configured: Vec<SocketAddr>, public: Vec<SocketAddr>, interface: &str) -> Self {
        let (etc, port) = (PathBuf::from("/etc"), DNS_PORT);
        Resolver { configured, public, interface: interface.to_owned(), etc, port }
    }

    /// Returns the addresses of `name`, at least one. `allow_public`: public resolvers may be
    /// queried for it. A reply that contains only addresses of `avoid` is used without an
    /// alternative.
    pub fn resolve(
        &self,
        name: &str,
        allow_public: bool,
        avoid: &[IpAddr],
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, String> {
        let bare = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(known) = self.known(name, &bare) {
            return Ok(known);
        }
        let begin = sys::clock();
        let total = deadline.left(begin).unwrap_or(RESOLVE_TIMEOUT).min(RESOLVE_TIMEOUT);
        // Shares of the whole time, in twentieths. The rest is for the connection.
        let share = |twentieths: u32| begin + total / 20 * twentieths;
        let public = if allow_public && is_public(&bare) { &self.public[..] } else { &[] };
        let conf = ResolvConf::parse(&self.file("resolv.conf"));
        let candidates = conf.candidates(name, allow_public);
        let tcp_only = conf.use_tcp && features::FETCH;
        let mut over_tcp = tcp_only;
        let (local, is_configured) = self.local_servers(conf);
        let (mut fallback, mut failures) = (Vec::new(), Vec::new());
        for candidate in candidates.iter().filter(|_| !tcp_only) {
            let both = candidate.eq_ignore_ascii_case(&bare) && !public.is_empty();
            let (more, until) = if both { (public, share(8)) } else { (&[][..], share(13)) };
            let round = UdpRound::new(candidate, &self.interface, avoid, until);
            let round = round.run(&local, more, share(5));
            if !round.found.is_empty() {
                return Ok(round.found);
            }
            over_tcp = !round.negative && round.avoided.is_empty();
            fallback.extend(round.avoided);
            failures.extend(round.failures);
            // A resolver without an answer has none about another name either.
            if !round.negative {
                break;
            }
        }
        if features::FETCH {
            let local: &[SocketAddr] = if over_tcp { &local } else { &[] };
            let tcp_until = if public.is_empty() { share(16) } else { share(10) };
            let until = [tcp_until, share(13)].map(|until| Deadline::At(until).min(deadline));
            let found = self.resolve_over_streams(&candidates, &bare, [local, public], until);
            for answer in found {
                match answer {
                    Ok(found) if found.iter().all(|ip| avoid.contains(ip)) => {
                        fallback.extend(found);
                    }
                    Ok(found) => return Ok(found),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        if !fallback.is_empty() {
            return Ok(fallback);
        }
        Err(cannot_resolve(name, is_configured, &failures))
    }

    /// Returns the addresses that one resolver has for a full name: over UDP, then over TCP.
    /// Neither the hosts file nor search domains are used.
    pub fn query(
        &self,
        server: SocketAddr,
        name: &str,
        deadline: Deadline,
    ) -> Result<Vec<IpAddr>, String> {
        let begin = sys::clock();
        let total = deadline.left(begin).unwrap_or(RESOLVE_TIMEOUT);
        let until = begin + if features::FETCH { total / 4 * 3 } else { total };
        let round = UdpRound::new(name, &self.interface, &[], until);
        let round = round.run(&[server], &[], until);
        if !round.found.is_empty() {
            return Ok(round.found);
        }
        let why = dial::join_failures(&round.failures);
        if round.negative || !features::FETCH {
            return Err(why);
        }
        let over_tcp = self.resolve_over_stream(name, vec![server], false, deadline);
        over_tcp.map_err(|e| format!("{why}; {e}"))
    }

    /// Returns the resolvers of the system, and those of the configuration if they replace them.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.local_servers(ResolvConf::parse(&self.file("resolv.conf"))).0
    }

    /// Queries resolvers over TCP, then public ones over TLS, one after the other as the
    /// result is read. Public ones are queried for the name itself only.
    fn resolve_over_streams<'a>(
        &'a self,
        candidates: &'a [String],
        bare: &'a str,
        [local, public]: [&'a [SocketAddr]; 2],
        [tcp_until, tls_until]: [Deadline; 2],
    ) -> impl Iterator<Item = Result<Vec<IpAddr>, String>> + 'a {
        let ways = [(false, local, tcp_until), (true, &[][..], tls_until)];
        let queries =
            ways.into_iter().flat_map(move |way| candidates.iter().map(move |c| (way, c)));
        queries.filter_map(move |((secure, local, until), candidate)| {
            let public = if candidate.eq_ignore_ascii_case(bare) { public } else { &[] };
            let servers = [local, public].concat();
            if servers.is_empty() {
                return None;
            }
            Some(self.resolve_over_stream(candidate, servers, secure, until))
        })
    }

    /// Returns the addresses of a name that needs no query: an address, a name of the hosts
    /// file, or `localhost`.
    pub fn without_query(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.known(name, &name.trim_end_matches('.').to_ascii_lowercase())
    }

    fn known(&self, name: &str, bare: &str) -> Option<Vec<IpAddr>> {
        if let Ok(ip) = name.parse() {
            return Some(vec![ip]);
        }
        let listed = hosts(&self.file("hosts"), name);
        if !listed.is_empty() {
            return Some(listed);
        }
        // RFC 6761 section 6.3.
        let is_local = bare == "localhost" || bare.ends_with(".localhost");
        is_local.then(|| vec![[127, 0, 0, 1].into(), IpAddr::from(1u128.to_be_bytes())])
    }

    fn file(&self, name: &str) -> String {
        // A missing file has no entries.
        let file = fs::File::open(self.etc.join(name));
        let mut bytes = Vec::new();
        let _ = file.and_then(|f| f.take(MAX_FILE_BYTES as u64).read_to_end(&mut bytes));
        String::from_utf8(bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// Returns the resolvers to query first, and whether they are configured.
    fn local_servers(&self, conf: ResolvConf) -> (Vec<SocketAddr>, bool) {
        if !self.configured.is_empty() {
            return (self.configured.clone(), true);
        }
        if conf.servers.is_empty() {
            // As in C libraries.
            let here = SocketAddr::from(([127, 0, 0, 1], self.port));
            return (vec![here], false);
        }
        let servers = conf.servers.into_iter().map(|(ip, zone)| {
            let zoned = if zone.is_empty() { ip.to_string() } else { format!("{ip}%{zone}") };
            let literal = literal(&zoned, self.port);
            literal.ok().flatten().unwrap_or(SocketAddr::new(ip, self.port))
        });
        (servers.collect(), true)
    }

    /// Queries `servers` in turn over TCP or TLS, until one answers. The server's certificate
    /// is not verified over TLS: small machines have no roots, and the edge proves its own name
    /// later. TLS is used because networks that manipulate DNS usually leave it unchanged.
    fn resolve_over_stream(
        &self,
        name: &str,
        servers: Vec<SocketAddr>,
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
            let interface = dial::interface_to(&self.interface, first);
            let server = match dial::race(&servers, interface, deadline) {
                Ok(tcp) => {
                    // A server that accepts the connection and stays silent leaves time for
                    // another one.
                    let patience = if servers.len() > 1 { left / 2 } else { left };
                    let until = Deadline::At(now + patience);
                    let server = tcp.peer_addr().unwrap_or(first);
                    match dns_stream::query(tcp, server, name, secure, until) {
                        Ok(found) => return Ok(found),
                        Err(e) => failures.push(format!("{server}: {e}")),
                    }
                    server
                }
                Err(e) => {
                    failures.push(e.kind().to_string());
                    break;
                }
            };
            servers.retain(|s| *s != server);
        }
        let over = if secure { "TLS" } else { "TCP" };
        Err(format!("over {over}: {}", failures.join(", ")))
    }
}

/// Returns the address if `host` is one, with the interface of a link-local one after `%`, by
/// name or number (RFC 4007 section 11). `None` for a name.
pub fn literal(host: &str, port: u16) -> io::Result<Option<SocketAddr>> {
    let (ip, zone) = host.split_once('%').unwrap_or((host, ""));
    let Ok(ip) = ip.parse() else { return Ok(None) };
    let mut address = SocketAddr::new(ip, port);
    if let (SocketAddr::V6(v6), false) = (&mut address, zone.is_empty()) {
        let number = zone.parse().ok().or_else(|| socket::interface_number(zone));
        v6.set_scope_id(number.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("no network interface '{zone}'"))
        })?);
    }
    Ok(Some(address))
}

/// Returns the addresses of `host:port` on which this machine listens. Without a host: every
/// address of this machine.
pub fn listen_addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let (host, port) = text.rsplit_once(':').ok_or("it must be host:port")?;
    let port = port.parse().map_err(|_| "it must be host:port")?;
    let ips = match host {
        "" => vec![Ipv4Addr::UNSPECIFIED.into()],
        // Also without an entry in a hosts file.
        "localhost" => vec![Ipv4Addr::LOCALHOST.into()],
        _ => {
            Resolver::new(Vec::new(), Vec::new(), "").resolve(host, false, &[], Deadline::Never)?
        }
    };
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

fn cannot_resolve(name: &str, is_configured: bool, failures: &[String]) -> String {
    let hint = match is_configured {
        true => "",
        false => " (/etc/resolv.conf names no resolver, dns_resolver_ips can)",
    };
    format!("cannot resolve '{name}': {}{hint}", dial::join_failures(failures))
}

/// Returns whether public resolvers may be queried for a name: not for names of a local
/// network.
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
            assert!(error.contains(&format!("({})", dns.addr)) && error.contains(what), "{error}");
        }
        assert!(error.contains(NAME), "{error}");
        let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = Resolver::new(vec![gone], Vec::new(), "");
        let error = nobody.resolve(NAME, true, &[], soon()).unwrap_err();
        assert!(error.contains("refused"), "{error}");
        let error = nobody.resolve("no host", true, &[], soon()).unwrap_err();
        assert!(error.contains("is not a host name"), "{error}");
    }

    #[test]
    fn public_ones_are_asked_when_the_others_have_no_answer() {
        let no = FakeDns::start(|asked| vec![asked.code(3)]);
        for others in [&no, &silent()] {
            assert_eq!(resolve(&[others], &[&good()]).unwrap().len(), 2);
        }
        // Not for names of a local network, and not for the name of a proxy.
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

        /// Answers over TCP only, or over UDP with a wrong address.
        fn tcp_only(lie: bool) -> FakeDns {
            FakeDns::start(move |asked| match (asked.stream, &*asked.name) {
                (true, "edge.example" | "short.lan") => vec![asked.addresses(&["192.0.2.1"])],
                (true, _) => vec![asked.code(3)],
                (false, _) if lie => vec![asked.addresses(&["192.0.2.66"])],
                (false, _) => Vec::new(),
            })
        }

        #[test]
        fn a_resolver_that_answers_over_tcp_alone_is_never_asked_over_tcp() {
            let made = resolver(&[&tcp_only(false)], &[]);
            let deadline = Deadline::At(sys::clock() + Duration::from_secs(2));
            assert_eq!(made.resolve(NAME, true, &[], deadline), Ok(ips(&["192.0.2.1"])));
            // Beside public ones it is not the last.
            let made = resolver(&[&tcp_only(false)], &[&silent()]);
            let deadline = Deadline::At(sys::clock() + Duration::from_secs(2));
            assert_eq!(made.resolve(NAME, true, &[], deadline), Ok(ips(&["192.0.2.1"])));
        }

        #[test]
        fn use_vc_is_ignored() {
            let dir = std::env::temp_dir().join(format!("culvert-use-vc-{}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            fs::write(
                dir.join("resolv.conf"),
                "nameserver 127.0.0.1\nsearch lan\noptions ndots:2 use-vc\n",
            )
            .unwrap();
            let dns = tcp_only(true);
            let mut made = resolver(&[], &[]);
            (made.etc, made.port) = (dir.clone(), dns.addr.port());
            for name in [NAME, "short"] {
                let found = made.resolve(name, false, &[], soon());
                assert_eq!(found, Ok(ips(&["192.0.2.1"])), "{name}");
            }
            fs::remove_dir_all(dir).unwrap();
        }

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
                    // A connection without TLS is truncated.
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
            // Id, flags, number of questions, name, type.
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
    fn a_wildcard_of_a_search_domain_hides_the_edge() {
        let dir = std::env::temp_dir().join(format!("culvert-search-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(
            dir.join("resolv.conf"),
            "nameserver 127.0.0.1\nsearch wild.isp\noptions ndots:5\n",
        )
        .unwrap();
        let dns = FakeDns::start(|asked| match asked.name.ends_with(".wild.isp") {
            true => vec![asked.addresses(&["192.0.2.66"])],
            false => vec![asked.addresses(&["192.0.2.1"])],
        });
        let mut made = resolver(&[], &[]);
        (made.etc, made.port) = (dir.clone(), dns.addr.port());
        assert_eq!(made.resolve(NAME, true, &[], soon()), Ok(ips(&["192.0.2.1"])));
        // A service of a cluster is found as its own programs find it.
        assert_eq!(made.resolve("db.dev", false, &[], soon()), Ok(ips(&["192.0.2.66"])));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_address_may_have_an_interface() {
        let lo = socket::interface_number("lo").unwrap();
        for (host, scope) in [("fe80::88%lo", lo), ("fe80::88%7", 7), ("fe80::88", 0)] {
            let Ok(Some(SocketAddr::V6(v6))) = literal(host, 80) else { panic!("{host}") };
            assert_eq!((v6.scope_id(), v6.port()), (scope, 80), "{host}");
        }
        assert_eq!(literal("10.0.0.1", 1).unwrap(), Some(([10, 0, 0, 1], 1).into()));
        assert_eq!(literal("edge.example", 1).unwrap(), None);
        let error = literal("fe80::88%nowhere", 80).unwrap_err().to_string();
        assert_eq!(error, "no network interface 'nowhere'");
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
        // Missing and empty files mean a resolver on this machine.
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

    #[test]
    fn addresses_as_users_write_them() {
        let resolved = |text| listen_addresses(text).map(|all| all[0].to_string());
        assert_eq!(resolved("127.0.0.1:4040").unwrap(), "127.0.0.1:4040");
        assert_eq!(resolved("localhost:1").unwrap(), "127.0.0.1:1");
        assert_eq!(resolved("[::1]:1").unwrap(), "[::1]:1");
        assert_eq!(resolved(":4040").unwrap(), "0.0.0.0:4040");
        for bad in ["4040", "localhost", "localhost:x", "localhost:70000", "::1:4040x"] {
            assert!(resolved(bad).unwrap_err().contains("host:port"), "{bad}");
        }
    }
}
