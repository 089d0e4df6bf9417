//! Texts of a configuration in which `${EXPR}` stands for a value, and values with such texts.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::catalog::PolicyPhase;
use super::phases::Scope;
use crate::edge::actions::action::ActionError;

/// Text whose expressions are evaluated for each use.
#[derive(Clone, Debug)]
pub struct InterpolatedText {
    text: String,
}

impl InterpolatedText {
    /// Compiles the expressions of a text. The error continues the path of the text.
    pub fn compile(text: &str, _phase: PolicyPhase) -> Result<Self, String> {
        if text.contains("${") {
            return Err("this edge does not evaluate expressions.".to_owned());
        }
        Ok(InterpolatedText { text: text.to_owned() })
    }

    /// Returns the text if it has no expression.
    pub fn fixed(&self) -> Option<&str> {
        Some(&self.text)
    }

    /// Returns the text with the values of its expressions.
    pub fn render(&self, _scope: &Scope<'_>) -> Result<Cow<'_, str>, ActionError> {
        Ok(Cow::Borrowed(&self.text))
    }

    /// Returns the value of the expression, if the text is only one; else the text.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, ActionError> {
        self.render(scope).map(|text| Value::String(text.into_owned()))
    }
}

/// Value of a configuration whose texts may have expressions.
#[derive(Clone, Debug)]
pub enum InterpolatedValue {
    /// A value without an expression.
    Fixed(Value),
    /// A text.
    Text(InterpolatedText),
    /// A list.
    List(Vec<InterpolatedValue>),
    /// An object.
    Map(Vec<(String, InterpolatedValue)>),
}

impl InterpolatedValue {
    /// Returns the value of all expressions in it.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Value, ActionError> {
        Ok(match self {
            InterpolatedValue::Fixed(value) => value.clone(),
            InterpolatedValue::Text(text) => text.value(scope)?,
            InterpolatedValue::List(items) => {
                Value::Array(items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?)
            }
            InterpolatedValue::Map(entries) => {
                let entry = |(key, value): &(String, InterpolatedValue)| {
                    value.render(scope).map(|value| (key.clone(), value))
                };
                Value::Object(entries.iter().map(entry).collect::<Result<Map<_, _>, _>>()?)
            }
        })
    }
}
