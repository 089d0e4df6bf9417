//! Texts of a configuration in which `${EXPR}` stands for a value, and values with such texts.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::catalog::PolicyPhase;
use super::expression::{EvalBudget, Template};
use super::phases::Scope;
use crate::edge::actions::action::ActionError;

/// Error of a text whose expression has no value.
const NO_VALUE: ActionError = ActionError("an expression of the traffic policy has no value");

/// Text whose expressions are evaluated for each use.
#[derive(Clone, Debug)]
pub struct InterpolatedText {
    content: TextContent,
}

#[derive(Clone, Debug)]
enum TextContent {
    Fixed(String),
    Template(Arc<Template>),
}

impl InterpolatedText {
    /// Compiles the expressions of a text. The error continues the path of the text.
    pub fn compile(text: &str, phase: PolicyPhase) -> Result<Self, String> {
        let content = match text.contains("${") {
            false => TextContent::Fixed(text.to_owned()),
            true => {
                let template = Template::compile(text, phase).map_err(|fault| fault.to_string())?;
                TextContent::Template(Arc::new(template))
            }
        };
        Ok(InterpolatedText { content })
    }

    /// Returns the text if it has no expression.
    pub fn fixed(&self) -> Option<&str> {
        match &self.content {
            TextContent::Fixed(text) => Some(text),
            TextContent::Template(_) => None,
        }
    }

    /// Returns the text with the values of its expressions.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Cow<'_, str>, ActionError> {
        match &self.content {
            TextContent::Fixed(text) => Ok(Cow::Borrowed(text)),
            TextContent::Template(template) => {
                let rendered = template.render(scope, &mut EvalBudget::new());
                rendered.map(Cow::Owned).map_err(|_| NO_VALUE)
            }
        }
    }

    /// Returns the value of the expression, if the text is only one; else the text.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, ActionError> {
        match &self.content {
            TextContent::Fixed(text) => Ok(Value::String(text.clone())),
            TextContent::Template(template) => {
                let value = template.value(scope, &mut EvalBudget::new());
                value.and_then(|value| value.to_json()).map_err(|_| NO_VALUE)
            }
        }
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
