//! Syntax tree to the compiled form: names, functions, regular expressions and networks are
//! resolved and checked here.

use std::sync::Arc;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, MapExpr, operators,
};

use super::call::{CallForm, FunctionSpec, MAX_ARGUMENTS};
use super::fault::ExpressionFault;
use super::functions;
use super::parse;
use super::pattern::Pattern;
use super::resolve;
use super::shape::{self, MacroShape};
use super::time;
use super::tree::{BinaryOperator, Comprehension, Node};
use super::value::{Value, ValueMap};
use super::variables;
use super::zone::Zone;
use super::zone_files;
use crate::cidr::Cidr;
use crate::edge::policy::catalog::PolicyPhase;

/// Deepest nesting of a compiled expression.
pub(super) const MAX_DEPTH: usize = 32;

/// Most nodes.
const MAX_NODES: usize = 512;

/// Longest list or map in the text of an expression.
const MAX_LITERAL: usize = 1000;

/// Deepest nesting of macros over lists.
const MAX_LOOPS: usize = 3;

/// Compiles a text with the names of further variables. To be called on a large stack.
pub(super) fn compile(
    source: &str,
    phase: PolicyPhase,
    names: &[&str],
) -> Result<CompiledTree, ExpressionFault> {
    let tree = parse::parse(source)?;
    let locals = names.iter().map(|name| (*name).to_owned()).collect();
    let mut compiler = ExpressionCompiler {
        source,
        phase,
        nodes: 0,
        locals,
        loops: 0,
        reads_results: false,
        regex_kibibytes: 0,
    };
    let root = compiler.node(&tree, 0)?;
    let ExpressionCompiler { reads_results, regex_kibibytes, .. } = compiler;
    Ok(CompiledTree { root, reads_results, regex_kibibytes })
}

/// A compiled expression.
pub(super) struct CompiledTree {
    pub(super) root: Node,
    /// Whether it names the results of actions.
    pub(super) reads_results: bool,
    /// Size of its regular expressions.
    pub(super) regex_kibibytes: usize,
}

/// Compiles one expression.
struct ExpressionCompiler<'a> {
    source: &'a str,
    phase: PolicyPhase,
    nodes: usize,
    /// Names of further variables: those of the caller, then those of macros, innermost last.
    locals: Vec<String>,
    /// Macros around the current node.
    loops: usize,
    reads_results: bool,
    regex_kibibytes: usize,
}

type Compiled = Result<Node, ExpressionFault>;

