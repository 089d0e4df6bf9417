//! `from` and `to` of a configuration: a regular expression and the new text, in which the
//! expressions of a policy are evaluated first. Without such an expression both are compiled at
//! Bind.

use regex_lite::Regex;

use super::phases::Scope;
use super::reader::ConfigReader;
use super::replace::{Replacement, Substitution, expression};
use super::text::InterpolatedText;
use crate::edge::actions::action::ActionError;
use crate::sys::sync::Mutex;

/// Key of the regular expression.
const FROM: &str = "from";

/// Key of the new text.
const TO: &str = "to";

const NOT_AN_EXPRESSION: ActionError =
    ActionError("the policy has made an invalid regular expression");

/// A replacement of a configuration.
#[derive(Debug)]
pub struct ReplacementText {
    from: Pattern,
    to: NewText,
}

#[derive(Debug)]
enum Pattern {
    Fixed(Regex),
    Interpolated {
        text: InterpolatedText,
        /// The last text and its expression: most requests have the same.
        last: Mutex<Option<(String, Regex)>>,
    },
}

#[derive(Debug)]
enum NewText {
    Fixed(Substitution),
    Interpolated(InterpolatedText),
}

impl ReplacementText {
    /// Reads `from` and `to`. The first is required, an absent `to` removes what matches.
    pub fn read(config: &ConfigReader<'_>) -> Option<Self> {
        let from = config.required_template(FROM)?;
        let from = match from.fixed() {
            Some(text) => match expression(text) {
                Ok(regex) => Pattern::Fixed(regex),
                Err(reason) => {
                    config.fault(
                        FROM,
                        2261,
                        format!("is not a valid regular expression: {reason}."),
                    );
                    return None;
                }
            },
            None => Pattern::Interpolated { text: from, last: Mutex::new(None) },
        };
        let to = match config.has(TO) {
            true => config.template(TO)?,
            false => {
                return Some(ReplacementText { from, to: NewText::Fixed(Substitution::default()) });
            }
        };
        let to = match to.fixed() {
            Some(text) => NewText::Fixed(Substitution::parse(text)),
            None => NewText::Interpolated(to),
        };
        Some(ReplacementText { from, to })
    }

    /// Returns the replacement with the values of all expressions.
    pub fn resolve(&self, scope: &Scope<'_>) -> Result<Replacement, ActionError> {
        let from = match &self.from {
            Pattern::Fixed(regex) => regex.clone(),
            Pattern::Interpolated { text, last } => compiled(&text.render(scope)?, last)?,
        };
        let to = match &self.to {
            NewText::Fixed(to) => to.clone(),
            NewText::Interpolated(text) => Substitution::parse(&text.render(scope)?),
        };
        Ok(Replacement { from, to })
    }
}

fn compiled(text: &str, last: &Mutex<Option<(String, Regex)>>) -> Result<Regex, ActionError> {
    let mut last = last.lock();
    if let Some((known, regex)) = &*last
        && known == text
    {
        return Ok(regex.clone());
    }
    let regex = expression(text).map_err(|_| NOT_AN_EXPRESSION)?;
    *last = Some((text.to_owned(), regex.clone()));
    Ok(regex)
}
