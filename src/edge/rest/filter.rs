//! Filters of lists: the part of CEL (Common Expression Language) that ngrok documents for
//! them. An expression over `obj`, with `! && || == != < <= > >= in`, parentheses, lists,
//! texts, numbers, `size(…)` and `timestamp(…)`. Values are compared in memory: no text of a
//! filter reaches the store.

use std::borrow::Cow;

use serde_json::Value;

use super::error::ApiError;
use crate::edge::accounts::wall_clock;

/// Deepest nesting.
const MAX_DEPTH: usize = 32;

/// A parsed filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Expr);

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Literal(Value),
    /// Seconds since 1970.
    Moment(i64),
    /// Names after `obj.`.
    Field(Vec<String>),
    List(Vec<Expr>),
    Not(Box<Expr>),
    /// Lists, not pairs: a chain of thousands would be as deep as it is long.
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Compare(Comparison, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Box<Expr>),
    Size(Box<Expr>),
    Timestamp(Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value. Those of objects and literals are not copied: a list of thousands of objects is
/// filtered for one request.
#[derive(Clone, Debug, PartialEq)]
enum Operand<'a> {
    Json(Cow<'a, Value>),
    /// Seconds since 1970.
    Time(i64),
}

/// What an absent reference has in place of a field.
static NULL: Value = Value::Null;

impl Filter {
    /// Parses an expression.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let tokens = tokens(text)?;
        let mut parser = FilterParser { tokens, at: 0, depth: 0 };
        let expr = parser.or()?;
        match parser.peek() {
            None => Ok(Filter(expr)),
            Some(token) => Err(bad(format!("unexpected {token:?}"))),
        }
    }

    /// Returns whether an object matches.
    pub fn matches(&self, object: &Value) -> Result<bool, ApiError> {
        truth(&eval(&self.0, object)?)
    }
}

fn bad(reason: impl std::fmt::Display) -> ApiError {
    ApiError::new(400, 250, format!("The filter is not valid: {reason}."))
}

#[derive(Clone, Debug, PartialEq)]
enum FilterToken {
    Name(String),
    Text(String),
    Number(f64),
    Mark(&'static str),
}

/// Operators and brackets, the longer ones first.
const MARKS: [&str; 15] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", "."];

fn tokens(text: &str) -> Result<Vec<FilterToken>, ApiError> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let used = if first == '"' || first == '\'' {
            let (value, used) = quoted(rest, first)?;
            out.push(FilterToken::Text(value));
            used
        } else if first.is_ascii_digit() || first == '-' {
            let len = rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.');
            let used = len.map_or(rest.len(), |n| n + 1);
            // Hundreds of digits are infinite, which JSON does not have.
            let number: Option<f64> = rest[..used].parse().ok().filter(|n: &f64| n.is_finite());
            out.push(FilterToken::Number(
                number.ok_or_else(|| bad(format!("'{:.40}' is not a number", &rest[..used])))?,
            ));
            used
        } else if first.is_ascii_alphabetic() || first == '_' {
            let used = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let used = used.unwrap_or(rest.len());
            out.push(FilterToken::Name(rest[..used].to_owned()));
            used
        } else {
            let mark = MARKS.iter().find(|mark| rest.starts_with(**mark));
            let mark = mark.ok_or_else(|| bad(format!("unexpected character '{first}'")))?;
            out.push(FilterToken::Mark(mark));
            mark.len()
        };
        rest = rest[used..].trim_start();
    }
    Ok(out)
}

/// Returns the text in quotes at the begin of `rest`, and its length there.
fn quoted(rest: &str, quote: char) -> Result<(String, usize), ApiError> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((value, at + c.len_utf8())),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, c)) if matches!(c, '\\' | '"' | '\'') => value.push(c),
                _ => return Err(bad("unknown escape in a text")),
            },
            c => value.push(c),
        }
    }
    Err(bad("a text has no end"))
}

struct FilterParser {
    tokens: Vec<FilterToken>,
    at: usize,
    depth: usize,
}

impl FilterParser {
    fn peek(&self) -> Option<&FilterToken> {
        self.tokens.get(self.at)
    }

    fn accept(&mut self, mark: &str) -> bool {
        let found = matches!(self.peek(), Some(FilterToken::Mark(m)) if *m == mark);
        self.at += usize::from(found);
        found
    }

    fn require(&mut self, mark: &str) -> Result<(), ApiError> {
        if self.accept(mark) { Ok(()) } else { Err(bad(format!("'{mark}' is missing"))) }
    }

    fn or(&mut self) -> Result<Expr, ApiError> {
        let first = self.and()?;
        let mut more = Vec::new();
        while self.accept("||") {
            more.push(self.and()?);
        }
        Ok(chain(first, more, Expr::Any))
    }

