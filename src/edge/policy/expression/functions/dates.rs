//! Parts of times and of durations. The second argument is a time zone.

use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::time::{DateParts, zone_offset};
use super::super::value::Value;
use super::member;

type Evaluated = Result<Value, EvalError>;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    member("getFullYear", (1, 2), |call| part(call, |p| p.year)),
    member("getMonth", (1, 2), |call| part(call, |p| p.month - 1)),
    member("getDate", (1, 2), |call| part(call, |p| p.day)),
    member("getDayOfMonth", (1, 2), |call| part(call, |p| p.day - 1)),
    member("getDayOfWeek", (1, 2), |call| part(call, |p| p.day_of_week)),
    member("getDayOfYear", (1, 2), |call| part(call, |p| p.day_of_year)),
    member("getHours", (1, 2), |call| match whole(call, 3_600_000_000_000) {
        Some(hours) => Ok(hours),
        None => part(call, |p| p.hour),
    }),
    member("getMinutes", (1, 2), |call| match whole(call, 60_000_000_000) {
        Some(minutes) => Ok(minutes),
        None => part(call, |p| p.minute),
    }),
    member("getSeconds", (1, 2), |call| match whole(call, 1_000_000_000) {
        Some(seconds) => Ok(seconds),
        None => part(call, |p| p.second),
    }),
    member("getMilliseconds", (1, 2), milliseconds),
];

/// Returns a part of a time.
fn part(call: &mut Call<'_>, part: fn(&DateParts) -> i64) -> Evaluated {
    let Value::Timestamp(at) = call.value(0) else { return Err(call.wrong(0, "timestamp")) };
    let offset = if call.has(1) { zone_offset(call.text(1)?, call.zone, *at)? } else { 0 };
    Ok(Value::Int(part(&at.parts(offset))))
}

/// Returns a whole duration in a unit; `None` if the receiver is not a duration.
fn whole(call: &Call<'_>, unit: i64) -> Option<Value> {
    match call.value(0) {
        Value::Duration(nanos) => Some(Value::Int(nanos / unit)),
        _ => None,
    }
}

/// Returns the milliseconds below a second.
fn milliseconds(call: &mut Call<'_>) -> Evaluated {
    match call.value(0) {
        Value::Duration(nanos) => Ok(Value::Int(nanos / 1_000_000 % 1_000)),
        Value::Timestamp(at) => {
            if call.has(1) {
                zone_offset(call.text(1)?, call.zone, *at)?;
            }
            Ok(Value::Int(i64::from(at.nanos() / 1_000_000)))
        }
        _ => Err(call.wrong(0, "timestamp or duration")),
    }
}
