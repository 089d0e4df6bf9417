//! Policies in the form of older SDKs: an object with `inbound` and `outbound`, in which a
//! configuration may be JSON in base64, or the same with capitalised keys.

use serde_json::{Map, Value};

use crate::proto::base64;

/// Returns the document for the object of an older SDK.
pub fn document(policy: &Value) -> String {
    lower_keys(policy, &|rule| lower_keys(rule, &|action| lower_keys(action, &Value::clone)))
        .to_string()
}

/// Returns the document for a text. Only JSON with capitalised keys is changed.
pub fn text(policy: &str) -> Option<String> {
    let older = policy.trim_start().starts_with('{')
        && ["\"Inbound\"", "\"Outbound\""].iter().any(|key| policy.contains(key));
    let parsed = older.then(|| serde_json::from_str::<Value>(policy).ok()).flatten()?;
    Some(document(&parsed))
}

/// Returns an object with its keys in lower case. `inner` changes the elements of its lists of
/// objects; a configuration is decoded.
fn lower_keys(value: &Value, inner: &dyn Fn(&Value) -> Value) -> Value {
    let Value::Object(map) = value else { return value.clone() };
    let entry = |(key, value): (&String, &Value)| {
        let key = key.to_ascii_lowercase();
        let value = match value {
            Value::Array(items) => Value::Array(items.iter().map(inner).collect()),
            Value::String(text) if key == "config" => {
                decoded(text).unwrap_or_else(|| value.clone())
            }
            other => other.clone(),
        };
        (key, value)
    };
    Value::Object(map.iter().map(entry).collect::<Map<_, _>>())
}

fn decoded(text: &str) -> Option<Value> {
    serde_json::from_slice(&base64::decode(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_older_forms_become_the_same_document() {
        let rule = json!({"name": "a", "expressions": ["true"],
            "actions": [{"type": "deny", "config": {"status_code": 404}}]});
        let expected = json!({ "inbound": [rule], "outbound": [] });
        let config = base64::encode(br#"{"status_code": 404}"#);
        let go = json!({"inbound": [{"name": "a", "expressions": ["true"],
            "actions": [{"type": "deny", "config": config}]}], "outbound": []});
        let rust = json!({"Inbound": [{"Name": "a", "Expressions": ["true"],
            "Actions": [{"Type": "deny", "Config": {"status_code": 404}}]}], "Outbound": []});
        let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(parse(document(&go)), expected);
        assert_eq!(parse(text(&rust.to_string()).unwrap()), expected);
        assert_eq!(text("on_http_request: [] # \"Inbound\""), None);
        assert_eq!(text(&expected.to_string()), None);
    }
}
