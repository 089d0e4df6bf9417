//! Decision about a Bind request: the address of the endpoint, whether the credential may
//! bind it, and the response. What is online is not changed here.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::acl;
use super::address::{self, Protocol, RequestedEndpoint, RequestedName};
use super::credentials::Credential;
use super::identity::AgentIdentity;
use super::labels;
use super::options::{self, EndpointOptions};
use super::registry::{EndpointDetails, OnlineEndpoint};
use crate::edge::Edge;
use crate::edge::accounts::wall_clock;
use crate::edge::actions::ActionSet;
use crate::edge::actions::login::LoginContext;
use crate::edge::config::EdgeConfig;
use crate::edge::policy::phases::PolicyServices;
use crate::edge::policy::reader::PolicyEnvironment;
use crate::edge::routes::Labels;
use crate::edge::token;
use crate::edge::visitors::policy_services::EdgeServices;
use crate::edge::visitors::stream_target::StreamTarget;
use crate::http1::text::is_at_or_below;
use crate::proto::codes::Refusal;
use crate::proto::messages::{BindRequest, BindResponse, BindResponseExtra};
use crate::session::Session;
use crate::sys::sync::Mutex;
use crate::sys::threads;

/// Longest texts of an endpoint.
const MAX_METADATA_BYTES: usize = 4096;
const MAX_TEXT_BYTES: usize = 1024;

/// Longest endpoint id of a client.
const MAX_ID_BYTES: usize = 128;

/// A Bind that is refused now.
pub struct BindRefusal {
    /// Reason for the agent.
    pub refusal: Refusal,
    /// Sessions of the same account that hold the requested names or ports. They may be dead
    /// without a notice.
    pub holders: Vec<Session>,
}

impl From<Refusal> for BindRefusal {
    fn from(refusal: Refusal) -> Self {
        BindRefusal { refusal, holders: Vec::new() }
    }
}

/// Decides a Bind request. Returns the endpoint, which is not online yet, and the response.
pub fn decide(
    edge: &Arc<Edge>,
    identity: &AgentIdentity,
    target: StreamTarget,
    request: BindRequest,
) -> Result<(OnlineEndpoint, BindResponse), BindRefusal> {
    check_text_lengths(&request)?;
    check_bindings(&request)?;
    options::check_upstream_protocol(&request.forwards_proto)?;
    let account = &identity.account;
    let config = edge.config();
    let credential = config.credentials.valid(account)?;
    let mut requested = address::parse(&request.proto, &request.opts)?;
    if identity.https_is_scheme && request.proto == "https" {
        requested.scheme.get_or_insert("https");
    }
    let protocol = requested.protocol;
    let is_internal = is_internal(&request.extra.bindings, &requested)?;
    let logins = LoginContext { account, services: &edge.logins, clients: &config.oauth };
    let mut options = options::read(protocol, &request.opts, &request.forwards_to, logins)?;
    let policy = options::policy_text(&request.opts)?;
    options.actions = add_policy(edge, account, (protocol, is_internal), options.actions, &policy)?;
    let address = match is_internal {
        true => internal_address(credential, &requested)?,
        false => public_address(edge, credential, &requested)?,
    };
    let name = address.token_name();
    let scheme = scheme(edge, &requested, is_internal);
    check_client_certificates(&options, scheme, is_internal)?;
    let response = BindResponse {
        id: endpoint_id(request.id)?,
        url: address.url(edge, scheme),
        proto: scheme.to_owned(),
        opts: response_options(protocol, request.opts, &address.to_string()),
        error: None,
        extra: BindResponseExtra {
            token: edge.key.bind_token(account, &name),
            tunnel_id: token::ksuid("tn", wall_clock()).map_err(internal_error)?,
        },
    };
    let internal = address.internal_port();
    let (host, port) = address.into_host_and_port();
    let extra = request.extra;
    let endpoint = OnlineEndpoint {
        id: response.id.clone(),
        tunnel_id: response.extra.tunnel_id.clone(),
        protocol,
        host,
        port,
        internal,
        url: response.url.clone(),
        account: account.clone(),
        client: identity.client.clone(),
        has_bind_token: edge.key.verify_bind_token(&extra.token, account, &name),
        options,
        pooling: extra.pooling_enabled,
        labels: Labels::new(),
        session: Some(target.session),
        streams: target.streams,
        unsent_binds: Arc::default(),
        session_number: identity.session,
        leg: identity.leg,
        details: Mutex::new(EndpointDetails {
            name: extra.name,
            description: extra.description,
            metadata: extra.metadata,
            forwards_to: request.forwards_to,
            forwards_proto: request.forwards_proto,
            traffic_policy: policy,
            started_at: wall_clock().as_secs(),
        }),
    };
    Ok((endpoint, response))
}

