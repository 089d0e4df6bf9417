//! `poll(2)`: waits for a few descriptors. A reactor that uses many of them for a long time
//! uses `mio`. Nothing is read or written here.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// A descriptor to wait for, and afterwards whether it is ready.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Returns an entry that waits for bytes to read (`read`), for room to write (`write`), and
    /// always for an end or an error of the connection. The kernel ignores a negative
    /// descriptor.
    pub fn new(fd: &impl AsRawFd, read: bool, write: bool) -> Self {
        let events = if read { libc::POLLIN } else { 0 } | if write { libc::POLLOUT } else { 0 };
        PollFd(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 })
    }

    /// Returns an entry that waits for bytes to read.
    pub fn readable(fd: &impl AsRawFd) -> Self {
        PollFd::new(fd, true, false)
    }

    /// Returns an entry that waits for room to write.
    pub fn writable(fd: &impl AsRawFd) -> Self {
        PollFd::new(fd, false, true)
    }

    /// Returns whether the last [`wait`] found the event, an end or an error.
    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Waits until at least one descriptor is ready, at most `timeout`. A signal ends the wait
/// early with no descriptor ready: callers check their deadline and wait again. May be
/// called in a signal handler.
pub fn wait(fds: &mut [PollFd], timeout: Option<Duration>) -> io::Result<()> {
    let ms = match timeout {
        None => -1,
        // Rounded up: the wait does not end before the deadline.
        Some(t) => i32::try_from(t.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX),
    };
    // SAFETY: PollFd is a pollfd by its representation; pointer and length describe
    // the slice, which is writable during the call.
    let n = unsafe { libc::poll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, ms) };
    if n >= 0 {
        return Ok(());
    }
    let e = io::Error::last_os_error();
    if e.kind() != io::ErrorKind::Interrupted {
        return Err(e);
    }
    for fd in fds {
        fd.0.revents = 0;
    }
    Ok(())
}

/// Returns whether `fd` is readable within `timeout`, or has an end or an error.
pub fn readable(fd: &impl AsRawFd, timeout: Option<Duration>) -> io::Result<bool> {
    let mut fds = [PollFd::readable(fd)];
    wait(&mut fds, timeout).map(|()| fds[0].is_ready())
}

/// Returns whether `fd` is writable within `timeout`, or has an error. A pipe is writable when
/// it accepts 4,096 bytes. A pipe without a reader is writable too, and a write to it fails at
/// once.
pub fn writable(fd: &impl AsRawFd, timeout: Option<Duration>) -> io::Result<bool> {
    let mut fds = [PollFd::writable(fd)];
    wait(&mut fds, timeout).map(|()| fds[0].is_ready())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_full_pipe_is_readable_and_not_writable() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let now = Some(Duration::ZERO);
        assert!(!readable(&reader, now).unwrap());
        while writable(&writer, now).unwrap() {
            writer.write_all(&[0; 4096]).expect("room");
        }
        let mut fds =
            [PollFd::readable(&-1), PollFd::readable(&reader), PollFd::new(&writer, false, true)];
        wait(&mut fds, None).unwrap();
        assert_eq!(fds.map(|fd| fd.is_ready()), [false, true, false]);
        drop(reader);
        assert!(writable(&writer, now).unwrap(), "a pipe without a reader never blocks");
    }
}
