//! Regular expressions of `matches`. `regex-lite` takes linear time in the text and in the size
//! of the compiled expression; both are charged.

use regex_lite::{Regex, RegexBuilder};

/// Most bytes of a compiled expression.
const MAX_COMPILED_BYTES: usize = 64 * 1024;

/// Bytes of text times kibibytes of the compiled expression that are searched in one step.
const WORK_PER_STEP: usize = 8;

/// A compiled expression.
pub(super) struct Pattern {
    regex: Regex,
    /// Kibibytes of the compiled expression, rounded up to a power of two.
    kibibytes: usize,
}

impl Pattern {
    /// Compiles an expression. The error is the reason.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        // The library does not report the size, so that the smallest sufficient limit is
        // searched for.
        let mut kibibytes = 1;
        loop {
            match RegexBuilder::new(text).size_limit(kibibytes * 1024).build() {
                Ok(regex) => return Ok(Pattern { regex, kibibytes }),
                Err(_) if kibibytes * 1024 < MAX_COMPILED_BYTES => kibibytes *= 2,
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Returns the steps of a search in a text.
    pub(super) fn steps(&self, text: &str) -> usize {
        text.len().saturating_mul(self.kibibytes) / WORK_PER_STEP
    }

    /// Returns whether a part of the text matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}
