//! Layers of an edge: for each of its addresses TCP, TLS with the revocation list, and the
//! tunnel protocol. The session is that of the agent, without Auth.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::advice;
use super::crl::{self, ListStatus};
use super::names::{self, Host};
use super::record::{
    CheckRecord, CheckResult, NAME_RESOLUTION, Section, TCP, TLS, TUNNEL_PROTOCOL,
};
use super::state::{Diagnosis, PROBE_TIMEOUT};
use super::text;
use super::tunnel::{self, TunnelFault};
use crate::net::dial;
use crate::net::url::bracketed;
use crate::time::Deadline;
use crate::tls::client::{self, PeerChain};
use crate::tls::{Established, x509};

/// Maximum number of addresses of one host.
const MAX_ADDRESSES: usize = 8;

/// Codes of the vendor's errors: one address, and all of them.
const TCP_CODES: (u32, u32) = (8002, 8007);
const TLS_CODES: (u32, u32) = (8003, 8008);
const TUNNEL_CODES: (u32, u32) = (8004, 8009);
const IPV6_CODE: u32 = 8011;

/// End of the text of a fault that only large packets have.
const SMALL_PACKETS_WORK: &str = "; it succeeds with small packets";

/// An edge.
#[derive(Clone, Debug)]
pub struct TestedEdge {
    /// Its region.
    pub region: String,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether a private address is a fault.
    pub is_public: bool,
}

/// Way to an edge.
#[derive(Clone, Copy)]
enum EdgeAddress {
    Direct(SocketAddr),
    /// Through the proxy, which resolves the name.
    Proxied,
}

/// Checks of one layer, one for each address.
#[derive(Default)]
struct Layer(Vec<CheckRecord>);

/// Tests an edge. Prints the rows of its section.
#[inline(never)]
pub fn test(diagnosis: &mut Diagnosis<'_>, edge: &TestedEdge) -> Result<(), String> {
    let TestedEdge { host, port, region, is_public } = edge;
    let mut addresses = vec![EdgeAddress::Proxied];
    if diagnosis.dialer.proxy_for(host, *port).is_none() {
        let host = Host { section: Section::Edge, region, name: host, is_public: *is_public };
        let resolved = names::resolve(diagnosis, host);
        if !diagnosis.row(NAME_RESOLUTION, resolved.row)? {
            return Ok(());
        }
        addresses = chosen(diagnosis.ipv6, &resolved.addresses, *port);
    }
    let mut layers = [Layer::default(), Layer::default(), Layer::default()];
    for (n, address) in addresses.iter().enumerate() {
        let further = addresses.len() - n - 1;
        test_address(diagnosis, edge, *address, further, &mut layers);
    }
    let sentences = [
        (TCP, TCP_CODES, "No tunnel servers were reachable via TCP."),
        (TLS, TLS_CODES, "No tunnel servers could establish a TLS connection."),
        (TUNNEL_PROTOCOL, TUNNEL_CODES, "No tunnel servers could establish a tunnel connection."),
    ];
    for ((row, codes, sentence), layer) in sentences.into_iter().zip(layers) {
        let result = finish(diagnosis, edge, layer, (row, codes.1, sentence));
        if !diagnosis.row(row, result)? {
            break;
        }
    }
    Ok(())
}

/// Returns the addresses to test: those of IPv4, and those of IPv6 if they are wanted or the
/// only ones.
fn chosen(ipv6: bool, found: &[IpAddr], port: u16) -> Vec<EdgeAddress> {
    let only_ipv6 = found.iter().all(IpAddr::is_ipv6);
    let wanted = found.iter().filter(|ip| ip.is_ipv4() || ipv6 || only_ipv6);
    let addresses = wanted.map(|ip| EdgeAddress::Direct(SocketAddr::new(*ip, port)));
    addresses.take(MAX_ADDRESSES).collect()
}

/// Tests one address, layer by layer until one fails.
fn test_address(
    diagnosis: &mut Diagnosis<'_>,
    edge: &TestedEdge,
    address: EdgeAddress,
    further: usize,
    [tcp, tls, tunnel]: &mut [Layer; 3],
) {
    let mut check = begin(diagnosis, edge, address, TCP);
    if diagnosis.is_over() {
        check.fault(CheckResult::Warn, 0, "not tested: no time was left", "");
        tcp.push(check);
        return;
    }
    let deadline = diagnosis.deadline(PROBE_TIMEOUT, further);
    let socket = match open(diagnosis, edge, address, deadline) {
        Ok(socket) => socket,
        Err(e) => {
            let err = failed(edge, TCP, &e);
            check.fault(CheckResult::Error, TCP_CODES.0, err, tcp_advice(diagnosis, edge, &e));
            tcp.push(check);
            return;
        }
    };
    tcp.push(check);
    let check = begin(diagnosis, edge, address, TLS);
    let Some(link) = secure(diagnosis, edge, address, socket, (check, further), tls) else {
        return;
    };
    let mut check = begin(diagnosis, edge, address, TUNNEL_PROTOCOL);
    test_tunnel(diagnosis, edge, address, link, (&mut *check, further));
    tunnel.push(check);
}

