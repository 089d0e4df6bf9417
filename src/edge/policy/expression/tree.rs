//! The compiled form of an expression. Nothing in it is looked up by name again.

use std::sync::Arc;

use super::call::FunctionSpec;
use super::pattern::Pattern;
use super::value::Value;
use super::variables::{Variable, VariableSpec};
use super::zone::Zone;
use crate::cidr::Cidr;

/// A node.
pub(super) enum Node {
    Constant(Value),
    /// Variable of a macro, by its position on the stack.
    Local(usize),
    Variable(Variable),
    /// Entry of a variable that is a map, under a fixed key.
    Entry(Variable, Arc<str>),
    /// Entry under a key that is evaluated.
    EntryOf(Variable, Box<Node>),
    /// A text with the members that are further variables.
    Object(Variable, Box<[(Arc<str>, &'static VariableSpec)]>),
    Member(Box<Node>, Arc<str>),
    Index(Box<[Node; 2]>),
    /// `has()` of a variable, an entry, a member or an index: whether the node has a value.
    Has(Box<Node>),
    /// `has()` of a part of the names of variables: whether one of them has a value.
    HasAny(Box<[Variable]>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Conditional(Box<[Node; 3]>),
    Binary(BinaryOperator, Box<[Node; 2]>),
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    Call(&'static FunctionSpec, Box<[Node]>),
    /// A call for a time in the time zone that its second argument names.
    InZone(&'static FunctionSpec, Box<[Node]>, Arc<Zone>),
    Matches(Box<Node>, Box<Pattern>),
    InNetworks(Box<Node>, Box<[Cidr]>),
    Comprehension(Box<Comprehension>),
}

/// An operator with two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BinaryOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

/// A macro over the elements of a list or the keys of a map.
pub(super) struct Comprehension {
    pub(super) kind: ComprehensionKind,
    pub(super) range: Node,
    /// Elements without it are left out.
    pub(super) filter: Option<Node>,
    /// Evaluated for each element; absent in `filter`, which keeps the element.
    pub(super) body: Option<Node>,
}

/// Which macro it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ComprehensionKind {
    All,
    Exists,
    ExistsOne,
    Map,
    SortBy,
}
