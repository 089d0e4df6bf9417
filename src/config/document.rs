//! YAML document with the positions of its keys in the text.
//!
//! The parser returns values without positions. A fault is rare, so its position is determined
//! on demand: the same reader reads the document again and fails on purpose at the given path.
//! The parser's error contains the position.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Number, Value};

/// Approximate maximum memory of a document's values in bytes, with aliases expanded. A real
/// file needs some kilobytes.
const MAX_VALUES: usize = 2 << 20;

const TOO_MUCH: &str = "it is too large with its aliases expanded";

const LARGE_NUMBER: &str = "a number has more than 64 bits: put it in quotes";

/// Memory of a value in addition to its text.
const COST: usize = 64;

/// A parsed file.
#[derive(Debug)]
pub struct Document {
    /// Text without a byte order mark.
    pub text: String,
    /// Values, with merge keys applied.
    pub root: Value,
}

/// Position in a text, both from 1. The column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One step of a path into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathSegment {
    /// Key of a mapping.
    Key(String),
    /// Place in a list, from 0.
    Index(usize),
}

/// Part of an entry to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPart {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl Document {
    /// Parses `text`. The error is the cause and its position.
    pub fn parse(mut text: String) -> Result<Document, (String, Option<Position>)> {
        // A byte order mark: the parser would read it as a first, empty document.
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        let (_, parsed) = read(&text, None, EntryPart::Value);
        match parsed.and_then(|mut root| root.apply_merge().map(|()| root)) {
            Ok(root) => Ok(Document { text, root }),
            Err(error) => {
                let position = error.location().map(position_of);
                let why = tab(&text, &error).unwrap_or_else(|| without_position(&error));
                Err((format!("is not valid YAML: {why}"), position))
            }
        }
    }

    /// Returns the position of the key or value at `path`. `None` if it has none, as merged
    /// keys and an empty document.
    pub fn locate(&self, path: &[PathSegment], part: EntryPart) -> Option<Position> {
        let (found, read) = read(&self.text, Some(path), part);
        let error = read.err()?;
        found.then(|| error.location().map(position_of))?
    }
}

/// Reads `text` to its end. With `path` it stops at the end of the path with an error. Returns
/// whether the path was found, and the values or the error.
fn read(
    text: &str,
    path: Option<&[PathSegment]>,
    part: EntryPart,
) -> (bool, Result<Value, serde_yaml::Error>) {
    let (found, left) = (Cell::new(false), Cell::new(MAX_VALUES));
    let (found, left) = (&found, &left);
    let reader = ValueReader { path, part, is_key: false, before: None, found, left };
    let root = reader.deserialize(serde_yaml::Deserializer::from_str(text));
    (found.get(), root)
}

pub(super) fn position_of(location: serde_yaml::Location) -> Position {
    Position { line: location.line(), column: location.column() }
}

/// Returns a clearer cause if the parser stopped at a tab: its own message does not mention it,
/// and a tab is invisible.
pub fn tab(text: &str, error: &serde_yaml::Error) -> Option<String> {
    let Position { line, column } = position_of(error.location()?);
    let before = column.checked_sub(1)?;
    let row = text.split('\n').nth(line.checked_sub(1)?)?;
    if row.chars().nth(before)? != '\t' {
        return None;
    }
    Some(match row.chars().take(before).all(char::is_whitespace) {
        true => format!("line {line} is indented with a tab; use spaces"),
        false => format!("line {line} has a tab in column {column}; use spaces"),
    })
}

/// Returns the parser's message without its position, which our message begins with. It
/// contains no text of the document except a duplicate key.
pub(super) fn without_position(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    if text.contains(TOO_MUCH) {
        // Without the position.
        return TOO_MUCH.to_owned();
    }
    match text.rfind(" at line ") {
        Some(at) if !text[at..].contains('\n') => text[..at].to_owned(),
        _ => text,
    }
}

/// Builds the values of a document and fails at the end of its path. Limits their memory: a
/// few lines of aliases can expand to gigabytes.
#[derive(Clone, Copy)]
struct ValueReader<'a> {
    /// Rest of the path. `None` for values that are not on it.
    path: Option<&'a [PathSegment]>,
    part: EntryPart,
    /// Whether the key of the first step is read, not its value.
    is_key: bool,
    /// Entries before the key that is read.
    before: Option<&'a Mapping>,
    found: &'a Cell<bool>,
    /// Rest of [`MAX_VALUES`].
    left: &'a Cell<usize>,
}

