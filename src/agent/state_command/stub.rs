//! Replacement for `on_state_change` in a build without it: runs nothing.

use crate::time::{Deadline, Instant};

pub(super) const STOPPED: &str = "";

pub(super) struct StateCommand;

impl StateCommand {
    pub(super) fn new(_command: &str) -> Self {
        StateCommand
    }

    pub(super) fn report(&mut self, _state: &'static str) {}

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::Never
    }

    pub(super) fn advance(&mut self, _now: Instant) {}

    pub(super) fn finish(&mut self) {}
}
