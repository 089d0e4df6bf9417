//! Values to text, and from and to JSON and YAML.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use super::budget::MAX_BYTES;
use super::error::EvalError;
use super::time::duration_text;
use super::value::{Value, ValueMap};

/// Returns a value as JSON text. Times and bytes are texts. A text that no budget has room for
/// is not made: escapes can make it six times as long as the value.
pub(super) fn encode(value: &Value) -> Result<String, EvalError> {
    let mut out = BoundedText(Vec::new());
    let not_json = || EvalError::argument("the value cannot be JSON");
    match serde_json::to_writer(&mut out, &to_json(value)?) {
        Ok(()) => String::from_utf8(out.0).map_err(|_| not_json()),
        Err(error) if error.is_io() => {
            Err(EvalError::overrun("the expression needs too much memory"))
        }
        Err(_) => Err(not_json()),
    }
}

/// Takes at most [`MAX_BYTES`].
struct BoundedText(Vec<u8>);

impl io::Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Widening: a limit of memory.
        if self.0.len() + bytes.len() > MAX_BYTES as usize {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a value as JSON.
pub(super) fn to_json(value: &Value) -> Result<serde_json::Value, EvalError> {
    use serde_json::Value as Json;
    Ok(match value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Double(n) => serde_json::Number::from_f64(*n)
            .map(Json::Number)
            .ok_or_else(|| EvalError::argument("the number cannot be JSON"))?,
        Value::Bytes(bytes) => Json::String(crate::proto::base64::encode(bytes)),
        Value::Text(_) | Value::Object(_) | Value::Timestamp(_) | Value::Duration(_) => {
            Json::String(value.display()?.into_owned())
        }
        Value::List(list) => Json::Array(list.iter().map(to_json).collect::<Result<_, _>>()?),
        Value::Map(map) => {
            let entries =
                map.iter().map(|(key, value)| Ok((key.display()?.into_owned(), to_json(value)?)));
            Json::Object(entries.collect::<Result<_, EvalError>>()?)
        }
    })
}

impl From<&serde_json::Value> for Value {
    fn from(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Value::Int(n),
                (None, Some(n)) => Value::Uint(n),
                (None, None) => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::text(text),
            Json::Array(list) => Value::list(list.iter().map(Value::from)),
            Json::Object(map) => {
                let entries = map.iter().map(|(key, value)| (Value::text(key), value.into()));
                Value::Map(Arc::new(ValueMap::new(entries.collect())))
            }
        }
    }
}

impl From<&serde_yaml::Value> for Value {
    fn from(yaml: &serde_yaml::Value) -> Self {
        use serde_yaml::Value as Yaml;
        match yaml {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => Value::Bool(*value),
            Yaml::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(n), _) => Value::Int(n),
                (None, Some(n)) => Value::Uint(n),
                (None, None) => Value::Double(n.as_f64().unwrap_or(f64::NAN)),
            },
            Yaml::String(text) => Value::text(text),
            Yaml::Sequence(list) => Value::list(list.iter().map(Value::from)),
            Yaml::Mapping(map) => {
                let entries = map.iter().map(|(key, value)| (key.into(), value.into()));
                Value::Map(Arc::new(ValueMap::new(entries.collect())))
            }
            Yaml::Tagged(tagged) => Value::from(&tagged.value),
        }
    }
}

impl Value {
    /// Returns the value as it stands in a text. Lists and maps are JSON.
    pub fn display(&self) -> Result<Cow<'_, str>, EvalError> {
        Ok(match self {
            Value::Text(text) => Cow::Borrowed(&**text),
            Value::Object(object) => Cow::Borrowed(&*object.text),
            Value::Null => Cow::Borrowed("null"),
            Value::Bool(true) => Cow::Borrowed("true"),
            Value::Bool(false) => Cow::Borrowed("false"),
            Value::Int(n) => Cow::Owned(n.to_string()),
            Value::Uint(n) => Cow::Owned(n.to_string()),
            Value::Double(n) => Cow::Owned(double_text(*n)),
            Value::Timestamp(at) => Cow::Owned(at.to_string()),
            Value::Duration(nanos) => Cow::Owned(duration_text(*nanos)),
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Cow::Borrowed(text),
                Err(_) => return Err(EvalError::argument("the bytes are not UTF-8")),
            },
            Value::List(_) | Value::Map(_) => Cow::Owned(encode(self)?),
        })
    }

    /// Returns the value in types that JSON has: times, bytes and keys become texts.
    pub fn into_json_type(self) -> Result<Value, EvalError> {
        match self {
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Text(_) => Ok(self),
            other => Ok(Value::from(&to_json(&other)?)),
        }
    }

    /// Returns the value as JSON. Times and bytes are texts.
    pub fn to_json(&self) -> Result<serde_json::Value, EvalError> {
        to_json(self)
    }
}

/// Returns a number in the shortest form that reads as the same number.
fn double_text(n: f64) -> String {
    if n.is_nan() {
        "NaN".to_owned()
    } else if n.is_infinite() {
        if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else if n != 0.0 && (n.abs() >= 1e21 || n.abs() < 1e-6) {
        format!("{n:e}")
    } else {
        n.to_string()
    }
}