/// Returns the scheme of an endpoint's URL.
fn scheme(edge: &Edge, requested: &RequestedEndpoint, is_internal: bool) -> &'static str {
    match requested.protocol {
        Protocol::Http if is_internal => requested.scheme.unwrap_or("https"),
        Protocol::Http => edge.scheme(requested.scheme),
        Protocol::Tls => "tls",
        Protocol::Tcp => "tcp",
    }
}

/// Checks that the edge terminates TLS of an endpoint that asks visitors for certificates.
fn check_client_certificates(
    options: &EndpointOptions,
    scheme: &str,
    is_internal: bool,
) -> Result<(), Refusal> {
    let is_tls = scheme != "http" && !(is_internal && scheme == "https");
    if is_tls || options.actions.tls().is_none() {
        return Ok(());
    }
    let text = "Client certificates (mutual_tls_cas) need an https:// URL.";
    Err(Refusal::new(301, text))
}

/// Checks that the credential may have the endpoint. An endpoint that is online loses this
/// right when the configuration changes.
pub fn check_permitted(
    config: &EdgeConfig,
    credential: &Credential,
    endpoint: &OnlineEndpoint,
) -> Result<(), Refusal> {
    if !endpoint.labels.is_empty() {
        return labels::check_permitted(config, credential, endpoint);
    }
    match endpoint.protocol {
        _ if endpoint.internal.is_some() => check_acl(credential, &endpoint.host),
        Protocol::Http | Protocol::Tls => check_host(config, credential, &endpoint.host),
        Protocol::Tcp => check_address(config, credential, endpoint.port),
    }
}

/// Returns the id of the request, or a new one if that is empty or malformed.
fn endpoint_id(requested: String) -> Result<String, Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
    if !requested.is_empty() && requested.len() <= MAX_ID_BYTES && requested.bytes().all(allowed) {
        return Ok(requested);
    }
    token::id("ep").map_err(internal_error)
}

/// Returns the options of the response. A rebind sends them back: a subdomain that is not the
/// one of the assigned host would then contradict it, so it is cleared.
fn response_options(
    protocol: Protocol,
    requested: Map<String, Value>,
    assigned: &str,
) -> Map<String, Value> {
    let mut opts = options::echo(protocol, requested, assigned);
    if let Some(Value::String(sub)) = opts.get_mut("Subdomain")
        && assigned.split('.').next() != Some(sub.to_ascii_lowercase().as_str())
    {
        sub.clear();
    }
    opts
}

/// Assigned address of an endpoint.
enum PublicAddress {
    Host(String),
    /// Host of the URL, and the TCP port.
    Port(String, u16),
    /// Host and port of an internal endpoint.
    Internal(String, u16),
}

impl PublicAddress {
    /// Returns the name that the bind token is for. It does not depend on the configuration, so
    /// the token stays valid when the configuration changes.
    fn token_name(&self) -> String {
        match self {
            PublicAddress::Host(host) => host.clone(),
            PublicAddress::Port(_, port) => format!(":{port}"),
            PublicAddress::Internal(host, port) => format!("{host}:{port}"),
        }
    }

