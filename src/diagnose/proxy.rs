//! Layer of the proxy: whether its name has an address that accepts connections. Whether it
//! carries connections to the edge is part of the edge's section.

use std::net::SocketAddr;

use super::advice;
use super::record::{CheckResult, NAME_RESOLUTION, Section, TCP};
use super::state::{Diagnosis, PROBE_TIMEOUT};
use crate::net::dial;

/// Codes of the vendor's errors.
const NOT_RESOLVED: u32 = 8005;
const NOT_CONNECTED: u32 = 8006;

/// Tests the proxy of an edge, if it has one. Prints its section.
#[inline(never)]
pub fn test(diagnosis: &mut Diagnosis<'_>, host: &str, port: u16) -> Result<(), String> {
    let Some(proxy) = diagnosis.dialer.proxy_for(host, port).cloned() else { return Ok(()) };
    diagnosis.section("Proxy Connectivity")?;
    let mut check = diagnosis.begin(Section::Proxy, NAME_RESOLUTION, &proxy.host);
    check.resolver = "system".to_owned();
    let deadline = diagnosis.deadline(PROBE_TIMEOUT, 0);
    let found = diagnosis.dialer.resolver().resolve(&proxy.host, false, &[], deadline);
    if let Err(why) = &found {
        let err = format!("Failed to resolve proxy IP with error: {why}");
        check.fault(CheckResult::Error, NOT_RESOLVED, err, advice::proxy(&proxy.to_string()));
    }
    let result = diagnosis.done(check);
    diagnosis.row(NAME_RESOLUTION, result)?;
    let Ok(found) = found else { return Ok(()) };
    let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(*ip, proxy.port)).collect();
    let mut check = diagnosis.begin(Section::Proxy, TCP, &proxy.host);
    let on_this_host = found.iter().all(std::net::IpAddr::is_loopback);
    let interface = if on_this_host { "" } else { diagnosis.config.connect_interface.as_str() };
    let deadline = diagnosis.deadline(PROBE_TIMEOUT, 0);
    if let Err(e) = dial::race(&addresses, interface, deadline) {
        let err = format!("Failed to connect to proxy {proxy} with error: {e}");
        check.fault(CheckResult::Error, NOT_CONNECTED, err, advice::proxy(&proxy.to_string()));
    }
    let result = diagnosis.done(check);
    diagnosis.row(TCP, result).map(|_| ())
}
