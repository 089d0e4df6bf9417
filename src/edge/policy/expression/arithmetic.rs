//! Operators: sums, comparisons and membership. Integers, unsigned integers and doubles are
//! added only to their own kind and compared with every kind.

use std::cmp::Ordering;

use super::budget::EvalBudget;
use super::error::EvalError;
use super::tree::BinaryOperator;
use super::value::{Value, ValueMap};

type Evaluated = Result<Value, EvalError>;

/// Applies an operator.
pub(super) fn binary(
    operator: BinaryOperator,
    a: &Value,
    b: &Value,
    budget: &mut EvalBudget,
) -> Evaluated {
    let ordered = |budget: &mut EvalBudget, good: fn(Ordering) -> bool| {
        Ok(Value::Bool(compare(a, b, budget)?.is_some_and(good)))
    };
    match operator {
        BinaryOperator::Equal => Ok(Value::Bool(equal(a, b, budget)?)),
        BinaryOperator::NotEqual => Ok(Value::Bool(!equal(a, b, budget)?)),
        BinaryOperator::Less => ordered(budget, Ordering::is_lt),
        BinaryOperator::LessOrEqual => ordered(budget, Ordering::is_le),
        BinaryOperator::Greater => ordered(budget, Ordering::is_gt),
        BinaryOperator::GreaterOrEqual => ordered(budget, Ordering::is_ge),
        BinaryOperator::In => contains(b, a, budget).map(Value::Bool),
        BinaryOperator::Add => add(a, b, budget),
        BinaryOperator::Subtract => subtract(a, b),
        BinaryOperator::Multiply => match (a, b) {
            (Value::Int(a), Value::Int(b)) => whole(a.checked_mul(*b)),
            (Value::Uint(a), Value::Uint(b)) => natural(a.checked_mul(*b)),
            (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
            _ => Err(mismatch("*", a, b)),
        },
        BinaryOperator::Divide => match (a, b) {
            (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(by_zero()),
            (Value::Int(a), Value::Int(b)) => whole(a.checked_div(*b)),
            (Value::Uint(a), Value::Uint(b)) => natural(a.checked_div(*b)),
            (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
            _ => Err(mismatch("/", a, b)),
        },
        BinaryOperator::Modulo => match (a, b) {
            (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(by_zero()),
            (Value::Int(a), Value::Int(b)) => whole(a.checked_rem(*b)),
            (Value::Uint(a), Value::Uint(b)) => natural(a.checked_rem(*b)),
            _ => Err(mismatch("%", a, b)),
        },
    }
}

/// Negates a number.
pub(super) fn negate(value: &Value) -> Evaluated {
    match value {
        Value::Int(n) => whole(n.checked_neg()),
        Value::Double(n) => Ok(Value::Double(-n)),
        Value::Duration(n) => length(n.checked_neg()),
        _ => Err(EvalError::wrong_type(format!("- is not for {}", value.type_name()))),
    }
}

fn add(a: &Value, b: &Value, budget: &mut EvalBudget) -> Evaluated {
    if let (Some(a), Some(b)) = (a.as_text(), b.as_text()) {
        budget.create(a.len() + b.len())?;
        return Ok(Value::from(format!("{a}{b}")));
    }
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => natural(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.create(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            a.iter().chain(b.iter()).try_for_each(|value| budget.element(value))?;
            Ok(Value::List(a.iter().chain(b.iter()).cloned().collect()))
        }
        (Value::Timestamp(at), Value::Duration(n)) | (Value::Duration(n), Value::Timestamp(at)) => {
            at.plus(*n).map(Value::Timestamp).ok_or_else(overflow)
        }
        (Value::Duration(a), Value::Duration(b)) => length(a.checked_add(*b)),
        _ => Err(mismatch("+", a, b)),
    }
}

fn subtract(a: &Value, b: &Value) -> Evaluated {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => whole(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => natural(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => length(a.since(*b)),
        (Value::Timestamp(at), Value::Duration(n)) => {
            let earlier = n.checked_neg().and_then(|n| at.plus(n));
            earlier.map(Value::Timestamp).ok_or_else(overflow)
        }
        (Value::Duration(a), Value::Duration(b)) => length(a.checked_sub(*b)),
        _ => Err(mismatch("-", a, b)),
    }
}

/// Returns whether two values are equal. Values of different types are not, but for numbers.
pub(super) fn equal(a: &Value, b: &Value, budget: &mut EvalBudget) -> Result<bool, EvalError> {
    budget.steps(1)?;
    if let (Some(a), Some(b)) = (a.as_text(), b.as_text()) {
        budget.read(a.len().min(b.len()))?;
        return Ok(a == b);
    }
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.read(a.len().min(b.len()))?;
            a == b
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::List(a), Value::List(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(a), Value::Map(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (key, value) in a.iter() {
                let Some(other) = b.get(key) else { return Ok(false) };
                if !equal(value, other, budget)? {
                    return Ok(false);
                }
            }
            true
        }
        _ => numbers(a, b) == Some(Ordering::Equal),
    })
}

/// Returns the order of two values; `None` if one is not a number.
pub(super) fn compare(
    a: &Value,
    b: &Value,
    budget: &mut EvalBudget,
) -> Result<Option<Ordering>, EvalError> {
    if let (Some(a), Some(b)) = (a.as_text(), b.as_text()) {
        budget.read(a.len().min(b.len()))?;
        return Ok(Some(a.cmp(b)));
    }
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(Some(a.cmp(b))),
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.read(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Some(a.cmp(b))),
        (Value::Duration(a), Value::Duration(b)) => Ok(Some(a.cmp(b))),
        _ if is_number(a) && is_number(b) => Ok(numbers(a, b)),
        _ => Err(mismatch("a comparison", a, b)),
    }
}

fn is_number(value: &Value) -> bool {
    matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_))
}

/// Returns the order of two numbers; `None` for other values and for NaN.
fn numbers(a: &Value, b: &Value) -> Option<Ordering> {
    let integer = |value: &Value| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        _ => None,
    };
    match (a, b) {
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), b) => with_double(integer(b)?, *a).map(Ordering::reverse),
        (a, Value::Double(b)) => with_double(integer(a)?, *b),
        _ => Some(integer(a)?.cmp(&integer(b)?)),
    }
}

