//! Stands for `inspect` in a build without it: types that have no values, so that the
//! code that would use one disappears. Only what a connection needs; readers of captured
//! requests are not built either.

use std::io::IoSliceMut;
use std::sync::Arc;

use crate::config;
use crate::metrics;

/// There is none.
#[derive(Clone, Copy, Debug)]
pub enum Inspector {}

/// There is none.
#[derive(Clone, Debug)]
pub enum TapSource {}

/// There is none.
#[derive(Debug)]
pub enum Tap {}

impl Inspector {
    /// None.
    pub fn new(_: &config::Agent, _: usize) -> Option<Arc<Self>> {
        None
    }

    /// Never called.
    pub fn source(
        self: &Arc<Self>,
        _: &str,
        _: bool,
        _: &Arc<metrics::EndpointMetrics>,
    ) -> TapSource {
        match **self {}
    }
}

impl TapSource {
    /// Never called.
    pub fn tap(&self, _: &str) -> Tap {
        match *self {}
    }
}

impl Tap {
    /// Never called.
    pub fn request(&self, _: &[u8]) {
        match *self {}
    }

    /// Never called.
    pub fn response(&self, _: &[u8]) {
        match *self {}
    }

    /// Never called.
    pub fn responses(&self, _: &[IoSliceMut<'_>], _: usize) {
        match *self {}
    }

    /// Never called.
    pub fn finish(&self) {
        match *self {}
    }

    /// Never called.
    pub fn abort(&self) {
        match *self {}
    }
}
