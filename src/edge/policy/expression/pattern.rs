//! Regular expressions of `matches`. The length of the text and the size of the compiled
//! expression are charged.

use crate::edge::regex::BoundedRegex;

/// Bytes of text times kibibytes of the compiled expression that are searched in one step.
const WORK_PER_STEP: usize = 2;

/// A compiled expression.
pub(super) struct Pattern(BoundedRegex);

impl Pattern {
    /// Compiles an expression. The error is the reason.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        BoundedRegex::compile(text).map(Pattern)
    }

    /// Returns the size of the compiled expression.
    pub(super) fn kibibytes(&self) -> usize {
        self.0.kibibytes()
    }

    /// Returns the steps of a search in a text.
    pub(super) fn steps(&self, text: &str) -> usize {
        text.len().saturating_mul(self.0.kibibytes()) / WORK_PER_STEP
    }

    /// Returns whether a part of the text matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}
