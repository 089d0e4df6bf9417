//! Regular expressions of options and policies. `regex-lite` takes linear time in the text and in
//! the size of the compiled expression, which is bounded here.

use regex_lite::{Regex, RegexBuilder};

/// Most bytes of one compiled expression.
pub const MAX_COMPILED_BYTES: usize = 64 * 1024;

/// Compiles an expression. The error is the reason.
pub fn compile(text: &str) -> Result<Regex, String> {
    compile_within(text, MAX_COMPILED_BYTES)
}

/// Compiles an expression to at most `limit` bytes. The error is the reason.
pub fn compile_within(text: &str, limit: usize) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(limit).build().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_that_is_malformed_or_too_large_is_refused() {
        assert!(compile("(").is_err());
        assert!(compile("(a{1000}){1000}").is_err());
    }
}
