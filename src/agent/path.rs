//! The network path of a session: whether this host still has the session's address, and
//! how long a probe may take. Asks the kernel; sends nothing.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use crate::sys;

/// What a change of addresses or routes means for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathState {
    /// No route to the edge now: a further change will come.
    Unknown,
    /// The route may be another one: a probe finds out.
    Doubtful,
    /// The session's address is gone, and another route exists.
    Dead,
}

/// Looks up the path of a session with these local and peer addresses.
pub(super) fn state(addresses: Option<(SocketAddr, SocketAddr)>) -> PathState {
    let Some((local, peer)) = addresses else { return PathState::Doubtful };
    // A connected datagram socket has the route's address and sends nothing.
    let any = sys::socket::any_like(peer);
    let route = UdpSocket::bind(any).and_then(|s| s.connect(peer).and_then(|()| s.local_addr()));
    match route {
        Err(_) => PathState::Unknown,
        Ok(route) if route.ip() == local.ip() => PathState::Doubtful,
        Ok(_) => match TcpListener::bind((local.ip(), 0)) {
            Err(e) if e.kind() == io::ErrorKind::AddrNotAvailable => PathState::Dead,
            _ => PathState::Doubtful,
        },
    }
}

/// How long a probe may take: a path that works answers in a few round trips.
pub(super) fn probe_timeout(latency: Option<Duration>, tolerance: Duration) -> Duration {
    let usual = latency.unwrap_or(Duration::from_millis(500));
    (Duration::from_secs(3) + 4 * usual).min(tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_dead_where_its_address_is_gone_and_another_route_exists() {
        let peer: SocketAddr = "127.0.0.1:443".parse().unwrap();
        assert_eq!(state(None), PathState::Doubtful);
        assert_eq!(state(Some(("127.0.0.1:5000".parse().unwrap(), peer))), PathState::Doubtful);
        // Of documents (RFC 5737): no host has it.
        assert_eq!(state(Some(("192.0.2.1:5000".parse().unwrap(), peer))), PathState::Dead);
    }

    #[test]
    fn a_probe_waits_for_a_slow_path_but_not_beyond_the_tolerance() {
        let (second, tolerance) = (Duration::from_secs(1), Duration::from_secs(15));
        assert_eq!(probe_timeout(Some(second), tolerance), 7 * second);
        assert_eq!(probe_timeout(Some(5 * second), tolerance), tolerance);
        assert_eq!(probe_timeout(None, tolerance), 5 * second);
    }
}
