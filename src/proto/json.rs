//! Finds the end of one JSON object in a stream of bytes (protocol 5.1).
//!
//! The end of a stream does not follow a request or a response. So the reader must find the end
//! of the value itself, before it uses memory or stack for it. This file finds the end and
//! refuses values that are too large or too deep. The parser decides whether the bytes are
//! valid JSON.

use std::fmt;

/// Maximum length of a message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Maximum nesting of objects and lists. The scanner's stack is one `u64`.
pub const MAX_DEPTH: u32 = 64;

/// Reason why a value was refused before it was parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanError {
    /// Longer than the limit of [`Scanner::new`].
    TooLarge,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// Not a JSON object: another first character, or mismatched brackets.
    NotJson,
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ScanError::TooLarge => "message too large",
            ScanError::TooDeep => "message nested too deeply",
            ScanError::NotJson => "message is not a JSON object",
        })
    }
}

impl std::error::Error for ScanError {}

/// Finds the end of one JSON object, piece by piece.
#[derive(Clone, Debug)]
pub struct Scanner {
    limit: usize,
    seen: usize,
    depth: u32,
    /// One bit for each open bracket, the innermost lowest: 1 for `{`, 0 for `[`.
    brackets: u64,
    state: ScanState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    Before,
    Inside,
    Text,
    Escape,
    After,
}

impl Scanner {
    /// Returns a scanner for a value of at most `limit` bytes, including white space before it.
    pub fn new(limit: usize) -> Self {
        Scanner { limit, seen: 0, depth: 0, brackets: 0, state: ScanState::Before }
    }

    /// Scans the next piece. `Some(n)`: the value ends with the first `n` bytes of this piece.
    /// `None`: all of it belongs to the value, and more must follow. After the end every
    /// further call returns `Some(0)`.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.state == ScanState::After {
                return Ok(Some(at));
            }
            if self.seen == self.limit {
                return Err(ScanError::TooLarge);
            }
            self.seen += 1;
            self.state = self.step(byte)?;
        }
        Ok((self.state == ScanState::After).then_some(bytes.len()))
    }

    fn step(&mut self, byte: u8) -> Result<ScanState, ScanError> {
        Ok(match (self.state, byte) {
            (ScanState::Before, b' ' | b'\t' | b'\r' | b'\n') => ScanState::Before,
            (ScanState::Before | ScanState::Inside, b'{') => self.open(1)?,
            (ScanState::Before, _) => return Err(ScanError::NotJson),
            (ScanState::Inside, b'[') => self.open(0)?,
            (ScanState::Inside, b'}') => self.close(1)?,
            (ScanState::Inside, b']') => self.close(0)?,
            (ScanState::Inside, b'"') => ScanState::Text,
            (ScanState::Text, b'"') => ScanState::Inside,
            (ScanState::Text, b'\\') => ScanState::Escape,
            (ScanState::Escape, _) => ScanState::Text,
            (state, _) => state,
        })
    }

    fn open(&mut self, kind: u64) -> Result<ScanState, ScanError> {
        if self.depth == MAX_DEPTH {
            return Err(ScanError::TooDeep);
        }
        self.depth += 1;
        self.brackets = self.brackets << 1 | kind;
        Ok(ScanState::Inside)
    }

    fn close(&mut self, kind: u64) -> Result<ScanState, ScanError> {
        if self.brackets & 1 != kind {
            return Err(ScanError::NotJson);
        }
        self.depth -= 1;
        self.brackets >>= 1;
        Ok(if self.depth == 0 { ScanState::After } else { ScanState::Inside })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of every size. All results must be equal.
    fn end_of(text: &str) -> Result<Option<usize>, ScanError> {
        let whole = Scanner::new(MAX_MESSAGE_BYTES).feed(text.as_bytes());
        for size in 1..=text.len() {
            let mut scanner = Scanner::new(MAX_MESSAGE_BYTES);
            let mut end = Ok(None);
            for (index, piece) in text.as_bytes().chunks(size).enumerate() {
                end = scanner.feed(piece).map(|n| n.map(|n| index * size + n));
                if end != Ok(None) {
                    break;
                }
            }
            assert_eq!(end, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn finds_the_end_without_the_end_of_the_stream() {
        assert_eq!(end_of("{}"), Ok(Some(2)));
        assert_eq!(end_of(" \r\n{\"a\":[1,{}]}\n"), Ok(Some(15)));
        assert_eq!(end_of(r#"{"a":"}\"}"}rest"#), Ok(Some(12)));
        assert_eq!(end_of(r#"{"a":"\\"}"#), Ok(Some(10)));
        assert_eq!(end_of(r#"{"a":"\\\"}"#), Ok(None));
        assert_eq!(end_of("{\"a\":"), Ok(None));
    }

    #[test]
    fn refuses_what_is_no_object() {
        for text in ["x", "[]", "\"a\"", "1", "null", "{]", "{[}]", "}"] {
            assert_eq!(end_of(text), Err(ScanError::NotJson), "{text}");
        }
    }

    #[test]
    fn limits_size_and_depth() {
        let mut scanner = Scanner::new(4);
        assert_eq!(scanner.feed(b"{   }"), Err(ScanError::TooLarge));
        assert_eq!(Scanner::new(4).feed(b"{  }"), Ok(Some(4)));
        let deep = |n: usize| format!("{{\"a\":{}1{}}}", "[".repeat(n), "]".repeat(n));
        assert!(matches!(Scanner::new(MAX_MESSAGE_BYTES).feed(deep(63).as_bytes()), Ok(Some(_))));
        assert_eq!(
            Scanner::new(MAX_MESSAGE_BYTES).feed(deep(64).as_bytes()),
            Err(ScanError::TooDeep)
        );
    }

    #[test]
    fn stays_at_the_end() {
        let mut scanner = Scanner::new(10);
        assert_eq!(scanner.feed(b"{}"), Ok(Some(2)));
        assert_eq!(scanner.feed(b"{}"), Ok(Some(0)));
        assert_eq!(scanner.feed(b""), Ok(Some(0)));
    }
}
