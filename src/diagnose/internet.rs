//! Layers of a well-known host that is not the edge: whether this network reaches the internet
//! at all. Not tested with an edge of the configuration.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::advice;
use super::names::{self, Host};
use super::record::{CheckRecord, CheckResult, NAME_RESOLUTION, Section, TCP, TLS};
use super::state::{Diagnosis, PROBE_TIMEOUT};
use crate::config::Cas;
use crate::net::dial;
use crate::net::timed_stream::TimedStream;
use crate::time::Deadline;
use crate::tls::client;

/// The host, and its port.
const HOST: &str = "google.com";
const PORT: u16 = 443;

/// Code of the vendor's error.
const NO_INTERNET: u32 = 8001;

/// Tests the host. Prints the rows of its section.
#[inline(never)]
pub fn test(diagnosis: &mut Diagnosis<'_>) -> Result<(), String> {
    let mut addresses = Vec::new();
    if diagnosis.dialer.proxy_for(HOST, PORT).is_none() {
        let host = Host { section: Section::Internet, region: "", name: HOST, is_public: true };
        let resolved = names::resolve(diagnosis, host);
        if resolved.row == CheckResult::Error {
            diagnosis.failure = sentence("resolver returned no IPs.");
        }
        if !diagnosis.row(NAME_RESOLUTION, resolved.row)? {
            return Ok(());
        }
        addresses = resolved.addresses;
        let has_v4 = addresses.iter().any(IpAddr::is_ipv4);
        addresses.retain(|ip| ip.is_ipv4() || diagnosis.ipv6 || !has_v4);
    }
    let mut check = diagnosis.begin(Section::Internet, TCP, HOST);
    let deadline = diagnosis.deadline(PROBE_TIMEOUT, 0);
    let opened = open(diagnosis, &addresses, deadline);
    if let Err(e) = &opened {
        let advice = match diagnosis.dialer.proxy_for(HOST, PORT) {
            Some(proxy) => advice::proxy(&proxy.to_string()),
            None => advice::tcp(io::ErrorKind::TimedOut, HOST, PORT),
        };
        check.fault(CheckResult::Error, NO_INTERNET, sentence(&e.to_string()), advice);
    }
    let result = diagnosis.done(check);
    diagnosis.row(TCP, result)?;
    let Ok(socket) = opened else { return Ok(()) };
    let mut check = diagnosis.begin(Section::Internet, TLS, HOST);
    let deadline = diagnosis.deadline(PROBE_TIMEOUT, 0);
    secure(socket, &mut check, deadline);
    let result = diagnosis.done(check);
    diagnosis.row(TLS, result).map(|_| ())
}

fn open(
    diagnosis: &Diagnosis<'_>,
    addresses: &[IpAddr],
    deadline: Deadline,
) -> io::Result<TcpStream> {
    if diagnosis.dialer.proxy_for(HOST, PORT).is_some() {
        return diagnosis.dialer.open(HOST, PORT, deadline);
    }
    let addresses: Vec<_> = addresses.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect();
    dial::race(&addresses, &diagnosis.config.connect_interface, deadline)
}

/// Makes the handshake. The certificate is verified if this system has roots.
fn secure(socket: TcpStream, check: &mut CheckRecord, deadline: Deadline) {
    let config = match client::web_config(&Cas::Host) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            check.err = "certificate not verified: this system has no CA bundle".to_owned();
            client::unverified_config()
        }
        other => other,
    };
    let stream = TimedStream::new(socket, deadline);
    if let Err(e) = config.and_then(|config| stream.secure(HOST, config)) {
        let advice = advice::tls(e.kind(), &e.to_string(), HOST, None);
        check.fault(CheckResult::Error, NO_INTERNET, sentence(&e.to_string()), advice);
    }
}

fn sentence(why: &str) -> String {
    format!("Failed to establish internet connectivity: {why}")
}