    /// Returns the port of an internal endpoint.
    fn internal_port(&self) -> Option<u16> {
        match self {
            PublicAddress::Internal(_, port) => Some(*port),
            PublicAddress::Host(_) | PublicAddress::Port(..) => None,
        }
    }

    /// Returns the host of an endpoint that is found by host, else the TCP port.
    fn into_host_and_port(self) -> (String, u16) {
        match self {
            PublicAddress::Host(host) => (host, 0),
            PublicAddress::Port(_, port) => (String::new(), port),
            PublicAddress::Internal(host, _) => (host, 0),
        }
    }

    fn url(&self, edge: &Edge, scheme: &str) -> String {
        match self {
            PublicAddress::Host(host) => edge.host_url(scheme, host),
            PublicAddress::Internal(host, port)
                if scheme != "tcp" && *port == address::internal_port(Some(scheme)) =>
            {
                format!("{scheme}://{host}")
            }
            PublicAddress::Port(..) | PublicAddress::Internal(..) => format!("{scheme}://{self}"),
        }
    }
}

impl fmt::Display for PublicAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublicAddress::Host(host) => f.write_str(host),
            PublicAddress::Internal(host, 80 | 443) => f.write_str(host),
            PublicAddress::Port(host, port) | PublicAddress::Internal(host, port) => {
                write!(f, "{host}:{port}")
            }
        }
    }
}

fn public_address(
    edge: &Edge,
    credential: &Credential,
    requested: &RequestedEndpoint,
) -> Result<PublicAddress, BindRefusal> {
    Ok(match &requested.name {
        RequestedName::Port(host, port) => given_port(edge, credential, host, *port)?,
        RequestedName::Any if requested.protocol == Protocol::Tcp => any_port(edge, credential)?,
        RequestedName::Any => any_host(edge, credential)?,
        RequestedName::Label(label) => {
            given_host(edge, credential, format!("{label}.{}", edge.config().domain))?
        }
        RequestedName::Host(host) => {
            check_port(edge, requested)?;
            given_host(edge, credential, host.clone())?
        }
    })
}

/// Checks that the port of a URL with a host is a port of this edge.
fn check_port(edge: &Edge, requested: &RequestedEndpoint) -> Result<(), Refusal> {
    let Some(port) = requested.port else { return Ok(()) };
    let (http, https) = (edge.http_port, edge.https_port);
    let good = match (requested.protocol, requested.scheme) {
        (Protocol::Http, Some("http")) => [80, http].contains(&port),
        (Protocol::Http, None) => [80, 443, http, https].contains(&port),
        _ => [443, https].contains(&port),
    };
    if good {
        return Ok(());
    }
    let scheme = requested.scheme.unwrap_or("https");
    let ours = if scheme == "http" { http } else { https };
    Err(Refusal::new(
        9035,
        format!("Invalid port {port} for a URL with scheme {scheme}: this edge serves {ours}."),
    ))
}

fn any_host(edge: &Edge, credential: &Credential) -> Result<PublicAddress, Refusal> {
    let host = format!("{}.{}", token::host_label().map_err(internal_error)?, edge.config().domain);
    check_acl(credential, &host)?;
    Ok(PublicAddress::Host(host))
}

fn given_host(
    edge: &Edge,
    credential: &Credential,
    host: String,
) -> Result<PublicAddress, Refusal> {
    check_host(&edge.config(), credential, &host)?;
    Ok(PublicAddress::Host(host))
}

