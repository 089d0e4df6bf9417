//! Macros over lists and maps in the syntax tree. The parser expands them into loops with an
//! accumulator; this recognizes the loops of each macro, which an evaluator can run directly.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

use super::tree::ComprehensionKind;

/// A macro with its parts.
pub(super) struct MacroShape<'a> {
    pub(super) kind: ComprehensionKind,
    pub(super) range: &'a IdedExpr,
    /// Name of the variable.
    pub(super) name: &'a str,
    pub(super) filter: Option<&'a IdedExpr>,
    pub(super) body: Option<&'a IdedExpr>,
}

/// Returns the macro that a loop was expanded from.
pub(super) fn of_loop(expanded: &ComprehensionExpr) -> Option<MacroShape<'_>> {
    let (function, step) = call(&expanded.loop_step)?;
    let shape = |kind, filter, body| {
        let (range, name) = (&expanded.iter_range, expanded.iter_var.as_str());
        Some(MacroShape { kind, range, name, filter, body })
    };
    let is_condition = function == operators::CONDITIONAL;
    match &expanded.accu_init.expr {
        Expr::Literal(LiteralValue::Boolean(start)) => match (*start.inner(), function, step) {
            (true, operators::LOGICAL_AND, [_, body]) => {
                shape(ComprehensionKind::All, None, Some(body))
            }
            (false, operators::LOGICAL_OR, [_, body]) => {
                shape(ComprehensionKind::Exists, None, Some(body))
            }
            _ => None,
        },
        Expr::Literal(LiteralValue::Int(_)) => match step {
            [body, _, _] if is_condition => shape(ComprehensionKind::ExistsOne, None, Some(body)),
            _ => None,
        },
        Expr::List(_) => match step {
            [filter, added, _] if is_condition => {
                let body = appended(call(added)?.1)?;
                let same = matches!(&body.expr, Expr::Ident(name) if *name == expanded.iter_var);
                shape(ComprehensionKind::Map, Some(filter), (!same).then_some(body))
            }
            added => shape(ComprehensionKind::Map, None, Some(appended(added)?)),
        },
        _ => None,
    }
}

/// Returns the macro `list.sortBy(x, key)`, which the parser does not expand.
pub(super) fn of_call(call: &CallExpr) -> Option<MacroShape<'_>> {
    let (Some(range), "sortBy", [name, body]) =
        (&call.target, call.func_name.as_str(), call.args.as_slice())
    else {
        return None;
    };
    let Expr::Ident(name) = &name.expr else { return None };
    Some(MacroShape {
        kind: ComprehensionKind::SortBy,
        range,
        name,
        filter: None,
        body: Some(body),
    })
}

/// Returns the operator and the operands of a node.
fn call(node: &IdedExpr) -> Option<(&str, &[IdedExpr])> {
    match &node.expr {
        Expr::Call(call) => Some((&call.func_name, &call.args)),
        _ => None,
    }
}

/// Returns the element of `accumulator + [element]`.
fn appended(operands: &[IdedExpr]) -> Option<&IdedExpr> {
    match operands {
        [_, list] => match &list.expr {
            Expr::List(list) => list.elements.first(),
            _ => None,
        },
        _ => None,
    }
}