    fn and(&mut self) -> Result<Expr, ApiError> {
        let first = self.comparison()?;
        let mut more = Vec::new();
        while self.accept("&&") {
            more.push(self.comparison()?);
        }
        Ok(chain(first, more, Expr::All))
    }

    fn comparison(&mut self) -> Result<Expr, ApiError> {
        let left = self.unary()?;
        let known = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (mark, comparison) in known {
            if self.accept(mark) {
                return Ok(Expr::Compare(comparison, Box::new(left), Box::new(self.unary()?)));
            }
        }
        if matches!(self.peek(), Some(FilterToken::Name(name)) if name == "in") {
            self.at += 1;
            return Ok(Expr::In(Box::new(left), Box::new(self.unary()?)));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, ApiError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(bad("it is nested too deeply"));
        }
        let expr = match self.accept("!") {
            true => Expr::Not(Box::new(self.unary()?)),
            false => self.primary()?,
        };
        self.depth -= 1;
        Ok(expr)
    }

    fn primary(&mut self) -> Result<Expr, ApiError> {
        if self.accept("(") {
            let inner = self.or()?;
            self.require(")")?;
            return Ok(inner);
        }
        if self.accept("[") {
            return self.list();
        }
        let token = self.peek().cloned();
        self.at += 1;
        match token {
            Some(FilterToken::Text(text)) => Ok(Expr::Literal(text.into())),
            Some(FilterToken::Number(number)) => Ok(Expr::Literal(number.into())),
            Some(FilterToken::Name(name)) => self.named(&name),
            Some(FilterToken::Mark(mark)) => Err(bad(format!("unexpected '{mark}'"))),
            None => Err(bad("it ends early")),
        }
    }

    fn list(&mut self) -> Result<Expr, ApiError> {
        let mut members = Vec::new();
        while !self.accept("]") {
            if !members.is_empty() {
                self.require(",")?;
            }
            members.push(self.or()?);
        }
        Ok(Expr::List(members))
    }

    fn named(&mut self, name: &str) -> Result<Expr, ApiError> {
        match name {
            "true" | "false" => Ok(Expr::Literal((name == "true").into())),
            "null" => Ok(Expr::Literal(Value::Null)),
            "obj" => {
                let path = self.path()?;
                if path.is_empty() {
                    return Err(bad("'obj' needs a field, such as obj.id"));
                }
                Ok(Expr::Field(path))
            }
            "size" => Ok(Expr::Size(Box::new(self.argument()?))),
            "timestamp" => self.timestamp(),
            "time" => match self.path()?.as_slice() {
                [now] if now == "now" => Ok(Expr::Moment(now_seconds())),
                _ => Err(bad("'time' has the field 'now' only")),
            },
            other => Err(bad(format!("'{other}' is unknown; fields begin with 'obj.'"))),
        }
    }

    fn argument(&mut self) -> Result<Expr, ApiError> {
        self.require("(")?;
        let inner = self.or()?;
        self.require(")")?;
        Ok(inner)
    }

    /// Parses the names after dots.
    fn path(&mut self) -> Result<Vec<String>, ApiError> {
        let mut names = Vec::new();
        while self.accept(".") {
            match self.tokens.get(self.at).cloned() {
                Some(FilterToken::Name(name)) => names.push(name),
                _ => return Err(bad("a name is missing after '.'")),
            }
            self.at += 1;
        }
        Ok(names)
    }

    /// Parses `(X)`, `(X).add("7d")` or `(X).subtract("7d")`.
    fn timestamp(&mut self) -> Result<Expr, ApiError> {
        let mut shift = 0;
        let inner = self.argument()?;
        while self.accept(".") {
            let Some(FilterToken::Name(name)) = self.peek().cloned() else {
                return Err(bad("a name is missing after '.'"));
            };
            self.at += 1;
            let sign = match name.as_str() {
                "add" => 1,
                "subtract" => -1,
                other => return Err(bad(format!("'{other}' is unknown; use add or subtract"))),
            };
            let Expr::Literal(Value::String(text)) = self.argument()? else {
                return Err(bad("add and subtract need a duration such as \"7d\""));
            };
            let seconds = duration(&text).ok_or_else(|| {
                bad(format!("'{text}' is not a duration; write a number and s, m, h, d or w"))
            })?;
            shift += sign * seconds;
        }
        // A shift is computed here, so it needs a constant time stamp.
        match (inner, shift) {
            (inner, 0) => Ok(Expr::Timestamp(Box::new(inner))),
            (Expr::Literal(literal), shift) => {
                let literal = Operand::Json(Cow::Borrowed(&literal));
                let seconds = seconds_of(&literal).ok_or_else(|| bad("not a time stamp"))?;
                Ok(Expr::Moment(seconds.saturating_add(shift)))
            }
            (Expr::Moment(seconds), shift) => Ok(Expr::Moment(seconds.saturating_add(shift))),
            _ => Err(bad("add and subtract need a constant time stamp")),
        }
    }
}

