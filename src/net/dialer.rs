//! Dials an edge: from its address to an encrypted connection. Decides the order of the
//! attempts (`docs/internals/connectivity.md`) and remembers earlier results. Each kind of
//! attempt is in another module of `net`.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use super::http_client::Client;
use super::last_good::CacheDirs;
use super::proxy_env::{Proxy, ProxySettings};
use super::resolver::{self, Resolver};
use super::timed_stream::TimedStream;
use super::{dial, proxy_tunnel};
use crate::config::{self, Cas, DEFAULT_CRL};
use crate::features;
use crate::http1::text::printable;
use crate::proto::codes::Refusal;
use crate::sys;
use crate::sys::sync::{Mutex, MutexGuard};
use crate::time::{Deadline, Instant};
use crate::tls::crl::{self, Crl};
use crate::tls::{self, client, roots};

/// Time during which an address of another service than the edge is tried after all others.
const AVOID_TIME: Duration = Duration::from_secs(60);
/// Number of consecutive refusals after which other resolvers are queried. Not after each: a
/// restarting edge refuses too, and should be reached at once.
const REFUSALS_PER_FALLBACK: u32 = 4;
/// Maximum number of hosts with last good addresses, and of avoided addresses.
const MAX_REMEMBERED: usize = 16;
/// Name of the file with the last good addresses.
const ADDRESSES_FILE: &str = "addresses";

/// Reason why dialling failed.
#[derive(Debug)]
pub enum DialError {
    /// Another attempt may succeed.
    Retry(String),
    /// Another attempt cannot succeed.
    Final(Refusal),
}

/// Dials edges. Shared by the threads of all sessions.
pub struct Dialer {
    resolver: Resolver,
    proxies: ProxySettings,
    cas: Cas,
    /// URL of the certificate revocation list; empty for none.
    crl_url: String,
    trust: OnceLock<Trust>,
    cache: CacheDirs,
    proxy_type: &'static str,
    /// Results of earlier attempts. Not held during calls that block.
    history: Mutex<History>,
}

/// Trusted issuers of an edge's certificate.
struct Trust {
    tls: Arc<ClientConfig>,
    crl: Option<Crl>,
}

#[derive(Default)]
struct History {
    /// Addresses of other services than the edge, and since when.
    avoided: Vec<(IpAddr, Instant)>,
    /// Number of consecutive refusals.
    refusals: u32,
    /// Last addresses of edges, read from the disk when first needed.
    last: Option<Vec<(String, IpAddr)>>,
}

impl Dialer {
    /// Checks everything that can be checked before a packet is sent.
    pub fn new(config: &config::Agent) -> Result<Self, Refusal> {
        let environment = |name: &str| std::env::var(name).ok();
        Dialer::with(config, &environment).map_err(Refusal::text)
    }

