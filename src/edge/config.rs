//! Configuration of the edge: defaults, then `edge.yml`, then flags. Text only: no socket is
//! opened and no certificate is read here.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::agents::acl::{self, Acl};
use super::agents::address::check_host;
use super::agents::credentials::{Credential, CredentialSource, Credentials};
use super::fetch::fetcher::FetchConfig;
use super::fetch::guard::FetchGuard;
use super::login::clients::OAuthClient;
use super::login::providers::{self, PROVIDERS};
use super::proxies::TrustedProxies;
use super::restrictions::{IpPolicies, Restrictions};
use super::routes::{LabelRoute, Labels};
use super::token;
use crate::cidr::Cidr;
use crate::config::Cas;
use crate::config::typed::TypedFile;
use crate::http1::text::is_at_or_below;
use crate::net::url::Url;
use crate::proto::secret::Secret;
use crate::sys;

/// State directory without a configured one.
pub const DEFAULT_DIR: &str = ".culvert";

/// Configuration of an edge.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// Trial mode (`culvert-edge dev`): loopback only, with a CA of its own.
    pub dev: bool,
    /// Domain below which endpoints get their names.
    pub domain: String,
    /// Address for agents.
    pub agent: SocketAddr,
    /// Address for visitors without TLS.
    pub http: SocketAddr,
    /// Address for visitors over TLS.
    pub https: SocketAddr,
    /// Address of the REST API.
    pub api: ApiListener,
    /// Address of TCP endpoints.
    pub tcp: IpAddr,
    /// Their ports, first and last. 0 and 0: the system chooses.
    pub ports: (u16, u16),
    /// Directory for state that outlives the process: keys, and the files of `dev`.
    pub dir: PathBuf,
    /// Certificates from files. Empty: issued by a CA of our own.
    pub certificates: Vec<CertificateFiles>,
    /// Hosts outside `domain` that may be bound.
    pub domains: Vec<String>,
    /// Hosts of labelled tunnels.
    pub routes: Vec<LabelRoute>,
    /// Credentials of agents.
    pub credentials: Credentials,
    /// Proxies in front of the edge.
    pub trusted_proxies: TrustedProxies,
    /// Directory with an update feed for agents.
    pub updates: Option<PathBuf>,
    /// Servers that the edge may send requests to.
    pub fetch: FetchConfig,
    /// Clients of the edge at providers of OAuth.
    pub oauth: Vec<OAuthClient>,
    /// Limits.
    pub limits: Limits,
    /// Ports of reserved TCP addresses, from the store.
    pub reserved_ports: HashSet<u16>,
    /// IP restrictions, from the store.
    pub restrictions: Restrictions,
    /// IP policies, from the store.
    pub ip_policies: IpPolicies,
}

/// Address of the REST API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiListener {
    /// The default one. If it is in use, another port of it.
    Default,
    /// A configured one.
    At(SocketAddr),
}

impl ApiListener {
    /// Returns the address to try first.
    pub fn address(self) -> SocketAddr {
        match self {
            ApiListener::Default => local(4041),
            ApiListener::At(address) => address,
        }
    }
}

/// Files of a certificate, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Where the configuration names them: file, line and column.
    pub position: String,
}

/// Limits of everything that visitors and agents can make grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of visitors at the same time.
    pub visitors: usize,
    /// Threads that serve visitors. A connection that waits needs none.
    pub threads: usize,
    /// Sessions of agents at the same time.
    pub agents: usize,
    /// Connections on the agent port that have not sent an authtoken yet.
    pub unauthenticated: usize,
    /// Endpoints of one session.
    pub endpoints: usize,
    /// Time for the head of a request, from its first byte on, and for a TLS hello.
    pub head: Duration,
    /// Time that a visitor may be idle between requests.
    pub idle: Duration,
    /// Time for open connections when the edge stops.
    pub grace: Duration,
    /// Time that the URLs of a disconnected agent stay reserved for it.
    pub hold: Duration,
    /// Bytes that the streams of one agent's session may have received and not delivered.
    pub session_buffer: usize,
    /// The same limit for all sessions together.
    pub total_buffer: usize,
    /// Time that a peer may take no byte while bytes wait for it.
    pub stall: Duration,
    /// Time that a connection may be silent after one of its sides has ended. `None`: no limit.
    pub half_closed: Option<Duration>,
    /// Time for an agent to complete the handshake and send its authtoken.
    pub auth: Duration,
    /// Requests to the REST API in a minute, for each key.
    pub api_requests: u32,
}

