//! The configuration as one value, [`Agent`], with its endpoints and defaults. Plain values:
//! parsing and checks are elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::modules::{Modules, TlsTermination};
use super::update_key::UpdateKey;
use crate::proto::secret::Secret;

/// Configuration of the agent.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Credential for the edge. Empty: not configured.
    pub authtoken: Secret,
    /// Credential for the vendor's API. Only the `api` command uses it.
    pub api_key: Secret,
    /// Address of that API; empty: the vendor's.
    pub api_url: String,
    /// The edge as `host:port`.
    pub connect_url: String,
    /// Further edges, as `host:port`. A session is kept to each.
    pub further_urls: Vec<String>,
    /// Network interface for connections; empty: the system chooses.
    pub connect_interface: String,
    /// Proxy for connections, a URL that may contain a password; empty: the environment
    /// decides.
    pub proxy_url: Secret,
    /// Resolvers that replace those of the system.
    pub dns_resolver_ips: Vec<SocketAddr>,
    /// Public resolvers for names without a result; empty: disabled.
    pub dns_public_resolvers: Vec<SocketAddr>,
    /// Whether the revocation check of the edge's certificate is disabled.
    pub crl_noverify: bool,
    /// URL of the certificate revocation list.
    pub crl_url: String,
    /// CAs that are trusted for the edge's certificate.
    pub connect_cas: Cas,
    /// Time for a whole session setup: name, TCP, TLS, Auth.
    pub connect_timeout: Duration,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// Time that an echo may arrive later than `heartbeat_interval`.
    pub heartbeat_tolerance: Duration,
    /// Free text of the session.
    pub metadata: String,
    /// Whether Stop, Restart and Update from the edge are carried out.
    pub remote_management: bool,
    /// Maximum number of workers, the threads that serve connections; `None`: the default.
    pub max_connections: Option<usize>,
    /// Memory limit in bytes. It determines the bounds that have no value of their own.
    pub memory_limit: Option<u64>,
    /// Version of the vendor's agent that Auth reports for compatibility.
    pub client_version: String,
    /// Directory for small files between runs; `None`: the default ones.
    pub state_dir: Option<PathBuf>,
    /// Command for the shell at each change of the state; empty for none.
    pub on_state_change: String,
    /// Address of the local API and the web page.
    pub web_addr: WebAddr,
    /// `Host` headers that the local API accepts.
    pub web_allow_hosts: Vec<String>,
    /// Memory for captured requests.
    pub inspect_db_size: InspectSize,
    /// Whether the status screen is shown.
    pub console_ui: ConsoleUi,
    /// Whether the status screen keeps the terminal's background.
    pub console_transparent: bool,
    /// Updates of the program.
    pub update: UpdateOptions,
    /// `version` of the configuration file; empty without one.
    pub version: String,
    /// Endpoints to start, in order.
    pub endpoints: Vec<Endpoint>,
    /// Whether the other endpoints start when the edge refuses one at the start.
    pub keep_others: bool,
    /// Whether the command is that of a service.
    pub service_run: bool,
}

/// Edge of the vendor, the default.
pub const DEFAULT_EDGE: &str = "connect.ngrok-agent.com:443";

/// Default of `max_connections`.
pub const DEFAULT_MAX_CONNECTIONS: usize = 48;

impl Default for Agent {
    fn default() -> Self {
        Agent {
            authtoken: Secret::default(),
            api_key: Secret::default(),
            api_url: String::new(),
            connect_url: DEFAULT_EDGE.to_owned(),
            further_urls: Vec::new(),
            connect_interface: String::new(),
            proxy_url: Secret::default(),
            dns_resolver_ips: Vec::new(),
            dns_public_resolvers: PUBLIC_RESOLVERS.map(|ip| SocketAddr::new(ip, 53)).to_vec(),
            crl_noverify: false,
            crl_url: DEFAULT_CRL.to_owned(),
            connect_cas: Cas::Trusted,
            connect_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(10),
            heartbeat_tolerance: Duration::from_secs(15),
            metadata: String::new(),
            remote_management: true,
            max_connections: None,
            memory_limit: None,
            client_version: DEFAULT_CLIENT_VERSION.to_owned(),
            state_dir: None,
            on_state_change: String::new(),
            web_addr: WebAddr::Usual,
            web_allow_hosts: Vec::new(),
            inspect_db_size: InspectSize::Usual,
            console_ui: ConsoleUi::IfTerminal,
            console_transparent: false,
            update: UpdateOptions::default(),
            version: String::new(),
            endpoints: Vec::new(),
            keep_others: false,
            service_run: false,
        }
    }
}

/// Options for updates of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateOptions {
    /// URL of the feed; empty: that of the build, if it has one.
    pub url: String,
    /// Public keys that may sign the feed.
    pub keys: Vec<UpdateKey>,
    /// One of [`UPDATE_CHANNELS`].
    pub channel: &'static str,
    /// Whether the agent checks the feed once a day and accepts Update from the edge.
    pub check: bool,
}

impl Default for UpdateOptions {
    fn default() -> Self {
        let [channel, ..] = UPDATE_CHANNELS;
        UpdateOptions { url: String::new(), keys: Vec::new(), channel, check: true }
    }
}

/// Channels of a feed, the default first.
pub const UPDATE_CHANNELS: [&str; 3] = ["stable", "beta", "unstable"];

/// The newest agent of the vendor that was compared with this one. The vendor's service refuses
/// versions that are too old, and supports each line (3.39 here) for a year.
pub const DEFAULT_CLIENT_VERSION: &str = "3.39.10";

/// Certificate revocation list of the vendor's edge.
pub const DEFAULT_CRL: &str = "http://crl.ngrok-agent.com/ngrok.crl";

