//! In place of replays in a build that captures no requests: a type that has no values, so
//! that nothing is left of the code that would use one.

use std::sync::Arc;

use crate::inspect::Inspector;
use crate::proxy::ProxyTarget;

/// Has no values.
pub enum Replayer {}

impl Replayer {
    /// Never called.
    pub fn new(inspector: Arc<Inspector>) -> Arc<Self> {
        match *inspector {}
    }

    /// Never called.
    pub fn inspector(&self) -> &Arc<Inspector> {
        match *self {}
    }

    /// Never called.
    pub fn set_target(&self, _: &Arc<ProxyTarget>) {
        match *self {}
    }

    /// Never called.
    pub fn remove_target(&self, _: &str) {
        match *self {}
    }
}
