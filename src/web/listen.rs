//! Listener of the local API: `web_addr` (agent 10.1).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::config::WebAddr;
use crate::event;
use crate::sys::{fd_budget, socket};

/// Function that returns the addresses of a `host:port`.
type Resolve = fn(&str) -> Result<Vec<SocketAddr>, String>;

/// Opens the listener; `resolve` returns the addresses of a `host:port`. `None`: disabled. The
/// error has what to do.
pub fn listen(addr: &WebAddr, resolve: Resolve) -> Result<Option<TcpListener>, String> {
    match addr {
        WebAddr::Off => Ok(None),
        WebAddr::Usual => usual().map(Some).map_err(|e| {
            let e = fd_budget::words(&e);
            format!(
                "cannot listen on 127.0.0.1:4040 for the local API: {e}; web_addr: false \
                disables it"
            )
        }),
        WebAddr::At(text) => at(text, resolve).map(Some),
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

fn at(text: &str, resolve: Resolve) -> Result<TcpListener, String> {
    let fault = |e: io::Error| match e.kind() {
        // Programs that start the agent search for these words.
        io::ErrorKind::AddrInUse => {
            format!(
                "web_addr: listen tcp {text}: bind: address already in use; name another one, or false"
            )
        }
        _ => cannot_listen(text, &fd_budget::words(&e)),
    };
    bind(&resolve(text).map_err(|e| cannot_listen(text, &e))?).map_err(fault)
}

fn cannot_listen(text: &str, why: &str) -> String {
    format!("web_addr: cannot listen on {text}: {why}")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(addr: &WebAddr) -> Result<Option<TcpListener>, String> {
        super::listen(addr, |text| Ok(vec![text.parse().unwrap()]))
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
