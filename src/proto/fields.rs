//! Reads and writes the fields of a message (protocol 5.2). Case does not matter in keys that
//! are read. A missing field, null and the zero value are equal. Keys are written in the
//! spelling of the protocol's tables.
//!
//! A small view of `serde_json`'s map instead of derived readers, because those match keys
//! exactly and need a generated parser for each message.

use std::fmt;

use serde_json::{Map, Value};

use super::json::{MAX_MESSAGE_BYTES, ScanError, Scanner};
use super::secret::Secret;

/// Reason why bytes are not a valid message. It never contains a value of the message, which
/// could be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Refused before parsing.
    Scan(ScanError),
    /// Not JSON, with the position of the error.
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A value of the wrong type.
    Type {
        /// The key, in the spelling of the protocol.
        key: &'static str,
        /// The required type.
        wanted: &'static str,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Scan(error) => error.fmt(f),
            DecodeError::Syntax { line, column } => {
                write!(f, "message is not valid JSON at line {line} column {column}")
            }
            DecodeError::Type { key, wanted } => write!(f, "{key} must be {wanted}"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Parses one message. Only white space may follow the object.
pub(super) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    match Scanner::new(MAX_MESSAGE_BYTES).feed(bytes) {
        Ok(Some(_)) => {}
        Ok(None) => return Err(DecodeError::Scan(ScanError::NotJson)),
        Err(error) => return Err(DecodeError::Scan(error)),
    }
    serde_json::from_slice(bytes)
        .map_err(|error| DecodeError::Syntax { line: error.line(), column: error.column() })
}

/// View of a message that is read.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(Option<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    pub(super) fn of(map: &'a Map<String, Value>) -> Self {
        Fields(Some(map))
    }

    /// Returns the last value of `key`. Null counts as missing.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        let mut entries = self.0?.iter().rev();
        let (_, value) = entries.find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        (!value.is_null()).then_some(value)
    }

    pub(super) fn text(&self, key: &'static str) -> Result<String, DecodeError> {
        Ok(self.optional_text(key)?.unwrap_or_default())
    }

    pub(super) fn secret(&self, key: &'static str) -> Result<Secret, DecodeError> {
        self.text(key).map(Secret::new)
    }

    pub(super) fn optional_text(&self, key: &'static str) -> Result<Option<String>, DecodeError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(DecodeError::Type { key, wanted: "a string" }),
        }
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, DecodeError> {
        Ok(self.optional_flag(key)?.unwrap_or_default())
    }

    pub(super) fn optional_flag(&self, key: &'static str) -> Result<Option<bool>, DecodeError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(DecodeError::Type { key, wanted: "true or false" }),
        }
    }

    /// Returns a non-negative integer; a negative one counts as zero.
    pub(super) fn count(&self, key: &'static str) -> Result<u64, DecodeError> {
        let Some(value) = self.value(key) else { return Ok(0) };
        match (value.as_u64(), value.as_i64()) {
            (Some(count), _) => Ok(count),
            (None, Some(_)) => Ok(0),
            (None, None) => Err(DecodeError::Type { key, wanted: "an integer" }),
        }
    }

    pub(super) fn texts(&self, key: &'static str) -> Result<Vec<String>, DecodeError> {
        let wrong = DecodeError::Type { key, wanted: "a list of strings" };
        let list = match self.value(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong),
        };
        let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
        texts.collect::<Option<_>>().ok_or(wrong)
    }

    /// Returns the object at `key`; without one, a view in which every key is missing.
    pub(super) fn object(&self, key: &'static str) -> Result<Fields<'a>, DecodeError> {
        match self.value(key) {
            None => Ok(Fields(None)),
            Some(Value::Object(map)) => Ok(Fields(Some(map))),
            Some(_) => Err(DecodeError::Type { key, wanted: "an object" }),
        }
    }

    /// Returns the objects of a list.
    pub(super) fn objects(&self, key: &'static str) -> Result<Vec<Fields<'a>>, DecodeError> {
        let wrong = DecodeError::Type { key, wanted: "a list of objects" };
        let list = match self.value(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong),
        };
        let objects = list.iter().map(|item| item.as_object().map(|map| Fields(Some(map))));
        objects.collect::<Option<_>>().ok_or(wrong)
    }

    /// Returns a copy of the whole object.
    pub(super) fn map(&self) -> Map<String, Value> {
        self.0.cloned().unwrap_or_default()
    }

    pub(super) fn is_missing(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
        self.0.into_iter().flatten()
    }
}

