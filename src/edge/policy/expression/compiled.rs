//! Expressions as their users see them: compiled once, evaluated for each request.

use std::fmt;

use super::budget::EvalBudget;
use super::compile::{self, CompiledTree};
use super::error::EvalError;
use super::evaluate;
use super::fault::ExpressionFault;
use super::parse;
use super::tree::Node;
use super::value::Value;
use super::variables::Variables;
use crate::edge::policy::catalog::PolicyPhase;

/// A compiled expression.
pub struct Expression {
    root: Node,
    reads_results: bool,
    regex_kibibytes: usize,
}

impl Expression {
    /// Compiles an expression of a phase. Starts a thread for the time of the call.
    pub fn compile(source: &str, phase: PolicyPhase) -> Result<Self, ExpressionFault> {
        Expression::compile_with(source, phase, &[])
    }

    /// Compiles an expression with further variables, whose values
    /// [`Expression::is_true_with`] gets in the same order.
    pub fn compile_with(
        source: &str,
        phase: PolicyPhase,
        names: &'static [&'static str],
    ) -> Result<Self, ExpressionFault> {
        if source.len() > parse::MAX_SOURCE_BYTES {
            let reason = format!("the expression has more than {} bytes.", parse::MAX_SOURCE_BYTES);
            return Err(ExpressionFault::new(0, reason));
        }
        let source = source.to_owned();
        let compiled = parse::on_large_stack(move || compile::compile(&source, phase, names));
        let CompiledTree { root, reads_results, regex_kibibytes } =
            compiled.unwrap_or_else(|| {
                Err(ExpressionFault::new(0, "the edge cannot start a thread to compile it."))
            })?;
        Ok(Expression { root, reads_results, regex_kibibytes })
    }

    /// Returns the value.
    pub fn value(
        &self,
        variables: &dyn Variables,
        budget: &mut EvalBudget,
    ) -> Result<Value, EvalError> {
        evaluate::evaluate(&self.root, variables, Vec::new(), budget)
    }

    /// Returns the value of a condition. A value that is not a boolean is an error.
    pub fn is_true(
        &self,
        variables: &dyn Variables,
        budget: &mut EvalBudget,
    ) -> Result<bool, EvalError> {
        self.is_true_with(variables, Vec::new(), budget)
    }

    /// Returns the value of a condition with further variables.
    pub fn is_true_with(
        &self,
        variables: &dyn Variables,
        locals: Vec<Value>,
        budget: &mut EvalBudget,
    ) -> Result<bool, EvalError> {
        let value = evaluate::evaluate(&self.root, variables, locals, budget)?;
        value.as_bool().ok_or_else(|| {
            EvalError::wrong_type(format!("the result is a {}, not a bool", value.type_name()))
        })
    }

    /// Returns whether it names the results of actions.
    pub fn reads_results(&self) -> bool {
        self.reads_results
    }

    /// Returns the size of its regular expressions.
    pub fn regex_kibibytes(&self) -> usize {
        self.regex_kibibytes
    }

    /// Returns the value if it does not depend on a request.
    pub fn constant(&self) -> Option<&Value> {
        match &self.root {
            Node::Constant(value) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Debug for Expression {
    /// Writes no part of the expression: it may contain a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expression").finish_non_exhaustive()
    }
}
