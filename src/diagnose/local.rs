//! This machine: its link, addresses, clock and MTU, and its own name. Nothing is sent, except
//! on the loopback interface.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::advice;
use super::crl;
use super::record::{CheckRecord, CheckResult, NAME_RESOLUTION, Section};
use super::state::{Diagnosis, PROBE_TIMEOUT};
use super::text;
use crate::net::dial;
use crate::net::url::is_loopback_host;
use crate::sys::{self, NetworkInterface};

/// Seconds from 1970 to 2026, when this version did not exist.
const EARLIEST_TIME: u64 = 1_767_225_600;

/// Smallest MTU of a link with IPv6 (RFC 8200 section 5).
const MIN_MTU: u32 = 1280;

/// Tests link, address, clock and MTU. `hosts`: the hosts of the edges.
#[inline(never)]
pub fn test_link(diagnosis: &mut Diagnosis<'_>, hosts: &[String]) -> Result<(), String> {
    let is_here = hosts.iter().all(|host| is_loopback_host(host));
    let check = link(diagnosis, is_here);
    let is_linked = check.result != CheckResult::Error;
    row(diagnosis, check)?;
    let check = address(diagnosis, is_here);
    let has_address = check.result != CheckResult::Error;
    row(diagnosis, check)?;
    if is_linked && has_address {
        crl::fetch(diagnosis);
    }
    let check = clock(diagnosis);
    row(diagnosis, check)?;
    let check = mtu(diagnosis);
    row(diagnosis, check)
}

fn row(diagnosis: &mut Diagnosis<'_>, check: Box<CheckRecord>) -> Result<(), String> {
    let label = check.check;
    let result = diagnosis.done(check);
    diagnosis.row(label, result).map(|_| ())
}

/// Returns the interfaces with a carrier, without loopback.
fn connected(interfaces: &[NetworkInterface]) -> impl Iterator<Item = &NetworkInterface> {
    interfaces.iter().filter(|interface| interface.is_running && !interface.is_loopback)
}

fn link(diagnosis: &Diagnosis<'_>, is_here: bool) -> Box<CheckRecord> {
    let wanted = &diagnosis.config.connect_interface;
    let all = &diagnosis.interfaces;
    let mut check = diagnosis.begin(Section::Local, "Link", wanted);
    let own = all.iter().find(|interface| interface.name == *wanted);
    if !wanted.is_empty() && !own.is_some_and(|interface| interface.is_running) {
        let why = if own.is_some() { "is down or has no carrier" } else { "does not exist" };
        let err = format!("the interface {wanted} of connect_interface {why}");
        check.fault(CheckResult::Error, 0, err, advice::LINK);
    } else if !is_here && connected(all).next().is_none() {
        let err = "no network interface is up with a carrier";
        check.fault(CheckResult::Error, 0, err, advice::LINK);
    } else if !is_here && !has_default_route() {
        check.fault(CheckResult::Warn, 0, "the default route is missing", advice::ROUTE);
    }
    check
}

fn address(diagnosis: &Diagnosis<'_>, is_here: bool) -> Box<CheckRecord> {
    let mut check = diagnosis.begin(Section::Local, "Address", "");
    let mut addresses = Vec::new();
    for interface in connected(&diagnosis.interfaces) {
        addresses.extend_from_slice(&interface.addresses);
    }
    let is_link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    check.address = text::joined(&addresses);
    if !is_here && addresses.is_empty() {
        let err = "no network interface has an address";
        check.fault(CheckResult::Error, 0, err, advice::ADDRESS);
    } else if !is_here && addresses.iter().all(is_link_local) {
        let err = format!("the network gave no address, only {}", check.address);
        check.fault(CheckResult::Warn, 0, err, advice::ADDRESS);
    }
    check
}

fn clock(diagnosis: &Diagnosis<'_>) -> Box<CheckRecord> {
    let mut check = diagnosis.begin(Section::Local, "Clock", "");
    let now = SystemTime::now();
    let shown = httpdate::fmt_http_date(now.max(UNIX_EPOCH));
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if let Some((difference, theirs)) = crl::clock_difference(diagnosis) {
        let err = format!(
            "the clock is {} s from that of the server of the revocation list: {shown} here, {} \
             there",
            difference.as_secs(),
            httpdate::fmt_http_date(theirs)
        );
        check.fault(CheckResult::Warn, 0, err, advice::CLOCK);
    } else if seconds < EARLIEST_TIME {
        let err = format!("the clock is not set: {shown}");
        check.fault(CheckResult::Warn, 0, err, advice::CLOCK);
    } else {
        check.err = shown;
    }
    check
}