/// Writes a message, key by key.
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn new() -> Self {
        Writer(vec![b'{'])
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    fn key(&mut self, key: &str) {
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.json(&Value::from(key));
        self.0.push(b':');
    }

    fn json(&mut self, value: &Value) {
        // A value in memory with text keys always has a JSON form, and writing to memory cannot
        // fail.
        let _ = serde_json::to_writer(&mut self.0, value);
    }

    pub(super) fn value(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.key(key);
        self.json(&value.into());
        self
    }

    pub(super) fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.value(key, text)
    }

    pub(super) fn secret(&mut self, key: &str, secret: &Secret) -> &mut Self {
        self.value(key, secret.expose())
    }

    pub(super) fn flag(&mut self, key: &str, flag: bool) -> &mut Self {
        self.value(key, flag)
    }

    pub(super) fn optional(&mut self, key: &str, text: &Option<String>) -> &mut Self {
        self.value(key, text.clone())
    }

    pub(super) fn texts(&mut self, key: &str, texts: &[String]) -> &mut Self {
        self.value(key, texts)
    }

    pub(super) fn map(&mut self, key: &str, map: &Map<String, Value>) -> &mut Self {
        self.key(key);
        // As in `json`.
        let _ = serde_json::to_writer(&mut self.0, map);
        self
    }

    /// Writes an object; `fill` writes its keys.
    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.key(key);
        self.0.push(b'{');
        fill(self);
        self.0.push(b'}');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, check: impl FnOnce(Fields<'_>)) {
        let map = parse(text.as_bytes()).expect("JSON");
        check(Fields::of(&map));
    }

    #[test]
    fn keys_have_no_case_and_the_last_one_wins() {
        read(r#"{"id":"a","ID":"b","Id":"c","iD":"d"}"#, |fields| {
            assert_eq!(fields.text("Id"), Ok("d".into()));
        });
        read(r#"{"Id":"a","Id":"b"}"#, |fields| {
            assert_eq!(fields.text("Id"), Ok("b".into()));
        });
    }

    #[test]
    fn missing_and_null_are_zero() {
        for text in ["{}", r#"{"K":null}"#] {
            read(text, |fields| {
                assert_eq!(fields.text("K"), Ok(String::new()));
                assert_eq!(fields.flag("K"), Ok(false));
                assert_eq!(fields.count("K"), Ok(0));
                assert_eq!(fields.texts("K"), Ok(Vec::new()));
                assert!(fields.object("K").is_ok_and(|inner| inner.text("X") == Ok(String::new())));
            });
        }
    }

    #[test]
    fn a_wrong_type_names_the_key_and_never_the_value() {
        read(r#"{"a":{"hush":1},"b":1,"c":"hush","d":1.5,"e":[1]}"#, |fields| {
            let errors = [
                fields.text("A").map(drop).unwrap_err(),
                fields.text("B").map(drop).unwrap_err(),
                fields.flag("C").map(drop).unwrap_err(),
                fields.count("D").map(drop).unwrap_err(),
                fields.texts("E").map(drop).unwrap_err(),
                fields.object("C").map(drop).unwrap_err(),
            ];
            for (error, key) in errors.iter().zip(["A", "B", "C", "D", "E", "C"]) {
                let text = error.to_string();
                assert!(text.starts_with(&format!("{key} must be ")), "{text}");
                assert!(!text.contains("hush"));
            }
        });
    }

    #[test]
    fn refuses_what_follows_the_object() {
        assert!(matches!(parse(b"{} x"), Err(DecodeError::Syntax { .. })));
        assert!(parse(b"{}\n").is_ok());
        assert_eq!(parse(b"{\"a\""), Err(DecodeError::Scan(ScanError::NotJson)));
    }

    #[test]
    fn writes_every_kind_of_value() {
        let mut out = Writer::new();
        out.text("A", "\"\n").flag("B", true).value("C", 7u64).texts("D", &["x".into()]);
        out.optional("E", &None).object("F", |inner| {
            inner.text("G", "").map("H", &Map::new());
        });
        let text = String::from_utf8(out.finish()).expect("UTF-8");
        assert_eq!(text, r#"{"A":"\"\n","B":true,"C":7,"D":["x"],"E":null,"F":{"G":"","H":{}}}"#);
    }
}
