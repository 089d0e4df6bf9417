//! Table of bind ids and their upstreams for all legs. The reactors read it for each visitor,
//! the supervisor changes it.

use std::sync::Arc;

use crate::proxy::{ProxyTarget, Routes};
use crate::replay::Replayer;
use crate::sys::sync::RwLock;

/// Bind ids with their upstreams.
pub(super) struct RouteTable {
    routes: RwLock<Vec<(String, Arc<ProxyTarget>)>>,
    replayer: Option<Arc<Replayer>>,
}

impl RouteTable {
    /// Creates an empty table. `replayer` gets each target too.
    pub(super) fn new(replayer: Option<Arc<Replayer>>) -> Self {
        RouteTable { routes: RwLock::default(), replayer }
    }

    pub(super) fn set(&self, id: &str, target: Arc<ProxyTarget>) {
        if let Some(replayer) = &self.replayer {
            replayer.set_target(&target);
        }
        let mut routes = self.routes.write();
        match routes.iter_mut().find(|(known, _)| known == id) {
            Some((_, old)) => *old = target,
            None => routes.push((id.to_owned(), target)),
        }
    }

    pub(super) fn remove(&self, id: &str) {
        self.routes.write().retain(|(known, _)| known != id);
    }
}

impl Routes for RouteTable {
    fn target(&self, id: &str) -> Option<Arc<ProxyTarget>> {
        let routes = self.routes.read();
        routes.iter().find(|(known, _)| known == id).map(|(_, target)| Arc::clone(target))
    }
}
