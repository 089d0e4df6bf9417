//! `close-connection`: closes the visitor's connection without a response.

use std::sync::Arc;

use crate::edge::actions::action::ActionError;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::PhaseState;
use crate::edge::policy::reader::ConfigReader;

#[derive(Debug)]
struct CloseConnection;

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&[]);
    Some(Arc::new(CloseConnection))
}

impl PolicyAction for CloseConnection {
    fn any(&self, _: &mut dyn PhaseState) -> Result<PolicyFlow, ActionError> {
        Ok(PolicyFlow::Close)
    }
}
