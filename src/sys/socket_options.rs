//! Socket options without a function in the standard library. All but [`set`] are best effort:
//! an old kernel has fewer of them.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

// MIPS has its own numbers for sockets, errors and flags. A version of `libc` had those of
// other machines for 64-bit MIPS, so socket options failed or had another effect.
const _: () = {
    let mips = cfg!(any(target_arch = "mips", target_arch = "mips64"));
    let right = libc::SOL_SOCKET == if mips { 0xffff } else { 1 }
        && libc::SO_REUSEADDR == if mips { 4 } else { 2 }
        && libc::SO_KEEPALIVE == if mips { 8 } else { 9 }
        && libc::SO_LINGER == if mips { 0x80 } else { 13 }
        && libc::SOCK_NONBLOCK == if mips { 0o200 } else { 0o4000 }
        && libc::EINPROGRESS == if mips { 150 } else { 115 };
    assert!(right, "this version of the crate libc has another machine's numbers of sockets");
};

/// Sets an option whose value is a C `int`.
pub(super) fn set(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer is to a live c_int and the length is its size.
    let n = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Limits the unsent bytes in the kernel, so that a heartbeat never waits behind seconds of
/// bulk data on a slow link. Best effort.
pub fn limit_unsent(fd: RawFd, bytes: i32) {
    let _ = set(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes);
}

/// Silence after which the kernel probes a connection, and the pause between two probes. The
/// kernel's defaults are hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Lets the kernel probe an idle connection, and close one whose peer does not answer. Sent
/// bytes and a peer that takes no byte keep the kernel's own limits. Best effort.
pub fn probe_idle(fd: RawFd) {
    let seconds = |time: Duration| i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    let _ = set(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    let _ = set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(KEEPALIVE_IDLE));
    let _ = set(fd, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(KEEPALIVE_INTERVAL));
}

/// Probes like [`probe_idle`], and closes a connection whose probes or sent bytes are not
/// acknowledged for `timeout`, or whose peer accepts no byte for that time. 25 days or more
/// disable the limit. Best effort.
pub fn keep_alive(fd: RawFd, timeout: Duration) {
    probe_idle(fd);
    // 0: the kernel's own limits. Another bound would be shorter than `timeout`.
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(0);
    let _ = set(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms);
}

/// Makes the close of a socket a reset instead of an orderly end. Best effort.
pub fn reset_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer is to a live struct and the length is its size.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    #[test]
    fn dead_peers_are_noticed_in_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        keep_alive(socket.as_raw_fd(), Duration::from_secs(300));
        let socket = socket2::SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(300)));
    }

    #[test]
    fn a_timeout_that_the_kernel_cannot_have_is_no_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        keep_alive(socket.as_raw_fd(), Duration::MAX);
        let socket = socket2::SockRef::from(&socket);
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
