//! Texts with expressions, `Hello ${req.host}`.

use std::sync::Arc;

use super::budget::EvalBudget;
use super::compiled::Expression;
use super::error::EvalError;
use super::fault::ExpressionFault;
use super::parse;
use super::value::Value;
use super::variables::Variables;
use crate::edge::policy::catalog::PolicyPhase;

/// Most expressions in one text.
const MAX_PARTS: usize = 64;

/// A text with expressions, compiled.
#[derive(Debug)]
pub struct Template {
    parts: Vec<TemplatePart>,
}

#[derive(Debug)]
enum TemplatePart {
    Text(String),
    Expression(Expression),
}

impl Template {
    /// Compiles a text of a phase. A `$` without a brace is a part of the text.
    pub fn compile(text: &str, phase: PolicyPhase) -> Result<Self, ExpressionFault> {
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(found) = text[at..].find("${") {
            if found > 0 {
                parts.push(TemplatePart::Text(text[at..at + found].to_owned()));
            }
            let start = at + found + 2;
            let len = parse::closing_brace(&text[start..]).ok_or_else(|| {
                ExpressionFault::new(start - 2, "the expression does not end; add a }.")
            })?;
            let end = start + len;
            if parts.len() >= 2 * MAX_PARTS {
                let reason = format!("the text has more than {MAX_PARTS} expressions.");
                return Err(ExpressionFault::new(start, reason));
            }
            let expression = Expression::compile(&text[start..end], phase)
                .map_err(|fault| ExpressionFault::new(start + fault.offset, fault.reason))?;
            parts.push(TemplatePart::Expression(expression));
            at = end + 1;
        }
        if at < text.len() {
            parts.push(TemplatePart::Text(text[at..].to_owned()));
        }
        Ok(Template { parts })
    }

    /// Returns its expressions.
    pub fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.parts.iter().filter_map(|part| match part {
            TemplatePart::Text(_) => None,
            TemplatePart::Expression(expression) => Some(expression),
        })
    }

    /// Returns whether it has no expression.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, TemplatePart::Text(_)))
    }

    /// Returns the text.
    pub fn render(
        &self,
        variables: &dyn Variables,
        budget: &mut EvalBudget,
    ) -> Result<String, EvalError> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                TemplatePart::Text(part) => text.push_str(part),
                TemplatePart::Expression(expression) => {
                    let value = expression.value(variables, budget)?;
                    let shown = value.display()?;
                    budget.create(shown.len())?;
                    text.push_str(&shown);
                }
            }
        }
        Ok(text)
    }

    /// Returns the text for several owners. One that is exactly one expression shares the text of
    /// its value.
    pub fn shared(
        &self,
        variables: &dyn Variables,
        budget: &mut EvalBudget,
    ) -> Result<Arc<str>, EvalError> {
        let [TemplatePart::Expression(expression)] = self.parts.as_slice() else {
            return self.render(variables, budget).map(Arc::from);
        };
        match expression.value(variables, budget)? {
            Value::Text(text) => budget.create(text.len()).map(|()| text),
            value => {
                let shown = value.display()?;
                budget.create(shown.len())?;
                Ok(shown.into())
            }
        }
    }

    /// Returns the value of a text that is exactly one expression, with its type; of any other
    /// text, the text.
    pub fn value(
        &self,
        variables: &dyn Variables,
        budget: &mut EvalBudget,
    ) -> Result<Value, EvalError> {
        match self.parts.as_slice() {
            [TemplatePart::Expression(expression)] => expression.value(variables, budget),
            _ => self.render(variables, budget).map(Value::from),
        }
    }
}