/// Public resolvers.
pub const PUBLIC_RESOLVERS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];

/// Value of `web_addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebAddr {
    /// Disabled: neither page nor API.
    Off,
    /// 127.0.0.1:4040, or the next free port.
    Usual,
    /// This `host:port` only.
    At(String),
}

impl WebAddr {
    /// Ports of [`WebAddr::Usual`], in this order.
    pub const USUAL_PORTS: std::ops::RangeInclusive<u16> = 4040..=4050;
}

/// Value of `inspect_db_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InspectSize {
    /// -1: disabled.
    Off,
    /// 0: depends on the memory of the machine.
    Usual,
    /// This many bytes.
    Bytes(u64),
}

/// Value of `console_ui`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleUi {
    /// `true`
    Always,
    /// `false`
    Never,
    /// `iftty`
    IfTerminal,
}

/// Value of `connect_cas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cas {
    /// The bundled root only.
    Trusted,
    /// The system's bundle.
    Host,
    /// A file of PEM certificates.
    File(PathBuf),
}

impl Cas {
    /// Returns the value for a text of the user.
    pub fn from_text(text: &str) -> Cas {
        match text {
            "" | "trusted" => Cas::Trusted,
            "host" => Cas::Host,
            path => Cas::File(PathBuf::from(path)),
        }
    }
}

/// Kind of an endpoint: the command for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    /// `http`
    Http,
    /// `tcp`
    Tcp,
    /// `tls`
    Tls,
}

impl fmt::Display for EndpointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EndpointKind::Http => "http",
            EndpointKind::Tcp => "tcp",
            EndpointKind::Tls => "tls",
        })
    }
}

/// Configuration of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Unique name; `command_line` for the endpoint of the command line.
    pub name: String,
    /// Protocol of the visitors.
    pub kind: EndpointKind,
    /// Requested public URL as the user wrote it; empty: a random one.
    pub url: String,
    /// Destination of its connections.
    pub upstream: Upstream,
    /// `http1` (or empty) or `http2`.
    pub upstream_protocol: String,
    /// Version of the PROXY protocol header: 0, 1 or 2.
    pub proxy_protocol: u8,
    /// Verification of a TLS upstream's certificate.
    pub verify: Verify,
    /// Free text for display.
    pub description: String,
    /// Free text of the endpoint.
    pub metadata: String,
    /// `public`, `internal`, `kubernetes`; empty for the edge's default.
    pub bindings: Vec<String>,
    /// Whether it shares its URL with other endpoints.
    pub pooling: bool,
    /// Traffic policy for the edge, YAML or JSON; empty without one.
    pub traffic_policy: String,
    /// URL from which the policy is fetched before the endpoint starts; empty without one.
    pub traffic_policy_url: String,
    /// Labels of a labelled tunnel; empty for an endpoint with a URL.
    pub labels: Vec<(String, String)>,
    /// Whether requests may be captured for the local web page.
    pub inspect: bool,
    /// Requested host in its older form (`--hostname`), for tcp `host:port` (`--remote-addr`).
    /// Empty if `url` has it; else `url` is only a scheme.
    pub hostname: String,
    /// Requested label below the edge's domain (`--subdomain`); empty without one. Like
    /// `hostname`.
    pub subdomain: String,
    /// Options that the edge applies to visitors.
    pub modules: Modules,
    /// Place where the visitor's TLS is terminated; for `tls` endpoints.
    pub tls_termination: TlsTermination,
}

impl Endpoint {
    /// Returns an endpoint with a name, a kind and an upstream, and defaults otherwise.
    pub fn new(name: impl Into<String>, kind: EndpointKind, upstream: Upstream) -> Self {
        Endpoint {
            name: name.into(),
            kind,
            url: String::new(),
            upstream,
            upstream_protocol: String::new(),
            proxy_protocol: 0,
            verify: Verify::Off,
            description: String::new(),
            metadata: String::new(),
            bindings: Vec::new(),
            pooling: false,
            traffic_policy: String::new(),
            traffic_policy_url: String::new(),
            labels: Vec::new(),
            inspect: true,
            hostname: String::new(),
            subdomain: String::new(),
            modules: Modules::default(),
            tls_termination: TlsTermination::Upstream,
        }
    }
}

/// Verification of a TLS upstream's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Disabled: the default, as with ngrok.
    #[default]
    Off,
    /// With the system's roots.
    System,
    /// With a PEM file.
    File(PathBuf),
}

/// Scheme of an upstream address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamScheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
    /// Bytes without TLS.
    Tcp,
    /// Bytes over TLS.
    Tls,
    /// A directory.
    File,
}

/// Destination of an endpoint's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Its protocol.
    pub scheme: UpstreamScheme,
    /// Name or address, IPv6 without brackets. Empty for [`UpstreamScheme::File`].
    pub host: String,
    /// Port. 0 for [`UpstreamScheme::File`].
    pub port: u16,
    /// The directory of [`UpstreamScheme::File`]; empty otherwise.
    pub dir: PathBuf,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            UpstreamScheme::Http => "http://",
            UpstreamScheme::Https => "https://",
            // TCP addresses have no scheme: `localhost:22`.
            UpstreamScheme::Tcp => "",
            UpstreamScheme::Tls => "tls://",
            UpstreamScheme::File => return write!(f, "file://{}", self.dir.display()),
        };
        if self.host.contains(':') {
            write!(f, "{scheme}[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}{}:{}", self.host, self.port)
        }
    }
}

/// Parses a PROXY protocol version of the user: empty, `1` or `2`.
pub fn parse_proxy_protocol(text: &str) -> Result<u8, String> {
    match text {
        "" => Ok(0),
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err("must be 1 or 2, the version of the PROXY protocol".to_owned()),
    }
}
