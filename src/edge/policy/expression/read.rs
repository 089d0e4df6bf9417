//! Reads variables within a budget. A value of many parts is refused before it is made.

use super::budget::EvalBudget;
use super::error::EvalError;
use super::value::Value;
use super::variables::{Variable, Variables};

/// Memory of one part of a value while the value is made: its entry in a map, the list in the
/// entry, and the part itself.
const PART_BYTES: usize = 160;

/// Returns the value of a variable.
pub(super) fn variable(
    variables: &dyn Variables,
    budget: &mut EvalBudget,
    variable: Variable,
) -> Result<Option<Value>, EvalError> {
    budget.fits(variables.parts(variable, None).saturating_mul(PART_BYTES))?;
    Ok(variables.variable(variable))
}

/// Returns an entry of a variable, and charges both.
pub(super) fn entry(
    variables: &dyn Variables,
    budget: &mut EvalBudget,
    variable: Variable,
    key: &str,
) -> Result<Option<Value>, EvalError> {
    budget.read(variables.source_bytes(variable))?;
    budget.fits(variables.parts(variable, Some(key)).saturating_mul(PART_BYTES))?;
    let value = variables.entry(variable, key);
    if let Some(value) = &value {
        budget.create(value.bytes())?;
    }
    Ok(value)
}
