//! Calls of functions: what a function gets, and the entry of a function in the table.

use super::budget::EvalBudget;
use super::error::EvalError;
use super::value::Value;
use super::variables::{PhaseSet, Variables};
use super::zone::Zone;

/// Most arguments of a function, its receiver included.
pub(super) const MAX_ARGUMENTS: usize = 4;

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallForm {
    /// `f(x)`; the name may have a namespace, `hash.md5(x)`.
    Global,
    /// `x.f()`; `x` is the first argument.
    Member,
    /// Both.
    Either,
}

/// A function.
pub(super) struct FunctionSpec {
    pub(super) name: &'static str,
    pub(super) form: CallForm,
    /// Fewest and most arguments, the receiver included.
    pub(super) arguments: (usize, usize),
    pub(super) phases: PhaseSet,
    /// Steps of a call, before what it reads and creates.
    pub(super) steps: usize,
    pub(super) run: fn(&mut Call<'_>) -> Result<Value, EvalError>,
}

/// A call with its arguments.
pub(super) struct Call<'a> {
    pub(super) arguments: &'a [Value],
    pub(super) variables: &'a dyn Variables,
    pub(super) budget: &'a mut EvalBudget,
    /// Time zone that the policy names in the second argument.
    pub(super) zone: Option<&'a Zone>,
}

impl<'a> Call<'a> {
    /// Returns an argument; null if it was not given.
    pub(super) fn value(&self, n: usize) -> &'a Value {
        self.arguments.get(n).unwrap_or(&Value::Null)
    }

    /// Returns whether an argument was given.
    pub(super) fn has(&self, n: usize) -> bool {
        n < self.arguments.len()
    }

    /// Returns a text, and charges its reading.
    pub(super) fn text(&mut self, n: usize) -> Result<&'a str, EvalError> {
        let text = self.value(n).as_text().ok_or_else(|| self.wrong(n, "string"))?;
        self.budget.read(text.len())?;
        Ok(text)
    }

    /// Returns an integer. Both kinds of integers are accepted.
    pub(super) fn int(&self, n: usize) -> Result<i64, EvalError> {
        match self.value(n) {
            Value::Int(value) => Ok(*value),
            Value::Uint(value) => {
                i64::try_from(*value).map_err(|_| EvalError::argument("the number is too large"))
            }
            _ => Err(self.wrong(n, "int")),
        }
    }

    /// Returns an integer that is not negative, as a position.
    pub(super) fn position(&self, n: usize) -> Result<usize, EvalError> {
        let negative = |_| EvalError::argument("a position is negative");
        usize::try_from(self.int(n)?).map_err(negative)
    }

    /// Returns a list, and charges its elements.
    pub(super) fn list(&mut self, n: usize) -> Result<&'a [Value], EvalError> {
        let list = self.value(n).as_list().ok_or_else(|| self.wrong(n, "list"))?;
        self.budget.steps(list.len())?;
        Ok(list)
    }

    /// Returns a new text, and charges it.
    pub(super) fn new_text(&mut self, text: impl AsRef<str>) -> Result<Value, EvalError> {
        self.budget.create(text.as_ref().len())?;
        Ok(Value::text(text))
    }

    /// Returns a new list of texts, and charges it.
    pub(super) fn new_texts<'t>(
        &mut self,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Result<Value, EvalError> {
        let mut list = Vec::new();
        for text in texts {
            let text = self.new_text(text)?;
            self.push(&mut list, text)?;
        }
        Ok(Value::List(list.into()))
    }

    /// Adds an element to a new list, and charges it.
    pub(super) fn push(&mut self, list: &mut Vec<Value>, value: Value) -> Result<(), EvalError> {
        self.budget.element(&value)?;
        list.push(value);
        Ok(())
    }

    /// Returns the error for an argument of another type.
    pub(super) fn wrong(&self, n: usize, wanted: &'static str) -> EvalError {
        let given = self.value(n).type_name();
        EvalError::wrong_type(format!("argument {} is a {given}, not a {wanted}", n + 1))
    }
}