impl<'a> ValueReader<'a> {
    /// Counts a value whose text has `length` bytes. Fails at the end of the path and if the
    /// limit is exceeded.
    fn value<E: serde::de::Error>(&self, value: Value, length: usize) -> Result<Value, E> {
        let end = match (self.is_key, self.path) {
            (true, Some([PathSegment::Key(key)])) => {
                self.part == EntryPart::Key && key_text(&value).as_ref() == Some(key)
            }
            (is_key, path) => !is_key && path == Some(&[]),
        };
        if end {
            self.found.set(true);
            return Err(E::custom("here"));
        }
        // Here, because the position of an error is that of the value that is read.
        if self.before.is_some_and(|before| before.contains_key(&value)) {
            let key = key_text(&value).unwrap_or_default();
            return Err(E::custom(format_args!("duplicate entry with key {key:?}")));
        }
        let left = self.left.get().checked_sub(COST + length);
        self.left.set(left.ok_or_else(|| E::custom(TOO_MUCH))?);
        Ok(value)
    }

    /// Counts a list or a mapping. Fails if it is a key.
    fn container<E: serde::de::Error>(&self) -> Result<(), E> {
        match self.is_key {
            true => Err(E::custom("invalid type: a list or mapping, expected text as a key")),
            false => self.value(Value::Null, 0).map(drop),
        }
    }

