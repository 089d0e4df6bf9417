//! Notifications to a service manager: the protocol of systemd's socket, which other managers
//! support too. Each message is a datagram of lines, without a response.

use std::env;
use std::io::IsTerminal;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Socket of a manager.
pub struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

impl Manager {
    /// Returns the manager in the environment, if there is one. A name that begins with `@` is
    /// not in the file system.
    pub fn find() -> Option<Self> {
        let name = env::var_os("NOTIFY_SOCKET")?;
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&name),
        };
        let socket = UnixDatagram::unbound().ok()?;
        // A manager that does not read must not block this program.
        socket.set_nonblocking(true).ok()?;
        Some(Manager { socket, address: address.ok()? })
    }

    /// Sends lines such as `READY=1`. Best effort.
    pub fn tell(&self, lines: &str) {
        let _ = self.socket.send_to_addr(lines.as_bytes(), &self.address);
    }
}

/// Returns the interval within which the manager expects a sign of life, if it does.
pub fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    if env::var_os("WATCHDOG_PID").is_some()
        && number("WATCHDOG_PID") != Some(u64::from(std::process::id()))
    {
        return None;
    }
    number("WATCHDOG_USEC").filter(|us| *us > 0).map(Duration::from_micros)
}

/// Returns whether a service manager has started this program: by its variable, or because this
/// is the first process of the system and has no terminal.
pub fn is_service() -> bool {
    let says = |name| env::var_os(name).is_some();
    says("NOTIFY_SOCKET")
        || says("INVOCATION_ID")
        || std::os::unix::process::parent_id() == 1 && !std::io::stdin().is_terminal()
}
