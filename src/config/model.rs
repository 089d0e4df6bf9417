//! The configuration as one value, [`Agent`], with its endpoints and defaults. Plain
//! values: what users write is read and judged elsewhere.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::modules::{Modules, TlsTermination};
use crate::proto::secret::Secret;

/// Everything the agent runs with.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Credential shown to the edge. Empty: none was configured.
    pub authtoken: Secret,
    /// Credential for the vendor's API; nothing but the `api` command uses it.
    pub api_key: Secret,
    /// The edge as `host:port`.
    pub connect_url: String,
    /// Further edges, as `host:port`: a session is kept to each.
    pub further_urls: Vec<String>,
    /// Network interface to dial from; empty for the system's choice.
    pub connect_interface: String,
    /// Proxy to dial through, a URL that may hold a password; empty for what the
    /// environment says.
    pub proxy_url: Secret,
    /// Resolvers to ask in place of the system's.
    pub dns_resolver_ips: Vec<SocketAddr>,
    /// Resolvers to ask when those have no answer; empty for none.
    pub dns_public_resolvers: Vec<SocketAddr>,
    /// Whether revocation of the edge's certificate is left unchecked.
    pub crl_noverify: bool,
    /// Where the list of revoked certificates is.
    pub crl_url: String,
    /// Which authorities may sign the edge's certificate.
    pub connect_cas: Cas,
    /// Limit for one whole set-up: name, TCP, TLS, Auth.
    pub connect_timeout: Duration,
    /// Time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How much later than `heartbeat_interval` an echo may come.
    pub heartbeat_tolerance: Duration,
    /// Free text of the session.
    pub metadata: String,
    /// Whether Stop, Restart and Update from the edge are obeyed.
    pub remote_management: bool,
    /// Most workers, threads that serve connections; `None` for the usual number.
    pub max_connections: Option<usize>,
    /// Bytes of memory to stay within: sets the bounds that are not set by themselves.
    pub memory_limit: Option<u64>,
    /// SchemaVersion of the vendor's agent that Auth claims to be compatible with.
    pub client_version: String,
    /// Where small things may be kept between runs; `None` for the usual places.
    pub state_dir: Option<PathBuf>,
    /// Where the local API and the web page are.
    pub web_addr: WebAddr,
    /// `Host` headers that the local API answers to.
    pub web_allow_hosts: Vec<String>,
    /// Room for captured requests.
    pub inspect_db_size: InspectSize,
    /// Whether the status screen is shown.
    pub console_ui: ConsoleUi,
    /// Whether the status screen has the terminal's own background.
    pub console_transparent: bool,
    /// `version` of the configuration file; empty without one.
    pub version: String,
    /// The endpoints to bring up, in order.
    pub endpoints: Vec<Endpoint>,
}

/// The vendor's edge, for those who name none.
pub const DEFAULT_EDGE: &str = "connect.ngrok-agent.com:443";

/// Workers unless `max_connections` says otherwise.
pub const DEFAULT_MAX_CONNECTIONS: usize = 48;

impl Default for Agent {
    fn default() -> Self {
        Agent {
            authtoken: Secret::default(),
            api_key: Secret::default(),
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
            web_addr: WebAddr::Usual,
            web_allow_hosts: Vec::new(),
            inspect_db_size: InspectSize::Usual,
            console_ui: ConsoleUi::IfTerminal,
            console_transparent: false,
            version: String::new(),
            endpoints: Vec::new(),
        }
    }
}

/// The vendor's newest agent that this one was compared with. Its service turns away
/// versions that are too old, and supports each line (3.39 here) for a year.
pub const DEFAULT_CLIENT_VERSION: &str = "3.39.10";

/// The list of revoked certificates of the vendor's edge.
pub const DEFAULT_CRL: &str = "http://crl.ngrok-agent.com/ngrok.crl";

/// Resolvers that anybody may ask.
pub const PUBLIC_RESOLVERS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111)),
];

/// Value of `web_addr`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebAddr {
    /// Nowhere: neither page nor API.
    Off,
    /// 127.0.0.1:4040, or the next port that is free.
    Usual,
    /// This `host:port` and no other.
    At(String),
}

/// Value of `inspect_db_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InspectSize {
    /// -1: nothing is captured.
    Off,
    /// 0: what fits this machine.
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
    /// The meaning of what a user wrote.
    pub fn from_text(text: &str) -> Cas {
        match text {
            "" | "trusted" => Cas::Trusted,
            "host" => Cas::Host,
            path => Cas::File(PathBuf::from(path)),
        }
    }
}

/// The kind of an endpoint: the word on the command line.
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

/// One endpoint as asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Unique name; `command_line` for the one of the command line.
    pub name: String,
    /// What visitors speak.
    pub kind: EndpointKind,
    /// Wanted public URL as the user wrote it; empty for a random one.
    pub url: String,
    /// Where connections go.
    pub upstream: Upstream,
    /// `http1` (or empty) or `http2`.
    pub upstream_protocol: String,
    /// PROXY header version: 0, 1 or 2.
    pub proxy_protocol: u8,
    /// How a TLS upstream's certificate is checked.
    pub verify: Verify,
    /// Free text for display.
    pub description: String,
    /// Free text of the endpoint.
    pub metadata: String,
    /// `public`, `internal`, `kubernetes`; empty for the edge's default.
    pub bindings: Vec<String>,
    /// Share the URL with other endpoints.
    pub pooling: bool,
    /// Policy text for the edge, YAML or JSON; empty for none.
    pub traffic_policy: String,
    /// Where a policy is to be fetched from before the endpoint starts; empty for
    /// nowhere.
    pub traffic_policy_url: String,
    /// Labels of a labelled tunnel; empty for an endpoint with a URL.
    pub labels: Vec<(String, String)>,
    /// Whether requests may be captured for the local web page.
    pub inspect: bool,
    /// Wanted host in its older form (`--hostname`), for tcp `host:port`
    /// (`--remote-addr`); empty when `url` says it. Then `url` is a scheme and no more.
    pub hostname: String,
    /// Wanted label below the edge's domain (`--subdomain`); empty for none. As
    /// `hostname`.
    pub subdomain: String,
    /// What the edge does with visitors first.
    pub modules: Modules,
    /// Where the visitor's TLS ends; for `tls` endpoints.
    pub tls_termination: TlsTermination,
}

impl Endpoint {
    /// An endpoint with a name, a kind and an upstream, and nothing else asked for.
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

/// How a TLS upstream's certificate is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// Not at all: the default, as with ngrok.
    #[default]
    Off,
    /// Against the system's roots.
    System,
    /// Against a PEM file.
    File(PathBuf),
}

/// UpstreamScheme of an upstream address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamScheme {
    /// HTTP in clear.
    Http,
    /// HTTP over TLS.
    Https,
    /// Bytes.
    Tcp,
    /// Bytes over TLS.
    Tls,
    /// A directory.
    File,
}

/// Where the connections of an endpoint go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// How to talk to it.
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
            // Bytes have no scheme: `localhost:22`.
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

/// Reads a PROXY protocol version as users write it: nothing, `1` or `2`.
pub fn parse_proxy_protocol(text: &str) -> Result<u8, String> {
    match text {
        "" => Ok(0),
        "1" => Ok(1),
        "2" => Ok(2),
        _ => Err("must be 1 or 2, the version of the PROXY protocol".to_owned()),
    }
}