/// Checks that the credential may bind a host that this edge serves.
fn check_host(config: &EdgeConfig, credential: &Credential, host: &str) -> Result<(), Refusal> {
    check_acl(credential, host)?;
    if config.routes.iter().any(|route| route.host == host) {
        let text = format!("The domain '{host}' is for labelled tunnels: 'routes' in edge.yml.");
        return Err(Refusal::new(320, text));
    }
    if config.credentials.check_owner(credential, host)?.is_some() {
        return Ok(());
    }
    let reserved = |d: &String| acl::covers(d, host);
    if host.starts_with("*.") {
        let parent = &config.domain;
        // In dev every name below the domain can be bound.
        let tried = config.dev && host.ends_with(&format!(".{parent}"));
        if tried || config.domains.iter().any(|d| d == host) {
            return Ok(());
        }
        return Err(match config.domains.iter().find(|d| reserved(d)) {
            Some(d) => Refusal::new(
                321,
                format!("Wildcards must be reserved exactly: '{host}' only matches '{d}'."),
            ),
            None => Refusal::new(
                318,
                format!("The wildcard '{host}' is not reserved. Add it to 'domains' in edge.yml."),
            ),
        });
    }
    if is_at_or_below(host, &config.domain) || config.domains.iter().any(reserved) {
        return Ok(());
    }
    let domain = &config.domain;
    let advice = if config.dev {
        format!("use a name like app.{domain}, or start the edge with --domain")
    } else {
        format!("use a name like app.{domain}, or add it to 'domains' in edge.yml")
    };
    Err(Refusal::new(319, format!("This edge does not serve the domain '{host}': {advice}.")))
}

fn check_acl(credential: &Credential, host: &str) -> Result<(), Refusal> {
    if credential.acl.allows_host(host) {
        return Ok(());
    }
    Err(Refusal::new(
        316,
        format!("The ACL of the credential '{}' does not permit '{host}'.", credential.id),
    ))
}

/// Chooses a TCP port. If none is free, one that a lost session of the same account held.
fn any_port(edge: &Edge, credential: &Credential) -> Result<PublicAddress, BindRefusal> {
    if credential.acl.is_limited() {
        let refusal = Refusal::new(
            356,
            format!(
                "The ACL of the credential '{}' does not permit random TCP addresses.",
                credential.id
            ),
        );
        return Err(refusal.into());
    }
    let held = || edge.registry.take_reserved_port(&credential.id);
    let port = edge
        .listeners
        .open_any_port(&edge.config().reserved_ports)
        .or_else(|e| held().ok_or(e))
        .map_err(|e| {
            let refusal = Refusal::new(307, format!("No TCP port of this edge is free: {e}."));
            BindRefusal { refusal, holders: edge.registry.sessions_with_ports(&credential.id) }
        })?;
    Ok(PublicAddress::Port(edge.config().domain.to_owned(), port))
}

fn given_port(
    edge: &Edge,
    credential: &Credential,
    host: &str,
    port: u16,
) -> Result<PublicAddress, Refusal> {
    let config = edge.config();
    let ours = &config.domain;
    let known = host.is_empty() || host == ours || edge.is_tcp_ip(host);
    if !known || !edge.listeners.is_in_range(port) {
        return Err(Refusal::new(
            307,
            format!(
                "The address '{host}:{port}' is not of this edge: use {ours} and a port of {}.",
                edge.listeners.port_range()
            ),
        ));
    }
    check_address(&config, credential, port)?;
    Ok(PublicAddress::Port(ours.to_owned(), port))
}

/// Checks that the credential may bind a TCP port.
fn check_address(config: &EdgeConfig, credential: &Credential, port: u16) -> Result<(), Refusal> {
    let ours = &config.domain;
    if credential.acl.allows_address(ours, port) {
        return Ok(());
    }
    Err(Refusal::new(
        308,
        format!("The ACL of the credential '{}' does not permit '{ours}:{port}'.", credential.id),
    ))
}

fn check_text_lengths(request: &BindRequest) -> Result<(), Refusal> {
    let extra = &request.extra;
    let bounds = [
        ("metadata", &extra.metadata, MAX_METADATA_BYTES),
        ("name", &extra.name, MAX_TEXT_BYTES),
        ("description", &extra.description, MAX_TEXT_BYTES),
        ("upstream", &request.forwards_to, MAX_METADATA_BYTES),
    ];
    for (what, text, most) in bounds {
        if text.len() > most {
            return Err(Refusal::new(
                100,
                format!("Invalid length of the {what}: {} bytes, at most {most}.", text.len()),
            ));
        }
    }
    Ok(())
}

