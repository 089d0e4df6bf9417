//! Errors of an evaluation. Faults of the text of an expression are in `fault`.

use std::borrow::Cow;
use std::fmt;

/// Kind of an [`EvalError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalErrorKind {
    /// A variable, key or index without a value.
    Missing,
    /// A value of the wrong type.
    Type,
    /// An argument that the operation does not accept, such as a division by zero.
    Argument,
    /// The evaluation took more steps or memory than permitted. `&&` and `||` pass it on.
    Overrun,
}

/// An expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    /// What kind of error it is.
    pub kind: EvalErrorKind,
    text: Cow<'static, str>,
}

impl EvalError {
    /// Returns an error for something without a value.
    pub fn missing(what: impl Into<Cow<'static, str>>) -> Self {
        EvalError { kind: EvalErrorKind::Missing, text: what.into() }
    }

    /// Returns an error for a value of the wrong type.
    pub fn wrong_type(what: impl Into<Cow<'static, str>>) -> Self {
        EvalError { kind: EvalErrorKind::Type, text: what.into() }
    }

    /// Returns an error for an argument.
    pub fn argument(what: impl Into<Cow<'static, str>>) -> Self {
        EvalError { kind: EvalErrorKind::Argument, text: what.into() }
    }

    /// Returns an error for a limit.
    pub(super) fn overrun(what: &'static str) -> Self {
        EvalError { kind: EvalErrorKind::Overrun, text: Cow::Borrowed(what) }
    }

    /// Returns whether a limit was exceeded.
    pub fn is_overrun(&self) -> bool {
        self.kind == EvalErrorKind::Overrun
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
