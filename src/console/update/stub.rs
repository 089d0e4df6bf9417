//! Stub of the updates on the status screen in a build without the feature `update`.

use std::os::fd::RawFd;

use crate::agent::Handle;

pub fn text(_: &Handle) -> String {
    String::new()
}

pub fn check_once(_: &Handle) {}

/// No characters.
pub struct Keys;

impl Keys {
    pub fn new(_: &Handle) -> Self {
        Keys
    }

    pub fn fd(&self) -> RawFd {
        -1
    }

    pub fn read(&mut self, _: &Handle) {}
}
