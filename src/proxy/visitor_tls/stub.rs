//! Stub of `visitor_tls`: an endpoint with TLS that ends at the agent is refused.

use std::convert::Infallible;
use std::io::{self, IoSliceMut};
use std::sync::Arc;

use rustls::ServerConfig;

use super::pool::Pool;
use crate::config::modules::TlsTermination;
use crate::session::{Outlet, Pipe};

/// Refuses a configuration with TLS that ends at the agent.
pub fn server_config(end: &TlsTermination) -> io::Result<Option<Arc<ServerConfig>>> {
    match end {
        TlsTermination::Agent { .. } => Err(absent()),
        _ => Ok(None),
    }
}

fn absent() -> io::Error {
    let text = "TLS cannot end at the agent: built without feature `visitor-tls`";
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Type without values.
pub(crate) struct VisitorTls(Infallible);

impl VisitorTls {
    pub(super) fn accept(_: &Pipe, _: &Arc<ServerConfig>, _: &Pool) -> io::Result<Arc<Self>> {
        Err(absent())
    }

    pub(super) fn read_now(
        &self,
        _: impl FnMut(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
        _: &mut [IoSliceMut<'_>],
    ) -> io::Result<usize> {
        match self.0 {}
    }
}

/// Never created.
pub(super) struct VisitorOutlet;

impl VisitorOutlet {
    pub(super) fn wrap(tls: Arc<VisitorTls>, _: Box<dyn Outlet>) -> Box<dyn Outlet> {
        match tls.0 {}
    }
}
