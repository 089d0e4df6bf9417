//! Completion of the words after `api`, without the flags of all actions.

use std::borrow::Cow;

use super::words::{self, ApiLine};
use crate::rest_client::actions::{ApiFlag, FlagKind};

/// A candidate with its description.
pub type Candidate = (String, Cow<'static, str>);

/// Meaning of the words before the one at the cursor.
pub struct ApiWordsBefore {
    line: ApiLine,
    /// The flag of the action that takes the next word as its value.
    waiting: Option<ApiFlag>,
}

impl ApiWordsBefore {
    /// Parses the words. Returns `None` after an unknown one.
    pub fn read(words: &[&str]) -> Option<Self> {
        let mut before = ApiWordsBefore { line: ApiLine::default(), waiting: None };
        for word in words {
            if before.waiting.take().is_some() {
                continue;
            }
            match word.strip_prefix("--") {
                Some(name) => {
                    let own = before.line.action.as_ref().and_then(|action| action.flag(name));
                    before.waiting = own.filter(|flag| flag.kind != FlagKind::Switch).cloned();
                }
                None if word.starts_with('-') || *word == "help" => {}
                None => before.line.word("", (*word).to_owned()).ok()?,
            }
        }
        Some(before)
    }

    /// Returns whether the next word is the value of a flag, and of which kind.
    pub fn waits_for(&self) -> Option<FlagKind> {
        self.waiting.as_ref().map(|flag| flag.kind)
    }

    /// Returns the flags of the action.
    pub fn next_flags(&self) -> Vec<Candidate> {
        let flags = self.line.action.iter().flat_map(|action| &action.flags);
        flags.map(|flag| (format!("--{}", flag.name), flag.value_name().into())).collect()
    }

    /// Returns the resources, or the actions of the resource.
    pub fn next_words(&self) -> Vec<Candidate> {
        match (&self.line.action, &self.line.resource) {
            (Some(_), _) => Vec::new(),
            (None, Some(resource)) => {
                let actions = resource.actions().into_iter();
                actions.map(|action| (action.name.to_owned(), action.about.into())).collect()
            }
            (None, None) => {
                let next = words::next_words(&self.line.group).into_iter();
                next.map(|(word, about)| (word.to_owned(), about.into())).collect()
            }
        }
    }
}