fn check_bindings(request: &BindRequest) -> Result<(), Refusal> {
    let bindings = &request.extra.bindings;
    if let Some(other) = bindings.iter().find(|b| !["public", "internal"].contains(&b.as_str())) {
        let text = format!(
            "This edge does not support --binding (bindings) '{other}': use public or internal."
        );
        return Err(Refusal::new(301, text));
    }
    if bindings.len() > 1 {
        return Err(Refusal::new(301, "An endpoint can have one binding (bindings) only."));
    }
    Ok(())
}

/// Returns whether the endpoint is internal: by its binding, or by its host.
fn is_internal(bindings: &[String], requested: &RequestedEndpoint) -> Result<bool, Refusal> {
    let binding = bindings.first().map(String::as_str);
    let host = match &requested.name {
        RequestedName::Any => return Ok(binding == Some("internal")),
        RequestedName::Host(host) | RequestedName::Port(host, _) => host.as_str(),
        RequestedName::Label(_) => "",
    };
    let internal = address::is_internal(host);
    match binding {
        Some("internal") if !internal => Err(Refusal::new(
            301,
            "The binding 'internal' (bindings) needs a URL whose host ends in .internal.",
        )),
        Some("public") if internal => Err(Refusal::new(
            301,
            "A host that ends in .internal cannot have the binding 'public' (bindings).",
        )),
        _ => Ok(internal),
    }
}

/// Returns the address of an internal endpoint.
fn internal_address(
    credential: &Credential,
    requested: &RequestedEndpoint,
) -> Result<PublicAddress, Refusal> {
    let usual = requested.port.unwrap_or_else(|| address::internal_port(requested.scheme));
    let (host, port) = match &requested.name {
        RequestedName::Host(host) => (host.clone(), usual),
        RequestedName::Port(host, port) => (host.clone(), *port),
        RequestedName::Any | RequestedName::Label(_) => {
            let label = token::host_label().map_err(internal_error)?;
            (format!("{label}.internal"), usual)
        }
    };
    address::check_host(&host)?;
    if host.starts_with('*') {
        let text = format!("Internal endpoints cannot have a wildcard: '{host}'.");
        return Err(Refusal::new(318, text));
    }
    check_acl(credential, &host)?;
    Ok(PublicAddress::Internal(host, port))
}

/// Returns an endpoint that is online with another policy. Everything else stays.
pub fn with_policy(
    edge: &Arc<Edge>,
    endpoint: &OnlineEndpoint,
    text: String,
) -> Result<OnlineEndpoint, Refusal> {
    let kind = (endpoint.protocol, endpoint.internal.is_some());
    let actions = endpoint.options.actions.without_policy();
    let actions = add_policy(edge, &endpoint.account, kind, actions, &text)?;
    let options = EndpointOptions { actions, ..endpoint.options.clone() };
    let details = EndpointDetails { traffic_policy: text, ..endpoint.details.lock().clone() };
    Ok(endpoint.with(options, details))
}

/// Adds the policy of an endpoint to the actions of its options.
fn add_policy(
    edge: &Arc<Edge>,
    account: &str,
    (protocol, is_internal): (Protocol, bool),
    actions: ActionSet,
    text: &str,
) -> Result<ActionSet, Refusal> {
    if text.trim().is_empty() {
        return Ok(actions);
    }
    let services: Arc<dyn PolicyServices> = Arc::new(EdgeServices::new(edge));
    let (account, text) = (account.to_owned(), text.to_owned());
    let compile = move || {
        let account = account.as_str();
        let environment = PolicyEnvironment { account, protocol, is_internal, services: &services };
        options::add_policy(actions, &text, environment)
    };
    // The parsers recurse by the nesting of the text.
    threads::POLICY.run(compile).map_err(internal_error)?
}

fn internal_error(e: std::io::Error) -> Refusal {
    Refusal::text(format!("The edge failed: {e}."))
}
