//! Connects to an upstream. Blocking code for a worker, without TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::config::Upstream;
use crate::net::resolver::{self, Resolver};
use crate::sys::{self, fd_budget};
use crate::sys::{poll, socket};
use crate::time::Deadline;

/// Time for one address of an upstream to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time to resolve the name of an upstream.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses whose failures are reported.
const MAX_REPORTED_FAILURES: usize = 4;

/// Connects to the first address of `upstream` that answers. An error that
/// [`fd_budget::is_exhausted`] recognizes comes from this system, not from the upstream.
pub fn dial(upstream: &Upstream) -> io::Result<TcpStream> {
    // Errors of all addresses: with IPv4 and IPv6 the last one alone would mislead.
    let mut failures: Vec<String> = Vec::new();
    let mut kind = io::ErrorKind::NotFound;
    for address in addresses(upstream)? {
        match connect(address) {
            Ok(socket) => {
                // Responses are sent without delay. Small writes are the decision of the
                // service.
                socket.set_nodelay(true)?;
                // Without a limit for a service that pauses: the edge has its own, and the agent
                // does not know it.
                sys::probe_idle(socket.as_raw_fd());
                return Ok(socket);
            }
            Err(e) if fd_budget::is_exhausted(&e) => return Err(e),
            Err(e) => {
                kind = e.kind();
                if failures.len() < MAX_REPORTED_FAILURES {
                    failures.push(format!("{address}: {}", describe(&e)));
                }
            }
        }
    }
    if failures.is_empty() {
        failures.push(format!("the name '{}' has no address", upstream.host));
    }
    Err(io::Error::new(kind, failures.join("; ")))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket::begin_connect(address, "")?;
    let until = Deadline::At(sys::clock() + CONNECT_TIMEOUT);
    while !poll::writable(&socket, until.left(sys::clock()))? {
        if until.due(sys::clock()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    if let Some(e) = socket.take_error()? {
        return Err(e);
    }
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Returns the addresses of the upstream. `localhost` needs no resolver and always means this
/// machine (RFC 6761): IPv4 first, where most services listen.
fn addresses(upstream: &Upstream) -> io::Result<Vec<SocketAddr>> {
    let Upstream { host, port, .. } = upstream;
    if host.eq_ignore_ascii_case("localhost") {
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(local.map(|ip| SocketAddr::new(ip, *port)).to_vec());
    }
    if let Some(address) = resolver::literal(host, *port)? {
        return Ok(vec![address]);
    }
    // Without a descriptor for the response no query is sent.
    let _place = fd_budget::place()?;
    // The agent's own resolver, as for the edge: the C library's has no deadline and would
    // block a worker while a resolver is silent.
    let found = Resolver::new(Vec::new(), Vec::new(), "")
        .resolve(host, false, &[], Deadline::At(sys::clock() + RESOLVE_TIMEOUT))
        .map_err(|e| io::Error::new(io::ErrorKind::NotFound, e))?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
}

fn describe(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::TimedOut => "no answer within 3 seconds".into(),
        _ => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamScheme;
    use std::net::TcpListener;

    fn upstream(host: &str, port: u16) -> Upstream {
        Upstream { scheme: UpstreamScheme::Tcp, host: host.into(), port, dir: Default::default() }
    }

    #[test]
    fn localhost_is_this_machine_in_both_families() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else { continue };
            let port = listener.local_addr().unwrap().port();
            assert!(dial(&upstream("LocalHost", port)).is_ok(), "{bind}");
        }
    }

    /// A dead upstream is noticed in minutes. One that pauses may pause as long as the edge
    /// allows, whatever `stall_seconds` is.
    #[test]
    fn the_kernel_probes_an_upstream_and_lets_it_pause() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = dial(&upstream("127.0.0.1", listener.local_addr().unwrap().port())).unwrap();
        let socket = socket2::SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert!(socket.tcp_keepalive_time().unwrap() <= Duration::from_secs(60));
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    #[test]
    fn a_refusal_names_the_address() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let text = dial(&upstream("127.0.0.1", port)).unwrap_err().to_string();
        assert_eq!(text, format!("127.0.0.1:{port}: connection refused"));
    }

    /// The missing descriptor is that of the socket, or that of a query to a resolver.
    #[test]
    fn without_a_descriptor_it_says_so_and_nothing_of_the_upstream() {
        let dialling = std::thread::spawn(|| {
            fd_budget::yield_to_others(fd_budget::limit());
            for host in ["127.0.0.1", "localhost", "name.example"] {
                let e = dial(&upstream(host, 9)).unwrap_err();
                assert!(fd_budget::is_exhausted(&e), "{host}: {e}");
            }
        });
        dialling.join().unwrap();
    }
}
