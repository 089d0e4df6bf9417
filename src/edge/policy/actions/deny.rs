//! `deny`: ends the request with a status and an empty body, or closes the connection.

use std::sync::Arc;

use crate::edge::actions::action::{ActionError, Reply, ReplyContent};
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::{ConnectPhase, RequestPhase};
use crate::edge::policy::reader::ConfigReader;

/// Statuses that end a request. Interim responses do not.
const STATUSES: std::ops::RangeInclusive<u64> = 200..=599;

#[derive(Debug)]
struct Deny {
    status: u16,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["status_code"]);
    let status = u16::try_from(config.integer("status_code", 403, STATUSES)).ok()?;
    Some(Arc::new(Deny { status }))
}

impl PolicyAction for Deny {
    fn connect(&self, _: &mut ConnectPhase<'_>) -> Result<PolicyFlow, ActionError> {
        Ok(PolicyFlow::Close)
    }

    fn request(&self, _: &mut RequestPhase<'_>) -> Result<PolicyFlow, ActionError> {
        let content = Some(ReplyContent { kind: "".into(), body: String::new() });
        Ok(PolicyFlow::Respond(Reply { content, ..Reply::new(self.status, 0, "") }))
    }
}
