//! Evaluates the compiled form of an expression.

use std::net::IpAddr;
use std::sync::Arc;

use super::arithmetic;
use super::budget::EvalBudget;
use super::call::{Call, FunctionSpec, MAX_ARGUMENTS};
use super::error::EvalError;
use super::pattern::Pattern;
use super::read;
use super::tree::{Comprehension, ComprehensionKind, Node};
use super::value::{TextObject, Value, ValueMap};
use super::variables::{Variable, VariableSpec, Variables};
use super::zone::Zone;
use crate::cidr::Cidr;

type Evaluated = Result<Value, EvalError>;

/// Evaluates a node. `locals` are the values of the caller's further variables.
pub(super) fn evaluate(
    node: &Node,
    variables: &dyn Variables,
    locals: Vec<Value>,
    budget: &mut EvalBudget,
) -> Evaluated {
    Evaluation { variables, budget, locals }.node(node)
}

/// One evaluation.
struct Evaluation<'a> {
    variables: &'a dyn Variables,
    budget: &'a mut EvalBudget,
    /// Values of the variables of macros, innermost last.
    locals: Vec<Value>,
}

impl Evaluation<'_> {
    fn node(&mut self, node: &Node) -> Evaluated {
        self.budget.steps(1)?;
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Local(at) => self.locals.get(*at).cloned().ok_or_else(|| missing("a variable")),
            Node::Variable(variable) => self.variable(*variable),
            Node::Entry(variable, key) => self.entry(*variable, key),
            Node::EntryOf(variable, key) => match self.node(key)?.as_text() {
                Some(key) => self.entry(*variable, key),
                None => Err(EvalError::wrong_type("the key of a map must be a string")),
            },
            Node::Object(variable, members) => self.object(*variable, members),
            Node::Member(operand, name) => member(&self.node(operand)?, name),
            Node::Index(operands) => {
                let (operand, index) = (self.node(&operands[0])?, self.node(&operands[1])?);
                self.index(&operand, &index)
            }
            Node::Has(operand) => self.has(operand),
            Node::HasAny(variables) => self.has_any(variables),
            Node::Not(operand) => Ok(Value::Bool(!boolean(&self.node(operand)?)?)),
            Node::Negate(operand) => arithmetic::negate(&self.node(operand)?),
            Node::And(operands) => self.logical(operands, false),
            Node::Or(operands) => self.logical(operands, true),
            Node::Conditional(parts) => match boolean(&self.node(&parts[0])?)? {
                true => self.node(&parts[1]),
                false => self.node(&parts[2]),
            },
            Node::Binary(operator, operands) => {
                let (a, b) = (self.node(&operands[0])?, self.node(&operands[1])?);
                arithmetic::binary(*operator, &a, &b, self.budget)
            }
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Call(spec, arguments) => self.call(spec, arguments, None),
            Node::InZone(spec, arguments, zone) => self.call(spec, arguments, Some(zone)),
            Node::Matches(text, pattern) => self.matches(text, pattern),
            Node::InNetworks(address, networks) => self.in_networks(address, networks),
            Node::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn variable(&mut self, variable: Variable) -> Evaluated {
        let value = match variable {
            Variable::TimeNow => Some(Value::from(self.variables.now().to_string())),
            _ => read::variable(self.variables, self.budget, variable)?,
        };
        let value = value.ok_or_else(|| EvalError::missing(no_value(variable)))?;
        self.budget.create(value.bytes())?;
        Ok(value)
    }

    fn entry(&mut self, variable: Variable, key: &str) -> Evaluated {
        let value = read::entry(self.variables, self.budget, variable, key)?;
        value.ok_or_else(|| EvalError::missing(no_value(variable)))
    }

    fn object(
        &mut self,
        variable: Variable,
        members: &[(Arc<str>, &'static VariableSpec)],
    ) -> Evaluated {
        let text = self.variable(variable)?;
        let Value::Text(text) = text else { return Ok(text) };
        let mut entries = Vec::with_capacity(members.len());
        for (name, member) in members {
            self.budget.steps(1)?;
            if let Some(value) = read::variable(self.variables, self.budget, member.variable)? {
                self.budget.element(&value)?;
                entries.push((Value::Text(name.clone()), value));
            }
        }
        Ok(Value::Object(Arc::new(TextObject { text, members: ValueMap::new(entries) })))
    }

    fn index(&mut self, operand: &Value, index: &Value) -> Evaluated {
        if let Some(list) = operand.as_list() {
            let at = match index {
                Value::Int(n) => usize::try_from(*n).ok(),
                Value::Uint(n) => usize::try_from(*n).ok(),
                Value::Double(n) if n.fract() == 0.0 && (0.0..1e9).contains(n) => Some(*n as usize),
                Value::Double(_) => None,
                _ => return Err(EvalError::wrong_type("the index of a list must be an int")),
            };
            let value = at.and_then(|at| list.get(at));
            return value.cloned().ok_or_else(|| missing("an index of a list"));
        }
        let Some(members) = operand.members() else {
            let kind = operand.type_name();
            return Err(EvalError::wrong_type(format!("a {kind} has no members")));
        };
        self.budget.read(index.bytes())?;
        members.get(index).cloned().ok_or_else(|| missing("a key of a map"))
    }

    fn has(&mut self, operand: &Node) -> Evaluated {
        match self.node(operand) {
            Ok(_) => Ok(Value::Bool(true)),
            Err(error) if error.kind == super::error::EvalErrorKind::Missing => {
                Ok(Value::Bool(false))
            }
            Err(error) => Err(error),
        }
    }

    fn has_any(&mut self, variables: &[Variable]) -> Evaluated {
        for variable in variables {
            self.budget.steps(1)?;
            if read::variable(self.variables, self.budget, *variable)?.is_some() {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }

    /// Evaluates `&&` and `||`. An operand that decides does so even if the other one has an
    /// error, in both orders.
    fn logical(&mut self, operands: &[Node; 2], decides: bool) -> Evaluated {
        let left = self.node(&operands[0]).and_then(|value| boolean(&value));
        match left {
            Ok(value) if value == decides => return Ok(Value::Bool(decides)),
            Err(error) if error.is_fatal() => return Err(error),
            _ => {}
        }
        match self.node(&operands[1]).and_then(|value| boolean(&value)) {
            Ok(value) if value == decides => Ok(Value::Bool(decides)),
            Ok(_) => left.map(Value::Bool),
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => Err(left.err().unwrap_or(error)),
        }
    }

    fn list(&mut self, elements: &[Node]) -> Evaluated {
        let mut values = Vec::with_capacity(elements.len());
        for element in elements {
            let value = self.node(element)?;
            self.budget.element(&value)?;
            values.push(value);
        }
        Ok(Value::List(values.into()))
    }

    fn map(&mut self, entries: &[(Node, Node)]) -> Evaluated {
        let mut values = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let (key, value) = (self.node(key)?, self.node(value)?);
            self.budget.element(&key)?;
            self.budget.element(&value)?;
            values.push((key, value));
        }
        let map = ValueMap::new(values);
        match map.len() == entries.len() {
            true => Ok(Value::Map(Arc::new(map))),
            false => Err(EvalError::argument("a map has a key twice, or a key of a wrong type")),
        }
    }

    fn call(&mut self, spec: &FunctionSpec, arguments: &[Node], zone: Option<&Zone>) -> Evaluated {
        const NULL: Value = Value::Null;
        let mut values = [NULL; MAX_ARGUMENTS];
        for (value, node) in values.iter_mut().zip(arguments) {
            *value = self.node(node)?;
        }
        self.budget.steps(spec.steps)?;
        let arguments = &values[..arguments.len().min(MAX_ARGUMENTS)];
        let (variables, budget) = (self.variables, &mut *self.budget);
        (spec.run)(&mut Call { arguments, variables, budget, zone })
    }

    fn matches(&mut self, text: &Node, pattern: &Pattern) -> Evaluated {
        let text = self.node(text)?;
        let Some(text) = text.as_text() else {
            return Err(EvalError::wrong_type("matches is for a string"));
        };
        self.budget.steps(pattern.steps(text))?;
        Ok(Value::Bool(pattern.is_match(text)))
    }

    fn in_networks(&mut self, address: &Node, networks: &[Cidr]) -> Evaluated {
        let address = self.node(address)?;
        let Some(text) = address.as_text() else {
            return Err(EvalError::wrong_type("the address must be a string"));
        };
        self.budget.steps(networks.len())?;
        let address = text.parse::<IpAddr>();
        Ok(Value::Bool(address.is_ok_and(|ip| networks.iter().any(|net| net.contains(ip)))))
    }

    fn comprehension(&mut self, macro_node: &Comprehension) -> Evaluated {
        let range = self.node(&macro_node.range)?;
        let elements: Arc<[Value]> = match &range {
            Value::List(list) => list.clone(),
            Value::Map(map) => map.iter().map(|(key, _)| key.clone()).collect(),
            _ => {
                let kind = range.type_name();
                return Err(EvalError::wrong_type(format!("a macro over a {kind}")));
            }
        };
        let at = self.locals.len();
        self.locals.push(Value::Null);
        let result = match macro_node.kind {
            ComprehensionKind::All => self.quantified(macro_node, &elements, at, false),
            ComprehensionKind::Exists => self.quantified(macro_node, &elements, at, true),
            ComprehensionKind::ExistsOne => self.exactly_one(macro_node, &elements, at),
            ComprehensionKind::Map => self.mapped(macro_node, &elements, at),
            ComprehensionKind::SortBy => self.sorted(macro_node, &elements, at),
        };
        self.locals.truncate(at);
        result
    }

    /// Evaluates `all` and `exists`: `decides` is the result of an element that ends the loop.
    /// Such an element decides even if another one has an error.
    fn quantified(
        &mut self,
        macro_node: &Comprehension,
        elements: &[Value],
        at: usize,
        decides: bool,
    ) -> Evaluated {
        let mut failed = None;
        for element in elements {
            match self.body(macro_node, element, at).and_then(|value| boolean(&value)) {
                Ok(value) if value == decides => return Ok(Value::Bool(decides)),
                Ok(_) => {}
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn exactly_one(
        &mut self,
        macro_node: &Comprehension,
        elements: &[Value],
        at: usize,
    ) -> Evaluated {
        let mut found = 0;
        for element in elements {
            found += usize::from(boolean(&self.body(macro_node, element, at)?)?);
        }
        Ok(Value::Bool(found == 1))
    }

    fn mapped(&mut self, macro_node: &Comprehension, elements: &[Value], at: usize) -> Evaluated {
        let mut values = Vec::new();
        for element in elements {
            self.locals[at] = element.clone();
            self.budget.steps(1)?;
            if let Some(filter) = &macro_node.filter
                && !boolean(&self.node(filter)?)?
            {
                continue;
            }
            let value = match &macro_node.body {
                Some(_) => self.body(macro_node, element, at)?,
                None => element.clone(),
            };
            self.budget.element(&value)?;
            values.push(value);
        }
        Ok(Value::List(values.into()))
    }

    fn sorted(&mut self, macro_node: &Comprehension, elements: &[Value], at: usize) -> Evaluated {
        let mut keyed = Vec::with_capacity(elements.len());
        for element in elements {
            let key = self.body(macro_node, element, at)?;
            self.budget.element(element)?;
            self.budget.element(&key)?;
            keyed.push((key, element.clone()));
        }
        super::functions::sort(keyed, self.budget)
    }

    fn body(&mut self, macro_node: &Comprehension, element: &Value, at: usize) -> Evaluated {
        self.locals[at] = element.clone();
        match &macro_node.body {
            Some(body) => self.node(body),
            None => Ok(element.clone()),
        }
    }
}

fn member(operand: &Value, name: &str) -> Evaluated {
    match operand.members() {
        Some(members) => {
            members.get_text(name).cloned().ok_or_else(|| missing("a member of a map"))
        }
        None => Err(EvalError::wrong_type(format!("a {} has no members", operand.type_name()))),
    }
}

fn boolean(value: &Value) -> Result<bool, EvalError> {
    value.as_bool().ok_or_else(|| {
        EvalError::wrong_type(format!("a condition is a {}, not a bool", value.type_name()))
    })
}

fn missing(what: &'static str) -> EvalError {
    EvalError::missing(format!("{what} does not exist"))
}

fn no_value(variable: Variable) -> String {
    format!("{} has no value", variable.name())
}
