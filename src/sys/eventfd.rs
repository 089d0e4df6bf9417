//! `eventfd(2)`: wakes threads that wait with `poll(2)`, also from a signal handler. The event
//! has no content: flags and queues beside it do.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// Attempts to write. The call does not fail twice on a healthy descriptor.
const MAX_WRITES: u32 = 4;

/// An event that is readable from [`EventFd::notify`] until [`EventFd::clear`].
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// Opens an event that is not readable.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is open and owned by nothing else.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes it readable.
    pub fn notify(&self) {
        notify(self.0.as_raw_fd());
    }

    /// Makes it unreadable.
    pub fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes. Fails when the event is already clear.
        unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Adds to the counter of an eventfd. A full counter is readable already. A thread may
/// sleep until this write, so a failed write is repeated. Changes `errno`.
fn notify(fd: RawFd) {
    let one = 1u64;
    for _ in 0..MAX_WRITES {
        // SAFETY: eight readable bytes.
        let n = unsafe { libc::write(fd, (&raw const one).cast(), 8) };
        if n >= 0 || io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
            return;
        }
    }
}

/// An event in a static, for signal handlers.
pub(super) struct SignalEvent {
    /// Descriptor of `event`: the only field that a handler may read. -1 before `get`.
    fd: AtomicI32,
    event: OnceLock<EventFd>,
}

impl SignalEvent {
    pub(super) const fn new() -> Self {
        SignalEvent { fd: AtomicI32::new(-1), event: OnceLock::new() }
    }

    /// Returns the event. The first call opens it.
    pub(super) fn get(&'static self) -> io::Result<&'static EventFd> {
        if self.event.get().is_none() {
            let _ = self.event.set(EventFd::new()?);
        }
        // Reason: set by the line above, in this thread or another.
        let event = self.event.get().ok_or_else(|| io::Error::other("no eventfd"))?;
        self.fd.store(event.as_raw_fd(), Ordering::Relaxed);
        Ok(event)
    }

    /// Makes the event readable. For signal handlers: it writes and nothing else.
    pub(super) fn notify(&self) {
        let fd: RawFd = self.fd.load(Ordering::Relaxed);
        // SAFETY: errno belongs to this thread. It is restored, so that the interrupted
        // code does not see the value of this call.
        unsafe {
            let errno = libc::__errno_location();
            let saved = *errno;
            notify(fd);
            *errno = saved;
        }
    }
}
