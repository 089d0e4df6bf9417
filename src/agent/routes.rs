//! Who serves which bind id: read by the reactors for each visitor, written when
//! endpoints come and go. The same for all legs.

use std::sync::Arc;

use crate::proxy::{ProxyTarget, Routes};
use crate::sys::sync::RwLock;

/// Who serves which bind id: read by the reactor for each visitor, written by
/// the supervisor.
#[derive(Default)]
pub(super) struct RouteTable(RwLock<Vec<(String, Arc<ProxyTarget>)>>);

impl RouteTable {
    pub(super) fn set(&self, id: &str, target: Arc<ProxyTarget>) {
        if let Some(source) = &target.source {
            source.serves(&target);
        }
        let mut routes = self.0.write();
        match routes.iter_mut().find(|(known, _)| known == id) {
            Some((_, old)) => *old = target,
            None => routes.push((id.to_owned(), target)),
        }
    }

    pub(super) fn remove(&self, id: &str) {
        self.0.write().retain(|(known, _)| known != id);
    }
}

impl Routes for RouteTable {
    fn target(&self, id: &str) -> Option<Arc<ProxyTarget>> {
        let routes = self.0.read();
        routes.iter().find(|(known, _)| known == id).map(|(_, target)| Arc::clone(target))
    }
}
