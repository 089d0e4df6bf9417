//! Variables of one phase: those of `set-vars`, and the results of actions. A phase begins
//! without any.

use serde_json::{Map, Value, json};

/// Most bytes of all variables of one phase, as JSON.
const MAX_BYTES: usize = 64 * 1024;

/// Actions whose result has the members of `error` also after a success: policies log them.
const WITH_ERROR: [&str; 9] = [
    "forward_internal",
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
    vars: Map<String, Value>,
    /// Results of the last run of each action, by its name with underscores.
    results: Map<String, Value>,
    bytes: usize,
    is_incomplete: bool,
}

/// The variables have no room for another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VarsFull;

impl PolicyVars {
    /// Returns the variables of `set-vars`: `vars.NAME`.
    pub fn vars(&self) -> &Map<String, Value> {
        &self.vars
    }

    /// Returns the results of actions: `actions.ngrok.ACTION.FIELD`.
    pub fn results(&self) -> &Map<String, Value> {
        &self.results
    }

    /// Sets a variable.
    pub fn set(&mut self, name: &str, value: Value) -> Result<(), VarsFull> {
        self.charge(name, &value)?;
        self.vars.insert(name.to_owned(), value);
        Ok(())
    }

    /// Sets the result of an action, as an object with its fields. `action` has underscores:
    /// `rate_limit`. A result without room is left out, and [`PolicyVars::is_incomplete`].
    pub fn set_result(&mut self, action: &str, mut value: Value) {
        if WITH_ERROR.contains(&action)
            && let Some(fields) = value.as_object_mut()
        {
            fields.entry("error").or_insert_with(|| json!({ "code": "", "message": "" }));
        }
        match self.charge(action, &value) {
            Ok(()) => {
                self.results.insert(action.to_owned(), value);
            }
            Err(VarsFull) => self.is_incomplete = true,
        }
    }

    /// Returns whether a result was left out. Rules that read it would not match, also those
    /// that refuse a request.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete
    }

    fn charge(&mut self, name: &str, value: &Value) -> Result<(), VarsFull> {
        let bytes = self.bytes + name.len() + size(value);
        if bytes > MAX_BYTES {
            return Err(VarsFull);
        }
        self.bytes = bytes;
        Ok(())
    }
}

/// Returns about the memory of a value.
fn size(value: &Value) -> usize {
    const COST: usize = 32;
    COST + match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + size(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_bounded() {
        let mut vars = PolicyVars::default();
        assert_eq!(vars.set("a", json!({"b": [1, "x"]})), Ok(()));
        assert_eq!(vars.set("c", json!("x".repeat(MAX_BYTES))), Err(VarsFull));
        vars.set_result("log", json!("x".repeat(MAX_BYTES)));
        assert_eq!((vars.vars().len(), vars.results().len()), (1, 0));
        assert!(vars.is_incomplete());
        vars.set_result("log", json!({"metadata": {}}));
        assert_eq!(vars.results()["log"], json!({"metadata": {}}));
    }

    #[test]
    fn a_result_without_an_error_has_an_empty_one() {
        let mut vars = PolicyVars::default();
        vars.set_result("rate_limit", json!({"limited": false}));
        assert_eq!(vars.results()["rate_limit"]["error"], json!({"code": "", "message": ""}));
        vars.set_result("rate_limit", json!({"error": {"code": "1"}}));
        assert_eq!(vars.results()["rate_limit"]["error"], json!({"code": "1"}));
    }
}
