//! Functions of texts. Positions are those of characters.

use super::super::call::{Call, FunctionSpec};
use super::super::error::EvalError;
use super::super::value::Value;
use super::{either, global, member};
use crate::http1::text::char_boundary;

type Evaluated = Result<Value, EvalError>;

/// Most digits after the point in `format`.
const MAX_PRECISION: usize = 30;

pub(super) static FUNCTIONS: &[FunctionSpec] = &[
    member("contains", (2, 2), |call| pair(call, |text, part| text.contains(part))),
    member("startsWith", (2, 2), |call| pair(call, |text, part| text.starts_with(part))),
    member("endsWith", (2, 2), |call| pair(call, |text, part| text.ends_with(part))),
    either("size", (1, 1), size),
    member("lower", (1, 1), |call| changed(call, str::to_lowercase)),
    member("upper", (1, 1), |call| changed(call, str::to_uppercase)),
    member("lowerAscii", (1, 1), |call| changed(call, str::to_ascii_lowercase)),
    member("upperAscii", (1, 1), |call| changed(call, str::to_ascii_uppercase)),
    member("trim", (1, 1), |call| changed(call, |text| text.trim().to_owned())),
    member("reverse", (1, 1), |call| changed(call, |text| text.chars().rev().collect())),
    member("split", (1, 3), split),
    member("replace", (3, 4), replace),
    member("substring", (2, 3), substring),
    member("charAt", (2, 2), char_at),
    member("indexOf", (2, 3), index_of),
    member("lastIndexOf", (2, 3), last_index_of),
    member("format", (2, 2), format),
    global("strings.quote", (1, 1), quote),
];

fn pair(call: &mut Call<'_>, holds: fn(&str, &str) -> bool) -> Evaluated {
    let (text, part) = (call.text(0)?, call.text(1)?);
    Ok(Value::Bool(holds(text, part)))
}

fn changed(call: &mut Call<'_>, change: fn(&str) -> String) -> Evaluated {
    let text = call.text(0)?;
    // Before the memory is allocated. A letter in another case can be longer.
    call.budget.fits(text.len())?;
    call.new_text(change(text))
}

/// Returns the characters of a text, the bytes of bytes, or the elements of a list or a map.
fn size(call: &mut Call<'_>) -> Evaluated {
    let size = match call.value(0) {
        Value::Text(_) | Value::Object(_) => call.text(0)?.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return Err(call.wrong(0, "string, list or map")),
    };
    integer(size)
}

/// Splits by a separator, a blank if it is absent. A third argument is the most parts; further
/// parts are dropped.
fn split(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    let separator = if call.has(1) { call.text(1)? } else { " " };
    let most = if call.has(2) { call.int(2)? } else { -1 };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    if separator.is_empty() {
        let chars = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
        return call.new_texts(chars.take(most));
    }
    call.new_texts(text.split(separator).take(most))
}

/// Replaces all occurrences, or the first ones.
fn replace(call: &mut Call<'_>) -> Evaluated {
    let (text, from, to) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let most = if call.has(3) { call.int(3)? } else { -1 };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let found = text.matches(from).take(most).count();
    // Before the memory is allocated.
    call.budget.create(text.len().saturating_add(found.saturating_mul(to.len())))?;
    Ok(Value::from(text.replacen(from, to, most)))
}

fn substring(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    let from = call.position(1)?;
    let to = if call.has(2) { call.position(2)? } else { text.chars().count() };
    let outside = || EvalError::argument("a position is outside of the text");
    if to < from {
        return Err(outside());
    }
    let start = byte_of(text, from).ok_or_else(outside)?;
    let end = byte_of(text, to).ok_or_else(outside)?;
    call.new_text(&text[start..end])
}

fn char_at(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    let at = byte_of(text, call.position(1)?);
    let rest = at.map(|at| &text[at..]);
    let rest = rest.ok_or_else(|| EvalError::argument("a position is outside of the text"))?;
    let len = rest.chars().next().map_or(0, char::len_utf8);
    call.new_text(&rest[..len])
}

