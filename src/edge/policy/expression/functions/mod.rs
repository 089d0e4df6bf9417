//! The functions of expressions by name. What a function does is in the files of this
//! directory; what it gets is a [`Call`](super::call::Call).

mod conversions;
mod dates;
mod encodings;
mod hashes;
mod lists;
mod md5;
mod networks;
mod requests;
mod services;
mod texts;
mod urls;
mod xxhash;

pub(super) use lists::sort;

use std::sync::Arc;

use super::budget::EvalBudget;
use super::call::{Call, CallForm, FunctionSpec};
use super::time::Timestamp;
use super::tree::Node;
use super::value::Value;
use super::variables::{PhaseSet, Variable, Variables};

/// Tables of all functions.
static TABLES: &[&[FunctionSpec]] = &[
    texts::FUNCTIONS,
    lists::FUNCTIONS,
    requests::FUNCTIONS,
    conversions::FUNCTIONS,
    dates::FUNCTIONS,
    encodings::FUNCTIONS,
    urls::FUNCTIONS,
    hashes::FUNCTIONS,
    networks::FUNCTIONS,
    services::FUNCTIONS,
];

/// Functions of ngrok's service that this edge does not have.
static LACKING: &[&str] = &["type"];

/// Returns a function. The error is the reason.
pub(super) fn find(name: &str, is_member: bool) -> Result<&'static FunctionSpec, String> {
    if LACKING.contains(&name) {
        return Err(format!("this edge does not have the function {name}."));
    }
    let named = || all().filter(|spec| spec.name == name);
    let wanted = if is_member { CallForm::Member } else { CallForm::Global };
    if let Some(spec) = named().find(|spec| spec.form == wanted || spec.form == CallForm::Either) {
        return Ok(spec);
    }
    Err(match (named().next(), is_member) {
        (None, _) => format!("unknown function: {name}."),
        (Some(_), true) => format!("write {name}(x), not x.{name}()."),
        (Some(_), false) => format!("write x.{name}(), not {name}(x)."),
    })
}

/// Returns all functions.
pub(super) fn all() -> impl Iterator<Item = &'static FunctionSpec> {
    TABLES.iter().copied().flatten()
}

/// Returns the value of a call that is the same for all requests: a time from a text. The error
/// is the reason.
pub(super) fn fold(spec: &FunctionSpec, arguments: &[Node]) -> Result<Option<Value>, String> {
    let [Node::Constant(value)] = arguments else { return Ok(None) };
    if !["timestamp", "duration"].contains(&spec.name) {
        return Ok(None);
    }
    let mut budget = EvalBudget::new();
    let arguments = std::slice::from_ref(value);
    let mut call = Call { arguments, variables: &NoRequest, budget: &mut budget, zone: None };
    (spec.run)(&mut call).map(Some).map_err(|error| error.to_string())
}

/// Returns whether the second argument is a time zone.
pub(super) fn takes_zone(spec: &FunctionSpec) -> bool {
    dates::FUNCTIONS.iter().any(|date| date.name == spec.name)
}

/// A function that is called as `f(x)`, in all phases.
const fn global(
    name: &'static str,
    arguments: (usize, usize),
    run: fn(&mut Call<'_>) -> Result<Value, super::error::EvalError>,
) -> FunctionSpec {
    FunctionSpec { name, form: CallForm::Global, arguments, phases: PhaseSet::Any, steps: 1, run }
}

/// A function that is called as `x.f()`, in all phases. Its receiver is the first argument.
const fn member(
    name: &'static str,
    arguments: (usize, usize),
    run: fn(&mut Call<'_>) -> Result<Value, super::error::EvalError>,
) -> FunctionSpec {
    FunctionSpec { form: CallForm::Member, ..global(name, arguments, run) }
}

/// A function that is called as `f(x)` or `x.f()`, in all phases.
const fn either(
    name: &'static str,
    arguments: (usize, usize),
    run: fn(&mut Call<'_>) -> Result<Value, super::error::EvalError>,
) -> FunctionSpec {
    FunctionSpec { form: CallForm::Either, ..global(name, arguments, run) }
}

/// A function of some phases.
const fn of(phases: PhaseSet, spec: FunctionSpec) -> FunctionSpec {
    FunctionSpec { phases, ..spec }
}

/// A function whose call takes more than one step.
const fn costly(steps: usize, spec: FunctionSpec) -> FunctionSpec {
    FunctionSpec { steps, ..spec }
}

/// No request, for functions that depend on their arguments alone.
struct NoRequest;

impl Variables for NoRequest {
    fn variable(&self, _: Variable) -> Option<Value> {
        None
    }

    fn secret(&self, _: &str, _: &str) -> Option<Arc<str>> {
        None
    }

    fn now(&self) -> Timestamp {
        Timestamp::EPOCH
    }

    fn random(&self) -> u64 {
        0
    }
}
