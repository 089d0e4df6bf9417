//! Generated expressions, evaluated here and by the evaluator of `cel`.

use std::sync::Arc;

use cel::objects::Key;

use super::*;

/// Expressions of one run. Each seed is one expression.
const EXPRESSIONS: u64 = 4_000;

/// Type of a generated expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    List,
    Map,
}

const KINDS: [Kind; 8] = [
    Kind::Bool,
    Kind::Int,
    Kind::Uint,
    Kind::Double,
    Kind::Text,
    Kind::Bytes,
    Kind::List,
    Kind::Map,
];

/// Writes expressions. One seed gives the same expression on every machine.
struct Generator {
    state: u64,
    /// Variables of the macros around the current place.
    locals: Vec<String>,
}

impl Generator {
    fn next(&mut self) -> u64 {
        // splitmix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<'t>(&mut self, choices: &[&'t str]) -> &'t str {
        let n = self.next() % choices.len() as u64;
        choices[n as usize]
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    /// Returns an expression that is mostly of a type.
    fn expression(&mut self, kind: Kind, depth: usize) -> String {
        let kind = match self.one_in(25) {
            true => KINDS[(self.next() % 8) as usize],
            false => kind,
        };
        if depth == 0 || self.one_in(4) {
            return self.literal(kind);
        }
        if !self.locals.is_empty() && self.one_in(4) {
            let n = self.next() % self.locals.len() as u64;
            return self.locals[n as usize].clone();
        }
        let below = depth - 1;
        if self.one_in(8) {
            let condition = self.expression(Kind::Bool, below);
            let (yes, no) = (self.expression(kind, below), self.expression(kind, below));
            return format!("({condition} ? {yes} : {no})");
        }
        match kind {
            Kind::Bool => self.boolean(below),
            Kind::Int => match self.next() % 4 {
                0 => format!("size({})", self.sized(below)),
                1 => format!("int({})", self.scalar(below)),
                _ => self.sum(kind, &["+", "-", "*", "/", "%"], below),
            },
            Kind::Uint => match self.one_in(4) {
                true => format!("uint({})", self.scalar(below)),
                false => self.sum(kind, &["+", "-", "*", "/", "%"], below),
            },
            Kind::Double => match self.one_in(4) {
                true => format!("double({})", self.scalar(below)),
                // `cel` has an error for comparisons with NaN, which are false in the language.
                false => self.sum(kind, &["+", "-", "*"], below),
            },
            Kind::Text => match self.one_in(4) {
                true => format!("string({})", self.expression(Kind::Int, below)),
                false => self.sum(kind, &["+"], below),
            },
            Kind::Bytes => format!("bytes({})", self.expression(Kind::Text, below)),
            Kind::List => self.list(below),
            Kind::Map => self.literal(kind),
        }
    }

    fn literal(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Bool => self.pick(&["true", "false"]).into(),
            Kind::Int => {
                self.pick(&["0", "1", "-1", "2", "7", "9223372036854775807", "-100"]).into()
            }
            Kind::Uint => self.pick(&["0u", "1u", "2u", "18446744073709551615u"]).into(),
            Kind::Double => self.pick(&["0.0", "1.0", "-1.5", "2.5", "1e9"]).into(),
            Kind::Text => self.pick(&["''", "'a'", "'b'", "'ab'", "'\u{e9}'", "'1'"]).into(),
            Kind::Bytes => self.pick(&["b''", "b'a'", "b'ab'"]).into(),
            Kind::List => self
                .pick(&["[]", "[1]", "[1, 2, 3]", "['a', 'b']", "[[1], []]", "[1u, 1, 1.0]"])
                .into(),
            Kind::Map => {
                self.pick(&["{}", "{'a': 1}", "{'a': 1, 'b': 2}", "{1: 'x', 2: 'y'}"]).into()
            }
        }
    }

    fn sum(&mut self, kind: Kind, operators: &[&str], depth: usize) -> String {
        let operator = self.pick(operators);
        let (a, b) = (self.expression(kind, depth), self.expression(kind, depth));
        format!("({a} {operator} {b})")
    }

    fn any(&mut self, depth: usize) -> String {
        let kind = KINDS[(self.next() % 8) as usize];
        self.expression(kind, depth)
    }

    fn sized(&mut self, depth: usize) -> String {
        let kind = [Kind::Text, Kind::Bytes, Kind::List, Kind::Map][(self.next() % 4) as usize];
        self.expression(kind, depth)
    }

    fn scalar(&mut self, depth: usize) -> String {
        let kind = [Kind::Int, Kind::Uint, Kind::Double, Kind::Text][(self.next() % 4) as usize];
        self.expression(kind, depth)
    }