const MIB: usize = 1024 * 1024;

/// Memory of a visitor's connection that waits, of a thread that serves a visitor, and of an
/// agent's session, with the kernel's part.
const VISITOR_BYTES: usize = 16 * 1024;
const THREAD_BYTES: usize = 48 * 1024;
const SESSION_BYTES: usize = 96 * 1024;

impl Limits {
    /// Returns the defaults for a machine with `memory` bytes: each kind of connection may use a
    /// quarter of it, and bytes that wait an eighth.
    pub fn for_memory(memory: u64) -> Self {
        let quarter = usize::try_from(memory / 4).unwrap_or(usize::MAX);
        let d = Limits::default();
        let total_buffer = d.total_buffer.min((quarter / 2 / MIB).max(1) * MIB);
        Limits {
            visitors: d.visitors.min(quarter / VISITOR_BYTES).max(16),
            threads: d.threads.min(quarter / THREAD_BYTES).max(16),
            agents: d.agents.min(quarter / SESSION_BYTES).max(4),
            session_buffer: d.session_buffer.min((total_buffer / 2 / MIB).max(1) * MIB),
            total_buffer,
            ..d
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            visitors: 4096,
            threads: 4096,
            agents: 1024,
            unauthenticated: 128,
            endpoints: 128,
            head: Duration::from_secs(15),
            idle: Duration::from_secs(300),
            grace: Duration::from_secs(10),
            hold: Duration::from_secs(60),
            session_buffer: 32 * MIB,
            total_buffer: 128 * MIB,
            stall: Duration::from_secs(300),
            half_closed: Some(Duration::from_secs(300)),
            auth: Duration::from_secs(10),
            api_requests: 120,
        }
    }
}

