//! Where the bytes of a stream leave: a socket, or an encoder in front of one.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use crate::sys;

/// Takes the bytes of a stream. No method blocks.
pub trait Outlet: Send {
    /// Takes a prefix of `bytes`; `WouldBlock` when it can take none now.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Sends what the outlet itself holds; `WouldBlock` when some is left.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Ends this direction after what was written.
    fn finish(&mut self);
    /// Resets the connection: the thread that reads the socket wakes up, and the other
    /// side sees a reset, since the bytes that it has are not all.
    fn abort(&mut self);
    /// The socket, to be watched for room.
    fn fd(&self) -> RawFd;
}

/// A plain socket as an outlet.
pub struct PlainOutlet(pub Arc<TcpStream>);

impl Outlet for PlainOutlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::send_now(self.0.as_raw_fd(), bytes)
    }

    fn finish(&mut self) {
        // It fails on a dead connection; what was received can still be read then.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn abort(&mut self) {
        // No FIN: the close sends a reset.
        sys::reset_on_close(self.0.as_raw_fd());
        let _ = self.0.shutdown(Shutdown::Read);
    }

    fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
