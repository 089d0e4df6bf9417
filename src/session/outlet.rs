//! Destination of a stream's bytes: a socket, or an encoder in front of one.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use crate::sys;

/// Destination of a stream's bytes. No method blocks.
pub trait Outlet: Send {
    /// Writes a prefix of `bytes`. Returns `WouldBlock` if nothing can be written now.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Does the same as [`Self::write`] for bytes in several buffers.
    fn write_parts(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(parts.first().map_or(&[], |part| part))
    }
    /// Sends the bytes that the outlet buffers. Returns `WouldBlock` if some are left.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Ends this direction after the bytes that were written.
    fn finish(&mut self);
    /// Resets the connection: the thread that reads the socket wakes up, and the other side
    /// gets a reset, because its bytes are incomplete.
    fn abort(&mut self);
    /// Returns the socket, for the reactor to watch.
    fn fd(&self) -> RawFd;
}

/// A plain socket as an outlet.
pub struct PlainOutlet(pub Arc<TcpStream>);

impl Outlet for PlainOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::send_now(self.0.as_raw_fd(), bytes)
    }

    fn write_parts(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::send_parts(self.0.as_raw_fd(), parts)
    }

    fn finish(&mut self) {
        // It fails on a dead connection. Received bytes can still be read then.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn abort(&mut self) {
        // Without FIN: the close sends a reset.
        sys::reset_on_close(self.0.as_raw_fd());
        let _ = self.0.shutdown(Shutdown::Read);
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
