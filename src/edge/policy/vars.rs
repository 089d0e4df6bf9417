//! Variables of one phase: those of `set-vars`, and the results of actions. A phase begins
//! without any.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::expression::Value;

/// Most bytes of all variables of one phase, about their memory.
const MAX_BYTES: usize = 64 * 1024;

/// Bytes that a value costs beside its texts.
const VALUE_BYTES: usize = 32;

/// Actions whose result has the members of `error` also after a success: policies log them.
const WITH_ERROR: [&str; 10] = [
    "forward_internal",
    "http_request",
    "jwt_validation",
    "oauth",
    "oidc",
    "rate_limit",
    "redirect",
    "restrict_ips",
    "url_rewrite",
    "verify_webhook",
];

/// Variables of one phase.
#[derive(Clone, Debug, Default)]
pub struct PolicyVars {
    vars: BTreeMap<Arc<str>, Value>,
    /// Results of the last run of each action, by its name with underscores.
    results: BTreeMap<&'static str, Json>,
    keeps_results: bool,
    bytes: usize,
    is_incomplete: bool,
}

/// The variables have no room for another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VarsFull;

impl PolicyVars {
    /// Returns no variables. Results of actions are kept if an expression of the policy reads
    /// them.
    pub fn new(keeps_results: bool) -> Self {
        PolicyVars { keeps_results, ..Self::default() }
    }

    /// Returns the variables of `set-vars`: `vars.NAME`.
    pub fn vars(&self) -> &BTreeMap<Arc<str>, Value> {
        &self.vars
    }

    /// Returns the results of actions: `actions.ngrok.ACTION.FIELD`.
    pub fn results(&self) -> &BTreeMap<&'static str, Json> {
        &self.results
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &Arc<str>, value: Value) -> Result<(), VarsFull> {
        self.charge(name.len() + VALUE_BYTES + value.bytes())?;
        self.vars.insert(Arc::clone(name), value);
        Ok(())
    }

    /// Returns whether results are kept.
    pub fn keeps_results(&self) -> bool {
        self.keeps_results
    }

    /// Sets the result of an action, as an object with its fields. `action` has underscores:
    /// `rate_limit`. A result without room is left out, and [`PolicyVars::is_incomplete`].
    pub fn set_result(&mut self, action: &'static str, value: Json) {
        self.set_result_with(action, || value);
    }

    /// Does the same with a result that is made only if an expression reads results.
    pub fn set_result_with(&mut self, action: &'static str, make: impl FnOnce() -> Json) {
        if self.keeps_results && self.try_set_result(action, make()).is_err() {
            self.is_incomplete = true;
        }
    }

    /// Sets the result of an action. Without room it changes nothing: a smaller one may fit.
    pub fn try_set_result(
        &mut self,
        action: &'static str,
        mut value: Json,
    ) -> Result<(), VarsFull> {
        if !self.keeps_results {
            return Ok(());
        }
        if WITH_ERROR.contains(&action)
            && let Some(fields) = value.as_object_mut()
        {
            fields.entry("error").or_insert_with(|| json!({ "code": "", "message": "" }));
        }
        self.charge(action.len() + size(&value))?;
        self.results.insert(action, value);
        Ok(())
    }

    /// Returns whether a result was left out. Rules that read it would not match, also those
    /// that refuse a request.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    fn charge(&mut self, bytes: usize) -> Result<(), VarsFull> {
        let bytes = self.bytes.saturating_add(bytes);
        if bytes > MAX_BYTES {
            return Err(VarsFull);
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// Returns about the memory of a result.
fn size(value: &Json) -> usize {
    VALUE_BYTES
        + match value {
            Json::Null | Json::Bool(_) | Json::Number(_) => 0,
            Json::String(text) => text.len(),
            Json::Array(items) => items.iter().map(size).sum(),
            Json::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_bounded() {
        let mut vars = PolicyVars::new(true);
        assert_eq!(vars.set(&"a".into(), Value::from(&json!({"b": [1, "x"]}))), Ok(()));
        assert_eq!(vars.set(&"c".into(), "x".repeat(MAX_BYTES).into()), Err(VarsFull));
        vars.set_result("log", json!("x".repeat(MAX_BYTES)));
        assert_eq!((vars.vars().len(), vars.results().len()), (1, 0));
        assert!(vars.is_incomplete());
        vars.set_result("log", json!({"metadata": {}}));
        assert_eq!(vars.results()["log"], json!({"metadata": {}}));
    }

    #[test]
    fn a_result_without_an_error_has_an_empty_one() {
        let mut vars = PolicyVars::new(true);
        vars.set_result("rate_limit", json!({"limited": false}));
        assert_eq!(vars.results()["rate_limit"]["error"], json!({"code": "", "message": ""}));
        vars.set_result("rate_limit", json!({"error": {"code": "1"}}));
        assert_eq!(vars.results()["rate_limit"]["error"], json!({"code": "1"}));
    }

    #[test]
    fn results_that_no_expression_reads_are_not_made() {
        let mut vars = PolicyVars::new(false);
        vars.set_result_with("log", || unreachable!());
        assert!(vars.results().is_empty() && !vars.is_incomplete());
    }
}
