//! Decides a Bind request: which name it gets, whether the credential may have
//! it, and what goes back.

use serde_json::{Map, Value};

use super::acl;
use super::address::{self, EndpointProtocol, RequestedEndpoint, RequestedName};
use super::credentials::Credential;
use super::identity::AgentIdentity;
use super::options;
use super::registry::{EndpointDetails, OnlineEndpoint};
use crate::edge::Edge;
use crate::edge::token;
use crate::proto::codes::Refusal;
use crate::proto::messages::{BindRequest, BindResponse, BindResponseExtra};
use crate::session::Session;
use crate::sys::sync::Mutex;

/// Longest texts of an endpoint, in bytes.
const MAX_METADATA_BYTES: usize = 4096;
const MAX_TEXT_BYTES: usize = 1024;

/// Longest id that a client may bring along.
const MAX_ID_BYTES: usize = 128;

/// What a Bind request becomes: the endpoint, to be put online, and the answer.
pub fn decide(
    edge: &Edge,
    identity: &AgentIdentity,
    session: &Session,
    request: BindRequest,
) -> Result<(OnlineEndpoint, BindResponse), Refusal> {
    check_text_lengths(&request)?;
    check_bindings(&request)?;
    if !matches!(request.forwards_proto.as_str(), "" | "http1") {
        return Err(Refusal::new(
            301,
            format!(
                "This edge does not support the upstream protocol '{}'. Use http1.",
                request.forwards_proto
            ),
        ));
    }
    let credentials = edge.credentials();
    let credential = credentials.by_id(&identity.account).ok_or_else(|| {
        Refusal::new(300, format!("The credential '{}' has been revoked.", identity.account))
    })?;
    let wanted = address::parse(&request.proto, &request.opts)?;
    let options = options::read(wanted.kind, &request.opts)?;
    let public_address = public_address(edge, credential, &wanted)?;

    let url = public_address.url(edge, &wanted);
    let name = public_address.name();
    let id = if request.id.is_empty() || !is_id(&request.id) {
        token::id("ep").map_err(internal_error)?
    } else {
        request.id
    };
    let tunnel_id = token::id("tn").map_err(internal_error)?;
    let proto = match wanted.kind {
        EndpointProtocol::Http => edge.scheme(wanted.scheme),
        EndpointProtocol::Tls => "tls",
        EndpointProtocol::Tcp => "tcp",
    };
    let assigned = match &public_address {
        PublicAddress::Host(host) => host.clone(),
        PublicAddress::Port(host, port) => format!("{host}:{port}"),
    };
    let opts = options::echo(wanted.kind, request.opts, &assigned);
    let response = BindResponse {
        id: id.clone(),
        url: url.clone(),
        proto: proto.to_owned(),
        opts: without_stale_subdomain(opts, &assigned),
        error: None,
        extra: BindResponseExtra {
            token: edge.key().bind_token(&identity.account, &name),
            tunnel_id: tunnel_id.clone(),
        },
    };
    let (host, port) = match public_address {
        PublicAddress::Host(host) => (host, 0),
        PublicAddress::Port(_, port) => (String::new(), port),
    };
    let endpoint = OnlineEndpoint {
        id,
        tunnel_id,
        kind: wanted.kind,
        host,
        port,
        url,
        account: identity.account.clone(),
        client: identity.client.clone(),
        has_bind_token: edge.key().verify_bind_token(
            &request.extra.token,
            &identity.account,
            &name,
        ),
        options,
        pooling: request.extra.pooling_enabled,
        session: Some(session.clone()),
        session_number: identity.session,
        leg: identity.leg,
        details: Mutex::new(EndpointDetails {
            name: request.extra.name,
            description: request.extra.description,
            metadata: request.extra.metadata,
        }),
    };
    Ok((endpoint, response))
}

/// A rebind brings the response's options back: what named the host otherwise
/// must not contradict it then.
fn without_stale_subdomain(mut opts: Map<String, Value>, assigned: &str) -> Map<String, Value> {
    if let Some(Value::String(sub)) = opts.get_mut("Subdomain")
        && assigned.split('.').next() != Some(sub.to_ascii_lowercase().as_str())
    {
        sub.clear();
    }
    opts
}

/// Where an endpoint is.
enum PublicAddress {
    Host(String),
    Port(String, u16),
}

impl PublicAddress {
    /// What the right to it is for: without what another configuration changes.
    fn name(&self) -> String {
        match self {
            PublicAddress::Host(host) => host.clone(),
            PublicAddress::Port(_, port) => format!(":{port}"),
        }
    }