fn mtu(diagnosis: &Diagnosis<'_>) -> Box<CheckRecord> {
    let mut check = diagnosis.begin(Section::Local, "MTU", "");
    let mut shown = Vec::new();
    let mut small = None;
    for interface in connected(&diagnosis.interfaces) {
        let Some(mtu) = interface.mtu else { continue };
        shown.push(format!("{} {mtu}", interface.name));
        if mtu < MIN_MTU {
            small = Some((interface.name.clone(), mtu));
        }
    }
    check.err = shown.join(", ");
    if let Some((name, mtu)) = small {
        let err = format!("the MTU of {name} is {mtu}, less than {MIN_MTU}");
        let advice = format!("ip link set dev {name} mtu {MIN_MTU}, or more");
        check.fault(CheckResult::Warn, 0, err, advice);
    }
    check
}

/// Returns whether packets to any address have a route. Unknown counts as yes.
fn has_default_route() -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/net/{name}"));
    match (read("route"), read("ipv6_route")) {
        (Err(_), Err(_)) => true,
        (v4, v6) => has_default_route_in(&v4.unwrap_or_default(), &v6.unwrap_or_default()),
    }
}

fn has_default_route_in(v4: &str, v6: &str) -> bool {
    // Interface, destination, gateway, flags, ..., mask at 7. Flags: up, and not rejecting.
    let v4 = v4.lines().skip(1).any(|line| {
        let word = |n: usize| line.split_whitespace().nth(n);
        let flags = word(3).and_then(|flags| u64::from_str_radix(flags, 16).ok());
        word(1) == Some("00000000")
            && word(7) == Some("00000000")
            && flags.is_some_and(|flags| flags & 0x201 == 1)
    });
    // Destination, its length, ..., interface at the end. That of `lo` rejects.
    let v6 = v6.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next().is_some_and(|to| to.bytes().all(|b| b == b'0'))
            && words.next() == Some("00")
            && words.next_back().is_some_and(|name| name != "lo")
    });
    v4 || v6
}

/// Returns the name of the interface of the route to an address; empty if it is unknown.
pub fn interface_towards(interfaces: &[NetworkInterface], to: SocketAddr) -> String {
    // A connected datagram socket has the route's address and sends nothing.
    let any = sys::socket::any_like(to);
    let own = UdpSocket::bind(any).and_then(|s| s.connect(to).and_then(|()| s.local_addr()));
    let Ok(own) = own else { return String::new() };
    let found = interfaces.iter().find(|interface| interface.addresses.contains(&own.ip()));
    found.map(|interface| interface.name.clone()).unwrap_or_default()
}

/// Tests that `localhost` leads to this machine.
#[inline(never)]
pub fn test_localhost(diagnosis: &mut Diagnosis<'_>) -> Result<(), String> {
    let mut check = diagnosis.begin(Section::Localhost, NAME_RESOLUTION, "localhost");
    check.resolver = "system".to_owned();
    let found = diagnosis.dialer.resolver().without_query("localhost").unwrap_or_default();
    check.address = text::joined(&found);
    if let Some(other) = found.iter().find(|ip| !ip.is_loopback()) {
        let err = format!("Failed to resolve host localhost: {other} is not this machine");
        check.fault(CheckResult::Error, 8000, err, advice::LOOPBACK);
    } else if let Err(e) = loopback_connection(diagnosis.deadline(PROBE_TIMEOUT, 0)) {
        let err = format!("Failed to resolve host localhost: 127.0.0.1 does not answer: {e}");
        check.fault(CheckResult::Error, 8000, err, advice::LOOPBACK);
    }
    row(diagnosis, check)
}

fn loopback_connection(deadline: crate::time::Deadline) -> std::io::Result<TcpStream> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    dial::race(&[listener.local_addr()?], "", deadline)
}

/// Returns the time since the start of this machine.
pub fn uptime() -> Duration {
    sys::clock().since(crate::time::Instant::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";

    #[test]
    fn the_default_route_is_found() {
        let network = "eth0 0000A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        let default = "eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n";
        let rejecting = "* 00000000 00000000 0200 0 0 0 00000000 0 0 0\n";
        for (lines, expected) in
            [("", false), (network, false), (default, true), (rejecting, false)]
        {
            assert_eq!(has_default_route_in(&format!("{HEAD}{lines}"), ""), expected, "{lines}");
        }
        let zero = "0".repeat(32);
        let v6 = |name: &str, length: &str| {
            format!("{zero} {length} {zero} 00 {zero} 00000400 1 0 00000001 {name}\n")
        };
        assert!(has_default_route_in("", &v6("eth0", "00")));
        assert!(!has_default_route_in("", &v6("lo", "00")));
        assert!(!has_default_route_in("", &v6("eth0", "40")));
    }
}
