//! Stub of the updates in a build without the feature `update`.

use std::sync::Arc;

use super::commands;
use crate::config;
use crate::mux::{StreamId, StreamType};
use crate::net::Dialer;
use crate::proto::messages::UpdateRequest;
use crate::session::Session;
use crate::time::{Deadline, Instant};

const NO_UPDATE: &str = "remote update is not supported; update the agent on its host";

/// Handle without updates.
#[derive(Clone)]
pub struct UpdateHandle;

impl UpdateHandle {
    pub(super) fn new(_: &config::Agent, _: &Arc<Dialer>) -> Result<Self, String> {
        Ok(UpdateHandle)
    }
}

pub(super) fn check(_: &config::Agent) -> Result<(), String> {
    Ok(())
}

pub(super) fn unsupported(_: &config::Agent) -> &'static str {
    NO_UPDATE
}

/// Schedule without checks.
pub(super) struct Updates;

impl Updates {
    pub(super) fn new(_: UpdateHandle) -> Self {
        Updates
    }

    pub(super) fn reached(&mut self, _: Instant) {}

    pub(super) fn online(&mut self, _: Instant) {}

    pub(super) fn deadline(&self) -> Deadline {
        Deadline::Never
    }

    pub(super) fn turn(&mut self, _: Instant) -> bool {
        false
    }

    pub(super) fn remote(&self, _: UpdateRequest, session: Session, stream: StreamId) {
        commands::answer(StreamType::UPDATE, &session, stream, Some(NO_UPDATE));
    }
}
