//! Listener of the local API: `web_addr` (agent 10.1).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};

use crate::config::WebAddr;
use crate::event;
use crate::sys::{fd_budget, socket};

/// Opens the listener. `None`: disabled. The error has what to do.
pub fn listen(addr: &WebAddr) -> Result<Option<TcpListener>, String> {
    match addr {
        WebAddr::Off => Ok(None),
        WebAddr::Usual => usual().map(Some).map_err(|e| {
            let e = fd_budget::words(&e);
            format!(
                "cannot listen on 127.0.0.1:4040 for the local API: {e}; web_addr: false \
                disables it"
            )
        }),
        WebAddr::At(text) => at(text).map(Some),
    }
}

/// Opens the first free default port, or any port when other agents use all of them.
fn usual() -> io::Result<TcpListener> {
    for port in WebAddr::USUAL_PORTS.chain([0]) {
        match bind(&[(Ipv4Addr::LOCALHOST, port).into()]) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && port != 0 => {}
            other => return other,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

fn at(text: &str) -> Result<TcpListener, String> {
    let fault = |e: io::Error| match e.kind() {
        // Programs that start the agent search for these words.
        io::ErrorKind::AddrInUse => {
            format!(
                "web_addr: listen tcp {text}: bind: address already in use; name another one, or false"
            )
        }
        _ => format!("web_addr: cannot listen on {text}: {}", fd_budget::words(&e)),
    };
    bind(&resolve(text).map_err(fault)?).map_err(fault)
}

/// Binds the first address that is available. An address that this machine does not have yet
/// may become available: at boot an agent can start before `lo` or a bridge exists, and this
/// must not delay its tunnels.
fn bind(addrs: &[SocketAddr]) -> io::Result<TcpListener> {
    TcpListener::bind(addrs).or_else(|e| match (e.kind(), addrs.first()) {
        (io::ErrorKind::AddrNotAvailable, Some(first)) => {
            let listener = socket::listen_ahead(*first)?;
            event!(warn, obj = "web", "web_addr is not available yet", addr = first);
            Ok(listener)
        }
        _ => Err(e),
    })
}

/// Returns the addresses for a user's `host:port`. Without a host: every address of this
/// machine.
fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "it must be host:port");
    if let Ok(addr) = text.parse() {
        return Ok(vec![addr]);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    match host {
        "" => Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into()]),
        // Also without an entry in a hosts file.
        "localhost" => Ok(vec![(Ipv4Addr::LOCALHOST, port).into()]),
        _ => Ok((host, port).to_socket_addrs()?.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_users_write_them() {
        let resolved =
            |text| resolve(text).map(|all| all[0].to_string()).map_err(|e| e.to_string());
        assert_eq!(resolved("127.0.0.1:4040").unwrap(), "127.0.0.1:4040");
        assert_eq!(resolved("localhost:1").unwrap(), "127.0.0.1:1");
        assert_eq!(resolved("[::1]:1").unwrap(), "[::1]:1");
        assert_eq!(resolved(":4040").unwrap(), "0.0.0.0:4040");
        for bad in ["4040", "localhost", "localhost:x", "localhost:70000", "::1:4040x"] {
            assert!(resolved(bad).unwrap_err().contains("host:port"), "{bad}");
        }
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_waited_for() {
        // Addresses for documentation (RFC 5737, RFC 3849): no machine has them.
        for addr in ["192.0.2.1:0", "[2001:db8::1]:0"] {
            let listener = listen(&WebAddr::At(addr.into())).unwrap().unwrap();
            assert_ne!(listener.local_addr().unwrap().port(), 0);
            let taken = listener.local_addr().unwrap().to_string();
            assert!(listen(&WebAddr::At(taken)).unwrap_err().contains("already in use"));
        }
    }

    #[test]
    fn a_taken_address_is_an_error_that_says_so_and_a_taken_usual_port_is_not() {
        assert!(listen(&WebAddr::Off).unwrap().is_none());
        let taken = listen(&WebAddr::At("127.0.0.1:0".into())).unwrap().unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let error = listen(&WebAddr::At(addr.clone())).unwrap_err();
        assert!(error.contains("address already in use") && error.contains(&addr), "{error}");
        let many: Vec<_> = (0..14).map(|_| listen(&WebAddr::Usual).unwrap().unwrap()).collect();
        assert!(many.iter().all(|l| l.local_addr().unwrap().ip().is_loopback()));
    }
}
