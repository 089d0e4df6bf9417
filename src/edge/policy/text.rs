//! Texts of a configuration in which `${EXPR}` stands for a value, and values with such texts.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::catalog::PolicyPhase;
use super::expression::{EvalBudget, Expression, Template, Value};
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
    Fixed(Arc<str>),
    Template(Arc<Template>),
}

impl InterpolatedText {
    /// Compiles the expressions of a text. The error continues the path of the text.
    pub fn compile(text: &str, phase: PolicyPhase) -> Result<Self, String> {
        let content = match text.contains("${") {
            false => TextContent::Fixed(text.into()),
            true => {
                let template = Template::compile(text, phase).map_err(|fault| fault.to_string())?;
                TextContent::Template(Arc::new(template))
            }
        };
        Ok(InterpolatedText { content })
    }

    /// Returns its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let template = match &self.content {
            TextContent::Fixed(_) => None,
            TextContent::Template(template) => Some(template),
        };
        template.into_iter().flat_map(|template| template.expressions())
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

    /// Returns the same for several owners.
    pub fn shared(&self, scope: &Scope<'_>) -> Result<Arc<str>, ActionError> {
        match &self.content {
            TextContent::Fixed(text) => Ok(Arc::clone(text)),
            TextContent::Template(template) => {
                template.shared(scope, &mut EvalBudget::new()).map_err(|_| NO_VALUE)
            }
        }
    }

    /// Returns the value of the expression, if the text is only one; else the text. Its type is
    /// one that JSON has.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, ActionError> {
        match &self.content {
            TextContent::Fixed(text) => Ok(Arc::clone(text).into()),
            TextContent::Template(template) => {
                let value = template.value(scope, &mut EvalBudget::new());
                value.and_then(Value::into_json_type).map_err(|_| NO_VALUE)
            }
        }
    }
}

/// Value of a configuration whose texts may have expressions.
#[derive(Clone, Debug)]
pub enum InterpolatedValue {
    /// A value without an expression.
    Fixed(Json),
    /// A text.
    Text(InterpolatedText),
    /// A list.
    List(Vec<InterpolatedValue>),
    /// An object.
    Map(Vec<(String, InterpolatedValue)>),
}

impl InterpolatedValue {
    /// Returns the value with those of all expressions in it, for other expressions.
    pub fn value(&self, scope: &Scope<'_>) -> Result<Value, ActionError> {
        match self {
            InterpolatedValue::Text(text) => text.value(scope),
            other => Ok(Value::from(&other.render(scope)?)),
        }
    }

    /// Returns it as JSON.
    pub fn render(&self, scope: &Scope<'_>) -> Result<Json, ActionError> {
        Ok(match self {
            InterpolatedValue::Fixed(value) => value.clone(),
            InterpolatedValue::Text(text) => text.value(scope)?.to_json().map_err(|_| NO_VALUE)?,
            InterpolatedValue::List(items) => {
                Json::Array(items.iter().map(|item| item.render(scope)).collect::<Result<_, _>>()?)
            }
            InterpolatedValue::Map(entries) => {
                let entry = |(key, value): &(String, InterpolatedValue)| {
                    value.render(scope).map(|value| (key.clone(), value))
                };
                Json::Object(entries.iter().map(entry).collect::<Result<Map<_, _>, _>>()?)
            }
        })
    }
}
