//! TCP connection, with or without TLS, on which every operation has one common deadline. For
//! short exchanges: a proxy, a resolver, a small file. The session does not use it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Stream};

use crate::time::Deadline;
use crate::tls;

/// Connection with a deadline.
pub struct TimedStream {
    timed: TimedTcp,
    tls: Option<Box<ClientConnection>>,
}

/// Socket on which every read and write has one deadline.
pub struct TimedTcp {
    tcp: TcpStream,
    deadline: Deadline,
}

impl TimedTcp {
    /// Returns a socket in blocking mode with a deadline.
    pub fn new(tcp: TcpStream, deadline: Deadline) -> Self {
        TimedTcp { tcp, deadline }
    }

    /// Replaces the deadline.
    pub fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
    }

    /// Returns the socket.
    pub fn socket(&self) -> &TcpStream {
        &self.tcp
    }
}

impl TimedStream {
    /// Returns a stream without TLS, in blocking mode.
    pub fn new(tcp: TcpStream, deadline: Deadline) -> Self {
        TimedStream { timed: TimedTcp::new(tcp, deadline), tls: None }
    }

    /// Adds TLS. `name` is the host's, for SNI and certificate. Errors contain the fault of the
    /// certificate.
    pub fn secure(self, name: &str, config: Arc<ClientConfig>) -> io::Result<Self> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' is not a host name"))
        })?;
        let mut conn =
            Box::new(ClientConnection::new(config, server).map_err(|e| tls::explain_web(&e))?);
        let TimedStream { mut timed, .. } = self;
        while conn.is_handshaking() {
            conn.complete_io(&mut timed).map_err(describe)?;
        }
        Ok(TimedStream { timed, tls: Some(conn) })
    }

    /// Returns socket and TLS state.
    pub fn into_parts(self) -> (TcpStream, Option<Box<ClientConnection>>) {
        (self.timed.tcp, self.tls)
    }
}

/// Returns a TLS error as text, and others unchanged.
fn describe(e: io::Error) -> io::Error {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => tls::explain_web(error),
        None if e.kind() == io::ErrorKind::UnexpectedEof => {
            io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed within TLS")
        }
        None => e,
    }
}

impl Read for TimedStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.timed.read(buf),
            Some(conn) => Stream::new(conn.as_mut(), &mut self.timed).read(buf).map_err(describe),
        }
    }
}

impl Write for TimedStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.timed.write(bytes),
            Some(conn) => Stream::new(conn.as_mut(), &mut self.timed).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(conn) => Stream::new(conn.as_mut(), &mut self.timed).flush(),
        }
    }
}

impl Read for TimedTcp {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            self.tcp.set_read_timeout(Some(tls::time_left(self.deadline)?))?;
            match self.tcp.read(buf).map_err(tls::timed_out) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for TimedTcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(tls::time_left(self.deadline)?))?;
        self.tcp.write(bytes).map_err(tls::timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