    fn with(
        config: &config::Agent,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        for url in &config.further_urls {
            dial::split_address(url)?;
        }
        let (host, port) = dial::split_address(&config.connect_url)?;
        let interface = &config.connect_interface;
        if interface.len() > 15 || interface.contains(['/', ' ', '\0']) {
            return Err(format!(
                "connect_interface '{}' is not a valid interface name",
                printable(interface.as_bytes())
            ));
        }
        let proxies = ProxySettings::new(&config.proxy_url, environment)?;
        let proxy_type = proxies.proxy_for(&host, port).map_or("", |proxy| proxy.scheme.as_str());
        // The vendor's list does not cover certificates of other authorities.
        let applies = config.connect_cas == Cas::Trusted || config.crl_url != DEFAULT_CRL;
        let mut crl_url = String::new();
        if features::FETCH && applies && !config.crl_noverify {
            super::url::Url::parse(&config.crl_url).map_err(|e| format!("crl_url: {e}"))?;
            crl_url.clone_from(&config.crl_url);
        }
        let dialer = Dialer {
            resolver: Resolver::new(
                config.dns_resolver_ips.clone(),
                config.dns_public_resolvers.clone(),
                interface,
            ),
            proxies,
            cas: config.connect_cas.clone(),
            crl_url,
            trust: OnceLock::new(),
            cache: CacheDirs::new(config.state_dir.as_deref(), environment),
            proxy_type,
            history: Mutex::default(),
        };
        match dialer.trust() {
            // The system's bundle may become available later, with a file system that is
            // mounted. Each attempt looks for it and reports if it is missing.
            Err(e) if config.connect_cas == Cas::Host && e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.to_string()),
            Ok(_) => {}
        }
        Ok(dialer)
    }

    fn trust(&self) -> io::Result<&Trust> {
        if let Some(trust) = self.trust.get() {
            return Ok(trust);
        }
        let roots = Arc::new(roots::load(&self.cas)?);
        let tls = client::tunnel_config(Arc::clone(&roots))?;
        let url = &self.crl_url;
        let crl = (!url.is_empty()).then(|| Crl::new(url, roots));
        Ok(self.trust.get_or_init(|| Trust { tls, crl }))
    }

    /// Returns how the edge is dialled, as a value of Auth (protocol 5.4).
    pub fn proxy_type(&self) -> &'static str {
        self.proxy_type
    }

    /// Returns whether connections are bound to a network interface.
    pub fn custom_interface(&self) -> bool {
        !self.resolver.interface.is_empty()
    }

    /// Returns the roots of an edge's certificate.
    pub fn roots(&self) -> io::Result<Arc<RootCertStore>> {
        roots::load(&self.cas).map(Arc::new)
    }

    /// Returns the URL of the certificate revocation list; empty if none is used.
    pub fn crl_url(&self) -> &str {
        &self.crl_url
    }

    /// Returns the proxy for a host; `None`: a direct connection.
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        self.proxies.proxy_for(host, port)
    }

    /// Returns the resolver of host names.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Returns an encrypted connection with the edge at `host:port`, with a verified
    /// certificate.
    pub fn connect(
        &self,
        address: &str,
        deadline: Deadline,
    ) -> Result<tls::Established, DialError> {
        let (host, port) = dial::split_address(address).map_err(DialError::Retry)?;
        let trust = self.trust().map_err(|e| DialError::Retry(e.to_string()))?;
        let socket =
            self.open(&host, port, deadline).map_err(|e| DialError::Retry(e.to_string()))?;
        // `None` behind a proxy, which finds the edge by itself.
        let proxy = self.proxies.proxy_for(&host, port);
        let ip = socket.peer_addr().ok().map(|a| a.ip()).filter(|_| proxy.is_none());
        let made = client::connect(socket, &host, Arc::clone(&trust.tls), deadline);
        let (link, chain) = made.map_err(|e| {
            if let Some(ip) = ip
                && matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::TimedOut)
            {
                self.avoid_address(&[ip]);
            }
            let mut at = format!("{}:{port}", super::url::bracketed(&host));
            match (ip, proxy) {
                (Some(ip), _) if ip.to_string() == host => {}
                (Some(ip), _) => at.push_str(&format!(" at {ip}")),
                (None, Some(proxy)) => at.push_str(&format!(" via {proxy}")),
                (None, None) => {}
            }
            DialError::Retry(format!("{at}: {e}"))
        })?;
        if let Some(crl) = trust.crl.as_ref().filter(|_| features::FETCH) {
            let fetch = |url: &str| {
                let limit = Deadline::At(sys::clock() + crl::FETCH_TIMEOUT).min(deadline);
                let connect = |host: &str, port: u16, deadline: Deadline| {
                    Ok(TimedStream::new(self.open(host, port, deadline)?, deadline))
                };
                Client::new(&connect, &Cas::Host).get(url, crl::MAX_CRL_BYTES, limit)
            };
            if crl.revoked(&chain, &self.cache, &fetch) {
                return Err(DialError::Final(Refusal::text(format!(
                    "the certificate of {host}:{port} was revoked by its CA (list: {}): the \
                     server may not be the edge; the edge needs a new certificate, or set \
                     crl_noverify: true",
                    crl.url
                ))));
            }
        }
        if let Some(ip) = ip {
            self.remember(&host, ip);
        }
        Ok(link)
    }

    /// Returns a connection to a host, through the proxy if there is one.
    pub fn open(&self, host: &str, port: u16, deadline: Deadline) -> io::Result<TcpStream> {
        let Some(proxy) = self.proxies.proxy_for(host, port) else {
            return self.direct(host, port, true, deadline);
        };
        let direct = |host: &str, port: u16, deadline| self.direct(host, port, false, deadline);
        proxy_tunnel::open(proxy, &direct, host, port, deadline)
    }

    /// Returns a direct connection to a host. If none of its addresses can be reached, the next
    /// resolvers are queried. At last the addresses of earlier connections are tried.
    fn direct(
        &self,
        host: &str,
        port: u16,
        allow_public: bool,
        deadline: Deadline,
    ) -> io::Result<TcpStream> {
        if host.contains('%')
            && let Some(address) = resolver::literal(host, port)?
        {
            return dial::race(&[address], &self.resolver.interface, deadline);
        }
        let mut avoid = self.avoided();
        let mut failure = None;
        loop {
            let mut found = match self.resolver.resolve(host, allow_public, &avoid, deadline) {
                Ok(found) => found,
                Err(_) if !self.last(host, &avoid).is_empty() => self.last(host, &avoid),
                Err(e) => return Err(failure.unwrap_or_else(|| io::Error::other(e))),
            };
            if let Some(failure) = failure
                && found.iter().all(|ip| avoid.contains(ip))
            {
                found = self.last(host, &avoid);
                if found.is_empty() {
                    return Err(failure);
                }
            }
            dial::move_last(&mut found, |ip| avoid.contains(ip));
            let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
            // A proxy on this machine is not reached through the interface.
            let on_this_host = !allow_public && found.iter().all(IpAddr::is_loopback);
            let interface = if on_this_host { "" } else { self.resolver.interface.as_str() };
            let e = match dial::race(&addresses, interface, deadline) {
                Ok(socket) => {
                    self.history().refusals = 0;
                    return Ok(socket);
                }
                Err(e) => e,
            };
            let refused = e.kind() == io::ErrorKind::ConnectionRefused;
            if (refused && !self.refused_often()) || deadline.due(sys::clock()) {
                if !refused {
                    self.avoid_address(&found);
                }
                return Err(with_host(host, e));
            }
            avoid.extend(found);
            failure = Some(with_host(host, e));
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock()
    }

    fn refused_often(&self) -> bool {
        let mut history = self.history();
        history.refusals = history.refusals.wrapping_add(1);
        history.refusals.is_multiple_of(REFUSALS_PER_FALLBACK)
    }

    fn avoided(&self) -> Vec<IpAddr> {
        let now = sys::clock();
        let mut history = self.history();
        history.avoided.retain(|(_, since)| now.since(*since) < AVOID_TIME);
        history.avoided.iter().map(|(ip, _)| *ip).collect()
    }

    fn avoid_address(&self, addresses: &[IpAddr]) {
        let now = sys::clock();
        let mut history = self.history();
        history.avoided.retain(|(ip, _)| !addresses.contains(ip));
        history.avoided.extend(addresses.iter().map(|ip| (*ip, now)));
        let over = history.avoided.len().saturating_sub(MAX_REMEMBERED);
        history.avoided.drain(..over);
    }

    /// Returns the addresses where `host` was reached last.
    fn last(&self, host: &str, avoid: &[IpAddr]) -> Vec<IpAddr> {
        self.read_last();
        let history = self.history();
        let all = history.last.iter().flatten();
        all.filter(|(h, ip)| h == host && !avoid.contains(ip)).map(|(_, ip)| *ip).collect()
    }

    fn read_last(&self) {
        if self.history().last.is_some() {
            return;
        }
        let bytes = self.cache.load(ADDRESSES_FILE).map(|(bytes, _)| bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let read = text.lines().filter_map(|line| {
            let (host, ip) = line.split_once(' ')?;
            Some((host.to_owned(), ip.parse().ok()?))
        });
        self.history().last.get_or_insert(read.take(MAX_REMEMBERED).collect());
    }

    /// Records that the edge was reached at `ip`. Written to the disk if it is new.
    fn remember(&self, host: &str, ip: IpAddr) {
        if host.parse::<IpAddr>().is_ok() {
            return;
        }
        self.read_last();
        let text = {
            let mut history = self.history();
            history.avoided.retain(|(avoided, _)| *avoided != ip);
            let last = history.last.get_or_insert_default();
            if last.iter().any(|(h, known)| h == host && *known == ip) {
                return;
            }
            // The newest first, with a few for each host.
            last.insert(0, (host.to_owned(), ip));
            let mut of_host = 0;
            last.retain(|(h, _)| {
                of_host += usize::from(h == host);
                h != host || of_host <= MAX_REMEMBERED / 4
            });
            last.truncate(MAX_REMEMBERED);
            last.iter().map(|(h, ip)| format!("{h} {ip}\n")).collect::<String>()
        };
        self.cache.store(ADDRESSES_FILE, text.as_bytes());
    }
}

/// Adds the host's name to an error, if the name differs from its address.
fn with_host(host: &str, e: io::Error) -> io::Error {
    match host.parse::<IpAddr>() {
        Ok(_) => e,
        Err(_) => io::Error::new(e.kind(), format!("{host}: {e}")),
    }
}
