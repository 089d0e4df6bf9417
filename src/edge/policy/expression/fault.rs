//! Faults of the text of an expression or of a template.

use std::fmt;

/// An expression does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionFault {
    /// What is wrong, and what to do.
    pub reason: String,
    /// Byte of the text at which the fault is.
    pub offset: usize,
}

impl ExpressionFault {
    /// Returns a fault at a byte of the text.
    pub(super) fn new(offset: usize, reason: impl Into<String>) -> Self {
        ExpressionFault { reason: reason.into(), offset }
    }
}

impl fmt::Display for ExpressionFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.offset + 1, self.reason)
    }
}
