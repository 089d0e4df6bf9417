//! Random numbers and secrets, which the edge provides.

use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::value::Value;
use super::{costly, global};

type Evaluated = Result<Value, EvalError>;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    costly(4, global("rand.double", (0, 0), random_double)),
    costly(4, global("rand.int", (0, 2), random_int)),
    costly(20, global("secrets.get", (2, 2), secret)),
];

/// Returns a number from 0 to below 1.
fn random_double(call: &mut Call<'_>) -> Evaluated {
    // A double has 53 bits.
    let bits = call.variables.random() >> 11;
    Ok(Value::Double(bits as f64 / (1u64 << 53) as f64))
}

/// Returns a number from the first to the second argument, both included.
fn random_int(call: &mut Call<'_>) -> Evaluated {
    let least = if call.has(0) { call.int(0)? } else { 0 };
    let most = if call.has(1) { call.int(1)? } else { 1 };
    if least < 0 || most < least {
        return Err(EvalError::argument("rand.int needs two positive numbers in order"));
    }
    let choices = most.abs_diff(least).saturating_add(1);
    let n = call.variables.random() % choices;
    Ok(Value::Int(least.saturating_add_unsigned(n)))
}

const NO_SECRET: &str = "the secret does not exist, or the credential has an ACL";

fn secret(call: &mut Call<'_>) -> Evaluated {
    let (vault, name) = (call.text(0)?, call.text(1)?);
    let secret = call.variables.secret(vault, name);
    let secret = secret.ok_or_else(|| EvalError::unavailable(NO_SECRET))?;
    call.budget.create(secret.len())?;
    Ok(Value::Text(secret))
}