/// Values of flags. They have priority over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--agent-addr`
    pub agent: Option<SocketAddr>,
    /// `--http-addr`
    pub http: Option<SocketAddr>,
    /// `--https-addr`
    pub https: Option<SocketAddr>,
    /// `--api-addr`
    pub api: Option<SocketAddr>,
    /// `--tcp-ports`
    pub ports: Option<(u16, u16)>,
    /// `--dir`
    pub dir: Option<PathBuf>,
    /// `--domain`
    pub domain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    domain: Option<String>,
    listeners: ListenerEntries,
    ports: Option<PortsEntry>,
    state_dir: Option<PathBuf>,
    certificates: Vec<CertificateEntry>,
    domains: Vec<String>,
    routes: Vec<RouteEntry>,
    credentials: Vec<CredentialEntry>,
    trusted_proxies: Vec<String>,
    proxy_protocol: Vec<String>,
    updates: Option<PathBuf>,
    fetch: FetchEntries,
    oauth: BTreeMap<String, OAuthEntry>,
    limits: LimitEntries,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenerEntries {
    agent: Option<String>,
    http: Option<String>,
    https: Option<String>,
    api: Option<String>,
    tcp: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum PortsEntry {
    One(u16),
    Range(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateEntry {
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteEntry {
    host: String,
    labels: Labels,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CredentialEntry {
    id: String,
    authtoken: Option<String>,
    hash: Option<String>,
    acl: Vec<String>,
    description: String,
    metadata: String,
    ip_allow: Vec<String>,
    domains: Vec<String>,
    max_sessions: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FetchEntries {
    allow: Vec<String>,
    cas: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OAuthEntry {
    client_id: String,
    client_secret: String,
    base_url: Option<String>,
}

impl fmt::Debug for OAuthEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuthEntry").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitEntries {
    visitors: Option<usize>,
    threads: Option<usize>,
    agents: Option<usize>,
    unauthenticated: Option<usize>,
    endpoints_per_agent: Option<usize>,
    head_seconds: Option<u64>,
    idle_seconds: Option<u64>,
    grace_seconds: Option<u64>,
    hold_seconds: Option<u64>,
    session_buffer_mib: Option<usize>,
    total_buffer_mib: Option<usize>,
    stall_seconds: Option<u64>,
    half_closed_seconds: Option<u64>,
    api_requests_per_minute: Option<usize>,
}

impl EdgeConfig {
    /// Returns the configuration of `culvert-edge dev`. Its credential is added after its
    /// directory was read.
    pub fn dev(flags: Overrides) -> Result<Self, String> {
        let mut config = EdgeConfig {
            dev: true,
            domain: "localhost".into(),
            agent: local(4400),
            http: local(4080),
            https: local(4443),
            tcp: Ipv4Addr::LOCALHOST.into(),
            ports: (20_000, 20_099),
            dir: DEFAULT_DIR.into(),
            certificates: Vec::new(),
            domains: Vec::new(),
            routes: Vec::new(),
            credentials: Credentials::default(),
            trusted_proxies: TrustedProxies::default(),
            updates: None,
            fetch: FetchConfig { guard: FetchGuard::with_loopback(), ..FetchConfig::default() },
            oauth: Vec::new(),
            limits: Limits::for_memory(sys::memory::total()),
            api: ApiListener::Default,
            reserved_ports: HashSet::new(),
            restrictions: Restrictions::default(),
            ip_policies: IpPolicies::new(),
        };
        config.apply(flags)?;
        let listeners = [
            ("--agent-addr", config.agent),
            ("--http-addr", config.http),
            ("--https-addr", config.https),
            ("--api-addr", config.api.address()),
        ];
        for (flag, addr) in listeners {
            if !addr.ip().is_loopback() {
                return Err(format!(
                    "{flag} {addr}: 'dev' listens on loopback only; for other addresses write an \
                     edge.yml and run 'culvert-edge serve --config edge.yml'"
                ));
            }
        }
        Ok(config)
    }

    /// Returns the configuration of `culvert-edge serve`: the text of `path`, then flags. The
    /// error has file, line and key.
    pub fn serve(path: &Path, text: &str, flags: Overrides) -> Result<Self, String> {
        let (file, entries) =
            TypedFile::parse::<ConfigFile>(path, text).map_err(|e| e.to_string())?;
        let at = |fault: KeyFault| format!("{}: {fault}", file.place(&fault.key));
        let mut config = entries.resolve().map_err(at)?;
        for (index, files) in config.certificates.iter_mut().enumerate() {
            files.position = file.place(&format!("certificates[{index}]"));
        }
        config.apply(flags)?;
        Ok(config)
    }

    /// Returns whether hosts of other credentials than this one may be below a domain.
    pub fn is_shared(&self, credential: &str, domain: &str) -> bool {
        let below = |name: &str| is_at_or_below(name.strip_prefix("*.").unwrap_or(name), domain);
        let own = |name: &str| self.credentials.owner(name).is_some_and(|c| c.id == credential);
        let of_any = self.domains.iter().filter(|name| name.starts_with("*.") || !own(name));
        let others = self.credentials.iter().filter(|other| other.id != credential);
        let reserved = others.flat_map(|other| &other.domains);
        below(&self.domain) || of_any.chain(reserved).any(|name| below(name))
    }

    fn apply(&mut self, flags: Overrides) -> Result<(), String> {
        self.agent = flags.agent.unwrap_or(self.agent);
        self.http = flags.http.unwrap_or(self.http);
        self.https = flags.https.unwrap_or(self.https);
        self.api = flags.api.map_or(self.api, ApiListener::At);
        self.ports = flags.ports.unwrap_or(self.ports);
        self.dir = flags.dir.unwrap_or_else(|| std::mem::take(&mut self.dir));
        if let Some(domain) = flags.domain {
            self.domain = host("--domain", &domain).map_err(|fault| fault.to_string())?;
        }
        Ok(())
    }
}

/// A value that is not valid.
#[derive(Debug)]
struct KeyFault {
    /// `credentials[0].acl`
    key: String,
    message: String,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

fn fault(key: &str, message: impl Into<String>) -> KeyFault {
    KeyFault { key: key.to_owned(), message: message.into() }
}

impl CertificateEntry {
    fn files(self) -> CertificateFiles {
        let CertificateEntry { certificate, key } = self;
        CertificateFiles { certificate, key, position: String::new() }
    }
}

impl ConfigFile {
    fn resolve(self) -> Result<EdgeConfig, KeyFault> {
        let any = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let addr = |key: &str, text: Option<String>, default: u16| match text {
            None => Ok(any(default)),
            Some(text) => parse_addr(&text).map_err(|e| fault(&format!("listeners.{key}"), e)),
        };
        let domain =
            self.domain.ok_or_else(|| fault("domain", "missing; endpoints get names below it"))?;
        let api = match &self.listeners.api {
            None => ApiListener::Default,
            Some(text) => ApiListener::At(parse_addr(text).map_err(|e| fault("listeners.api", e))?),
        };
        let tcp = match &self.listeners.tcp {
            None => Ipv4Addr::UNSPECIFIED.into(),
            Some(text) => text
                .parse()
                .map_err(|_| fault("listeners.tcp", format!("'{text}' is not an IP address")))?,
        };
        let ports = match &self.ports {
            None => (20_000, 20_099),
            Some(PortsEntry::One(port)) => (*port, *port),
            Some(PortsEntry::Range(text)) => parse_ports(text).map_err(|e| fault("ports", e))?,
        };
        let domain = host("domain", &domain)?;
        let domains = hosts("domains", &self.domains)?;
        Ok(EdgeConfig {
            dev: false,
            routes: routes(self.routes, &domain, &domains)?,
            domain,
            agent: addr("agent", self.listeners.agent, 4443)?,
            http: addr("http", self.listeners.http, 80)?,
            https: addr("https", self.listeners.https, 443)?,
            api,
            tcp,
            ports,
            dir: self.state_dir.unwrap_or_else(|| DEFAULT_DIR.into()),
            certificates: self.certificates.into_iter().map(CertificateEntry::files).collect(),
            domains,
            credentials: credentials(self.credentials)?,
            trusted_proxies: trusted_proxies(&self.trusted_proxies, &self.proxy_protocol)?,
            updates: self.updates.map(feed_dir).transpose()?,
            fetch: self.fetch.resolve()?,
            oauth: oauth_clients(self.oauth)?,
            limits: self.limits.resolve()?,
            reserved_ports: HashSet::new(),
            restrictions: Restrictions::default(),
            ip_policies: IpPolicies::new(),
        })
    }
}

fn routes(
    entries: Vec<RouteEntry>,
    domain: &str,
    domains: &[String],
) -> Result<Vec<LabelRoute>, KeyFault> {
    let mut routes: Vec<LabelRoute> = Vec::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let key = |name: &str| format!("routes[{at}].{name}");
        let host = host(&key("host"), &entry.host)?;
        if !is_at_or_below(&host, domain)
            && !domains.iter().any(|served| acl::covers(served, &host))
        {
            let text = format!("'{host}' is not served here; add it to 'domains'");
            return Err(fault(&key("host"), text));
        }
        if routes.iter().any(|route| route.host == host) {
            return Err(fault(&key("host"), format!("'{host}' appears twice")));
        }
        if entry.labels.is_empty() {
            return Err(fault(&key("labels"), "missing; a tunnel is selected by its labels"));
        }
        routes.push(LabelRoute { host, labels: entry.labels });
    }
    Ok(routes)
}

fn credentials(entries: Vec<CredentialEntry>) -> Result<Credentials, KeyFault> {
    let mut list: Vec<Credential> = Vec::new();
    for (at, entry) in entries.into_iter().enumerate() {
        let key = |name: &str| format!("credentials[{at}].{name}");
        if entry.id.is_empty() {
            return Err(fault(&key("id"), "missing"));
        }
        let hash = match (entry.authtoken, entry.hash) {
            (Some(token), None) if !token.is_empty() => token::hash(&token),
            (None, Some(hash)) => {
                let hex = hash.strip_prefix("sha256:").unwrap_or(&hash).to_ascii_lowercase();
                if hex.len() != 64 || token::unhex(&hex).is_none() {
                    return Err(fault(&key("hash"), "must be 'sha256:' and 64 digits"));
                }
                hex
            }
            _ => return Err(fault(&key("authtoken"), "give either authtoken or hash")),
        };
        let acl = Acl::parse(&entry.acl).map_err(|e| fault(&key("acl"), e))?;
        let cidr = |text: &String| {
            Cidr::parse(text)
                .ok_or_else(|| fault(&key("ip_allow"), format!("'{text}' is not a CIDR")))
        };
        let credential = Credential {
            hash,
            acl,
            ip_allow: entry.ip_allow.iter().map(cidr).collect::<Result<_, _>>()?,
            domains: hosts(&key("domains"), &entry.domains)?,
            max_sessions: entry.max_sessions.unwrap_or(usize::MAX),
            id: entry.id,
            acl_rules: entry.acl,
            description: entry.description,
            metadata: entry.metadata,
            source: CredentialSource::File,
        };
        if list.iter().any(|c| c.id == credential.id || c.hash == credential.hash) {
            return Err(fault(&key("id"), format!("'{}' appears twice", credential.id)));
        }
        list.push(credential);
    }
    Ok(Credentials::new(list))
}

/// Returns the directory of the feed, if it exists: a wrong path would be noticed by agents only.
fn feed_dir(dir: PathBuf) -> Result<PathBuf, KeyFault> {
    match dir.is_dir() {
        true => Ok(dir),
        false => Err(fault("updates", format!("{} is not a directory", dir.display()))),
    }
}

fn trusted_proxies(networks: &[String], headers: &[String]) -> Result<TrustedProxies, KeyFault> {
    let mut proxies = TrustedProxies::default();
    for text in networks {
        let network = Cidr::parse(text).ok_or_else(|| {
            let text = format!("'{text}' is not an address or CIDR; write e.g. 10.0.0.0/8");
            fault("trusted_proxies", text)
        })?;
        proxies.networks.push(network);
    }
    for listener in headers {
        match listener.as_str() {
            "http" => proxies.header_on_http = true,
            "https" => proxies.header_on_https = true,
            "tcp" => proxies.header_on_tcp = true,
            other => {
                let text = format!("'{other}' is not a listener for visitors: http, https, tcp");
                return Err(fault("proxy_protocol", text));
            }
        }
    }
    if networks.is_empty() && !headers.is_empty() {
        let text = "trusted_proxies is missing; list the proxies that send PROXY headers";
        return Err(fault("proxy_protocol", text));
    }
    Ok(proxies)
}

impl FetchEntries {
    fn resolve(self) -> Result<FetchConfig, KeyFault> {
        let mut config = FetchConfig::default();
        for text in &self.allow {
            match Cidr::parse(text) {
                Some(network) => config.guard.networks.push(network),
                None if text.contains('/') => {
                    let text = format!("'{text}' is not a host, an address or a CIDR");
                    return Err(fault("fetch.allow", text));
                }
                None => config.guard.hosts.push(host("fetch.allow", text)?),
            }
        }
        if let Some(path) = self.cas {
            // Otherwise a wrong path would be noticed by visitors only.
            std::fs::File::open(&path)
                .map_err(|e| fault("fetch.cas", format!("cannot read {}: {e}", path.display())))?;
            config.cas = Cas::File(path);
        }
        Ok(config)
    }
}

fn oauth_clients(entries: BTreeMap<String, OAuthEntry>) -> Result<Vec<OAuthClient>, KeyFault> {
    let mut clients = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let key = |part: &str| format!("oauth.{name}{part}");
        let Some(provider) = providers::find(&name) else {
            let known: Vec<&str> = PROVIDERS.iter().map(|provider| provider.name).collect();
            let text = format!("'{name}' is not a provider; use {}", known.join(", "));
            return Err(fault(&key(""), text));
        };
        if entry.client_id.is_empty() != entry.client_secret.is_empty() {
            return Err(fault(&key(".client_id"), "give both client_id and client_secret"));
        }
        if entry.client_id.is_empty() && entry.base_url.is_none() {
            return Err(fault(&key(".client_id"), "missing"));
        }
        if let Some(url) = &entry.base_url {
            Url::parse(url).map_err(|e| fault(&key(".base_url"), e))?;
        }
        clients.push(OAuthClient {
            provider,
            id: entry.client_id,
            secret: Secret::new(entry.client_secret),
            base_url: entry.base_url,
        });
    }
    Ok(clients)
}

impl LimitEntries {
    fn resolve(self) -> Result<Limits, KeyFault> {
        let d = Limits::for_memory(sys::memory::total());
        let count = |key: &str, given: Option<usize>, default| match given {
            Some(0) => Err(fault(&format!("limits.{key}"), "must be at least 1")),
            given => Ok(given.unwrap_or(default)),
        };
        let mib = |key: &str, given: Option<usize>, default: usize| {
            let mib = count(key, given, default / MIB)?;
            let too_large = || fault(&format!("limits.{key}"), format!("{mib} is too large"));
            mib.checked_mul(MIB).ok_or_else(too_large)
        };
        if self.stall_seconds == Some(0) {
            return Err(fault("limits.stall_seconds", "must be at least 1"));
        }
        let time = |given: Option<u64>, default| given.map_or(default, Duration::from_secs);
        let idle = time(self.idle_seconds, d.idle);
        let half_closed = time(self.half_closed_seconds, idle);
        let default = usize::try_from(d.api_requests).unwrap_or(usize::MAX);
        let api_requests = count("api_requests_per_minute", self.api_requests_per_minute, default)?;
        Ok(Limits {
            visitors: count("visitors", self.visitors, d.visitors)?,
            threads: count("threads", self.threads, d.threads)?,
            agents: count("agents", self.agents, d.agents)?,
            unauthenticated: count("unauthenticated", self.unauthenticated, d.unauthenticated)?,
            endpoints: count("endpoints_per_agent", self.endpoints_per_agent, d.endpoints)?,
            head: time(self.head_seconds, d.head),
            idle,
            grace: time(self.grace_seconds, d.grace),
            hold: time(self.hold_seconds, d.hold),
            session_buffer: mib("session_buffer_mib", self.session_buffer_mib, d.session_buffer)?,
            total_buffer: mib("total_buffer_mib", self.total_buffer_mib, d.total_buffer)?,
            stall: time(self.stall_seconds, d.stall),
            half_closed: Some(half_closed).filter(|time| !time.is_zero()),
            auth: d.auth,
            api_requests: u32::try_from(api_requests).unwrap_or(u32::MAX),
        })
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

fn host(key: &str, text: &str) -> Result<String, KeyFault> {
    let host = text.to_ascii_lowercase();
    check_host(&host).map_err(|e| fault(key, e.message))?;
    Ok(host)
}

fn hosts(key: &str, list: &[String]) -> Result<Vec<String>, KeyFault> {
    list.iter().map(|text| host(key, text)).collect()
}

/// Reads `IP:PORT`, `:PORT`, `localhost:PORT` or `PORT`.
pub fn parse_addr(text: &str) -> Result<SocketAddr, String> {
    let port = |p: &str| p.parse::<u16>().ok();
    let found = match text.rsplit_once(':') {
        None => port(text).map(local),
        Some(("", p)) => port(p).map(|p| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), p)),
        Some(("localhost", p)) => port(p).map(local),
        Some(_) => text.parse().ok(),
    };
    found.ok_or_else(|| format!("'{text}' is not an address; write IP:PORT, e.g. 127.0.0.1:4080"))
}

/// Reads `A-B` or `A`.
pub fn parse_ports(text: &str) -> Result<(u16, u16), String> {
    let (a, b) = text.split_once('-').unwrap_or((text, text));
    match (a.trim().parse(), b.trim().parse()) {
        (Ok(0), Ok(0)) => Ok((0, 0)),
        (Ok(a), Ok(b)) if a > 0 && a <= b => Ok((a, b)),
        _ => Err(format!("'{text}' is not a range of ports; write e.g. 20000-20099")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(text: &str) -> Result<EdgeConfig, String> {
        EdgeConfig::serve(Path::new("edge.yml"), text, Overrides::default())
    }

    const GOOD: &str = "\
domain: Tunnel.example.com
listeners:
  agent: 0.0.0.0:4443
  http: '[::]:80'
  tcp: 127.0.0.1
ports: 20000-20009
certificates:
  - certificate: a.pem
    key: a.key
domains: ['*.other.example']
routes: [{host: App.other.example, labels: {edge: app}}]
credentials:
  - id: alice
    authtoken: alice_token
    acl: ['bind:*.tunnel.example.com']
    max_sessions: 3
  - id: bob
    hash: sha256:2BB80D537B1DA3E38BD30361AA855686BDE0EACD7162FEF6A25FE97BF527A25B
limits: {visitors: 10, grace_seconds: 0, session_buffer_mib: 2}
";

    #[test]
    fn a_small_machine_has_lower_limits() {
        // 32 MiB, of which the kernel has a part.
        let small = Limits::for_memory(28 << 20);
        assert_eq!((small.visitors, small.threads, small.agents), (448, 149, 74));
        assert_eq!((small.session_buffer, small.total_buffer), (MIB, 3 * MIB));
        assert_eq!(Limits::for_memory(2 << 30), Limits::default());
        assert!(Limits::for_memory(0).threads > 0);
    }

    #[test]
    fn a_whole_file() {
        // A file from another system: a byte order mark, CRLF.
        let c = serve(&format!("\u{feff}{GOOD}").replace('\n', "\r\n")).unwrap();
        assert_eq!(c.certificates[0].position, "edge.yml:8:5");
        assert_eq!(c.domain, "tunnel.example.com");
        assert_eq!(c.agent, "0.0.0.0:4443".parse().unwrap());
        assert_eq!(c.http, "[::]:80".parse().unwrap());
        assert_eq!((c.ports, c.limits.visitors), ((20000, 20009), 10));
        assert_eq!(c.limits.grace, Duration::ZERO);
        let total_buffer = Limits::for_memory(sys::memory::total()).total_buffer;
        assert_eq!((c.limits.session_buffer, c.limits.total_buffer), (2 * MIB, total_buffer));
        let ip = "10.0.0.1".parse().unwrap();
        assert_eq!(c.credentials.find(&Secret::new("secret"), ip).unwrap().id, "bob");
        assert!(!format!("{c:?}").contains("alice_token"));
    }

    #[test]
    fn errors_name_file_and_key() {
        for (change, with, line, says) in [
            ("domain:", "domian:", 1, "domian"),
            ("  http:", "  htpp:", 4, "htpp"),
            ("visitors: 10", "visitors: 0", 19, "limits.visitors"),
            ("visitors: 10", "stall_seconds: 0", 19, "limits.stall_seconds"),
            ("buffer_mib: 2", "buffer_mib: 0", 19, "limits.session_buffer_mib"),
            ("20000-20009", "20009-20000", 6, "ports"),
            ("0.0.0.0:4443", "nowhere", 3, "listeners.agent"),
            ("'bind:*.tunnel.example.com'", "bind", 15, "credentials[0].acl"),
            ("sha256:2BB", "sha256:XBB", 18, "credentials[1].hash"),
            ("id: bob", "id: alice", 17, "twice"),
            ("authtoken: alice_token", "description: x", 13, "credentials[0].authtoken"),
            ("Tunnel.example.com", "a_b", 1, "domain"),
            ("App.other.example", "app.example", 11, "routes[0].host"),
            ("domains: ['*", "fetch: {allow: [10.0.0.0/33]}\ndomains: ['*", 10, "fetch.allow"),
            ("domains: ['*", "fetch: {allow: ['a b']}\ndomains: ['*", 10, "fetch.allow"),
            ("domains: ['*", "fetch: {cas: /nowhere.pem}\ndomains: ['*", 10, "fetch.cas"),
            ("domains: ['*", "fetch: {alow: []}\ndomains: ['*", 10, "alow"),
            ("domains: ['*", "oauth: {goggle: {}}\ndomains: ['*", 10, "goggle"),
            ("domains: ['*", "oauth: {google: {client_id: x}}\ndomains: ['*", 10, "both"),
            ("domains: ['*", "oauth: {google: {}}\ndomains: ['*", 10, "missing"),
            ("domains: ['*", "oauth: {gitlab: {base_url: x}}\ndomains: ['*", 10, "base_url"),
            ("labels: {edge: app}", "labels: {}", 11, "routes[0].labels"),
            ("labels: {edge: app}", "label: {}", 11, "label"),
            (
                "labels: {edge: app}",
                "labels: {edge: app}}, {host: app.other.example, labels: {a: b}",
                11,
                "appears twice",
            ),
        ] {
            let e = serve(&GOOD.replacen(change, with, 1)).unwrap_err();
            assert!(e.starts_with(&format!("edge.yml:{line}:")) && e.contains(says), "{e}");
            assert!(!e.contains("alice_token"), "{e}");
        }
        assert!(serve("").unwrap_err().contains("domain"));
        let e = serve(&GOOD.replacen("  agent:", "\tagent:", 1)).unwrap_err();
        assert_eq!(e, "edge.yml:3:1: is not valid YAML: line 3 is indented with a tab; use spaces");
    }

    #[test]
    fn servers_that_the_edge_may_fetch_from() {
        let c = serve(&format!("{GOOD}fetch: {{allow: [10.0.0.0/8, '::1', IdP.lan]}}\n")).unwrap();
        let networks = ["10.0.0.0/8", "::1"].map(|text| Cidr::parse(text).unwrap());
        let guard = FetchGuard { networks: networks.to_vec(), hosts: vec!["idp.lan".into()] };
        assert_eq!(c.fetch, FetchConfig { guard, cas: Cas::Host });
        assert_eq!(serve(GOOD).unwrap().fetch, FetchConfig::default());
    }

    #[test]
    fn dev_stays_on_loopback() {
        let flags = |addr: &str| Overrides {
            agent: Some(parse_addr(addr).unwrap()),
            domain: Some("Dev.test".into()),
            ..Overrides::default()
        };
        let c = EdgeConfig::dev(flags("127.0.0.1:0")).unwrap();
        assert_eq!((c.domain.as_str(), c.agent.port()), ("dev.test", 0));
        assert!(EdgeConfig::dev(flags("0.0.0.0:1")).unwrap_err().contains("--agent-addr"));
    }

    #[test]
    fn addresses_and_ports() {
        assert_eq!(parse_addr("4080").unwrap(), local(4080));
        assert_eq!(parse_addr("localhost:1").unwrap(), local(1));
        assert!(parse_addr(":80").unwrap().ip().is_unspecified());
        assert_eq!(parse_ports("0").unwrap(), (0, 0));
        assert_eq!(parse_ports("5").unwrap(), (5, 5));
        for bad in ["", "a", "5-", "0-5", "6-5", "1-70000"] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }
}