impl ExpressionCompiler<'_> {
    /// Returns a fault at the first occurrence of `name`.
    fn fault(&self, name: &str, reason: impl Into<String>) -> ExpressionFault {
        ExpressionFault::new(parse::offset_of(self.source, name), reason)
    }

    fn node(&mut self, tree: &IdedExpr, depth: usize) -> Compiled {
        self.nodes += 1;
        if depth >= MAX_DEPTH {
            let reason = format!("the expression is nested deeper than {MAX_DEPTH} levels.");
            return Err(ExpressionFault::new(0, reason));
        }
        if self.nodes > MAX_NODES {
            let reason = format!("the expression has more than {MAX_NODES} parts.");
            return Err(ExpressionFault::new(0, reason));
        }
        let below = depth + 1;
        match &tree.expr {
            Expr::Literal(literal) => Ok(Node::Constant(constant(literal))),
            Expr::Ident(_) | Expr::Select(_) => self.access(tree, below),
            Expr::List(list) => self.list(&list.elements, below),
            Expr::Map(map) => self.map(map, below),
            Expr::Call(call) => self.call(tree, call, below),
            Expr::Comprehension(expanded) => self.expanded_macro(expanded, below),
            Expr::Struct(object) => {
                let reason = format!("{} is not a type of policies.", object.type_name);
                Err(self.fault(&object.type_name, reason))
            }
            Expr::Unspecified => Err(ExpressionFault::new(0, "the expression is not valid.")),
        }
    }

    fn boxed(&mut self, tree: &IdedExpr, depth: usize) -> Result<Box<Node>, ExpressionFault> {
        self.node(tree, depth).map(Box::new)
    }

    /// Compiles an operand of which only the value counts, not its members.
    fn operand(&mut self, tree: &IdedExpr, depth: usize) -> Compiled {
        Ok(match self.node(tree, depth)? {
            Node::Object(variable, _) => Node::Variable(variable),
            node => node,
        })
    }

    fn nodes(&mut self, trees: &[IdedExpr], depth: usize) -> Result<Vec<Node>, ExpressionFault> {
        trees.iter().map(|tree| self.node(tree, depth)).collect()
    }

    fn list(&mut self, elements: &[IdedExpr], depth: usize) -> Compiled {
        self.check_literal(elements.len(), "[")?;
        // Elements of a constant list are not parts that are evaluated.
        let literals = elements.iter().map(|element| match &element.expr {
            Expr::Literal(literal) => Some(constant(literal)),
            _ => None,
        });
        if let Some(values) = literals.collect::<Option<Vec<_>>>() {
            return Ok(Node::Constant(Value::List(values.into())));
        }
        let nodes = self.nodes(elements, depth)?;
        match constants(&nodes) {
            Some(values) => Ok(Node::Constant(Value::List(values.into()))),
            None => Ok(Node::List(nodes.into())),
        }
    }

    fn map(&mut self, map: &MapExpr, depth: usize) -> Compiled {
        self.check_literal(map.entries.len(), "{")?;
        let mut entries = Vec::with_capacity(map.entries.len());
        for entry in &map.entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else {
                return Err(self.fault("{", "the map is not valid."));
            };
            entries.push((self.node(&entry.key, depth)?, self.node(&entry.value, depth)?));
        }
        let values = entries.iter().map(|pair| match pair {
            (Node::Constant(key), Node::Constant(value)) => Some((key.clone(), value.clone())),
            _ => None,
        });
        let Some(values) = values.collect::<Option<Vec<_>>>() else {
            return Ok(Node::Map(entries.into()));
        };
        let given = values.len();
        let map = ValueMap::new(values);
        match map.len() == given {
            true => Ok(Node::Constant(Value::Map(Arc::new(map)))),
            false => Err(self.fault("{", "the map has a key twice, or a key of a wrong type.")),
        }
    }

    fn check_literal(&self, len: usize, sign: &str) -> Result<(), ExpressionFault> {
        match len > MAX_LITERAL {
            true => {
                Err(self
                    .fault(sign, format!("a list or map has more than {MAX_LITERAL} elements.")))
            }
            false => Ok(()),
        }
    }

    /// Compiles an identifier, a member or an index.
    fn access(&mut self, tree: &IdedExpr, depth: usize) -> Compiled {
        let parts = resolve::name_parts(tree);
        if let Some(parts) = parts.as_ref().filter(|parts| self.is_global(parts[0])) {
            return self.variable(parts);
        }
        match &tree.expr {
            Expr::Ident(name) => match self.locals.iter().rposition(|local| local == name) {
                Some(at) => Ok(Node::Local(at)),
                None => Err(self.fault(name, format!("unknown variable: {name}."))),
            },
            Expr::Select(select) => {
                let operand = self.boxed(&select.operand, depth)?;
                Ok(Node::Member(operand, select.field.as_str().into()))
            }
            Expr::Call(CallExpr { args, .. }) => match args.as_slice() {
                [operand, index] => self.index(operand, index, depth),
                _ => Err(self.fault("[", "the index is not valid.")),
            },
            _ => Err(ExpressionFault::new(0, "the expression is not valid.")),
        }
    }

    /// Resolves a name that no variable of a macro hides.
    fn variable(&mut self, parts: &[&str]) -> Compiled {
        self.reads_results |= parts[0] == variables::RESULTS_ROOT;
        resolve::variable(parts, self.phase).map_err(|reason| self.fault(parts[0], reason))
    }

    fn index(&mut self, operand: &IdedExpr, index: &IdedExpr, depth: usize) -> Compiled {
        if let Some(parts) = resolve::name_parts(operand).filter(|p| self.is_global(p[0])) {
            return match self.variable(&parts)? {
                Node::Variable(variable) if variables::is_keyed(variable) => {
                    Ok(Node::EntryOf(variable, self.boxed(index, depth)?))
                }
                // Members without data could be reached by a key that is not known yet.
                Node::Object(variable, _) => {
                    let reason = format!("the index of {} must be a text.", variable.name());
                    Err(self.fault(parts[0], reason))
                }
                node => Ok(Node::Index(Box::new([node, self.node(index, depth)?]))),
            };
        }
        Ok(Node::Index(Box::new([self.node(operand, depth)?, self.node(index, depth)?])))
    }

    /// Returns whether a name is not hidden by a variable of a macro.
    fn is_global(&self, name: &str) -> bool {
        variables::is_root(name) && !self.locals.iter().any(|local| local == name)
    }

    fn call(&mut self, tree: &IdedExpr, call: &CallExpr, depth: usize) -> Compiled {
        if call.func_name == operators::INDEX && call.target.is_none() {
            return self.access(tree, depth);
        }
        if let Some(node) = self.operator(call, depth)? {
            return Ok(node);
        }
        if let Some(shape) = shape::of_call(call) {
            return self.comprehension(&shape, depth);
        }
        let (name, receiver) = self.function_name(call);
        let arguments: Vec<&IdedExpr> = receiver.into_iter().chain(&call.args).collect();
        match (name.as_str(), arguments.as_slice()) {
            (parse::HAS, [argument]) if receiver.is_none() => self.has(argument, depth),
            ("matches", [text, pattern]) => self.matches(text, pattern, depth),
            ("inCidrRange" | "inCidrRanges", [address, networks]) if receiver.is_none() => {
                self.in_networks(&name, address, networks, depth)
            }
            _ => self.function(&name, receiver.is_some(), &arguments, depth),
        }
    }

    fn operator(&mut self, call: &CallExpr, depth: usize) -> Result<Option<Node>, ExpressionFault> {
        if call.target.is_some() {
            return Ok(None);
        }
        let name = call.func_name.as_str();
        let node = match call.args.as_slice() {
            [operand] if name == operators::LOGICAL_NOT => Node::Not(self.boxed(operand, depth)?),
            [operand] if name == operators::NEGATE => Node::Negate(self.boxed(operand, depth)?),
            [left, right] => {
                let operator = binary(name);
                let is_and = name == operators::LOGICAL_AND;
                if operator.is_none() && !is_and && name != operators::LOGICAL_OR {
                    return Ok(None);
                }
                let operands = Box::new([self.operand(left, depth)?, self.operand(right, depth)?]);
                match operator {
                    Some(operator) => Node::Binary(operator, operands),
                    None if is_and => Node::And(operands),
                    None => Node::Or(operands),
                }
            }
            [condition, yes, no] if name == operators::CONDITIONAL => {
                Node::Conditional(Box::new([
                    self.node(condition, depth)?,
                    self.node(yes, depth)?,
                    self.node(no, depth)?,
                ]))
            }
            _ => return Ok(None),
        };
        Ok(Some(node))
    }

    /// Returns the name of a function with its namespace, and the receiver.
    fn function_name<'t>(&self, call: &'t CallExpr) -> (String, Option<&'t IdedExpr>) {
        let Some(target) = call.target.as_deref() else {
            return (call.func_name.clone(), None);
        };
        match &target.expr {
            Expr::Ident(space) if !variables::is_root(space) && !self.locals.contains(space) => {
                (format!("{space}.{}", call.func_name), None)
            }
            _ => (call.func_name.clone(), Some(target)),
        }
    }

    fn has(&mut self, argument: &IdedExpr, depth: usize) -> Compiled {
        if let Some(parts) = resolve::name_parts(argument).filter(|p| self.is_global(p[0]))
            && let Some(node) = resolve::group(&parts, self.phase)
        {
            return Ok(node);
        }
        let is_member = match &argument.expr {
            Expr::Select(_) => true,
            Expr::Call(call) => call.func_name == operators::INDEX,
            _ => false,
        };
        match is_member {
            true => Ok(Node::Has(self.boxed(argument, depth)?)),
            false => Err(self.fault("has", "has() needs a member, such as has(req.headers.host).")),
        }
    }

    fn matches(&mut self, text: &IdedExpr, pattern: &IdedExpr, depth: usize) -> Compiled {
        let text = Box::new(self.operand(text, depth)?);
        match self.node(pattern, depth)? {
            Node::Constant(value) if value.as_text().is_some() => {
                let pattern =
                    Pattern::new(value.as_text().unwrap_or_default()).map_err(|reason| {
                        let reason = format!("the regular expression is not valid: {reason}.");
                        self.fault("matches", reason)
                    })?;
                self.regex_kibibytes += pattern.kibibytes();
                Ok(Node::Matches(text, Box::new(pattern)))
            }
            _ => Err(self.fault("matches", "the regular expression must be a text, not computed.")),
        }
    }

    fn in_networks(
        &mut self,
        name: &str,
        address: &IdedExpr,
        networks: &IdedExpr,
        depth: usize,
    ) -> Compiled {
        let (address, networks) = (self.operand(address, depth)?, self.node(networks, depth)?);
        let given: Vec<&Value> = match &networks {
            Node::Constant(Value::List(list)) => list.iter().collect(),
            Node::Constant(value) => vec![value],
            _ => {
                let spec =
                    functions::find(name, false).map_err(|reason| self.fault(name, reason))?;
                return Ok(Node::Call(spec, [address, networks].into()));
            }
        };
        let parsed = given.iter().map(|value| {
            let text = value.as_text().ok_or_else(|| "a network is not a text.".to_owned())?;
            Cidr::parse(text).ok_or_else(|| format!("{text} is not a network, such as 10.0.0.0/8."))
        });
        let parsed: Result<Vec<Cidr>, String> = parsed.collect();
        let parsed = parsed.map_err(|reason| self.fault(name, reason))?;
        Ok(Node::InNetworks(Box::new(address), parsed.into()))
    }

    fn function(
        &mut self,
        name: &str,
        is_member: bool,
        arguments: &[&IdedExpr],
        depth: usize,
    ) -> Compiled {
        let short = name.rsplit('.').next().unwrap_or(name);
        let spec = functions::find(name, is_member).map_err(|reason| self.fault(short, reason))?;
        if !spec.phases.has(self.phase) {
            let reason = format!("{name} is a function of {}.", spec.phases.keys());
            return Err(self.fault(short, reason));
        }
        let (fewest, most) = spec.arguments;
        if !(fewest..=most).contains(&arguments.len()) || arguments.len() > MAX_ARGUMENTS {
            let own = usize::from(spec.form != CallForm::Global && is_member);
            let (fewest, most) = (fewest.saturating_sub(own), most - own);
            let range = match fewest == most {
                true => most.to_string(),
                false => format!("{fewest} to {most}"),
            };
            let given = arguments.len() - own;
            let reason = format!("number of arguments of {name}: {range}, not {given}.");
            return Err(self.fault(short, reason));
        }
        let mut nodes = Vec::with_capacity(arguments.len());
        for argument in arguments {
            nodes.push(self.operand(argument, depth)?);
        }
        let refused = |reason| self.fault(short, format!("{name}: {reason}."));
        if let Some(zone) = named_zone(spec, &nodes).map_err(refused)? {
            return Ok(Node::InZone(spec, nodes.into(), zone));
        }
        let folded = functions::fold(spec, &nodes).map_err(refused)?;
        Ok(folded.map_or_else(|| Node::Call(spec, nodes.into()), Node::Constant))
    }

    fn expanded_macro(&mut self, expanded: &ComprehensionExpr, depth: usize) -> Compiled {
        match shape::of_loop(expanded) {
            Some(shape) => self.comprehension(&shape, depth),
            None => Err(ExpressionFault::new(0, "the macro is not supported.")),
        }
    }

    fn comprehension(&mut self, shape: &MacroShape<'_>, depth: usize) -> Compiled {
        let range = self.node(shape.range, depth)?;
        if self.loops >= MAX_LOOPS {
            let reason = format!("macros over lists are nested deeper than {MAX_LOOPS} levels.");
            return Err(self.fault(shape.name, reason));
        }
        self.loops += 1;
        self.locals.push(shape.name.to_owned());
        let filter = shape.filter.map(|tree| self.node(tree, depth)).transpose();
        let body = shape.body.map(|tree| self.node(tree, depth)).transpose();
        self.locals.pop();
        self.loops -= 1;
        let (filter, body) = (filter?, body?);
        Ok(Node::Comprehension(Box::new(Comprehension { kind: shape.kind, range, filter, body })))
    }
}

