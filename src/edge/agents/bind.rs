//! Decides a Bind request: which name it gets, whether the credential may have
//! it, and what goes back.

use serde_json::{Map, Value};

use super::acl;
use super::address::{self, Kind, Name, Wanted};
use super::credentials::Credential;
use super::options;
use super::registry::{Endpoint, Texts};
use super::session::Identity;
use crate::edge::Edge;
use crate::edge::token;
use crate::proto::codes::Refusal;
use crate::proto::messages::{BindRequest, BindResponse, BindResponseExtra};
use crate::session::Session;
use crate::sys::sync::Mutex;

/// Longest texts of an endpoint, in bytes.
const MAX_METADATA: usize = 4096;
const MAX_TEXT: usize = 1024;

/// Longest id that a client may bring along.
const MAX_ID: usize = 128;

/// What a Bind request becomes: the endpoint, to be put online, and the answer.
pub fn decide(
    edge: &Edge,
    who: &Identity,
    session: &Session,
    request: BindRequest,
) -> Result<(Endpoint, BindResponse), Refusal> {
    texts_fit(&request)?;
    bindings_fit(&request)?;
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
    let credential = credentials.by_id(&who.account).ok_or_else(|| {
        Refusal::new(300, format!("The credential '{}' has been revoked.", who.account))
    })?;
    let wanted = address::wanted(&request.proto, &request.opts)?;
    let options = options::read(wanted.kind, &request.opts)?;
    let place = place(edge, credential, &wanted)?;

    let url = place.url(edge, &wanted);
    let name = place.name();
    let id = if request.id.is_empty() || !is_id(&request.id) {
        token::id("ep").map_err(broken)?
    } else {
        request.id
    };
    let tunnel = token::id("tn").map_err(broken)?;
    let proto = match wanted.kind {
        Kind::Http => edge.scheme(wanted.scheme),
        Kind::Tls => "tls",
        Kind::Tcp => "tcp",
    };
    let assigned = match &place {
        Place::Host(host) => host.clone(),
        Place::Port(host, port) => format!("{host}:{port}"),
    };
    let opts = options::echo(wanted.kind, request.opts, &assigned);
    let response = BindResponse {
        id: id.clone(),
        url: url.clone(),
        proto: proto.to_owned(),
        opts: fitting(opts, &assigned),
        error: None,
        extra: BindResponseExtra {
            token: edge.key().right(&who.account, &name),
            tunnel_id: tunnel.clone(),
        },
    };
    let (host, port) = match place {
        Place::Host(host) => (host, 0),
        Place::Port(_, port) => (String::new(), port),
    };
    let endpoint = Endpoint {
        id,
        tunnel,
        kind: wanted.kind,
        host,
        port,
        url,
        account: who.account.clone(),
        client: who.client.clone(),
        right: edge.key().is_right(&request.extra.token, &who.account, &name),
        options,
        pooling: request.extra.pooling_enabled,
        session: Some(session.clone()),
        session_number: who.session,
        leg: who.leg,
        texts: Mutex::new(Texts {
            name: request.extra.name,
            description: request.extra.description,
            metadata: request.extra.metadata,
        }),
    };
    Ok((endpoint, response))
}

/// A rebind brings the response's options back: what named the host otherwise
/// must not contradict it then.
fn fitting(mut opts: Map<String, Value>, assigned: &str) -> Map<String, Value> {
    if let Some(Value::String(sub)) = opts.get_mut("Subdomain")
        && assigned.split('.').next() != Some(sub.to_ascii_lowercase().as_str())
    {
        sub.clear();
    }
    opts
}

/// Where an endpoint is.
enum Place {
    Host(String),
    Port(String, u16),
}

impl Place {
    /// What the right to it is for: without what another configuration changes.
    fn name(&self) -> String {
        match self {
            Place::Host(host) => host.clone(),
            Place::Port(_, port) => format!(":{port}"),
        }
    }

