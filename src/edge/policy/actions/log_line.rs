//! `log`: a line in the log of the edge with metadata of the policy.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::edge::actions::action::ActionError;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::PhaseState;
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedValue;
use crate::event;
use crate::http1::text::char_boundary;
use crate::logging::rate_limit::LineQuota;
use crate::sys::sync::Mutex;

/// Lines of one action: the log of the edge is shared by all endpoints.
const LINES_PER_MINUTE: u32 = 60;

/// Longest metadata in a line, as JSON.
const MAX_METADATA_BYTES: usize = 4096;

#[derive(Debug)]
struct Log {
    metadata: Vec<(String, InterpolatedValue)>,
    quota: Mutex<LineQuota>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["metadata"]);
    let metadata = match config.child("metadata") {
        Some(map) => map.interpolated_map(),
        None => Vec::new(),
    };
    Some(Arc::new(Log { metadata, quota: Mutex::new(LineQuota::per_minute(LINES_PER_MINUTE)) }))
}

impl PolicyAction for Log {
    fn any(&self, phase: &mut dyn PhaseState) -> Result<PolicyFlow, ActionError> {
        let scope = phase.scope();
        let mut metadata = Map::new();
        for (name, value) in &self.metadata {
            metadata.insert(name.clone(), value.render(&scope)?);
        }
        let input = scope.input;
        if let Some(count) = self.quota.lock().record(input.now) {
            let mut text = Value::Object(metadata.clone()).to_string();
            text.truncate(char_boundary(&text, MAX_METADATA_BYTES));
            let (url, visitor) = (input.endpoint.url, input.connection.client);
            event!(
                info,
                obj = "policy",
                "policy log",
                url = url,
                r = visitor,
                metadata = text,
                count = count
            );
        }
        phase.vars_mut().set_result("log", json!({ "metadata": metadata }));
        Ok(PolicyFlow::Continue)
    }
}