/// Makes the calls of the tunnel protocol.
fn test_tunnel(
    diagnosis: &mut Diagnosis<'_>,
    edge: &TestedEdge,
    address: EdgeAddress,
    link: Established,
    (check, further): (&mut CheckRecord, usize),
) {
    let fault = match tunnel::probe(link, diagnosis.deadline(PROBE_TIMEOUT, further)) {
        Ok(latency) => {
            check.err = format!("latency {}", text::go_duration(latency));
            keep_fastest(diagnosis, edge, latency);
            return;
        }
        Err(fault) => fault,
    };
    let mut err = failed(edge, "tunnel protocol", &fault);
    let code = TUNNEL_CODES.0;
    match (fault, address) {
        (TunnelFault::Call(_), _) => {
            let advice =
                format!("check that connect_url names the edge's port for agents: {}", edge.at());
            check.fault(CheckResult::Error, code, err, advice);
        }
        (TunnelFault::LargeRequest(_), EdgeAddress::Direct(address))
            if with_small_segments(diagnosis, edge, address).1.is_some_and(|link| {
                tunnel::probe(link, diagnosis.deadline(PROBE_TIMEOUT, 0)).is_ok()
            }) =>
        {
            err.push_str(SMALL_PACKETS_WORK);
            check.fault(CheckResult::Error, code, err, large_packets(diagnosis, address));
        }
        // The path is not the cause.
        (TunnelFault::LargeRequest(latency), _) => {
            check.fault(CheckResult::Warn, code, err, "");
            keep_fastest(diagnosis, edge, latency);
        }
    }
}

fn keep_fastest(diagnosis: &mut Diagnosis<'_>, edge: &TestedEdge, latency: Duration) {
    if diagnosis.fastest.as_ref().is_none_or(|(_, best)| latency < *best) {
        diagnosis.fastest = Some((edge.region.clone(), latency));
    }
}

/// Makes the handshake, and checks the certificate. Returns `None` after a fault.
#[inline(never)]
fn secure(
    diagnosis: &mut Diagnosis<'_>,
    edge: &TestedEdge,
    address: EdgeAddress,
    socket: TcpStream,
    (mut check, further): (Box<CheckRecord>, usize),
    layer: &mut Layer,
) -> Option<Established> {
    let deadline = diagnosis.deadline(PROBE_TIMEOUT, further);
    let seen = Arc::new(PeerChain::default());
    let made = handshake(diagnosis, edge, socket, &seen, deadline);
    let chain = seen.certificates();
    if let Some(leaf) = chain.first() {
        let seen_at = (edge.host.clone(), check.address.clone(), leaf.clone());
        diagnosis.certificates.push(seen_at);
    }
    let link = match made {
        Ok(link) => link,
        Err(e) => {
            let (mut text, mut issuer) = (e.to_string(), None);
            if let Some(leaf) = chain.first() {
                let (words, of) = described(leaf);
                text.push_str(&words);
                issuer = Some(of);
            }
            let mut advice = advice::tls(e.kind(), &text, &edge.host, issuer.as_deref());
            if let (io::ErrorKind::TimedOut, EdgeAddress::Direct(address)) = (e.kind(), address)
                && with_small_segments(diagnosis, edge, address).0
            {
                text.push_str(SMALL_PACKETS_WORK);
                advice = large_packets(diagnosis, address);
            }
            let err = failed(edge, TLS, &format_args!("{text}. Possible Man-in-the Middle."));
            check.fault(CheckResult::Error, TLS_CODES.0, err, advice);
            layer.push(check);
            return None;
        }
    };
    match crl::status(diagnosis, &chain) {
        ListStatus::Fine => {}
        ListStatus::Doubtful { why, advice } => {
            check.fault(CheckResult::Warn, TLS_CODES.0, why, advice);
        }
        ListStatus::Revoked(why) => {
            let err = failed(edge, TLS, &format_args!("{why}. Possible Man-in-the Middle."));
            check.fault(CheckResult::Error, TLS_CODES.0, err, advice::REVOKED);
        }
    }
    let is_revoked = check.result == CheckResult::Error;
    layer.push(check);
    (!is_revoked).then_some(link)
}

/// Returns the sentence of a fault.
fn failed(edge: &TestedEdge, layer: &str, why: &dyn Display) -> String {
    format!("Failed to establish {layer} connection to {} with error: {why}", edge.at())
}

/// Returns the words for a received certificate, and the name of its issuer.
fn described(leaf: &[u8]) -> (String, String) {
    let (subject, issuer) = x509::subject_and_issuer(leaf).unwrap_or_default();
    let mut names = x509::dns_names(leaf);
    names.truncate(3);
    if names.is_empty() {
        names.push(subject);
    }
    (format!("; the received certificate is for {}, by '{issuer}'", names.join(", ")), issuer)
}

