//! The connected upstream of a visitor: a socket, TLS over a socket, or one of them behind the
//! visitor's TLS. One type for the worker that reads it and for the outlet that the reactor
//! writes to. Streams and the pool do not belong here.

use std::io::{self, IoSliceMut, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::dial;
use super::target::ProxyTarget;
use super::upstream_tls::{TlsOutlet, UpstreamTls};
use super::visitor_tls::{VisitorOutlet, VisitorTls};
use crate::session::{Outlet, PlainOutlet};
use crate::sys;

/// Time for the upstream to accept the PROXY header.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// The connected upstream.
pub(crate) enum UpstreamConn {
    /// A plain socket.
    Plain(Arc<TcpStream>),
    /// TLS over a socket.
    Tls(Arc<UpstreamTls>),
    /// Its bytes are encrypted for the visitor.
    Inside(Arc<VisitorTls>, Box<UpstreamConn>),
}

impl UpstreamConn {
    /// Connects to the upstream of `target`. `header` is sent first, in clear, before TLS
    /// begins (protocol 6.3). `with_tls`: the agent makes TLS, if the upstream uses it.
    pub(crate) fn open(
        target: &ProxyTarget,
        with_tls: bool,
        header: &[u8],
    ) -> io::Result<UpstreamConn> {
        let mut socket = dial::dial(&target.upstream)?;
        if !header.is_empty() {
            socket.set_write_timeout(Some(PROXY_HEADER_TIMEOUT))?;
            socket.write_all(header).map_err(|e| {
                let text = format!("PROXY header: the upstream did not take it: {e}");
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?;
        }
        match &target.tls {
            Some(config) if with_tls => {
                UpstreamTls::connect(socket, &target.upstream.host, config).map(UpstreamConn::Tls)
            }
            _ => Ok(UpstreamConn::Plain(Arc::new(socket))),
        }
    }

    /// Returns the outlet for writing to it.
    pub(crate) fn outlet(&self) -> Box<dyn Outlet> {
        match self {
            UpstreamConn::Plain(socket) => Box::new(PlainOutlet(Arc::clone(socket))),
            UpstreamConn::Tls(tls) => Box::new(TlsOutlet(Arc::clone(tls))),
            UpstreamConn::Inside(visitor, upstream) => {
                VisitorOutlet::wrap(Arc::clone(visitor), upstream.outlet())
            }
        }
    }

    /// Reads without blocking into several buffers in order. 0 is an orderly end.
    pub(crate) fn read_now(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let tls = match self {
            UpstreamConn::Plain(socket) => return sys::recv_into(socket.as_raw_fd(), bufs),
            UpstreamConn::Inside(visitor, upstream) => {
                return visitor.read_now(|bufs| upstream.read_now(bufs), bufs);
            }
            UpstreamConn::Tls(tls) => tls,
        };
        let mut sum = 0;
        for buf in bufs {
            let room = buf.len();
            match tls.read_now(buf) {
                Ok(n) => {
                    sum += n;
                    if n < room {
                        break;
                    }
                }
                // The next call returns the error again.
                Err(_) if sum > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sum)
    }

    /// Returns whether it is a plain socket.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, UpstreamConn::Plain(_))
    }

    pub(crate) fn fd(&self) -> RawFd {
        match self {
            UpstreamConn::Plain(socket) => socket.as_raw_fd(),
            UpstreamConn::Tls(tls) => tls.socket().as_raw_fd(),
            UpstreamConn::Inside(_, upstream) => upstream.fd(),
        }
    }
}
