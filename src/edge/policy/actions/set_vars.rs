//! `set-vars`: variables that later expressions of the same phase read.

use std::sync::Arc;

use crate::edge::actions::action::ActionError;
use crate::edge::policy::action::{PolicyAction, PolicyFlow};
use crate::edge::policy::phases::PhaseState;
use crate::edge::policy::reader::ConfigReader;
use crate::edge::policy::text::InterpolatedValue;

/// Variables of one action.
const MAX_VARS: usize = 100;

#[derive(Debug)]
struct SetVars {
    vars: Vec<(Arc<str>, InterpolatedValue)>,
}

pub(super) fn compile(config: &ConfigReader<'_>) -> Option<Arc<dyn PolicyAction>> {
    config.known_keys(&["vars"]);
    if !config.require("vars") {
        return None;
    }
    let mut vars = Vec::new();
    for entry in config.children("vars", MAX_VARS) {
        let mut entries = entry.entries();
        let (Some((name, _)), None) = (entries.next(), entries.next()) else {
            entry.fault_here(2252, "must be a mapping with one key, the name of the variable.");
            continue;
        };
        if !is_name(&name) {
            let reason = "is not a name; use letters, digits and _, not a digit first.";
            entry.fault(&name, 2204, reason);
        } else if let Some(value) = entry.interpolated(&name) {
            vars.push((name.into(), value));
        }
    }
    Some(Arc::new(SetVars { vars }))
}

/// Returns whether expressions can name a variable like this.
fn is_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

const FULL: ActionError = ActionError("the variables of the policy are too large");

impl PolicyAction for SetVars {
    /// Sets all variables. A later one can read those before it.
    fn any(&self, phase: &mut dyn PhaseState) -> Result<PolicyFlow, ActionError> {
        for (name, value) in &self.vars {
            let value = value.value(&phase.scope())?;
            phase.vars_mut().set(name, value).map_err(|_| FULL)?;
        }
        Ok(PolicyFlow::Continue)
    }
}
