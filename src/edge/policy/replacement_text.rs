//! `from` and `to` of a configuration: a regular expression and the new text, in which the
//! expressions of a policy are evaluated first. Without such an expression both are compiled at
//! Bind.

use std::sync::Arc;

use super::phases::Scope;
use super::reader::ConfigReader;
use super::replace::{Replacement, Substitution, expression};
use super::search_time::SearchTime;
use super::text::InterpolatedText;
use crate::edge::actions::action::ActionError;
use crate::edge::regex::BoundedRegex;
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
    from: SearchPattern,
    to: NewText,
}

#[derive(Debug)]
enum SearchPattern {
    Fixed(Arc<BoundedRegex>),
    Interpolated {
        text: InterpolatedText,
        /// The last text and its expression: most requests have the same.
        last: Mutex<Option<(String, Arc<BoundedRegex>)>>,
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
                Ok(regex) => {
                    config.add_regex(FROM, regex.kibibytes());
                    SearchPattern::Fixed(Arc::new(regex))
                }
                Err(reason) => {
                    config.fault(
                        FROM,
                        2261,
                        format!("is not a valid regular expression: {reason}."),
                    );
                    return None;
                }
            },
            None => SearchPattern::Interpolated { text: from, last: Mutex::new(None) },
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
            SearchPattern::Fixed(regex) => Arc::clone(regex),
            SearchPattern::Interpolated { text, last } => compiled(&text.render(scope)?, last)?,
        };
        let to = match &self.to {
            NewText::Fixed(to) => to.clone(),
            NewText::Interpolated(text) => Substitution::parse(&text.render(scope)?),
        };
        let time = SearchTime::new(scope.input.services.thread_clock());
        Ok(Replacement { from, to, time })
    }
}

fn compiled(
    text: &str,
    last: &Mutex<Option<(String, Arc<BoundedRegex>)>>,
) -> Result<Arc<BoundedRegex>, ActionError> {
    let mut last = last.lock();
    if let Some((known, regex)) = &*last
        && known == text
    {
        return Ok(Arc::clone(regex));
    }
    let regex = Arc::new(expression(text).map_err(|_| NOT_AN_EXPRESSION)?);
    *last = Some((text.to_owned(), Arc::clone(&regex)));
    Ok(regex)
}
