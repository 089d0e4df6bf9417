//! Values of expressions, and maps of them. A copy is cheap: texts, lists and maps are shared.

use std::cmp::Ordering;
use std::sync::Arc;

use super::time::Timestamp;

/// Bytes of the counters of a shared value.
const SHARED_BYTES: usize = 2 * size_of::<usize>();

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number with a sign.
    Int(i64),
    /// A number without a sign, `5u`.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// A text.
    Text(Arc<str>),
    /// Bytes, `b'...'`.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Arc<[Value]>),
    /// A map.
    Map(Arc<ValueMap>),
    /// A point in time.
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    /// A text that has members too, such as `req.url`.
    Object(Arc<TextObject>),
}

/// A text with members.
#[derive(Debug)]
pub struct TextObject {
    /// The text.
    pub text: Arc<str>,
    /// Its members.
    pub members: ValueMap,
}

impl Value {
    /// Returns a text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Value::Text(text.as_ref().into())
    }

    /// Returns a list.
    pub fn list(values: impl IntoIterator<Item = Value>) -> Self {
        Value::List(values.into_iter().collect())
    }

    /// Returns the text of a text or of an object.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Object(object) => Some(&object.text),
            _ => None,
        }
    }

    /// Returns the boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the members of a map or of an object.
    pub fn members(&self) -> Option<&ValueMap> {
        match self {
            Value::Map(map) => Some(map),
            Value::Object(object) => Some(&object.members),
            _ => None,
        }
    }

    /// Returns the elements of a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// Returns the name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::Text(_) | Value::Object(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Timestamp(_) => "timestamp",
            Value::Duration(_) => "duration",
        }
    }

    /// Returns the bytes behind the value, as if nothing in it were shared.
    pub(in crate::edge::policy) fn bytes(&self) -> usize {
        match self {
            Value::Text(text) => SHARED_BYTES + text.len(),
            Value::Bytes(bytes) => SHARED_BYTES + bytes.len(),
            Value::Object(object) => 2 * SHARED_BYTES + object.text.len() + object.members.bytes(),
            Value::List(list) => {
                let own = SHARED_BYTES + size_of_val::<[Value]>(list);
                list.iter().map(Value::bytes).fold(own, usize::saturating_add)
            }
            Value::Map(map) => map.bytes(),
            _ => 0,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::text(text)
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Value::Text(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text.into())
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

/// A map, sorted by key. Keys are booleans, numbers and texts.
#[derive(Clone, Debug, Default)]
pub struct ValueMap {
    /// Sorted by key, without duplicates.
    entries: Vec<(Value, Value)>,
    /// Whether keys are ASCII texts in lower case, found without regard to case.
    any_case: bool,
}

impl ValueMap {
    /// Returns a map of entries. Of two with the same key the first remains. Entries with keys
    /// of other types are dropped.
    pub fn new(mut entries: Vec<(Value, Value)>) -> Self {
        entries.retain(|(key, _)| rank(key).is_some());
        entries.sort_by(|(a, _), (b, _)| compare_keys(a, b));
        entries.dedup_by(|(later, _), (first, _)| compare_keys(later, first).is_eq());
        ValueMap { entries, any_case: false }
    }

    /// Returns a map whose keys are found without regard to case, as names of headers. The keys
    /// must be in lower case.
    pub fn any_case(entries: Vec<(Value, Value)>) -> Self {
        ValueMap { any_case: true, ..Self::new(entries) }
    }

    /// Returns the value of a key.
    pub fn get(&self, key: &Value) -> Option<&Value> {
        if let Some(text) = key.as_text() {
            return self.get_text(text);
        }
        rank(key)?;
        let at = self.entries.binary_search_by(|(k, _)| compare_keys(k, key)).ok()?;
        Some(&self.entries[at].1)
    }

    /// Returns the value of a text.
    pub fn get_text(&self, key: &str) -> Option<&Value> {
        let at = self.entries.binary_search_by(|(k, _)| match k.as_text() {
            Some(k) if self.any_case => k.bytes().cmp(key.bytes().map(|b| b.to_ascii_lowercase())),
            Some(k) => k.cmp(key),
            None => Ordering::Less,
        });
        Some(&self.entries[at.ok()?].1)
    }

    /// Returns whether a value can be a key.
    pub(super) fn is_key(value: &Value) -> bool {
        matches!(value, Value::Double(_)) || rank(value).is_some()
    }

    /// Returns the entries in the order of their keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Value, &Value)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the bytes of the entries.
    pub(super) fn bytes(&self) -> usize {
        let own = SHARED_BYTES + size_of_val(self.entries.as_slice());
        let parts = self.entries.iter().map(|(k, v)| k.bytes().saturating_add(v.bytes()));
        parts.fold(own, usize::saturating_add)
    }
}

/// Returns the order of the types of keys; `None` for a value that cannot be a key.
fn rank(key: &Value) -> Option<u8> {
    match key {
        Value::Bool(_) => Some(0),
        Value::Int(_) | Value::Uint(_) => Some(1),
        Value::Double(n) if integral(*n).is_some() => Some(1),
        Value::Text(_) | Value::Object(_) => Some(2),
        _ => None,
    }
}

/// Returns the number of a key.
fn number(key: &Value) -> Option<i128> {
    match key {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        Value::Double(n) => integral(*n),
        _ => None,
    }
}

/// Returns the integer that a double is equal to.
fn integral(n: f64) -> Option<i128> {
    // Within the range of both integers, so that the conversion is exact.
    (n.fract() == 0.0 && n.abs() < 1e19).then_some(n as i128)
}

fn compare_keys(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => match (a.as_text(), b.as_text()) {
            (Some(a), Some(b)) => a.cmp(b),
            _ => rank(a).cmp(&rank(b)).then_with(|| number(a).cmp(&number(b))),
        },
    }
}
