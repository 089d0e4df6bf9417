//! Reads and writes of sockets that never block, in any mode of the socket. Signals do not
//! interrupt them.

use std::io::{self, Read, Write};
use std::os::fd::RawFd;

use super::errno::retry;

/// Sends as many bytes as fit without blocking and without SIGPIPE. `Interrupted` is retried.
pub fn send_now(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: the pointer and length describe `bytes`, which outlives the call.
        unsafe {
            libc::send(
                fd,
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        }
    })
}

/// Does the same as [`send_now`] for bytes in several buffers.
pub fn send_parts(fd: RawFd, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid msghdr: no name, no control, no buffers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSlice is an iovec by its documentation. The kernel only reads it.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    retry(|| {
        // SAFETY: `message` describes `parts`, which outlive the call.
        unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    })
}

/// Receives the available bytes without blocking. 0 is the end. `Interrupted` is retried.
pub fn recv_now(fd: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: the pointer and length describe `buf`, writable during the call.
        unsafe { libc::recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) }
    })
}

/// Receives the available bytes into several buffers in order, without blocking. 0 is the end.
/// `Interrupted` is retried.
pub fn recv_into(fd: RawFd, places: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
    // SAFETY: all-zero is a valid msghdr: no name, no control, no places.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // IoSliceMut has the layout of iovec by its documentation.
    message.msg_iov = places.as_mut_ptr().cast();
    message.msg_iovlen = places.len() as _;
    retry(|| {
        // SAFETY: `message` describes `places`, writable during the call.
        unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT) }
    })
}

/// Adapter of a socket for a TLS library, with reads and writes that never block.
pub struct NonBlocking(pub RawFd);

impl Read for NonBlocking {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        recv_now(self.0, buf)
    }
}

impl Write for NonBlocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send_now(self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
