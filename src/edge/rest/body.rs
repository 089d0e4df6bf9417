//! Fields of a request body: its JSON, which ones a resource has, their types and lengths. What their
//! values mean is decided by the resource.

use serde_json::{Map, Value};

use super::error::ApiError;
use super::http::ApiHttpRequest;

/// Longest description.
const MAX_DESCRIPTION_BYTES: usize = 255;
/// Longest metadata.
const MAX_METADATA_BYTES: usize = 4096;
/// Longest certificate or key.
pub const MAX_PEM_BYTES: usize = 65_536;
/// Longest other text.
const MAX_TEXT_BYTES: usize = 4096;
/// Most members of a list.
const MAX_LIST: usize = 1_000;

/// Type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// A text of at most this many bytes.
    Text(usize),
    /// `true` or `false`.
    Flag,
    /// A list of texts.
    Texts,
    /// A field of ngrok's service that this edge does not have: only empty values.
    Unsupported,
}

/// Requests in which a field may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldUse {
    /// At creation, where it must be given.
    Required,
    /// At creation only.
    Create,
    /// At creation and at a change.
    Both,
}

/// A field of a resource.
#[derive(Clone, Copy, Debug)]
pub struct FieldRule {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: FieldType,
    /// When it may be given.
    pub allowed: FieldUse,
}

impl FieldRule {
    /// Returns a rule.
    pub const fn new(name: &'static str, kind: FieldType, allowed: FieldUse) -> Self {
        FieldRule { name, kind, allowed }
    }

    /// A short text.
    pub const fn text(name: &'static str, allowed: FieldUse) -> Self {
        FieldRule::new(name, FieldType::Text(MAX_TEXT_BYTES), allowed)
    }

    /// `description`, which every object has.
    pub const DESCRIPTION: FieldRule =
        FieldRule::new("description", FieldType::Text(MAX_DESCRIPTION_BYTES), FieldUse::Both);
    /// `metadata`, which every object has.
    pub const METADATA: FieldRule =
        FieldRule::new("metadata", FieldType::Text(MAX_METADATA_BYTES), FieldUse::Both);
}

/// Purpose of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyUse {
    /// A new object.
    Create,
    /// A change of an object.
    Update,
}

/// Parses the body of a request. An empty one has no fields.
pub fn parse(request: &ApiHttpRequest) -> Result<Map<String, Value>, ApiError> {
    if request.body.is_empty() {
        return Ok(Map::new());
    }
    let kind = request.content_type.as_deref().unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.is_empty() {
        let text = "The field Content-Type is missing. Send 'Content-Type: application/json'.";
        return Err(ApiError::new(400, 216, text));
    }
    if !kind.eq_ignore_ascii_case("application/json") {
        let text = "The body must be JSON. Send 'Content-Type: application/json'.";
        return Err(ApiError::new(415, 210, text));
    }
    let parsed: Value = serde_json::from_slice(&request.body)
        .map_err(|e| ApiError::new(400, 213, format!("The body is not valid JSON: {e}.")))?;
    match parsed {
        Value::Object(map) if request.method == "GET" && map.keys().any(|name| name != "id") => {
            Err(ApiError::new(400, 211, "A GET request must not have a body."))
        }
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(ApiError::new(400, 213, "The body is not a JSON object.")),
    }
}

/// Returns the given fields of a body, checked by `rules`. `null` and `id` count as not given.
pub fn read(
    rules: &[FieldRule],
    body: &Map<String, Value>,
    purpose: BodyUse,
) -> Result<Map<String, Value>, ApiError> {
    let is_permitted =
        |rule: &&FieldRule| purpose == BodyUse::Create || rule.allowed == FieldUse::Both;
    let mut given = Map::new();
    for (name, value) in body {
        if name == "id" || value.is_null() {
            continue;
        }
        let rule = rules.iter().find(|rule| rule.name == name);
        let Some(rule) = rule.filter(is_permitted) else {
            let verb = if purpose == BodyUse::Create { "created" } else { "changed" };
            let known: Vec<&str> = rules.iter().filter(is_permitted).map(|r| r.name).collect();
            let text = format!(
                "The field '{name}' cannot be {verb} here. Known fields: {}.",
                known.join(", ")
            );
            return Err(ApiError::new(400, 214, text));
        };
        if let Some(value) = check(rule, value)? {
            given.insert(name.clone(), value);
        }
    }
    let missing =
        |rule: &&FieldRule| rule.allowed == FieldUse::Required && !given.contains_key(rule.name);
    match rules.iter().find(missing) {
        Some(rule) if purpose == BodyUse::Create => {
            Err(ApiError::invalid(format!("The field '{}' is missing.", rule.name)))
        }
        _ => Ok(given),
    }
}

