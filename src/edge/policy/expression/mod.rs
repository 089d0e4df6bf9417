//! Expressions of traffic policies: CEL in conditions and in `${...}` of texts.
//!
//! An expression is parsed and checked when its policy binds ([`Expression::compile`]). What it
//! names is resolved then: variables, functions, regular expressions and networks. Values of a
//! request come from [`Variables`], one at a time. [`EvalBudget`] bounds each evaluation.
//!
//! No request, socket or clock here, and no action of a policy. `zone_files` alone reads files.

mod arithmetic;
mod budget;
mod call;
mod compile;
mod compiled;
mod conversion;
mod error;
mod evaluate;
mod fault;
mod functions;
mod json;
mod parse;
mod pattern;
mod read;
mod resolve;
mod shape;
mod template;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod value;
mod variables;
mod zone;
mod zone_files;

pub use budget::EvalBudget;
pub use compiled::Expression;
pub use error::{EvalError, EvalErrorKind};
pub use fault::ExpressionFault;
pub use template::Template;
pub use time::Timestamp;
pub use value::{TextObject, Value, ValueMap};
pub use variables::{Variable, Variables};