/// Returns the order of an integer of 64 bits and a double, exactly.
fn with_double(a: i128, b: f64) -> Option<Ordering> {
    if b.is_nan() {
        return None;
    }
    // Beyond this, a double is larger than all integers; below, the conversion is exact.
    if b.abs() >= 2e19 {
        return Some(if b > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let below = (b - b.floor()).partial_cmp(&0.0)?;
    Some(a.cmp(&(b.floor() as i128)).then(below.reverse()))
}

/// Returns whether a list has an element, or a map a key.
fn contains(range: &Value, wanted: &Value, budget: &mut EvalBudget) -> Result<bool, EvalError> {
    if let Some(members) = range.members() {
        if !ValueMap::is_key(wanted) {
            let kind = wanted.type_name();
            return Err(EvalError::wrong_type(format!("a {kind} is not a key of a map")));
        }
        budget.read(wanted.bytes())?;
        return Ok(members.get(wanted).is_some());
    }
    let Some(list) = range.as_list() else {
        return Err(EvalError::wrong_type(format!("in is not for {}", range.type_name())));
    };
    for value in list {
        if equal(value, wanted, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn whole(n: Option<i64>) -> Evaluated {
    n.map(Value::Int).ok_or_else(overflow)
}

fn natural(n: Option<u64>) -> Evaluated {
    n.map(Value::Uint).ok_or_else(overflow)
}

fn length(n: Option<i64>) -> Evaluated {
    n.map(Value::Duration).ok_or_else(overflow)
}

fn overflow() -> EvalError {
    EvalError::argument("the result is out of range")
}

fn by_zero() -> EvalError {
    EvalError::argument("division by zero")
}

fn mismatch(operator: &str, a: &Value, b: &Value) -> EvalError {
    let types = format!("{} and {}", a.type_name(), b.type_name());
    EvalError::wrong_type(format!("{operator} is not for {types}"))
}
