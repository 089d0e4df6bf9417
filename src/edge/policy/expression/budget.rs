//! Steps and bytes of an evaluation. Everything that an evaluation does is charged here, and
//! nowhere else.

use super::error::EvalError;
use super::value::Value;

/// Steps of one evaluation. A step is a node of the expression, an element of a list, or
/// [`BYTES_PER_STEP`] bytes that are read; it takes less than 0.5 microseconds.
const MAX_STEPS: u32 = 10_000;

/// Bytes of all values of one evaluation: those that it creates, and copies of the request. A
/// list grows by doubling and is then copied once, so that an evaluation holds less than 256 KiB.
pub(super) const MAX_BYTES: u32 = 96 * 1024;

/// Bytes read in one step.
const BYTES_PER_STEP: usize = 64;

/// What an evaluation may still use. An evaluation that exceeds it ends with an error.
#[derive(Clone, Debug)]
pub struct EvalBudget {
    steps: u32,
    bytes: u32,
}

impl Default for EvalBudget {
    fn default() -> Self {
        EvalBudget { steps: MAX_STEPS, bytes: MAX_BYTES }
    }
}

impl EvalBudget {
    /// Returns the budget of one evaluation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a budget of other steps and bytes.
    pub fn with(steps: u32, bytes: u32) -> Self {
        EvalBudget { steps, bytes }
    }

    /// Charges `n` steps.
    pub(super) fn steps(&mut self, n: usize) -> Result<(), EvalError> {
        let left = u32::try_from(n).ok().and_then(|n| self.steps.checked_sub(n));
        self.steps = left.unwrap_or(0);
        match left {
            Some(_) => Ok(()),
            None => Err(EvalError::overrun("the expression takes too many steps")),
        }
    }

    /// Charges the reading of `n` bytes.
    pub(super) fn read(&mut self, n: usize) -> Result<(), EvalError> {
        self.steps(n / BYTES_PER_STEP)
    }

    /// Charges `n` bytes of a new value, and their writing. To be called before the memory is
    /// allocated.
    pub(super) fn create(&mut self, n: usize) -> Result<(), EvalError> {
        self.read(n)?;
        let left = u32::try_from(n).ok().and_then(|n| self.bytes.checked_sub(n));
        self.bytes = left.unwrap_or(0);
        match left {
            Some(_) => Ok(()),
            None => Err(EvalError::overrun("the expression needs too much memory")),
        }
    }

    /// Fails if `n` bytes are not left. Charges nothing.
    pub(super) fn fits(&mut self, n: usize) -> Result<(), EvalError> {
        match u32::try_from(n) {
            Ok(n) if n <= self.bytes => Ok(()),
            _ => Err(EvalError::overrun("the expression needs too much memory")),
        }
    }

    /// Charges an element of a new list or map, with everything in it. An element that occurs
    /// twice is charged twice, so that the text of a list is not much longer than what was
    /// charged for it.
    pub(super) fn element(&mut self, value: &Value) -> Result<(), EvalError> {
        self.steps(1)?;
        self.create(size_of::<Value>() + value.bytes())
    }
}