/// Joins the members of a chain of one operator. A single member stays as it is.
fn chain(first: Expr, mut more: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    if more.is_empty() {
        return first;
    }
    more.insert(0, first);
    join(more)
}

fn now_seconds() -> i64 {
    i64::try_from(wall_clock().as_secs()).unwrap_or(i64::MAX)
}

/// Returns the seconds of `90s`, `5m`, `2h`, `7d` or `1w`.
fn duration(text: &str) -> Option<i64> {
    let at = text.len().checked_sub(1)?;
    let unit = match text.get(at..)? {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    text[..at].parse::<i64>().ok().filter(|n| (0..1_000_000).contains(n))?.checked_mul(unit)
}

fn eval<'a>(expr: &'a Expr, object: &'a Value) -> Result<Operand<'a>, ApiError> {
    let flag = |value: bool| Ok(Operand::Json(Cow::Owned(value.into())));
    match expr {
        Expr::Literal(value) => Ok(Operand::Json(Cow::Borrowed(value))),
        Expr::Moment(seconds) => Ok(Operand::Time(*seconds)),
        Expr::Field(path) => Ok(Operand::Json(Cow::Borrowed(field(path, object)?))),
        Expr::List(members) => {
            let values = members.iter().map(|m| match eval(m, object)? {
                Operand::Json(value) => Ok(value.into_owned()),
                Operand::Time(_) => Err(bad("a list cannot have time stamps")),
            });
            Ok(Operand::Json(Cow::Owned(Value::Array(values.collect::<Result<_, _>>()?))))
        }
        Expr::Not(inner) => flag(!truth(&eval(inner, object)?)?),
        Expr::All(members) => flag(!has(members, object, false)?),
        Expr::Any(members) => flag(has(members, object, true)?),
        Expr::Compare(comparison, a, b) => {
            flag(compare(*comparison, &eval(a, object)?, &eval(b, object)?)?)
        }
        Expr::In(member, list) => {
            let (member, list) = (eval(member, object)?, eval(list, object)?);
            let Operand::Json(list) = list else { return Err(bad("'in' needs a list")) };
            match (&*list, &member) {
                (Value::Array(list), member) => {
                    let same = |v: &Value| equal(member, &Operand::Json(Cow::Borrowed(v)));
                    flag(list.iter().any(same))
                }
                (Value::Object(map), Operand::Json(key)) if key.is_string() => {
                    flag(key.as_str().is_some_and(|key| map.contains_key(key)))
                }
                (Value::Object(_), _) => Err(bad("'in' of a map needs a text")),
                _ => Err(bad("'in' needs a list")),
            }
        }
        Expr::Size(inner) => {
            let value = eval(inner, object)?;
            let size = match json(&value) {
                Some(Value::String(text)) => text.chars().count(),
                Some(Value::Array(list)) => list.len(),
                Some(Value::Object(map)) => map.len(),
                Some(Value::Null) => 0,
                _ => return Err(bad("size() needs a text or a list")),
            };
            Ok(Operand::Json(Cow::Owned(size.into())))
        }
        Expr::Timestamp(inner) => {
            let value = eval(inner, object)?;
            let seconds = seconds_of(&value).ok_or_else(|| bad("not a time stamp"))?;
            Ok(Operand::Time(seconds))
        }
    }
}

/// Returns whether one of the members has this result. Those behind it are not evaluated.
fn has(members: &[Expr], object: &Value, result: bool) -> Result<bool, ApiError> {
    for member in members {
        if truth(&eval(member, object)?)? == result {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns a field of an object. A missing field inside of an absent reference is null; a name
/// that objects do not have is an error.
fn field<'a>(path: &[String], object: &'a Value) -> Result<&'a Value, ApiError> {
    let mut value = object;
    for (depth, name) in path.iter().enumerate() {
        match value {
            Value::Null => return Ok(&NULL),
            Value::Object(map) => match map.get(name) {
                Some(found) => value = found,
                None if depth > 0 => return Ok(&NULL),
                None => return Err(bad(format!("these objects have no field '{name}'"))),
            },
            _ => return Err(bad(format!("'{name}' is not a field of a value"))),
        }
    }
    Ok(value)
}

/// Returns the value, if it is not a time.
fn json<'a>(value: &'a Operand<'_>) -> Option<&'a Value> {
    match value {
        Operand::Json(value) => Some(value),
        Operand::Time(_) => None,
    }
}

fn truth(value: &Operand<'_>) -> Result<bool, ApiError> {
    match json(value) {
        Some(Value::Bool(value)) => Ok(*value),
        _ => Err(bad("its result is not true or false")),
    }
}

/// Returns the seconds of a time stamp, or of a text in the form of RFC 3339.
fn seconds_of(value: &Operand<'_>) -> Option<i64> {
    match value {
        Operand::Time(seconds) => Some(*seconds),
        Operand::Json(value) => crate::time::parse_rfc3339(value.as_str()?),
    }
}

fn equal(a: &Operand<'_>, b: &Operand<'_>) -> bool {
    match (json(a), json(b)) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
        (Some(a), Some(b)) => a == b,
        _ => seconds_of(a).is_some() && seconds_of(a) == seconds_of(b),
    }
}

fn compare(comparison: Comparison, a: &Operand<'_>, b: &Operand<'_>) -> Result<bool, ApiError> {
    match comparison {
        Comparison::Equal => return Ok(equal(a, b)),
        Comparison::NotEqual => return Ok(!equal(a, b)),
        _ => {}
    }
    let order = match (json(a), json(b)) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64().partial_cmp(&b.as_f64()),
        (Some(Value::String(a)), Some(Value::String(b))) => Some(a.cmp(b)),
        _ => match (seconds_of(a), seconds_of(b)) {
            (Some(a), Some(b)) => Some(a.cmp(&b)),
            _ => None,
        },
    };
    let order = order.ok_or_else(|| bad("values of different types are compared"))?;
    Ok(match comparison {
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        _ => order.is_ge(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({
            "id": "cr_1", "description": "it's", "acl": ["bind:a", "bind:b"], "port": 8080,
            "enforced": true, "created_at": "2026-01-02T03:04:05Z", "domain": null,
            "credential": {"id": "cr_9", "uri": "u"},
        })
    }

    fn matches(text: &str) -> Result<bool, ApiError> {
        Filter::parse(text)?.matches(&object())
    }

    #[test]
    fn expressions_of_the_documented_subset() {
        for (text, expected) in [
            ("obj.id == 'cr_1'", true),
            ("obj.id == \"cr_1\" && obj.port > 80", true),
            ("!(obj.enforced) || obj.port <= 80.5", false),
            ("obj.enforced", true),
            ("'bind:a' in obj.acl", true),
            ("obj.id in ['x', 'cr_1']", true),
            ("obj.id in []", false),
            ("size(obj.acl) == 2 && size(obj.description) == 4", true),
            ("obj.description == 'it\\'s'", true),
            ("obj.credential.id == 'cr_9'", true),
            ("obj.domain.id == 'rd_1'", false),
            ("obj.domain == null", true),
            ("obj.created_at > timestamp('2026-01-01T00:00:00Z')", true),
            ("timestamp(obj.created_at) < timestamp(time.now).subtract(\"7d\")", true),
            ("timestamp('2026-01-02T03:04:05Z').add('1h') > obj.created_at", true),
            ("obj.created_at == timestamp('2026-01-02T03:04:05+00:00')", true),
            ("obj.port != -1", true),
            ("true || obj.id == 'x' && false", true),
            ("false && obj.nope == 1 || true", true),
        ] {
            assert_eq!(matches(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_code_250() {
        let deep = format!("{}true{}", "(".repeat(10_000), ")".repeat(10_000));
        let not = format!("{}true", "!".repeat(10_000));
        let digits = format!("obj.port < {}", "9".repeat(400));
        for text in [
            "",
            "obj",
            "obj.",
            "obj.id",
            "obj.id ==",
            "obj.id = 'a'",
            "id == 'a'",
            "obj.nope == 1",
            "obj.id == 'a",
            "obj.id + 'a' == 'b'",
            "obj.acl[0] == 'a'",
            "obj.id == 'a' ? true : false",
            "obj.id.matches('a')",
            "obj.port > 'a'",
            "size(5) == 1",
            "timestamp('x') == time.now",
            "obj.id == 'a'; DROP TABLE objects",
            "1",
            "5 in 5",
            "obj.id == '\\x'",
            "time.then",
            "timestamp(time.now).add('7y') == time.now",
            "--1 == 1",
            &deep,
            &not,
            &digits,
        ] {
            assert_eq!(matches(text).map_err(|e| e.code), Err(250), "{text:.40}");
        }
    }

    #[test]
    fn long_chains_are_not_deep() {
        for (member, mark, expected) in [("false", "||", false), ("true", "&&", true)] {
            let text = vec![member; 50_000].join(mark);
            assert_eq!(matches(&text), Ok(expected));
        }
    }
}