fn index_of(call: &mut Call<'_>) -> Evaluated {
    let (text, part) = (call.text(0)?, call.text(1)?);
    let from = if call.has(2) { call.position(2)? } else { 0 };
    let Some(start) = byte_of(text, from) else {
        return Err(EvalError::argument("a position is outside of the text"));
    };
    match text[start..].find(part) {
        Some(at) => integer(from + text[start..start + at].chars().count()),
        None => Ok(Value::Int(-1)),
    }
}

fn last_index_of(call: &mut Call<'_>) -> Evaluated {
    let (text, part) = (call.text(0)?, call.text(1)?);
    let start = match call.has(2) {
        true => byte_of(text, call.position(2)?),
        false => Some(text.len()),
    };
    let Some(start) = start else {
        return Err(EvalError::argument("a position is outside of the text"));
    };
    // An occurrence may begin at the position and end after it.
    let end = char_boundary(text, start.saturating_add(part.len()));
    match text[..end].rfind(part) {
        Some(at) => integer(text[..at].chars().count()),
        None => Ok(Value::Int(-1)),
    }
}

/// Returns the byte of a character. The number of characters is the position of the end.
fn byte_of(text: &str, position: usize) -> Option<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(position)
}

fn quote(call: &mut Call<'_>) -> Evaluated {
    let text = call.text(0)?;
    call.budget.fits(text.len())?;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\\' | '"' => quoted.extend(['\\', c]),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    call.new_text(quoted)
}

/// Replaces `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X` and `%o` by the elements of a list.
fn format(call: &mut Call<'_>) -> Evaluated {
    let pattern = call.text(0)?;
    let mut values = call.list(1)?.iter();
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let mut precision = 6;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let given = after[..digits].parse().ok().filter(|n| *n <= MAX_PRECISION);
            precision = given.ok_or_else(|| EvalError::argument("a precision is not valid"))?;
            rest = &after[digits..];
        }
        let clause = rest.chars().next();
        let value = values.next().ok_or_else(|| EvalError::argument("too few values"))?;
        let formatted = formatted(value, clause, precision)?;
        call.budget.create(formatted.len())?;
        text.push_str(&formatted);
        rest = &rest[clause.map_or(0, char::len_utf8)..];
    }
    text.push_str(rest);
    call.new_text(text)
}

fn formatted(value: &Value, clause: Option<char>, precision: usize) -> Result<String, EvalError> {
    let number = match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::Uint(n) => Some(i128::from(*n)),
        Value::Bool(value) if clause == Some('b') => Some(i128::from(*value)),
        _ => None,
    };
    let signed = |digits: String| match number {
        Some(n) if n < 0 => format!("-{digits}"),
        _ => digits,
    };
    let size = number.map(i128::unsigned_abs);
    Ok(match (clause, value, size) {
        (Some('s'), ..) => value.display()?.into_owned(),
        (Some('d'), _, Some(n)) => signed(n.to_string()),
        (Some('b'), _, Some(n)) => signed(format!("{n:b}")),
        (Some('o'), _, Some(n)) => signed(format!("{n:o}")),
        (Some('x'), _, Some(n)) => signed(format!("{n:x}")),
        (Some('X'), _, Some(n)) => signed(format!("{n:X}")),
        (Some('x' | 'X'), Value::Text(text), _) => hex(text.as_bytes(), clause),
        (Some('x' | 'X'), Value::Bytes(bytes), _) => hex(bytes, clause),
        (Some('f'), Value::Double(n), _) => format!("{n:.precision$}"),
        (Some('e'), Value::Double(n), _) => scientific(*n, precision),
        (Some('f'), Value::Int(n), _) => format!("{:.precision$}", *n as f64),
        _ => return Err(EvalError::argument("format: a clause does not fit its value")),
    })
}

fn hex(bytes: &[u8], clause: Option<char>) -> String {
    let digits = crate::proto::hex::hex(bytes);
    if clause == Some('X') { digits.to_ascii_uppercase() } else { digits }
}

/// Returns a number as `1.500000e+00`.
fn scientific(n: f64, precision: usize) -> String {
    let text = format!("{n:.precision$e}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

fn integer(n: usize) -> Evaluated {
    i64::try_from(n).map(Value::Int).map_err(|_| EvalError::argument("the number is too large"))
}
