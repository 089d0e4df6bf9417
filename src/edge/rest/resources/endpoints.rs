//! `/endpoints` and `/tunnels`: what agents have online, in the newer and in the older form.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::edge::agents::acl::covers;
use crate::edge::agents::address::Protocol;
use crate::edge::agents::overview::SessionOverview;
use crate::edge::agents::registry::OnlineEndpoint;
use crate::edge::context::REGION;
use crate::edge::rest::context::{ApiContext, credential_id, timestamp};
use crate::edge::rest::error::ApiError;
use crate::edge::rest::page;
use crate::edge::rest::resource::Resource;
use crate::edge::store::ObjectKind;
use crate::edge::token;

const ENDPOINTS_PATH: &str = "endpoints";
const TUNNELS_PATH: &str = "tunnels";
const ENDPOINT_PREFIX: &str = "ep";
const TUNNEL_PREFIX: &str = "tn";

/// `/endpoints`.
pub struct Endpoints;

/// `/tunnels`.
pub struct Tunnels;

impl Resource for Endpoints {
    fn path(&self) -> &'static str {
        ENDPOINTS_PATH
    }

    fn prefix(&self) -> &'static str {
        ENDPOINT_PREFIX
    }

    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        list(context, ENDPOINTS_PATH, ENDPOINT_PREFIX, show_endpoint)
    }

    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        get(context, ENDPOINT_PREFIX, id, show_endpoint)
    }

    fn create(&self, _context: &ApiContext<'_>) -> Result<Value, ApiError> {
        Err(agents_only())
    }

    fn update(&self, _context: &ApiContext<'_>, _id: &str) -> Result<Value, ApiError> {
        Err(agents_only())
    }

    fn delete(&self, _context: &ApiContext<'_>, _id: &str) -> Result<(), ApiError> {
        Err(agents_only())
    }
}

impl Resource for Tunnels {
    fn path(&self) -> &'static str {
        TUNNELS_PATH
    }

    fn prefix(&self) -> &'static str {
        TUNNEL_PREFIX
    }

    fn list(&self, context: &ApiContext<'_>) -> Result<Value, ApiError> {
        list(context, TUNNELS_PATH, TUNNEL_PREFIX, show_tunnel)
    }

    fn get(&self, context: &ApiContext<'_>, id: &str) -> Result<Value, ApiError> {
        get(context, TUNNEL_PREFIX, id, show_tunnel)
    }
}

fn agents_only() -> ApiError {
    let text = "This edge does not have cloud endpoints: agents create and remove endpoints.";
    ApiError::new(404, 404, text)
}

type Show = fn(&ApiContext<'_>, &SessionOverview, &OnlineEndpoint) -> Value;

fn list(
    context: &ApiContext<'_>,
    plural: &str,
    prefix: &str,
    show: Show,
) -> Result<Value, ApiError> {
    let sessions = context.edge.agents.overview();
    let all: HashMap<String, _> = sessions
        .iter()
        .flat_map(|s| {
            s.endpoints.iter().map(move |e| (token::id_with(prefix, &e.tunnel_id), (s, e)))
        })
        .collect();
    let ids = all.keys().cloned().collect();
    page::list(context, plural, prefix, ids, |id| all.get(id).map(|(s, e)| show(context, s, e)))
}

fn get(context: &ApiContext<'_>, prefix: &str, id: &str, show: Show) -> Result<Value, ApiError> {
    let sessions = context.edge.agents.overview();
    find(&sessions, prefix, id, context, show).ok_or_else(|| ApiError::unknown_id(id))
}

fn find(
    sessions: &[SessionOverview],
    prefix: &str,
    id: &str,
    context: &ApiContext<'_>,
    show: Show,
) -> Option<Value> {
    sessions.iter().find_map(|session| {
        let mut endpoints = session.endpoints.iter();
        let endpoint = endpoints.find(|e| token::id_with(prefix, &e.tunnel_id) == id)?;
        Some(show(context, session, endpoint))
    })
}

fn show_endpoint(
    context: &ApiContext<'_>,
    session: &SessionOverview,
    endpoint: &OnlineEndpoint,
) -> Value {
    let id = token::id_with(ENDPOINT_PREFIX, &endpoint.tunnel_id);
    let tunnel = token::id_with(TUNNEL_PREFIX, &endpoint.tunnel_id);
    let details = endpoint.details.lock().clone();
    let (scheme, rest) = endpoint.url.split_once("://").unwrap_or(("", &endpoint.url));
    let default = match scheme {
        "http" => 80,
        _ => 443,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().unwrap_or(default)),
        None => (rest, default),
    };
    let started = timestamp(details.started_at);
    let credential = context.reference("credentials", &credential_id(&endpoint.account));
    json!({
        "id": id,
        "uri": context.uri(ENDPOINTS_PATH, &id),
        "region": REGION,
        "created_at": started,
        "updated_at": started,
        "public_url": endpoint.url,
        "url": endpoint.url,
        "proto": scheme,
        "scheme": scheme,
        "hostport": format!("{host}:{port}"),
        "host": host,
        "port": port,
        "type": "agent",
        "name": details.name,
        "description": details.description,
        "metadata": details.metadata,
        "domain": reserved(context, ObjectKind::ReservedDomain, "reserved_domains", |name| {
            endpoint.protocol != Protocol::Tcp && covers(name, host)
        }),
        "tcp_addr": reserved(context, ObjectKind::ReservedAddr, "reserved_addrs", |name| {
            endpoint.protocol == Protocol::Tcp && name.ends_with(&format!(":{port}"))
        }),
        "tunnel": context.reference(TUNNELS_PATH, &tunnel),
        "tunnel_session": context.reference(super::sessions::PATH, &session.info.id),
        "edge": null,
        "principal": credential,
        "upstream_url": details.forwards_to,
        "upstream_protocol": details.forwards_proto,
        "traffic_policy": details.traffic_policy,
        "bindings": [if endpoint.internal.is_some() { "internal" } else { "public" }],
        "pooling_enabled": endpoint.pooling,
    })
}

fn show_tunnel(
    context: &ApiContext<'_>,
    session: &SessionOverview,
    endpoint: &OnlineEndpoint,
) -> Value {
    let id = token::id_with(TUNNEL_PREFIX, &endpoint.tunnel_id);
    let shown = token::id_with(ENDPOINT_PREFIX, &endpoint.tunnel_id);
    let details = endpoint.details.lock().clone();
    json!({
        "id": id,
        "uri": context.uri(TUNNELS_PATH, &id),
        "public_url": endpoint.url,
        "started_at": timestamp(details.started_at),
        "metadata": details.metadata,
        "proto": endpoint.url.split("://").next().unwrap_or_default(),
        "region": REGION,
        "tunnel_session": context.reference(super::sessions::PATH, &session.info.id),
        "endpoint": context.reference(ENDPOINTS_PATH, &shown),
        "labels": endpoint.labels,
        "backends": null,
        "forwards_to": details.forwards_to,
    })
}

/// Returns a reference to the reservation of an endpoint's name.
fn reserved(
    context: &ApiContext<'_>,
    kind: ObjectKind,
    path: &str,
    fits: impl Fn(&str) -> bool,
) -> Value {
    let table = context.edge.accounts.table();
    let found = table.of_kind(kind).find(|o| o.name.as_deref().is_some_and(&fits));
    found.map_or(Value::Null, |object| context.reference(path, &object.id))
}
