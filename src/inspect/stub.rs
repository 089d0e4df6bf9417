//! Stub of `inspect`: types without values, so that the compiler removes the code that uses
//! them. It has only the parts for connections. Readers of captured requests are not built
//! either.

use std::io::IoSliceMut;
use std::sync::Arc;

use crate::config;
use crate::metrics;

/// Type without values.
#[derive(Clone, Copy, Debug)]
pub enum Inspector {}

/// Type without values.
#[derive(Clone, Debug)]
pub enum TapSource {}

/// Type without values.
#[derive(Debug)]
pub enum Tap {}

impl Inspector {
    /// Returns `None`.
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
