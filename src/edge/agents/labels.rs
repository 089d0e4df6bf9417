//! Decision about a request for a tunnel with labels: the hosts that it serves by the routes of
//! the configuration. What is online is not changed here.
//!
//! A tunnel serves the host of each route that selects its labels. Tunnels of one credential
//! share a host as a pool.

use std::sync::Arc;

use super::address::Protocol;
use super::credentials::Credential;
use super::identity::AgentIdentity;
use super::options::{self, EndpointOptions};
use super::registry::{EndpointDetails, OnlineEndpoint};
use crate::edge::Edge;
use crate::edge::accounts::wall_clock;
use crate::edge::config::EdgeConfig;
use crate::edge::routes::Labels;
use crate::edge::token;
use crate::edge::visitors::stream_target::StreamTarget;
use crate::proto::codes::Refusal;
use crate::proto::messages::StartTunnelWithLabelRequest;
use crate::sys::sync::Mutex;

/// Most labels of a tunnel.
const MAX_LABELS: usize = 64;

/// Most bytes of all labels, and of the metadata.
const MAX_TEXT_BYTES: usize = 4096;

/// Returns the endpoints of a tunnel with labels, which are not online yet: one for each host,
/// all with one id. `is_taken` returns whether the session has a tunnel with an id.
pub fn decide(
    edge: &Edge,
    identity: &AgentIdentity,
    target: &StreamTarget,
    request: StartTunnelWithLabelRequest,
    is_taken: &dyn Fn(&str) -> bool,
) -> Result<Vec<OnlineEndpoint>, Refusal> {
    check_lengths(&request)?;
    let account = &identity.account;
    let config = edge.config();
    let credential = config.credentials.valid(account)?;
    let labels: Labels = request.labels.into_iter().collect();
    check_acl(credential, &labels)?;
    let hosts = hosts(&config, &labels);
    if hosts.is_empty() {
        return Err(no_route());
    }
    let id = tunnel_id(identity, &labels, is_taken);
    let mut endpoints = Vec::new();
    for host in hosts {
        config.credentials.check_owner(credential, host)?;
        let tunnel_id = token::ksuid("tn", wall_clock())
            .map_err(|e| Refusal::text(format!("The edge failed: {e}.")))?;
        let metadata = request.metadata.clone();
        endpoints.push(OnlineEndpoint {
            id: id.clone(),
            tunnel_id,
            protocol: Protocol::Http,
            host: host.to_owned(),
            port: 0,
            internal: None,
            url: edge.host_url(edge.scheme(None), host),
            account: account.clone(),
            client: identity.client.clone(),
            has_bind_token: false,
            options: EndpointOptions::default(),
            pooling: true,
            labels: labels.clone(),
            session: Some(target.session.clone()),
            streams: target.streams.clone(),
            session_number: identity.session,
            leg: identity.leg,
            unsent_binds: Arc::default(),
            details: Mutex::new(EndpointDetails {
                metadata,
                forwards_to: request.forwards_to.clone(),
                started_at: wall_clock().as_secs(),
                ..EndpointDetails::default()
            }),
        });
    }
    Ok(endpoints)
}

/// Checks that the credential may serve the host of a labelled endpoint, and that a route still
/// leads to it.
pub fn check_permitted(
    config: &EdgeConfig,
    credential: &Credential,
    endpoint: &OnlineEndpoint,
) -> Result<(), Refusal> {
    check_acl(credential, &endpoint.labels)?;
    config.credentials.check_owner(credential, &endpoint.host)?;
    match hosts(config, &endpoint.labels).contains(&endpoint.host.as_str()) {
        true => Ok(()),
        false => Err(no_route()),
    }
}

/// Returns the hosts that a tunnel with these labels serves.
fn hosts<'a>(config: &'a EdgeConfig, labels: &Labels) -> Vec<&'a str> {
    let routes = config.routes.iter().filter(|route| route.selects(labels));
    routes.map(|route| route.host.as_str()).collect()
}

/// Returns the id of a tunnel. It is the same after a reconnect and on each leg of the client,
/// so that the tunnel replaces itself. Tunnels with the same labels are numbered.
fn tunnel_id(identity: &AgentIdentity, labels: &Labels, is_taken: &dyn Fn(&str) -> bool) -> String {
    let mut number = 0;
    loop {
        let text = format!("{}\n{}\n{labels:?}\n{number}", identity.account, identity.client);
        let mut hash = token::hash(&text);
        hash.truncate(24);
        let id = format!("lt_{hash}");
        if !is_taken(&id) {
            return id;
        }
        number += 1;
    }
}

fn check_acl(credential: &Credential, labels: &Labels) -> Result<(), Refusal> {
    let acl = &credential.acl;
    if !acl.has_label_rules() {
        let text = "Bind rules in authtoken ACLs do not apply to labeled tunnels.";
        return if acl.is_limited() { Err(Refusal::new(395, text)) } else { Ok(()) };
    }
    match labels.iter().find(|(name, value)| !acl.allows_label(name, value)) {
        None => Ok(()),
        Some((name, value)) => Err(Refusal::new(
            399,
            format!(
                "The ACL of the credential '{}' does not permit the label '{name}={value}'.",
                credential.id
            ),
        )),
    }
}

fn no_route() -> Refusal {
    Refusal::new(
        358,
        "This edge has no route for these --label (labels). Add one to 'routes' in edge.yml, or start an \
         endpoint with a URL instead.",
    )
}

fn check_lengths(request: &StartTunnelWithLabelRequest) -> Result<(), Refusal> {
    let bytes: usize = request.labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bounds = [
        ("number of labels", request.labels.len(), MAX_LABELS),
        ("length of the labels", bytes, MAX_TEXT_BYTES),
        ("length of the metadata", request.metadata.len(), MAX_TEXT_BYTES),
    ];
    for (what, given, most) in bounds {
        if given > most {
            return Err(Refusal::new(100, format!("Invalid {what}: {given}, at most {most}.")));
        }
    }
    options::check_upstream_protocol(&request.forwards_proto)
}
