//! Events of the machine as descriptors that become readable: changes of links, addresses and
//! routes, and clocks that are set, also after a suspend.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{recv_now, socket_options};

/// Notifications of added, removed and changed links, addresses and routes.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Subscribes. Fails if the system has no such socket, or forbids it.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and not owned elsewhere.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // A small buffer: only the fact of a change matters.
        let _ = socket_options::set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 4096);
        // SAFETY: all-zero is a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        // AF_NETLINK is a small number.
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE;
        address.nl_groups = groups.cast_unsigned();
        // SAFETY: the pointer is to a live sockaddr_nl and the length is its size.
        let bound = unsafe {
            libc::bind(
                fd,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_nl>() as libc::socklen_t,
            )
        };
        if bound < 0 { Err(io::Error::last_os_error()) } else { Ok(Changes(socket)) }
    }

    /// Discards the notifications. Returns whether there were any, including those that the
    /// kernel dropped.
    pub fn drain(&self) -> bool {
        let mut some = false;
        let mut buffer = [0; 2048];
        // Bounded: in a storm of changes the next call reads the rest.
        for _ in 0..64 {
            match recv_now(self.0.as_raw_fd(), &mut buffer) {
                Ok(n) if n > 0 => some = true,
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => some = true,
                _ => break,
            }
        }
        some
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Notification that the wall clock was set, also by the system after a suspend: a timer that
/// is never due and is cancelled by that.
#[derive(Debug)]
pub struct ClockSet(OwnedFd);

impl ClockSet {
    /// Starts the timer.
    pub fn open() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_REALTIME, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and not owned elsewhere.
        let clock = ClockSet(unsafe { OwnedFd::from_raw_fd(fd) });
        clock.arm()?;
        Ok(clock)
    }

    fn arm(&self) -> io::Result<()> {
        // SAFETY: all-zero is a valid itimerspec.
        let mut spec: libc::itimerspec = unsafe { std::mem::zeroed() };
        // The crate warns on 32-bit musl that the type will grow: so it may.
        #[allow(deprecated)]
        {
            spec.it_value.tv_sec = libc::time_t::MAX;
        }
        let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
        // SAFETY: the pointer is to a live itimerspec; the old value is not requested.
        let set = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), flags, &raw const spec, std::ptr::null_mut())
        };
        if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reads the notification and starts the timer again. An error: this is not supported here.
    pub fn take(&self) -> io::Result<()> {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes.
        let n = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
        if n >= 0 {
            // The timer expired: the clock is beyond the end of its range.
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.arm()
    }
}

impl AsRawFd for ClockSet {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Returns the total time of suspends since the start of the machine.
pub fn asleep() -> Duration {
    super::clock().since(super::awake())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_listen_and_say_nothing_yet() {
        let clock = ClockSet::open().expect("a timer");
        let ready = crate::sys::poll::readable(&clock, Some(Duration::ZERO));
        assert!(!ready.expect("a look"));
        clock.take().expect("nothing to take is no error");
        // A sandbox may forbid the other source.
        if let Ok(changes) = Changes::open() {
            changes.drain();
        }
        assert!(asleep() < crate::sys::clock().since(crate::time::Instant::ZERO));
    }
}
