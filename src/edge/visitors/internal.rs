//! Internal endpoints: their search, and the connect phase of the endpoints that forward to them.
//! Which rules a visitor meets is decided in [`crate::edge::policy`].

use std::net::SocketAddr;
use std::sync::Arc;

use crate::edge::Edge;
use crate::edge::accounts::wall_clock;
use crate::edge::actions::ConnectDecision;
use crate::edge::agents::address::{InternalAddress, Protocol};
use crate::edge::agents::registry::{Lookup, OnlineEndpoint};
use crate::edge::policy::phases::{ConnectionInfo, InternalFault, PolicyHops};
use crate::edge::policy::visit::PolicyVisit;
use crate::event;
use crate::sys;

/// Endpoints that one visitor passes, the first included.
pub const MAX_CHAIN: usize = 5;

/// Finds the internal endpoint of an account with this URL and this protocol.
pub fn find(
    edge: &Edge,
    account: &str,
    protocol: Protocol,
    url: &str,
) -> Result<Arc<OnlineEndpoint>, InternalFault> {
    let fault = |code, text: String| Err(InternalFault { code, text });
    let address = match InternalAddress::parse(url) {
        Ok(address) => address,
        Err(reason) => return fault(2226, format!("The URL of the internal endpoint {reason}")),
    };
    if address.protocol != protocol {
        let text = format!("The internal endpoint {url} has another protocol than this endpoint.");
        return fault(2205, text);
    }
    let InternalAddress { host, port, .. } = address;
    match edge.registry.find_internal(account, &host, port, sys::clock()) {
        Lookup::Online(endpoint) if endpoint.protocol == protocol => Ok(endpoint),
        Lookup::AgentAway(_) => {
            let text = format!(
                "The agent of the internal endpoint {url} has lost its connection. It may be \
                 back soon."
            );
            fault(724, text)
        }
        Lookup::Online(_) | Lookup::Unknown => {
            let text = format!(
                "The internal endpoint {url} does not exist, or its agent is not connected."
            );
            fault(3200, text)
        }
    }
}

/// Returns the seconds since 1970 by the wall clock.
pub fn unix_seconds() -> u64 {
    wall_clock().as_secs()
}

/// Runs the connect phase of an endpoint, and of the internal endpoints that it forwards to.
/// Returns the endpoint that serves the visitor; `None`: the connection is closed.
pub fn connect(
    edge: &Edge,
    endpoint: &Arc<OnlineEndpoint>,
    connection: ConnectionInfo<'_>,
) -> Option<Arc<OnlineEndpoint>> {
    let client = connection.client;
    let mut endpoint = Arc::clone(endpoint);
    for _ in 0..MAX_CHAIN {
        if !endpoint.options.actions.has_connect_rules() {
            return Some(endpoint);
        }
        let now = sys::clock();
        let visit = PolicyVisit {
            connection,
            endpoint: endpoint.info(),
            now,
            unix_seconds: unix_seconds(),
            hops: PolicyHops::default(),
        };
        let url = match endpoint.options.actions.connect(visit) {
            Ok(ConnectDecision::Admit) => return Some(endpoint),
            Ok(ConnectDecision::Internal(url)) => url,
            Ok(ConnectDecision::Close) => {
                refused(edge, &endpoint, client, "closed by the policy");
                return None;
            }
            Err(error) => {
                refused(edge, &endpoint, client, error.0);
                return None;
            }
        };
        let next = match find(edge, &endpoint.account, endpoint.protocol, &url) {
            Ok(next) => next,
            Err(fault) => {
                refused(edge, &endpoint, client, &fault.text);
                return None;
            }
        };
        if !edge.admits_visitor(&next, client) {
            refused(edge, &next, client, "address not allowed");
            return None;
        }
        endpoint = next;
    }
    refused(edge, &endpoint, client, "too many forwards (ERR_NGROK_3501)");
    None
}

fn refused(edge: &Edge, endpoint: &OnlineEndpoint, visitor: SocketAddr, reason: &str) {
    if let Some(count) = edge.count_warning("visitor refused by policy", 10) {
        let url = &endpoint.url;
        event!(
            info,
            obj = "edge",
            "visitor refused by policy",
            r = visitor,
            url = url,
            err = reason,
            count = count
        );
    }
}
