//! Who serves which bind id: read by the reactors for each visitor, written when
//! endpoints come and go. The same for all legs.

use std::sync::Arc;

use crate::proxy::{Routes, Target};
use crate::sys::sync::RwLock;

/// Who serves which bind id: read by the reactor for each visitor, written by
/// the supervisor.
#[derive(Default)]
pub(super) struct Table(RwLock<Vec<(String, Arc<Target>)>>);

impl Table {
    pub(super) fn set(&self, id: &str, target: Arc<Target>) {
        if let Some(source) = &target.source {
            source.serves(&target);
        }
        let mut table = self.0.write();
        match table.iter_mut().find(|(known, _)| known == id) {
            Some((_, old)) => *old = target,
            None => table.push((id.to_owned(), target)),
        }
    }

    pub(super) fn remove(&self, id: &str) {
        self.0.write().retain(|(known, _)| known != id);
    }
}

impl Routes for Table {
    fn target(&self, id: &str) -> Option<Arc<Target>> {
        let table = self.0.read();
        table.iter().find(|(known, _)| known == id).map(|(_, target)| Arc::clone(target))
    }
}