    fn url(&self, edge: &Edge, wanted: &RequestedEndpoint) -> String {
        let (scheme, host, port, usual) = match (self, wanted.kind) {
            (PublicAddress::Port(host, port), _) => return format!("tcp://{host}:{port}"),
            (PublicAddress::Host(host), EndpointProtocol::Tls) => {
                ("tls", host, edge.https_port(), 443)
            }
            (PublicAddress::Host(host), _) => match edge.scheme(wanted.scheme) {
                "http" => ("http", host, edge.http_port(), 80),
                _ => ("https", host, edge.https_port(), 443),
            },
        };
        if port == usual {
            format!("{scheme}://{host}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
}

fn public_address(
    edge: &Edge,
    credential: &Credential,
    wanted: &RequestedEndpoint,
) -> Result<PublicAddress, Refusal> {
    match &wanted.name {
        RequestedName::Port(host, port) => given_port(edge, credential, host, *port),
        RequestedName::Any if wanted.kind == EndpointProtocol::Tcp => any_port(edge, credential),
        RequestedName::Any => any_host(edge, credential),
        RequestedName::Label(label) => {
            given_host(edge, credential, format!("{label}.{}", edge.domain()))
        }
        RequestedName::Host(host) => {
            check_port(edge, wanted)?;
            given_host(edge, credential, host.clone())
        }
    }
}

/// The port of a URL with a host is one of ours.
fn check_port(edge: &Edge, wanted: &RequestedEndpoint) -> Result<(), Refusal> {
    let Some(port) = wanted.port else { return Ok(()) };
    let (http, https) = (edge.http_port(), edge.https_port());
    let good = match (wanted.kind, wanted.scheme) {
        (EndpointProtocol::Http, Some("http")) => [80, http].contains(&port),
        (EndpointProtocol::Http, None) => [80, 443, http, https].contains(&port),
        _ => [443, https].contains(&port),
    };
    if good {
        return Ok(());
    }
    let scheme = wanted.scheme.unwrap_or("https");
    let ours = if scheme == "http" { http } else { https };
    Err(Refusal::new(
        9035,
        format!("Invalid port {port} for a URL with scheme {scheme}: this edge serves {ours}."),
    ))
}

fn any_host(edge: &Edge, credential: &Credential) -> Result<PublicAddress, Refusal> {
    let host = format!("{}.{}", token::host_label().map_err(internal_error)?, edge.domain());
    check_acl(credential, &host)?;
    Ok(PublicAddress::Host(host))
}

fn given_host(
    edge: &Edge,
    credential: &Credential,
    host: String,
) -> Result<PublicAddress, Refusal> {
    check_acl(credential, &host)?;
    let credentials = edge.credentials();
    if let Some(owner) = credentials.owner(&host) {
        if owner.id != credential.id {
            return Err(Refusal::new(
                320,
                format!("The domain '{host}' is reserved for another credential."),
            ));
        }
        return Ok(PublicAddress::Host(host));
    }
    let reserved = |d: &String| acl::covers(d, &host);
    if host.starts_with("*.") {
        let parent = edge.domain();
        // In dev everything below the domain is there to be tried.
        let tried = edge.is_dev() && host.ends_with(&format!(".{parent}"));
        if tried || edge.domains().contains(&host) {
            return Ok(PublicAddress::Host(host));
        }
        return Err(match edge.domains().iter().find(|d| reserved(d)) {
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
    let below = host == edge.domain()
        || host.strip_suffix(edge.domain()).is_some_and(|rest| rest.ends_with('.'));
    if below || edge.domains().iter().any(reserved) {
        return Ok(PublicAddress::Host(host));
    }
    let domain = edge.domain();
    let advice = if edge.is_dev() {
        format!("ask for a name like app.{domain}, or start the edge with --domain")
    } else {
        format!("ask for a name like app.{domain}, or add it to 'domains' in edge.yml")
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

fn any_port(edge: &Edge, credential: &Credential) -> Result<PublicAddress, Refusal> {
    if credential.acl.is_limited() {
        return Err(Refusal::new(
            356,
            format!(
                "The ACL of the credential '{}' does not permit random TCP addresses.",
                credential.id
            ),
        ));
    }
    let port = edge
        .listeners()
        .open_any_port()
        .map_err(|e| Refusal::new(307, format!("No TCP port of this edge is free: {e}.")))?;
    Ok(PublicAddress::Port(edge.tcp_host().to_owned(), port))
}

fn given_port(
    edge: &Edge,
    credential: &Credential,
    host: &str,
    port: u16,
) -> Result<PublicAddress, Refusal> {
    let ours = edge.tcp_host();
    let known = host.is_empty() || host == ours || host == edge.domain() || edge.is_tcp_ip(host);
    if !known || !edge.listeners().is_in_range(port) {
        return Err(Refusal::new(
            307,
            format!(
                "The address '{host}:{port}' is not one of this edge: ask for {ours} and a port \
                 of {}.",
                edge.listeners().port_range()
            ),
        ));
    }
    if !credential.acl.allows_address(ours, port) {
        return Err(Refusal::new(
            308,
            format!(
                "The ACL of the credential '{}' does not permit '{ours}:{port}'.",
                credential.id
            ),
        ));
    }
    edge.listeners().open_port(port).map_err(|e| {
        if edge.registry().ports().contains(&port) {
            Refusal::new(334, format!("The endpoint 'tcp://{ours}:{port}' is already online."))
        } else {
            Refusal::new(307, format!("The port {port} cannot be used: {e}."))
        }
    })?;
    Ok(PublicAddress::Port(ours.to_owned(), port))
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
    match request.extra.bindings.iter().find(|b| *b != "public") {
        None => Ok(()),
        Some(other) => Err(Refusal::new(
            301,
            format!("This edge does not support the binding '{other}': all endpoints are public."),
        )),
    }
}

fn is_id(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
}

fn internal_error(e: std::io::Error) -> Refusal {
    Refusal::text(format!("The edge failed: {e}."))
}
