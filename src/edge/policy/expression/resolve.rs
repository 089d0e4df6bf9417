//! Names of variables in the syntax tree, `req.headers['x']`, to nodes. A name that is not
//! a variable of this edge and phase is a fault.

use std::sync::Arc;

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use super::tree::Node;
use super::variables::{self, NameMatch, VariableKind, VariableSpec};
use crate::edge::policy::catalog::PolicyPhase;

/// Returns the parts of a name: fields and constant indexes down to an identifier.
pub(super) fn name_parts(node: &IdedExpr) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut node = node;
    loop {
        match &node.expr {
            Expr::Ident(name) => {
                // A leading dot is the root, where all names of policies are.
                parts.push(name.strip_prefix('.').unwrap_or(name));
                parts.reverse();
                return Some(parts);
            }
            Expr::Select(select) if !select.test => {
                parts.push(select.field.as_str());
                node = &select.operand;
            }
            Expr::Call(call) if call.func_name == operators::INDEX => {
                let [operand, index] = call.args.as_slice() else { return None };
                let Expr::Literal(LiteralValue::String(key)) = &index.expr else { return None };
                parts.push(key.inner());
                node = operand;
            }
            _ => return None,
        }
    }
}

/// Returns the node of a name. The error is the name of the part at fault and the reason.
pub(super) fn variable(parts: &[&str], phase: PolicyPhase) -> Result<Node, String> {
    let mut name = String::new();
    for (n, part) in parts.iter().enumerate() {
        if n > 0 {
            name.push('.');
        }
        name.push_str(part);
        let rest = &parts[n + 1..];
        match variables::find(&name) {
            NameMatch::Lacking => return Err(format!("this edge has no data for {name}.")),
            NameMatch::Unknown => return Err(format!("unknown variable: {name}.")),
            NameMatch::Group if rest.is_empty() => {
                let members: Vec<&str> = variables::members(&name).map(|m| m.name).collect();
                let examples = members[..members.len().min(3)].join(", ");
                return Err(format!(
                    "{name} is a group of variables, name one of them, such as {examples}."
                ));
            }
            NameMatch::Group => {}
            NameMatch::Variable(spec) if rest.is_empty() => {
                check_phase(spec, phase)?;
                return Ok(whole(spec));
            }
            NameMatch::Variable(spec) if spec.kind == VariableKind::Keyed => {
                check_phase(spec, phase)?;
                let entry = Node::Entry(spec.variable, rest[0].into());
                return Ok(rest[1..]
                    .iter()
                    .fold(entry, |node, part| Node::Member(Box::new(node), Arc::from(*part))));
            }
            NameMatch::Variable(_) => {}
        }
    }
    Err(format!("unknown variable: {name}."))
}

/// Returns the node for `has()` of a part of the names of variables.
pub(super) fn group(parts: &[&str], phase: PolicyPhase) -> Option<Node> {
    let name = parts.join(".");
    let NameMatch::Group = variables::find(&name) else { return None };
    let members = variables::members(&name).filter(|spec| spec.phases.has(phase));
    Some(Node::HasAny(members.map(|spec| spec.variable).collect()))
}

fn whole(spec: &'static VariableSpec) -> Node {
    let members: Box<[_]> = variables::members(spec.name)
        .filter_map(|member| {
            let name = member.name.strip_prefix(spec.name)?.strip_prefix('.')?;
            (!name.contains('.')).then(|| (Arc::from(name), member))
        })
        .collect();
    match members.is_empty() {
        true => Node::Variable(spec.variable),
        false => Node::Object(spec.variable, members),
    }
}

fn check_phase(spec: &VariableSpec, phase: PolicyPhase) -> Result<(), String> {
    if spec.phases.has(phase) {
        return Ok(());
    }
    Err(format!("{} is a variable of {}, not of {}.", spec.name, spec.phases.keys(), phase.key()))
}