    fn boolean(&mut self, depth: usize) -> String {
        match self.next() % 9 {
            0 => format!("!({})", self.expression(Kind::Bool, depth)),
            1 | 2 => self.sum(Kind::Bool, &["&&", "||"], depth),
            3 => {
                let kind = KINDS[(self.next() % 6) as usize];
                self.sum(kind, &["<", "<=", ">", ">="], depth)
            }
            4 => {
                let (a, b) = (self.any(depth), self.any(depth));
                format!("({a} {} {b})", self.pick(&["==", "!="]))
            }
            5 => {
                let range = [Kind::List, Kind::Map][(self.next() % 2) as usize];
                format!("({} in {})", self.any(depth), self.expression(range, depth))
            }
            6 => {
                let function = self.pick(&["contains", "startsWith", "endsWith"]);
                let (a, b) =
                    (self.expression(Kind::Text, depth), self.expression(Kind::Text, depth));
                format!("({a}).{function}({b})")
            }
            7 => format!("has({}.a)", self.expression(Kind::Map, 0)),
            _ => {
                let name = self.pick(&["all", "exists", "exists_one"]);
                self.over_list(name, Kind::Bool, depth)
            }
        }
    }

    fn list(&mut self, depth: usize) -> String {
        match self.next() % 4 {
            0 => self.sum(Kind::List, &["+"], depth),
            1 => format!("[{}, {}]", self.any(depth), self.any(depth)),
            2 => self.over_list("filter", Kind::Bool, depth),
            _ => {
                let kind = KINDS[(self.next() % 8) as usize];
                self.over_list("map", kind, depth)
            }
        }
    }

    fn over_list(&mut self, function: &str, body: Kind, depth: usize) -> String {
        if self.locals.len() >= 2 {
            return self.literal(body);
        }
        let range = self.expression(Kind::List, depth.min(1));
        let name = format!("v{}", self.locals.len());
        self.locals.push(name.clone());
        let body = self.expression(body, depth);
        self.locals.pop();
        format!("({range}).{function}({name}, {body})")
    }
}

/// Returns a value of `cel` as one of ours.
fn converted(value: &cel::Value) -> Option<Value> {
    Some(match value {
        cel::Value::Null => Value::Null,
        cel::Value::Bool(value) => Value::Bool(*value),
        cel::Value::Int(n) => Value::Int(*n),
        cel::Value::UInt(n) => Value::Uint(*n),
        cel::Value::Float(n) => Value::Double(*n),
        cel::Value::String(text) => Value::text(text.as_str()),
        cel::Value::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
        cel::Value::List(list) => {
            Value::List(list.iter().map(converted).collect::<Option<Vec<_>>>()?.into())
        }
        cel::Value::Map(map) => {
            let entries = map.map.iter().map(|(key, value)| {
                let key = match key {
                    Key::Bool(value) => Value::Bool(*value),
                    Key::Int(n) => Value::Int(*n),
                    Key::Uint(n) => Value::Uint(*n),
                    Key::String(text) => Value::text(text.as_str()),
                };
                Some((key, converted(value)?))
            });
            Value::Map(Arc::new(ValueMap::new(entries.collect::<Option<Vec<_>>>()?)))
        }
        _ => return None,
    })
}

/// Returns what `cel` evaluates an expression to; `None` for an error.
fn theirs(source: &str) -> Option<Value> {
    let program = cel::Program::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    let value = program.execute(&cel::Context::default()).ok()?;
    Some(converted(&value).unwrap_or_else(|| panic!("{source}: {value:?}")))
}

/// Returns a text that two values share only if they have the same types and contents.
fn exact(value: &Value) -> String {
    format!("{value:?}")
}

#[test]
fn values_are_those_of_another_evaluator() {
    let mut with_value = 0;
    let mut differences = Vec::new();
    for seed in 0..EXPRESSIONS {
        let mut generator = Generator { state: seed, locals: Vec::new() };
        let kind = KINDS[(seed % 8) as usize];
        let source = generator.expression(kind, 4);
        if source.len() > 1000 {
            continue;
        }
        let Ok(expression) = Expression::compile(&source, Q) else {
            // Constant maps and lists are checked when they are compiled.
            continue;
        };
        let ours = expression.value(&TestRequest, &mut EvalBudget::new());
        let theirs = theirs(&source);
        with_value += u64::from(theirs.is_some());
        if ours.as_ref().ok().map(exact) != theirs.as_ref().map(exact) {
            differences.push(format!("{source}\n  ours {ours:?}\n  theirs {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{}:\n{}", differences.len(), differences.join("\n"));
    assert!(with_value > EXPRESSIONS / 3, "only {with_value} of {EXPRESSIONS} had a value");
}
