//! Sockets that the standard library cannot create: non-blocking connection attempts, and
//! sockets bound to a network interface.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::{fd_budget, socket_options};

/// Segment size that every host accepts (RFC 9293 section 3.7.1).
const SMALL_SEGMENT_BYTES: i32 = 536;

/// Begins to connect to `to`, through `interface` unless that is empty. The socket does not
/// block. It is writable when the attempt has ended; then [`TcpStream::take_error`] returns the
/// result.
pub fn begin_connect(to: SocketAddr, interface: &str) -> io::Result<TcpStream> {
    let socket = tcp_socket(to)?;
    bind_to(socket.as_raw_fd(), interface)?;
    connect(socket, to)
}

/// Begins to connect like [`begin_connect`], with segments that every path must carry.
pub fn begin_connect_small(to: SocketAddr, interface: &str) -> io::Result<TcpStream> {
    let socket = tcp_socket(to)?;
    bind_to(socket.as_raw_fd(), interface)?;
    socket_options::set(
        socket.as_raw_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_MAXSEG,
        SMALL_SEGMENT_BYTES,
    )?;
    connect(socket, to)
}

fn connect(socket: OwnedFd, to: SocketAddr) -> io::Result<TcpStream> {
    let fd = socket.as_raw_fd();
    // SAFETY: the pointer is to a live address of that length.
    if name(to, |name, size| unsafe { libc::connect(fd, name, size) }) < 0 {
        let e = io::Error::last_os_error();
        if e.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(e);
        }
    }
    Ok(TcpStream::from(socket))
}

/// Listens on an address that this machine does not have yet, such as that of `lo` or of a
/// bridge that comes up later. Connections are accepted from then on. Does not block.
pub fn listen_ahead(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = tcp_socket(at)?;
    let fd = socket.as_raw_fd();
    // Neither needs a privilege. The second is an IPv4 option that also applies to IPv6.
    socket_options::set(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    socket_options::set(fd, libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
    // SAFETY: the pointer is to a live address of that length; the second call has no pointer.
    let bound = name(at, |name, size| unsafe {
        if libc::bind(fd, name, size) < 0 { -1 } else { libc::listen(fd, 128) }
    });
    if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(TcpListener::from(socket)) }
}

fn tcp_socket(of: SocketAddr) -> io::Result<OwnedFd> {
    let family = if of.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    fd_budget::open(|| {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::socket(family, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and not owned elsewhere.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// Calls the system with an address in its format.
fn name(of: SocketAddr, call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> i32) -> i32 {
    match of {
        SocketAddr::V4(v4) => {
            // SAFETY: all-zero is a valid sockaddr_in.
            let mut name: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = v4.port().to_be();
            name.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            call((&raw const name).cast(), size_of::<libc::sockaddr_in>() as libc::socklen_t)
        }
        SocketAddr::V6(v6) => {
            // SAFETY: all-zero is a valid sockaddr_in6.
            let mut name: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = v6.port().to_be();
            name.sin6_addr.s6_addr = v6.ip().octets();
            name.sin6_scope_id = v6.scope_id();
            call((&raw const name).cast(), size_of::<libc::sockaddr_in6>() as libc::socklen_t)
        }
    }
}

/// Returns an unspecified address and port of the family of `to`. Not by parsing text: that
/// would link the C library's resolver.
pub fn any_like(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Returns a datagram socket that receives only datagrams from `to`, on a port that the kernel
/// chooses, through `interface` unless that is empty. Does not block.
pub fn datagrams(to: SocketAddr, interface: &str) -> io::Result<UdpSocket> {
    let socket = fd_budget::open(|| UdpSocket::bind(any_like(to)))?;
    bind_to(socket.as_raw_fd(), interface)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_to(fd: RawFd, interface: &str) -> io::Result<()> {
    if interface.is_empty() {
        return Ok(());
    }
    // SAFETY: the pointer and length describe `interface`, which outlives the call.
    let n = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            interface.as_ptr().cast(),
            interface.len() as libc::socklen_t,
        )
    };
    if n == 0 {
        return Ok(());
    }
    let e = io::Error::last_os_error();
    let why = match e.raw_os_error() {
        Some(libc::ENODEV) => "the network interface does not exist".to_owned(),
        Some(libc::EPERM) => {
            "not permitted: before Linux 5.7 this needs CAP_NET_RAW (or root)".to_owned()
        }
        _ => e.to_string(),
    };
    Err(io::Error::new(e.kind(), format!("connect_interface '{interface}': {why}")))
}

/// Returns the number of a network interface, for link-local addresses.
pub fn interface_number(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the pointer is to a live string that ends with NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        n => Some(n),
    }
}
