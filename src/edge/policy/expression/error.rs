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
    /// The edge does not have a value that the policy needs, whatever the request is. `&&` and
    /// `||` pass it on.
    Unavailable,
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

    /// Returns an error for a value that the edge does not have.
    pub(super) fn unavailable(what: &'static str) -> Self {
        EvalError { kind: EvalErrorKind::Unavailable, text: Cow::Borrowed(what) }
    }

    /// Returns whether the request must not go on, since the rule may be the one that refuses
    /// it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.kind, EvalErrorKind::Overrun | EvalErrorKind::Unavailable)
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