fn check(rule: &FieldRule, value: &Value) -> Result<Option<Value>, ApiError> {
    let name = rule.name;
    let wrong = |what: &str| ApiError::invalid(format!("The field '{name}' must be {what}."));
    match (rule.kind, value) {
        (FieldType::Text(max), Value::String(text)) => {
            if text.len() > max {
                let len = text.len();
                let text = format!("The field '{name}' has {len} bytes, at most {max}.");
                return Err(ApiError::invalid(text));
            }
            if text.contains('\0') {
                return Err(wrong("a text without zero bytes"));
            }
            Ok(Some(value.clone()))
        }
        (FieldType::Text(_), _) => Err(wrong("a text")),
        (FieldType::Flag, Value::Bool(_)) => Ok(Some(value.clone())),
        (FieldType::Flag, _) => Err(wrong("true or false")),
        (FieldType::Texts, Value::Array(list)) => {
            let fits = |v: &Value| {
                v.as_str().is_some_and(|t| t.len() <= MAX_TEXT_BYTES && !t.contains('\0'))
            };
            if list.len() > MAX_LIST || !list.iter().all(fits) {
                return Err(wrong("a list of at most 1000 short texts"));
            }
            Ok(Some(value.clone()))
        }
        (FieldType::Texts, _) => Err(wrong("a list of texts")),
        (FieldType::Unsupported, value) if is_empty(value) => Ok(None),
        (FieldType::Unsupported, _) => {
            Err(ApiError::invalid(format!("This edge does not support the field '{name}'.")))
        }
    }
}

/// Returns whether a client sent the default of its language.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RULES: &[FieldRule] = &[
        FieldRule::DESCRIPTION,
        FieldRule::METADATA,
        FieldRule::text("domain", FieldUse::Required),
        FieldRule::new("acl", FieldType::Texts, FieldUse::Both),
        FieldRule::new("enforced", FieldType::Flag, FieldUse::Both),
        FieldRule::new("owner_email", FieldType::Unsupported, FieldUse::Create),
    ];

    fn fields(purpose: BodyUse, body: &Value) -> Result<Value, u32> {
        read(RULES, body.as_object().unwrap(), purpose).map(Value::Object).map_err(|e| e.code)
    }

    #[test]
    fn bodies_of_the_known_clients_are_accepted() {
        // Null for what is not given, an id in the body, empty defaults.
        let body =
            json!({"id": "rd_1", "domain": "a", "acl": null, "description": "", "owner_email": ""});
        assert_eq!(fields(BodyUse::Create, &body), Ok(json!({"domain": "a", "description": ""})));
        assert_eq!(fields(BodyUse::Update, &json!({"id": "x"})), Ok(json!({})));
    }

    #[test]
    fn unknown_and_wrong_fields_are_refused() {
        for (purpose, body, code) in [
            (BodyUse::Create, json!({"domain": "a", "domian": "b"}), 214),
            (BodyUse::Update, json!({"domain": "a"}), 214),
            (BodyUse::Create, json!({"description": "a"}), 215),
            (BodyUse::Create, json!({"domain": 5}), 215),
            (BodyUse::Update, json!({"acl": "bind:*"}), 215),
            (BodyUse::Update, json!({"acl": [5]}), 215),
            (BodyUse::Update, json!({"enforced": "true"}), 215),
            (BodyUse::Update, json!({"description": "x".repeat(256)}), 215),
            (BodyUse::Update, json!({"metadata": "x".repeat(4097)}), 215),
            (BodyUse::Update, json!({"metadata": "a\u{0}b"}), 215),
            (BodyUse::Create, json!({"domain": "a", "owner_email": "x"}), 215),
        ] {
            assert_eq!(fields(purpose, &body), Err(code), "{body}");
        }
        assert!(fields(BodyUse::Update, &json!({"description": "x".repeat(255)})).is_ok());
    }
}
