//! Byte stream of a client of the REST API: a socket with a deadline, with or without TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, Stream};

use crate::net::timed_stream::TimedTcp;
use crate::time::Deadline;

/// Connection of a client.
pub struct ApiStream {
    tcp: TimedTcp,
    tls: Option<Box<ServerConnection>>,
}

impl ApiStream {
    /// Returns a stream. The handshake is made by the first read.
    pub fn new(tcp: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        let tls = match tls {
            Some(config) => {
                let state = ServerConnection::new(config).map_err(io::Error::other)?;
                Some(Box::new(state))
            }
            None => None,
        };
        Ok(ApiStream { tcp: TimedTcp::new(tcp, Deadline::Never), tls })
    }

    /// Limits the time of the next reads and writes together.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.tcp.set_deadline(deadline);
    }

    /// Returns the socket, to watch it.
    pub fn fd(&self) -> RawFd {
        self.tcp.socket().as_raw_fd()
    }

    /// Returns whether there are received bytes that no read has returned.
    pub fn has_bytes(&mut self) -> bool {
        let Some(tls) = &mut self.tls else { return false };
        tls.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// Ends the sending direction.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.complete_io(&mut self.tcp);
        }
        let _ = self.tcp.socket().shutdown(std::net::Shutdown::Write);
    }
}

impl Read for ApiStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.read(buf),
            Some(tls) => Stream::new(tls.as_mut(), &mut self.tcp).read(buf),
        }
    }
}

impl Write for ApiStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.tcp.write(bytes),
            Some(tls) => Stream::new(tls.as_mut(), &mut self.tcp).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => Stream::new(tls.as_mut(), &mut self.tcp).flush(),
        }
    }
}
