//! Stub of replays in a build without capture: a type without values, so that the compiler
//! removes the code that uses it.

use std::sync::Arc;

use crate::inspect::Inspector;
use crate::proxy::ProxyTarget;

/// Type without values.
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