    /// Returns the reader of the value at `step`.
    fn below(self, step: Option<PathSegment>) -> Self {
        let path = match self.path {
            Some([first, rest @ ..]) if Some(first) == step.as_ref() => Some(rest),
            _ => None,
        };
        ValueReader { path, is_key: false, before: None, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for ValueReader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueReader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<Value, E> {
        self.value(flag.into(), 0)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        self.value(number.into(), 0)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        self.value(number.into(), 0)
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<Value, E> {
        Err(E::custom(LARGE_NUMBER))
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<Value, E> {
        Err(E::custom(LARGE_NUMBER))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        self.value(number.into(), 0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.value(text.into(), text.len())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.value(Value::Null, 0)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.value(Value::Null, 0)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Value, A::Error> {
        // A value with a tag.
        self.value(Value::Null, 0)?;
        let (tag, value) = data.variant::<String>()?;
        let value = value.newtype_variant_seed(ValueReader { path: None, ..self })?;
        Ok(Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value })))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.container()?;
        let mut mapping = Mapping::new();
        loop {
            let reader = ValueReader { is_key: true, before: Some(&mapping), ..self };
            let Some(key) = map.next_key_seed(reader)? else { break };
            let reader = self.below(key_text(&key).map(PathSegment::Key));
            mapping.insert(key, map.next_value_seed(reader)?);
        }
        Ok(Value::Mapping(mapping))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.container()?;
        let mut list = Vec::new();
        loop {
            let reader = self.below(Some(PathSegment::Index(list.len())));
            match seq.next_element_seed(reader)? {
                Some(value) => list.push(value),
                None => return Ok(Value::Sequence(list)),
            }
        }
    }
}

/// Returns the decimal digits of a whole number, `None` for a fraction. `Number::to_string`
/// handles fractions too, which adds 15 KB of tables to the program.
pub(super) fn digits(number: &Number) -> Option<String> {
    let negative = number.as_i64().map(|number| number.to_string());
    number.as_u64().map(|number| number.to_string()).or(negative)
}

/// Returns a key or a label's value: text, or a number or flag of YAML as text.
pub fn key_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => digits(number),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Returns a path for display: `endpoints[2].upstream.url`.
pub fn show(path: &[PathSegment]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            PathSegment::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            PathSegment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> PathSegment {
        PathSegment::Key(name.to_owned())
    }

    #[test]
    fn positions_of_keys_and_values() {
        let text = "# c\nversion: 3\nagent:\n    log: stdout # d\n    metadata:\nendpoints:\n  - \
                    {name: web, upstream: {url: 80}}\n  - name: ssh\n    upstream:\n      url: [1]\n";
        let document = Document::parse(text.to_owned()).expect("YAML");
        let position =
            |path: &[PathSegment], part| document.locate(path, part).map(|p| (p.line, p.column));
        assert_eq!(position(&[key("version")], EntryPart::Key), Some((2, 1)));
        assert_eq!(position(&[key("version")], EntryPart::Value), Some((2, 10)));
        assert_eq!(position(&[key("agent"), key("log")], EntryPart::Key), Some((4, 5)));
        assert_eq!(position(&[key("agent"), key("log")], EntryPart::Value), Some((4, 10)));
        assert_eq!(position(&[key("agent"), key("metadata")], EntryPart::Key), Some((5, 5)));
        assert!(position(&[key("agent"), key("metadata")], EntryPart::Value).is_some());
        let web = [key("endpoints"), PathSegment::Index(0), key("upstream"), key("url")];
        assert_eq!(position(&web, EntryPart::Key), Some((7, 28)));
        assert_eq!(position(&web, EntryPart::Value), Some((7, 33)));
        let ssh = [key("endpoints"), PathSegment::Index(1), key("upstream"), key("url")];
        assert_eq!(position(&ssh, EntryPart::Value), Some((10, 12)));
        assert_eq!(
            position(&[key("endpoints"), PathSegment::Index(1)], EntryPart::Value),
            Some((8, 5))
        );
        let numbered = Document::parse("a:\n  7: {true: x}\n".to_owned()).expect("YAML");
        let flag = numbered.locate(&[key("a"), key("7"), key("true")], EntryPart::Key);
        assert_eq!(flag.map(|p| (p.line, p.column)), Some((2, 7)));
        assert_eq!(position(&[key("nobody")], EntryPart::Key), None);
        assert_eq!(position(&[key("version"), key("x")], EntryPart::Key), None);
        assert_eq!(show(&ssh), "endpoints[1].upstream.url");
    }

    #[test]
    fn a_duplicate_key_is_at_its_second_place() {
        for (text, place) in [
            ("a: 1\nb:\n  - 2\na:\n  - 3\n", (4, 1)),
            ("a:\n  - {b: 1, c: 2,\n     b: 3}\n", (3, 6)),
            ("1: a\n'1': b\n1: c\n", (3, 1)),
        ] {
            let (message, position) = Document::parse(text.to_owned()).expect_err(text);
            assert!(message.contains("duplicate entry with key \""), "{message}");
            assert_eq!(position.map(|p| (p.line, p.column)), Some(place), "{text}");
        }
    }

    #[test]
    fn what_is_no_yaml_has_a_place() {
        for text in ["a: [", "a: b: c", "\tx", "a: &x\nb: *y", "@"] {
            let (message, position) = Document::parse(text.to_owned()).expect_err(text);
            assert!(
                message.starts_with("is not valid YAML: ") && position.is_some(),
                "{text:?} {message}"
            );
            assert!(!message.contains(" at line "), "{message}");
        }
        for (text, line) in
            [("a:\n\tb: 1\n", 2), ("a:\r\n  b: 1\r\n  \tc: 2\r\n", 3), ("\ta: 1", 1)]
        {
            let (message, _) = Document::parse(text.to_owned()).expect_err(text);
            let why = format!("line {line} is indented with a tab; use spaces");
            assert_eq!(message, format!("is not valid YAML: {why}"), "{text:?}");
        }
        let (message, _) = Document::parse("- a\n-\tb: 1\n".to_owned()).expect_err("a tab");
        assert!(message.ends_with("line 2 has a tab in column 2; use spaces"), "{message}");
        let (message, position) =
            Document::parse("a:\n  b: 36893488147419103232\n".to_owned()).expect_err("65 bits");
        assert!(message.ends_with("a number has more than 64 bits: put it in quotes"), "{message}");
        assert_eq!(position.map(|p| (p.line, p.column)), Some((2, 6)));
        // Tabs in allowed places are not reported.
        let (message, _) =
            Document::parse("a: {\n\tb: 1,\n\t:: 2}\n".to_owned()).expect_err("a colon");
        assert!(!message.contains("tab"), "{message}");
        assert!(Document::parse("a: 1\na: 2\n".to_owned()).is_err());
        assert!(Document::parse("a: 1\n---\na: 2\n".to_owned()).is_err());
        assert!(Document::parse(String::new()).is_ok());
        assert!(Document::parse("[".repeat(1_000)).is_err());
        assert!(Document::parse("? [1]\n: 2\n".to_owned()).is_err());
        assert!(Document::parse("!x [*a]".to_owned()).is_err());
    }

    #[test]
    fn a_bomb_of_aliases_is_no_bomb() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let last = format!("*a{}, ", n - 1).repeat(10);
            text.push_str(&format!("a{n}: &a{n} [{last}]\n"));
        }
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(10_000), "*a, ".repeat(5_000));
        let tagged = format!("a: &a !t [{}]\nb: [{}]", "1, ".repeat(900), "*a, ".repeat(90));
        for bomb in [text, long, tagged] {
            let (message, _) = Document::parse(bomb).expect_err("a bomb");
            assert!(message.contains("too large with its aliases"), "{message}");
        }
    }
}
