//! Layer of names: each resolver is queried for a host, and their answers are compared.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::advice;
use super::record::{CheckRecord, CheckResult, NAME_RESOLUTION, Section};
use super::state::{Diagnosis, PROBE_TIMEOUT};
use super::text;
use crate::config::{DEFAULT_EDGE, PUBLIC_RESOLVERS};
use crate::net::resolver::Resolver;
use crate::sys;

/// Codes of the vendor's errors.
const NOT_RESOLVED: u32 = 8000;
const ONLY_RESOLVER: u32 = 8010;

/// Time of a resolver that has not answered an earlier query.
const SILENT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time of other resolvers.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// A host to resolve.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// Part of the network that it belongs to.
    pub section: Section,
    /// Region of an edge; empty for other hosts.
    pub region: &'a str,
    /// Its name or address.
    pub name: &'a str,
    /// Whether a private address is a fault.
    pub is_public: bool,
}

/// Result of name resolution.
pub struct Resolved {
    /// Addresses of all resolvers, each once.
    pub addresses: Vec<IpAddr>,
    /// Result of the row.
    pub row: CheckResult,
}

/// A resolver that is queried.
enum QueriedResolver {
    /// The way of the agent: the hosts file and the resolvers of the system.
    System(Resolver),
    /// One server.
    Server(SocketAddr),
}

impl QueriedResolver {
    fn label(&self) -> String {
        match self {
            QueriedResolver::System(_) => "system".to_owned(),
            QueriedResolver::Server(server) if server.port() == 53 => server.ip().to_string(),
            QueriedResolver::Server(server) => server.to_string(),
        }
    }
}

/// The check of one resolver, and what it has answered.
type Answer = (Box<CheckRecord>, Result<Vec<IpAddr>, String>);

/// Queries each resolver for a host.
pub fn resolve(diagnosis: &mut Diagnosis<'_>, host: Host<'_>) -> Resolved {
    if let Some(addresses) = diagnosis.dialer.resolver().without_query(host.name) {
        let mut check = begin(diagnosis, host, "");
        check.address = text::joined(&addresses);
        let row = diagnosis.done(check);
        return Resolved { addresses, row };
    }
    let mut found: Vec<Answer> = Vec::new();
    let resolvers = resolvers(diagnosis);
    for (n, resolver) in resolvers.iter().enumerate() {
        let mut check = begin(diagnosis, host, &resolver.label());
        let answer = query(diagnosis, resolver, host.name, resolvers.len() - n - 1);
        check.took = sys::clock().since(check.start);
        found.push((check, answer));
    }
    compare(diagnosis, host, found)
}

/// Records the answers of all resolvers.
fn compare(diagnosis: &mut Diagnosis<'_>, host: Host<'_>, found: Vec<Answer>) -> Resolved {
    let answers = || found.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let any = answers().next().is_some();
    let is_lone = found.len() > 1 && answers().count() == 1;
    let public_exists = host.is_public || answers().flatten().any(|ip| !is_private(*ip));
    let (mut addresses, mut row) = (Vec::new(), CheckResult::Ok);
    let severity = if any { CheckResult::Warn } else { CheckResult::Error };
    for (mut check, answer) in found {
        match answer {
            Err(why) => {
                let err = format!("Failed to resolve host {}: {why}", host.name);
                check.fault(severity, NOT_RESOLVED, err, advice::NAME);
            }
            Ok(list) => {
                check.address = text::joined(&list);
                let (name, resolver) = (host.name, &check.resolver);
                if public_exists && list.iter().all(|ip| is_private(*ip)) {
                    let err = format!(
                        "{resolver} returned a private address for the hostname {name}: {}",
                        check.address
                    );
                    check.fault(CheckResult::Warn, 0, err, advice::PRIVATE_ADDRESS);
                } else if is_lone {
                    let err = format!(
                        "{resolver} was the only resolver to return {} for the hostname {name}. \
                         This, or the other resolvers, may be returning incorrect results.",
                        check.address
                    );
                    check.fault(CheckResult::Warn, ONLY_RESOLVER, err, "");
                }
                addresses.extend(list);
            }
        }
        row = row.max(check.result);
        diagnosis.checks.push(*check);
    }
    if !any && diagnosis.failure.is_empty() {
        let last = diagnosis.checks.last().map(|check| check.err.clone());
        diagnosis.failure = last.unwrap_or_default();
    }
    let mut once: Vec<IpAddr> = Vec::new();
    for ip in addresses {
        if !once.contains(&ip) {
            once.push(ip);
        }
    }
    Resolved { addresses: once, row }
}

fn begin(diagnosis: &Diagnosis<'_>, host: Host<'_>, resolver: &str) -> Box<CheckRecord> {
    let mut check = diagnosis.begin(host.section, NAME_RESOLUTION, host.name);
    check.region = host.region.to_owned();
    check.resolver = resolver.to_owned();
    check
}

/// Returns the resolvers to query: those of the configuration, or those of the system with the
/// public ones that the agent would use. With an edge of the configuration only public
/// resolvers of the configuration.
fn resolvers(diagnosis: &Diagnosis<'_>) -> Vec<QueriedResolver> {
    let config = diagnosis.config;
    let configured = &config.dns_resolver_ips;
    let default: Vec<SocketAddr> = PUBLIC_RESOLVERS.map(|ip| SocketAddr::new(ip, 53)).to_vec();
    let is_default = config.dns_public_resolvers == default;
    let mut list = Vec::new();
    if configured.is_empty() {
        let resolver = Resolver::new(Vec::new(), Vec::new(), &config.connect_interface);
        let servers = resolver.servers();
        list.push(QueriedResolver::System(resolver));
        // One server is what `system` is.
        if servers.len() > 1 {
            list.extend(servers.into_iter().map(QueriedResolver::Server));
        }
    }
    for server in configured {
        list.push(QueriedResolver::Server(*server));
    }
    if !is_default || config.connect_url == DEFAULT_EDGE {
        for server in &config.dns_public_resolvers {
            if server.is_ipv4() || diagnosis.ipv6 {
                list.push(QueriedResolver::Server(*server));
            }
        }
    }
    list
}

/// Queries one resolver. `further`: number of queries that follow.
fn query(
    diagnosis: &mut Diagnosis<'_>,
    resolver: &QueriedResolver,
    name: &str,
    further: usize,
) -> Result<Vec<IpAddr>, String> {
    let before = sys::clock();
    match resolver {
        QueriedResolver::System(system) => {
            let deadline = diagnosis.deadline(PROBE_TIMEOUT, further);
            let answer = system.resolve(name, true, &[], deadline);
            answer.map_err(|why| {
                let prefix = format!("cannot resolve '{name}': ");
                why.strip_prefix(&prefix).map_or(why.clone(), str::to_owned)
            })
        }
        QueriedResolver::Server(server) => {
            let is_silent = diagnosis.silent.contains(server);
            let limit = if is_silent { SILENT_TIMEOUT } else { QUERY_TIMEOUT };
            let deadline = diagnosis.deadline(limit, further);
            let answer = diagnosis.dialer.resolver().query(*server, name, deadline);
            if answer.is_err() && sys::clock().since(before) >= SILENT_TIMEOUT && !is_silent {
                diagnosis.silent.push(*server);
            }
            answer
        }
    }
}

/// Returns whether an address belongs to a private network or to this machine.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let shared = a == 100 && (64..128).contains(&b);
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || a == 0 || shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}
