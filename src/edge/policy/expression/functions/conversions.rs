//! Conversions between types.

use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::time::{Timestamp, parse_duration};
use super::super::value::Value;
use super::global;

type Evaluated = Result<Value, EvalError>;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    global("int", (1, 1), int),
    global("uint", (1, 1), uint),
    global("double", (1, 1), double),
    global("string", (1, 1), string),
    global("bytes", (1, 1), bytes),
    global("bool", (1, 1), boolean),
    global("dyn", (1, 1), |call| Ok(call.value(0).clone())),
    global("timestamp", (1, 1), timestamp),
    global("duration", (1, 1), duration),
];

fn int(call: &mut Call<'_>) -> Evaluated {
    let number = match call.value(0) {
        Value::Int(n) => Some(*n),
        Value::Uint(n) => i64::try_from(*n).ok(),
        // The bounds are the doubles next to the smallest and the largest integer.
        Value::Double(n) if *n > -9.223_372_036_854_775e18 && *n < 9.223_372_036_854_775e18 => {
            Some(*n as i64)
        }
        Value::Timestamp(at) => Some(at.seconds()),
        Value::Text(_) | Value::Object(_) => call.text(0)?.parse().ok(),
        Value::Double(_) => None,
        _ => return Err(call.wrong(0, "number or string")),
    };
    number.map(Value::Int).ok_or_else(|| EvalError::argument("the value is not an int"))
}

fn uint(call: &mut Call<'_>) -> Evaluated {
    let number = match call.value(0) {
        Value::Uint(n) => Some(*n),
        Value::Int(n) => u64::try_from(*n).ok(),
        Value::Double(n) if *n >= 0.0 && *n < 1.844_674_407_370_955e19 => Some(*n as u64),
        Value::Text(_) | Value::Object(_) => call.text(0)?.parse().ok(),
        Value::Double(_) => None,
        _ => return Err(call.wrong(0, "number or string")),
    };
    number.map(Value::Uint).ok_or_else(|| EvalError::argument("the value is not a uint"))
}

fn double(call: &mut Call<'_>) -> Evaluated {
    let number = match call.value(0) {
        Value::Double(n) => Some(*n),
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        Value::Text(_) | Value::Object(_) => call.text(0)?.parse().ok(),
        _ => return Err(call.wrong(0, "number or string")),
    };
    number.map(Value::Double).ok_or_else(|| EvalError::argument("the value is not a double"))
}

fn string(call: &mut Call<'_>) -> Evaluated {
    match call.value(0) {
        Value::Text(text) => Ok(Value::Text(text.clone())),
        Value::Null | Value::List(_) | Value::Map(_) => Err(call.wrong(0, "single value")),
        value => {
            let text = value.display()?;
            call.new_text(text)
        }
    }
}

fn bytes(call: &mut Call<'_>) -> Evaluated {
    if let Value::Bytes(bytes) = call.value(0) {
        return Ok(Value::Bytes(bytes.clone()));
    }
    let text = call.text(0)?;
    call.budget.create(text.len())?;
    Ok(Value::Bytes(text.as_bytes().into()))
}

fn boolean(call: &mut Call<'_>) -> Evaluated {
    if let Value::Bool(value) = call.value(0) {
        return Ok(Value::Bool(*value));
    }
    match call.text(0)? {
        "true" | "True" | "TRUE" | "t" | "1" => Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" | "f" | "0" => Ok(Value::Bool(false)),
        _ => Err(EvalError::argument("the text is not a bool")),
    }
}

fn timestamp(call: &mut Call<'_>) -> Evaluated {
    let at = match call.value(0) {
        Value::Timestamp(at) => Some(*at),
        Value::Int(seconds) => Timestamp::new(*seconds, 0),
        _ => Timestamp::parse(call.text(0)?),
    };
    at.map(Value::Timestamp)
        .ok_or_else(|| EvalError::argument("the text is not a time such as 2026-01-02T15:04:05Z"))
}

fn duration(call: &mut Call<'_>) -> Evaluated {
    let nanos = match call.value(0) {
        Value::Duration(nanos) => Some(*nanos),
        _ => parse_duration(call.text(0)?),
    };
    nanos
        .map(Value::Duration)
        .ok_or_else(|| EvalError::argument("the text is not a duration such as 1h30m"))
}
