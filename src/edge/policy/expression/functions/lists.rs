//! Functions of lists.

use std::cmp::Ordering;

use super::super::arithmetic::{compare, equal};
use super::super::budget::EvalBudget;
use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::value::Value;
use super::{global, member};

type Evaluated = Result<Value, EvalError>;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    member("join", (1, 2), join),
    member("sort", (1, 1), sorted),
    member("distinct", (1, 1), distinct),
    member("flatten", (1, 2), flatten),
    member("slice", (3, 3), slice),
    global("lists.range", (1, 1), range),
];

fn join(call: &mut Call<'_>) -> Evaluated {
    let list = call.list(0)?;
    let separator = if call.has(1) { call.text(1)? } else { "" };
    let mut text = String::new();
    for (n, value) in list.iter().enumerate() {
        let part = value
            .as_text()
            .ok_or_else(|| EvalError::wrong_type("join is for a list of strings"))?;
        let separator = if n > 0 { separator } else { "" };
        call.budget.create(separator.len() + part.len())?;
        text.push_str(separator);
        text.push_str(part);
    }
    Ok(Value::from(text))
}

fn sorted(call: &mut Call<'_>) -> Evaluated {
    let list = call.list(0)?;
    let mut keyed = Vec::new();
    for value in list {
        call.budget.element(value)?;
        keyed.push((value.clone(), value.clone()));
    }
    sort(keyed, call.budget)
}

/// Returns the values in the order of their keys. Keys must be of one type that has an order.
pub(in crate::edge::policy::expression) fn sort(
    mut keyed: Vec<(Value, Value)>,
    budget: &mut EvalBudget,
) -> Evaluated {
    if let Some((first, _)) = keyed.first() {
        let kind = first.type_name();
        if ["null", "list", "map"].contains(&kind) {
            return Err(EvalError::wrong_type(format!("a {kind} cannot be sorted by")));
        }
        if keyed.iter().any(|(key, _)| key.type_name() != kind) {
            return Err(EvalError::wrong_type("values of different types cannot be sorted"));
        }
    }
    if keyed.iter().any(|(key, _)| matches!(key, Value::Double(n) if n.is_nan())) {
        return Err(EvalError::argument("a list with NaN cannot be sorted"));
    }
    // At most this many comparisons. All of them are charged before: the standard library panics
    // if the order changes during the sort.
    let levels = (usize::BITS - keyed.len().leading_zeros()) as usize;
    budget.steps(keyed.len().saturating_mul(levels))?;
    for (key, _) in &keyed {
        budget.read(key.bytes().saturating_mul(levels))?;
    }
    let charged = &mut EvalBudget::with(u32::MAX, u32::MAX);
    keyed.sort_by(|(a, _), (b, _)| {
        // Values of one type that has an order: neither an error nor without a result.
        compare(a, b, charged).ok().flatten().unwrap_or(Ordering::Equal)
    });
    Ok(Value::list(keyed.into_iter().map(|(_, value)| value)))
}

fn distinct(call: &mut Call<'_>) -> Evaluated {
    let list = call.list(0)?;
    let mut kept: Vec<Value> = Vec::new();
    'values: for value in list {
        for other in &kept {
            if equal(other, value, call.budget)? {
                continue 'values;
            }
        }
        call.push(&mut kept, value.clone())?;
    }
    Ok(Value::List(kept.into()))
}

fn flatten(call: &mut Call<'_>) -> Evaluated {
    let list = call.list(0)?;
    let depth = if call.has(1) { call.position(1)? } else { 1 };
    let mut flat = Vec::new();
    flatten_into(call, list, depth, &mut flat)?;
    Ok(Value::List(flat.into()))
}

/// Appends the elements of a list. The recursion is not deeper than the list, whose depth is
/// bounded where it was made.
fn flatten_into(
    call: &mut Call<'_>,
    list: &[Value],
    depth: usize,
    flat: &mut Vec<Value>,
) -> Result<(), EvalError> {
    for value in list {
        match value.as_list() {
            Some(inner) if depth > 0 => {
                call.budget.steps(1)?;
                flatten_into(call, inner, depth - 1, flat)?;
            }
            _ => call.push(flat, value.clone())?,
        }
    }
    Ok(())
}

fn slice(call: &mut Call<'_>) -> Evaluated {
    let list = call.list(0)?;
    let part = list.get(call.position(1)?..call.position(2)?);
    let part = part.ok_or_else(|| EvalError::argument("a position is outside of the list"))?;
    let mut values = Vec::new();
    for value in part {
        call.push(&mut values, value.clone())?;
    }
    Ok(Value::List(values.into()))
}

fn range(call: &mut Call<'_>) -> Evaluated {
    let mut values = Vec::new();
    for n in 0..call.int(0)? {
        call.push(&mut values, Value::Int(n))?;
    }
    Ok(Value::List(values.into()))
}
