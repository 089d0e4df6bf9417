//! Regular expressions of `matches`. The length of the text and the size of the compiled
//! expression are charged.

use regex_lite::Regex;

use crate::edge::regex::{MAX_COMPILED_BYTES, compile_within};

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
            match compile_within(text, kibibytes * 1024) {
                Ok(regex) => return Ok(Pattern { regex, kibibytes }),
                Err(_) if kibibytes * 1024 < MAX_COMPILED_BYTES => kibibytes *= 2,
                Err(error) => return Err(error),
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
