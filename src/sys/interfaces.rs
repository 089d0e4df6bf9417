//! Network interfaces of this machine with their addresses. Routes are in `/proc/net`, which
//! needs no system call of its own.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkInterface {
    /// Its name.
    pub name: String,
    /// Whether it is enabled and has a carrier.
    pub is_running: bool,
    /// Whether it is the loopback interface.
    pub is_loopback: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its largest packet in bytes; `None`: unknown.
    pub mtu: Option<u32>,
}

/// Returns the interfaces in the order of the kernel.
pub fn interfaces() -> io::Result<Vec<NetworkInterface>> {
    let mut first: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: the pointer is to a live, writable pointer.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found: Vec<NetworkInterface> = Vec::new();
    let mut next = first;
    // SAFETY: each entry of the list is valid until `freeifaddrs`, and the last one has a null
    // pointer in place of the next.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: the name of an entry is a string that ends with NUL.
        let c_name = unsafe { CStr::from_ptr(entry.ifa_name) };
        let name = c_name.to_string_lossy().into_owned();
        // SAFETY: the address of an entry is null or a valid address of its family.
        let address = unsafe { address(entry.ifa_addr) };
        match found.iter_mut().find(|interface| interface.name == name) {
            Some(interface) => interface.addresses.extend(address),
            None => {
                let has = |flags: i32| entry.ifa_flags & flags.cast_unsigned() != 0;
                found.push(NetworkInterface {
                    name,
                    is_running: has(libc::IFF_UP) && has(libc::IFF_RUNNING),
                    is_loopback: has(libc::IFF_LOOPBACK),
                    addresses: address.into_iter().collect(),
                    mtu: mtu(c_name),
                });
            }
        }
    }
    // SAFETY: the list of the call above, which nothing uses any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// Returns the MTU of an interface. `/sys` would show that of another network namespace.
fn mtu(name: &CStr) -> Option<u32> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return None;
    }
    // SAFETY: `fd` is open and not owned elsewhere.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    let most = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..most].iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the pointer is to a live, writable ifreq with a name that ends with NUL.
    let done = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as libc::Ioctl, &raw mut request)
    };
    // SAFETY: the kernel has written this member.
    (done == 0).then(|| unsafe { request.ifr_ifru.ifru_mtu }.cast_unsigned())
}

/// Returns an address of the system, if it is one of IPv4 or IPv6.
///
/// # Safety
/// `of` is null or points to a valid address of its family.
unsafe fn address(of: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: as the caller promises.
    match i32::from(unsafe { of.as_ref() }?.sa_family) {
        libc::AF_INET => {
            // SAFETY: an address of this family has this type.
            let name = unsafe { ptr::read_unaligned(of.cast::<libc::sockaddr_in>()) };
            Some(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family has this type.
            let name = unsafe { ptr::read_unaligned(of.cast::<libc::sockaddr_in6>()) };
            Some(Ipv6Addr::from(name.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_among_them() {
        let all = interfaces().unwrap();
        let lo = all.iter().find(|interface| interface.is_loopback).expect("lo");
        assert_eq!(all.iter().filter(|other| other.name == lo.name).count(), 1, "{all:?}");
        assert!(lo.mtu.is_some_and(|mtu| mtu >= 1_280), "{all:?}");
        if lo.is_running {
            assert!(lo.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{all:?}");
        }
    }
}