fn begin(
    diagnosis: &Diagnosis<'_>,
    edge: &TestedEdge,
    address: EdgeAddress,
    row: &'static str,
) -> Box<CheckRecord> {
    let mut check = diagnosis.begin(Section::Edge, row, &edge.host);
    check.region.clone_from(&edge.region);
    check.address = match address {
        EdgeAddress::Direct(address) => address.to_string(),
        EdgeAddress::Proxied => {
            let proxy = diagnosis.dialer.proxy_for(&edge.host, edge.port);
            proxy.map(|proxy| format!("via {proxy}")).unwrap_or_default()
        }
    };
    check
}

fn open(
    diagnosis: &Diagnosis<'_>,
    edge: &TestedEdge,
    address: EdgeAddress,
    deadline: Deadline,
) -> io::Result<TcpStream> {
    let interface = &diagnosis.config.connect_interface;
    match address {
        EdgeAddress::Direct(address) => {
            dial::race(&[address], dial::interface_to(interface, address), deadline)
        }
        EdgeAddress::Proxied => diagnosis.dialer.open(&edge.host, edge.port, deadline),
    }
}

fn handshake(
    diagnosis: &Diagnosis<'_>,
    edge: &TestedEdge,
    socket: TcpStream,
    seen: &Arc<PeerChain>,
    deadline: Deadline,
) -> io::Result<Established> {
    let config = client::observed_config(diagnosis.dialer.roots()?, Arc::clone(seen))?;
    client::connect(socket, &edge.host, config, deadline).map(|(link, _)| link)
}

/// Makes the handshake again while both sides send small segments only. Also returns whether
/// the peer has sent its certificate.
fn with_small_segments(
    diagnosis: &Diagnosis<'_>,
    edge: &TestedEdge,
    address: SocketAddr,
) -> (bool, Option<Established>) {
    let interface = dial::interface_to(&diagnosis.config.connect_interface, address);
    let deadline = diagnosis.deadline(PROBE_TIMEOUT, 0);
    let seen = Arc::default();
    let socket = dial::connect_with_small_segments(address, interface, deadline);
    let made = socket.and_then(|socket| handshake(diagnosis, edge, socket, &seen, deadline));
    (!seen.certificates().is_empty(), made.ok())
}

fn tcp_advice(diagnosis: &Diagnosis<'_>, edge: &TestedEdge, e: &io::Error) -> String {
    match diagnosis.dialer.proxy_for(&edge.host, edge.port) {
        Some(proxy) => advice::proxy(&proxy.to_string()),
        None => advice::tcp(e.kind(), &edge.host, edge.port),
    }
}

fn large_packets(diagnosis: &Diagnosis<'_>, address: SocketAddr) -> String {
    advice::large_packets(&super::local::interface_towards(&diagnosis.interfaces, address))
}

/// Records the checks of a layer, and its own fault if all of them failed.
fn finish(
    diagnosis: &mut Diagnosis<'_>,
    edge: &TestedEdge,
    Layer(mut checks): Layer,
    (row, code, sentence): (&'static str, u32, &str),
) -> CheckResult {
    let is_failed = |check: &CheckRecord| check.result == CheckResult::Error;
    let is_untested = |check: &CheckRecord| check.result == CheckResult::Warn && check.code == 0;
    if checks.iter().all(|check| is_failed(check) || is_untested(check)) {
        let mut check = diagnosis.begin(Section::Edge, row, &edge.host);
        check.region.clone_from(&edge.region);
        check.fault(CheckResult::Error, code, sentence, "");
        diagnosis.done(check);
        diagnosis.checks.append(&mut checks);
        return CheckResult::Error;
    }
    let mut row_result = CheckResult::Ok;
    let lacks_ipv6 = checks.iter().any(|c| is_failed(c) && c.address.starts_with('['));
    for mut check in checks {
        // Another address works.
        if is_failed(&check) {
            check.result = CheckResult::Warn;
        }
        row_result = row_result.max(check.result);
        diagnosis.checks.push(check);
    }
    if row == TCP && lacks_ipv6 {
        let mut check = diagnosis.begin(Section::Edge, row, &edge.host);
        let err = "IPV6 errors encountered - it may be disabled.";
        check.fault(CheckResult::Warn, IPV6_CODE, err, "");
        diagnosis.done(check);
    }
    row_result
}

impl Layer {
    #[expect(clippy::boxed_local, reason = "callers have it in a box")]
    fn push(&mut self, mut check: Box<CheckRecord>) {
        check.took = crate::sys::clock().since(check.start);
        self.0.push(*check);
    }
}

impl TestedEdge {
    /// Returns `host:port`.
    fn at(&self) -> String {
        format!("{}:{}", bracketed(&self.host), self.port)
    }
}
