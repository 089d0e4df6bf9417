//! Regular expressions of options and policies. `regex-lite` takes linear time in the text and in
//! the size of the compiled expression, which is bounded here.
//!
//! It searches each text character by character. So a text without the literal that a match must
//! have is not searched.

use regex_lite::{Captures, Regex, RegexBuilder};

use super::required_literal;

/// Most kibibytes of one compiled expression.
const MAX_KIBIBYTES: usize = 64;

/// Most groups times kibibytes of the compiled expression. A search has two positions for each
/// group in each state, about 1 KB for each unit here.
const MAX_GROUP_KIBIBYTES: usize = 512;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct BoundedRegex {
    regex: Regex,
    kibibytes: usize,
    /// Text that is in each match; empty if none is known.
    literal: String,
}

impl BoundedRegex {
    /// Compiles an expression. The error is the reason.
    pub fn compile(text: &str) -> Result<Self, String> {
        // The library does not report the size, so that the smallest sufficient limit is
        // searched for.
        let mut kibibytes = 1;
        let regex = loop {
            match RegexBuilder::new(text).size_limit(kibibytes * 1024).build() {
                Ok(regex) => break regex,
                Err(_) if kibibytes < MAX_KIBIBYTES => kibibytes *= 2,
                Err(error) => return Err(error.to_string()),
            }
        };
        if regex.captures_len() * kibibytes > MAX_GROUP_KIBIBYTES {
            return Err("it has too many groups for its length".to_owned());
        }
        let literal = required_literal::find(text).unwrap_or_default();
        Ok(BoundedRegex { regex, kibibytes, literal })
    }

    /// Returns the kibibytes of the compiled expression, rounded up to a power of two.
    pub fn kibibytes(&self) -> usize {
        self.kibibytes
    }

    /// Returns whether a text may have a match, by a look at its literal.
    pub fn may_match(&self, text: &str) -> bool {
        text.contains(&self.literal)
    }

    /// Returns whether a part of the text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.may_match(text) && self.regex.is_match(text)
    }

    /// Returns the groups of all matches.
    pub fn captures_iter<'r, 't>(
        &'r self,
        text: &'t str,
    ) -> impl Iterator<Item = Captures<'t>> + use<'r, 't> {
        let matches = self.may_match(text).then(|| self.regex.captures_iter(text));
        matches.into_iter().flatten()
    }

    /// Returns the groups of the first match that begins at `at` or later.
    pub fn captures_at<'t>(&self, text: &'t str, at: usize) -> Option<Captures<'t>> {
        let rest = text.get(at..)?;
        self.may_match(rest).then(|| self.regex.captures_at(text, at)).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_that_is_malformed_or_too_large_is_refused() {
        let is_good = |text: &str| BoundedRegex::compile(text).is_ok();
        assert!(!is_good("("));
        assert!(!is_good("(a{1000}){1000}"));
        // A search would take 24 MB.
        assert!(!is_good(&"(a)".repeat(500)));
        assert!(is_good(&"(?:a)".repeat(500)));
        assert!(is_good(&"(a)".repeat(20)));
    }

    #[test]
    fn a_literal_changes_no_result() {
        let regex = BoundedRegex::compile(r"(\w+)=secret").unwrap();
        assert!(!regex.is_match("a=x"));
        assert!(regex.is_match("a=x b=secret"));
        let found = regex.captures_iter("a=secret c b=secret").map(|groups| groups[1].to_owned());
        assert_eq!(found.collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(regex.captures_iter("a=x").count(), 0);
        assert_eq!(&regex.captures_at("a=secret b=secret", 8).unwrap()[1], "b");
        assert!(regex.captures_at("a=secret b=x", 8).is_none());
        assert!(regex.captures_at("a=secret", 9).is_none());
    }
}