    fn url(&self, edge: &Edge, wanted: &Wanted) -> String {
        let (scheme, host, port, usual) = match (self, wanted.kind) {
            (Place::Port(host, port), _) => return format!("tcp://{host}:{port}"),
            (Place::Host(host), Kind::Tls) => ("tls", host, edge.https_port(), 443),
            (Place::Host(host), _) => match edge.scheme(wanted.scheme) {
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

fn place(edge: &Edge, credential: &Credential, wanted: &Wanted) -> Result<Place, Refusal> {
    match &wanted.name {
        Name::Port(host, port) => given_port(edge, credential, host, *port),
        Name::Any if wanted.kind == Kind::Tcp => any_port(edge, credential),
        Name::Any => any_host(edge, credential),
        Name::Label(label) => given_host(edge, credential, format!("{label}.{}", edge.domain())),
        Name::Host(host) => {
            port_fits(edge, wanted)?;
            given_host(edge, credential, host.clone())
        }
    }
}

/// The port of a URL with a host is one of ours.
fn port_fits(edge: &Edge, wanted: &Wanted) -> Result<(), Refusal> {
    let Some(port) = wanted.port else { return Ok(()) };
    let (http, https) = (edge.http_port(), edge.https_port());
    let good = match (wanted.kind, wanted.scheme) {
        (Kind::Http, Some("http")) => [80, http].contains(&port),
        (Kind::Http, None) => [80, 443, http, https].contains(&port),
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

fn any_host(edge: &Edge, credential: &Credential) -> Result<Place, Refusal> {
    let host = format!("{}.{}", token::host_label().map_err(broken)?, edge.domain());
    allowed(credential, &host)?;
    Ok(Place::Host(host))
}

fn given_host(edge: &Edge, credential: &Credential, host: String) -> Result<Place, Refusal> {
    allowed(credential, &host)?;
    let credentials = edge.credentials();
    if let Some(owner) = credentials.owner(&host) {
        if owner.id != credential.id {
            return Err(Refusal::new(
                320,
                format!("The domain '{host}' is reserved for another credential."),
            ));
        }
        return Ok(Place::Host(host));
    }
    let reserved = |d: &String| acl::covers(d, &host);
    if host.starts_with("*.") {
        let parent = edge.domain();
        // In dev everything below the domain is there to be tried.
        let tried = edge.is_dev() && host.ends_with(&format!(".{parent}"));
        if tried || edge.domains().contains(&host) {
            return Ok(Place::Host(host));
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
        return Ok(Place::Host(host));
    }
    let domain = edge.domain();
    let advice = if edge.is_dev() {
        format!("ask for a name like app.{domain}, or start the edge with --domain")
    } else {
        format!("ask for a name like app.{domain}, or add it to 'domains' in edge.yml")
    };
    Err(Refusal::new(319, format!("This edge does not serve the domain '{host}': {advice}.")))
}

fn allowed(credential: &Credential, host: &str) -> Result<(), Refusal> {
    if credential.acl.allows_host(host) {
        return Ok(());
    }
    Err(Refusal::new(
        316,
        format!("The ACL of the credential '{}' does not permit '{host}'.", credential.id),
    ))
}

fn any_port(edge: &Edge, credential: &Credential) -> Result<Place, Refusal> {
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
        .ports()
        .any()
        .map_err(|e| Refusal::new(307, format!("No TCP port of this edge is free: {e}.")))?;
    Ok(Place::Port(edge.tcp_host().to_owned(), port))
}

fn given_port(
    edge: &Edge,
    credential: &Credential,
    host: &str,
    port: u16,
) -> Result<Place, Refusal> {
    let ours = edge.tcp_host();
    let known = host.is_empty() || host == ours || host == edge.domain() || edge.is_tcp_ip(host);
    if !known || !edge.ports().covers(port) {
        return Err(Refusal::new(
            307,
            format!(
                "The address '{host}:{port}' is not one of this edge: ask for {ours} and a port \
                 of {}.",
                edge.ports()
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
    edge.ports().take(port).map_err(|e| {
        if edge.routes().ports().contains(&port) {
            Refusal::new(334, format!("The endpoint 'tcp://{ours}:{port}' is already online."))
        } else {
            Refusal::new(307, format!("The port {port} cannot be used: {e}."))
        }
    })?;
    Ok(Place::Port(ours.to_owned(), port))
}

fn texts_fit(request: &BindRequest) -> Result<(), Refusal> {
    let extra = &request.extra;
    let bounds = [
        ("metadata", &extra.metadata, MAX_METADATA),
        ("name", &extra.name, MAX_TEXT),
        ("description", &extra.description, MAX_TEXT),
        ("upstream", &request.forwards_to, MAX_METADATA),
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

fn bindings_fit(request: &BindRequest) -> Result<(), Refusal> {
    match request.extra.bindings.iter().find(|b| *b != "public") {
        None => Ok(()),
        Some(other) => Err(Refusal::new(
            301,
            format!("This edge does not support the binding '{other}': all endpoints are public."),
        )),
    }
}

fn is_id(id: &str) -> bool {
    id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b))
}

fn broken(e: std::io::Error) -> Refusal {
    Refusal::text(format!("The edge failed: {e}."))
}
