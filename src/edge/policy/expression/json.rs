//! JSON text to a value. Each part is charged before the next one is read.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::budget::EvalBudget;
use super::error::EvalError;
use super::value::{Value, ValueMap};

/// Parses JSON. Nesting is bounded by the parser.
pub(super) fn decode(text: &str, budget: &mut EvalBudget) -> Result<Value, EvalError> {
    let charges = RefCell::new((budget, None));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = JsonValue(&charges).deserialize(&mut reader).and_then(|value| {
        reader.end()?;
        Ok(value)
    });
    let (_, overrun) = charges.into_inner();
    match (value, overrun) {
        (_, Some(overrun)) => Err(overrun),
        (value, None) => value.map_err(|_| EvalError::argument("the text is not JSON")),
    }
}

/// The budget, and the error if it is exceeded.
type Charges<'b> = RefCell<(&'b mut EvalBudget, Option<EvalError>)>;

/// Reads one value.
#[derive(Clone, Copy)]
struct JsonValue<'a, 'b>(&'a Charges<'b>);

impl JsonValue<'_, '_> {
    fn charged<E: Error>(self, value: Value) -> Result<Value, E> {
        let (budget, overrun) = &mut *self.0.borrow_mut();
        match budget.element(&value) {
            Ok(()) => Ok(value),
            Err(error) => {
                *overrun = Some(error);
                Err(E::custom("overrun"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for JsonValue<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonValue<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.charged(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.charged(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Value, E> {
        self.charged(Value::Int(n))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Value, E> {
        self.charged(i64::try_from(n).map_or(Value::Uint(n), Value::Int))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Value, E> {
        self.charged(Value::Double(n))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.charged(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut reader: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = reader.next_element_seed(self)? {
            list.push(value);
        }
        self.charged(Value::Null)?;
        Ok(Value::List(list.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut reader: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = reader.next_key_seed(self)? {
            entries.push((key, reader.next_value_seed(self)?));
        }
        // Of two members with one name the later one counts.
        entries.reverse();
        self.charged(Value::Null)?;
        Ok(Value::Map(Arc::new(ValueMap::new(entries))))
    }
}
