//! Network path of a session: whether this host still has the session's address, and the
//! timeout of a probe. Queries the kernel and sends nothing.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use crate::sys;

/// Effect of a change of addresses or routes on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathState {
    /// The edge has no route now: a further change will follow.
    Unknown,
    /// The route may have changed: a probe decides.
    Doubtful,
    /// The session's address is gone, and another route exists.
    Dead,
}

/// Returns the path of a session with these local and peer addresses.
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

/// Returns the timeout of a probe: a working path responds within a few round trips.
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
        // An address for documentation (RFC 5737): no host has it.
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