/// Returns the values of nodes that are all constants.
fn constants(nodes: &[Node]) -> Option<Vec<Value>> {
    let values = nodes.iter().map(|node| match node {
        Node::Constant(value) => Some(value.clone()),
        _ => None,
    });
    values.collect()
}

fn constant(literal: &LiteralValue) -> Value {
    match literal {
        LiteralValue::Boolean(value) => Value::Bool(*value.inner()),
        LiteralValue::Bytes(bytes) => Value::Bytes(bytes.inner().into()),
        LiteralValue::Double(n) => Value::Double(*n.inner()),
        LiteralValue::Int(n) => Value::Int(*n.inner()),
        LiteralValue::Null => Value::Null,
        LiteralValue::String(text) => Value::text(text.inner()),
        LiteralValue::UInt(n) => Value::Uint(*n.inner()),
    }
}

fn binary(name: &str) -> Option<BinaryOperator> {
    Some(match name {
        operators::ADD => BinaryOperator::Add,
        operators::SUBSTRACT => BinaryOperator::Subtract,
        operators::MULTIPLY => BinaryOperator::Multiply,
        operators::DIVIDE => BinaryOperator::Divide,
        operators::MODULO => BinaryOperator::Modulo,
        operators::EQUALS => BinaryOperator::Equal,
        operators::NOT_EQUALS => BinaryOperator::NotEqual,
        operators::LESS => BinaryOperator::Less,
        operators::LESS_EQUALS => BinaryOperator::LessOrEqual,
        operators::GREATER => BinaryOperator::Greater,
        operators::GREATER_EQUALS => BinaryOperator::GreaterOrEqual,
        operators::IN => BinaryOperator::In,
        _ => return None,
    })
}

/// Returns the time zone that the second argument of a call names. The error is the reason.
fn named_zone(spec: &FunctionSpec, nodes: &[Node]) -> Result<Option<Arc<Zone>>, String> {
    match nodes {
        [_, Node::Constant(Value::Text(zone))]
            if functions::takes_zone(spec) && time::fixed_offset(zone).is_none() =>
        {
            zone_files::load(zone).map(Some)
        }
        _ => Ok(None),
    }
}
