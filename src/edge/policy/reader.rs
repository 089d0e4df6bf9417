//! Reads the configuration of one action. A value that is missing or wrong becomes a fault with
//! its place; the reader goes on, so that a document shows several faults at once.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::catalog::PolicyPhase;
use super::expression::Expression;
use super::fault::FaultList;
use super::phases::PolicyServices;
use super::text::{InterpolatedText, InterpolatedValue};
use crate::config::document::{EntryPart, PathSegment, key_text};
use crate::config::{duration, modules};
use crate::edge::agents::address::Protocol;
use crate::http1::line::is_framing;

/// Nesting of a value of `set-vars` and `log`.
const MAX_NESTING: usize = 8;

/// Bounds of header lines.
const MAX_NAME_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 4096;

/// What the configuration of an action may depend on.
#[derive(Clone, Copy)]
pub struct PolicyEnvironment<'a> {
    /// Id of the credential that owns the endpoint.
    pub account: &'a str,
    /// Protocol of the endpoint.
    pub protocol: Protocol,
    /// Whether the endpoint is reached by `forward-internal` only.
    pub is_internal: bool,
    /// What actions use of the edge.
    pub services: &'a Arc<dyn PolicyServices>,
}

/// Expressions of a policy, and size of its regular expressions. The edge keeps them as long as
/// the endpoint.
const MAX_EXPRESSIONS: usize = 4096;
const MAX_REGEX_KIBIBYTES: usize = 1024;

/// Limit of a policy exceeded.
const TOO_LARGE: u32 = 2249;

/// What the compilation of a policy finds beside its rules.
pub struct CompileRecord<'a> {
    /// What is wrong.
    pub faults: FaultList<'a>,
    reads_results: Cell<bool>,
    expressions: Cell<usize>,
    regex_kibibytes: Cell<usize>,
}

impl<'a> CompileRecord<'a> {
    /// Begins a document.
    pub fn new(faults: FaultList<'a>) -> Self {
        let (reads_results, expressions, regex_kibibytes) = Default::default();
        CompileRecord { faults, reads_results, expressions, regex_kibibytes }
    }

    /// Adds an expression of the entry at `path`.
    pub fn add_expression(&self, expression: &Expression, path: &[PathSegment]) {
        self.reads_results.set(self.reads_results.get() || expression.reads_results());
        self.expressions.set(self.expressions.get() + 1);
        if self.expressions.get() == MAX_EXPRESSIONS + 1 {
            let reason = format!("is above the maximum of {MAX_EXPRESSIONS} expressions.");
            self.faults.add(TOO_LARGE, path, EntryPart::Value, reason);
        }
        self.add_regex(expression.regex_kibibytes(), path);
    }

    /// Adds a regular expression of the entry at `path`.
    pub fn add_regex(&self, kibibytes: usize, path: &[PathSegment]) {
        let before = self.regex_kibibytes.replace(self.regex_kibibytes.get() + kibibytes);
        if before <= MAX_REGEX_KIBIBYTES && before + kibibytes > MAX_REGEX_KIBIBYTES {
            let reason = format!(
                "makes the regular expressions of the policy too large: the maximum is \
                 {MAX_REGEX_KIBIBYTES} KiB when they are compiled; write fewer or simpler ones."
            );
            self.faults.add(TOO_LARGE, path, EntryPart::Value, reason);
        }
    }

    /// Returns whether a limit is exceeded. Nothing more is compiled then.
    pub fn is_full(&self) -> bool {
        self.expressions.get() > MAX_EXPRESSIONS || self.regex_kibibytes.get() > MAX_REGEX_KIBIBYTES
    }

    /// Returns whether an expression names results of actions.
    pub fn reads_results(&self) -> bool {
        self.reads_results.get()
    }
}

/// A mapping of a configuration, with its place in the document.
#[derive(Clone)]
pub struct ConfigReader<'a> {
    /// Phase of the action.
    pub phase: PolicyPhase,
    /// What the configuration may depend on.
    pub environment: PolicyEnvironment<'a>,
    /// Whether the rule has expressions.
    pub is_conditional: bool,
    map: &'a Mapping,
    path: Vec<PathSegment>,
    record: &'a CompileRecord<'a>,
}

impl<'a> ConfigReader<'a> {
    /// Returns a reader of the mapping at `path`.
    pub fn new(
        phase: PolicyPhase,
        environment: PolicyEnvironment<'a>,
        map: &'a Mapping,
        path: Vec<PathSegment>,
        record: &'a CompileRecord<'a>,
    ) -> Self {
        ConfigReader { phase, environment, is_conditional: false, map, path, record }
    }

    /// Adds a fault of the value of `key`. `reason` is a sentence that continues the path, as
    /// `must be a text.`
    pub fn fault(&self, key: &str, code: u32, reason: impl Into<String>) {
        match self.map.contains_key(key) {
            true => self.record.faults.add(code, &self.at(key), EntryPart::Value, reason),
            false => self.fault_here(code, format!("'{key}' {}", reason.into())),
        }
    }

    /// Adds a fault of the whole mapping.
    pub fn fault_here(&self, code: u32, reason: impl Into<String>) {
        self.record.faults.add(code, &self.path, EntryPart::Value, reason);
    }

    /// Adds a fault for each other key.
    pub fn known_keys(&self, known: &[&str]) {
        for name in self.map.keys() {
            let name = key_text(name).unwrap_or_default();
            if !known.contains(&&*name) {
                let reason = match known.is_empty() {
                    true => "is not a known key; this action has no configuration.".to_owned(),
                    false => format!("is not a known key; use {}.", known.join(", ")),
                };
                self.record.faults.add(2203, &self.at(&name), EntryPart::Key, reason);
            }
        }
    }

    /// Returns the value of a key; `None` if it is absent or null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Returns whether a key has a value.
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Adds a fault if a key has no value. Returns whether it has one.
    pub fn require(&self, key: &str) -> bool {
        let has = self.has(key);
        if !has {
            self.fault(key, 2234, "is required.");
        }
        has
    }

    /// Returns a text; numbers and flags are texts too.
    pub fn text(&self, key: &str) -> Option<String> {
        let value = self.value(key)?;
        let text = key_text(value);
        if text.is_none() {
            self.fault(key, 2204, "must be a text.");
        }
        text
    }

    /// Returns a text that must be there and must not be empty.
    pub fn required_text(&self, key: &str) -> Option<String> {
        if !self.require(key) {
            return None;
        }
        let text = self.text(key)?;
        if text.is_empty() {
            self.fault(key, 2223, "must not be empty.");
            return None;
        }
        Some(text)
    }

    /// Returns a text with expressions.
    pub fn template(&self, key: &str) -> Option<InterpolatedText> {
        let text = self.text(key)?;
        self.compile_text(&text, &self.at(key))
    }

    /// Returns a text with expressions that must be there and must not be empty.
    pub fn required_template(&self, key: &str) -> Option<InterpolatedText> {
        let text = self.required_text(key)?;
        self.compile_text(&text, &self.at(key))
    }

    /// Returns a flag.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        match self.value(key) {
            None => default,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.fault(key, 2204, "must be true or false.");
                default
            }
        }
    }

    /// Returns an integer in a range; `default` if it is absent.
    pub fn integer(&self, key: &str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(value) = self.value(key) else { return default };
        match value.as_u64() {
            Some(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                let reason = format!("must be a whole number from {least} to {most}.");
                self.fault(key, 2215, reason);
                default
            }
        }
    }

    /// Returns a number in a range; `default` if it is absent.
    pub fn number(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(value) = self.value(key) else { return default };
        match value.as_f64() {
            Some(number) if range.contains(&number) => number,
            _ => {
                let (least, most) = (range.start(), range.end());
                self.fault(key, 2215, format!("must be a number from {least} to {most}."));
                default
            }
        }
    }

    /// Returns a duration like `1m30s` in a range; `default` if it is absent.
    pub fn duration(
        &self,
        key: &str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        if !self.has(key) {
            return default;
        }
        let Some(text) = self.text(key) else { return default };
        match duration::parse(&text).ok() {
            None => {
                self.fault(key, 2204, "must be a duration like 10s, 1m30s or 500ms.");
                default
            }
            Some(found) if !range.contains(&found) => {
                let (least, most) = (range.start(), range.end());
                self.fault(key, 2225, format!("must be from {least:?} to {most:?}."));
                default
            }
            Some(found) => found,
        }
    }

    /// Returns one of several words; the first if it is absent.
    pub fn choice(&self, key: &str, words: &[&'static str]) -> &'static str {
        let default = words.first().copied().unwrap_or_default();
        if !self.has(key) {
            return default;
        }
        let text = self.text(key).unwrap_or_default();
        words.iter().find(|word| **word == text).copied().unwrap_or_else(|| {
            self.fault(key, 2222, format!("must be one of {}.", words.join(", ")));
            default
        })
    }

    /// Returns the items of a list with their paths. Any other value is a fault.
    fn items(&self, key: &str, most: usize) -> Vec<(&'a Value, Vec<PathSegment>)> {
        let path = self.at(key);
        let list = match self.value(key) {
            None => return Vec::new(),
            Some(Value::Sequence(list)) => list.as_slice(),
            Some(_) => {
                self.fault(key, 2204, "must be a list.");
                return Vec::new();
            }
        };
        if list.len() > most {
            let reason = format!("has {} entries, the maximum is {most}.", list.len());
            self.fault(key, 2218, reason);
            return Vec::new();
        }
        let place = |(n, value)| (value, below(&path, PathSegment::Index(n)));
        list.iter().enumerate().map(place).collect()
    }

    /// Returns the texts of a list with at most `most` entries.
    pub fn texts(&self, key: &str, most: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for (value, path) in self.items(key, most) {
            match key_text(value) {
                Some(text) => texts.push(text),
                None => self.record.faults.add(2204, &path, EntryPart::Value, "must be a text."),
            }
        }
        texts
    }

    /// Returns the texts with expressions of a list with at most `most` entries.
    pub fn templates(&self, key: &str, most: usize) -> Vec<InterpolatedText> {
        let mut texts = Vec::new();
        for (value, path) in self.items(key, most) {
            match key_text(value) {
                Some(text) => texts.extend(self.compile_text(&text, &path)),
                None => self.record.faults.add(2204, &path, EntryPart::Value, "must be a text."),
            }
        }
        texts
    }

    /// Returns the expressions of a list with at most `most` entries. The value of each becomes
    /// a text.
    pub fn expressions(&self, key: &str, most: usize) -> Vec<InterpolatedText> {
        let mut texts = Vec::new();
        for (value, path) in self.items(key, most) {
            if self.record.is_full() {
                break;
            }
            match key_text(value) {
                Some(text) => match Expression::compile(&text, self.phase) {
                    Ok(_) => texts.extend(self.compile_text(&format!("${{{text}}}"), &path)),
                    Err(fault) => {
                        self.record.faults.add(2224, &path, EntryPart::Value, fault.to_string())
                    }
                },
                None => {
                    self.record.faults.add(2204, &path, EntryPart::Value, "must be an expression.")
                }
            }
        }
        texts
    }

    /// Returns an expression that must be there. `names` are further variables of it.
    pub fn expression(&self, key: &str, names: &'static [&'static str]) -> Option<Expression> {
        let text = self.required_text(key)?;
        match Expression::compile_with(&text, self.phase, names) {
            Ok(expression) => {
                self.record.add_expression(&expression, &self.at(key));
                Some(expression)
            }
            Err(fault) => {
                self.fault(key, 2200, fault.to_string());
                None
            }
        }
    }

    /// Returns the mappings of a required list with at most `most` entries. `None` after a fault;
    /// `needed` continues the path of an empty list.
    pub fn required_children(
        &self,
        key: &str,
        most: usize,
        needed: &str,
    ) -> Option<Vec<ConfigReader<'a>>> {
        if !self.require(key) {
            return None;
        }
        let entries = self.children(key, most);
        self.not_empty(key, needed);
        (!entries.is_empty()).then_some(entries)
    }

    /// Adds a fault if the value of a key is an empty list or mapping. `needed` continues the
    /// path.
    pub fn not_empty(&self, key: &str, needed: &str) {
        let is_empty = match self.value(key) {
            Some(Value::Sequence(list)) => list.is_empty(),
            Some(Value::Mapping(map)) => map.is_empty(),
            _ => false,
        };
        if is_empty {
            self.fault(key, 2223, needed);
        }
    }

    /// Returns a text with expressions that is a part of the value of a key.
    pub fn part(&self, key: &str, text: &str) -> Option<InterpolatedText> {
        self.compile_text(text, &self.at(key))
    }

    /// Adds the regular expression of a key.
    pub fn add_regex(&self, key: &str, kibibytes: usize) {
        self.record.add_regex(kibibytes, &self.at(key));
    }

    /// Returns a reader of a mapping in the configuration.
    pub fn child(&self, key: &str) -> Option<ConfigReader<'a>> {
        self.reader(self.value(key)?, self.at(key))
    }

    /// Returns readers of the mappings in a list with at most `most` entries.
    pub fn children(&self, key: &str, most: usize) -> Vec<ConfigReader<'a>> {
        self.items(key, most)
            .into_iter()
            .filter_map(|(value, path)| self.reader(value, path))
            .collect()
    }

    fn reader(&self, value: &'a Value, path: Vec<PathSegment>) -> Option<ConfigReader<'a>> {
        match value {
            Value::Mapping(map) => Some(ConfigReader { map, path, ..self.clone() }),
            _ => {
                self.record.faults.add(2204, &path, EntryPart::Value, "must be a mapping.");
                None
            }
        }
    }

    /// Returns the keys of this mapping with their values.
    pub fn entries(&self) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
        self.map.iter().map(|(key, value)| (key_text(key).unwrap_or_default(), value))
    }

    /// Returns the value of a key, with the expressions in its texts.
    pub fn interpolated(&self, key: &str) -> Option<InterpolatedValue> {
        let value = self.map.get(key)?;
        self.compile_value(value, self.at(key), 0)
    }

    /// Returns the values of all keys of a mapping, with the expressions in their texts.
    pub fn interpolated_map(&self) -> Vec<(String, InterpolatedValue)> {
        let entry =
            |(name, _): (String, &Value)| self.interpolated(&name).map(|value| (name, value));
        self.entries().filter_map(entry).collect()
    }

    /// Returns the header lines of a mapping with at most `most` entries, names in lower case.
    /// `check` returns why a name cannot be set.
    pub fn header_lines(
        &self,
        key: &str,
        most: usize,
        check: impl Fn(&str) -> Option<&'static str>,
    ) -> Vec<(Arc<str>, InterpolatedText)> {
        let Some(map) = self.child(key) else { return Vec::new() };
        let count = map.map.len();
        if count > most {
            self.fault(key, 2212, format!("has {count} headers, the maximum is {most}."));
            return Vec::new();
        }
        let mut lines = Vec::new();
        for (name, value) in map.entries() {
            if value.is_null() {
                map.fault(&name, 2204, "must be a text.");
                continue;
            }
            let (Some(lower), Some(text)) =
                (map.header_name(&name, &map.at(&name)), map.text(&name))
            else {
                continue;
            };
            if let Some(reason) = check(&lower) {
                map.fault(&name, 2219, reason);
                continue;
            }
            if text.len() > MAX_VALUE_BYTES {
                map.fault(&name, 2209, format!("has more than {MAX_VALUE_BYTES} bytes."));
            } else if modules::check_header_value(&name, &text).is_err() {
                map.fault(&name, 2211, "has a control character.");
            } else if let Some(text) = map.compile_text(&text, &map.at(&name)) {
                lines.push((lower.into(), text));
            }
        }
        lines
    }

    /// Returns the header names of a list with at most `most` entries, in lower case. `check`
    /// returns why a name cannot be removed.
    pub fn header_names(
        &self,
        key: &str,
        most: usize,
        check: impl Fn(&str) -> Option<&'static str>,
    ) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        for (value, path) in self.items(key, most) {
            let name = key_text(value).unwrap_or_default();
            let Some(lower) = self.header_name(&name, &path) else { continue };
            match check(&lower) {
                Some(reason) => self.record.faults.add(2219, &path, EntryPart::Value, reason),
                None => names.push(lower.into()),
            }
        }
        names
    }

    /// Checks a header name and returns it in lower case.
    fn header_name(&self, name: &str, path: &[PathSegment]) -> Option<String> {
        let fault =
            |code, reason: String| self.record.faults.add(code, path, EntryPart::Value, reason);
        if name.len() > MAX_NAME_BYTES {
            fault(2208, format!("has a name of more than {MAX_NAME_BYTES} bytes."));
            return None;
        }
        if modules::check_header_name(name).is_err() {
            fault(2210, "is not a valid name of a header.".to_owned());
            return None;
        }
        let lower = name.to_ascii_lowercase();
        let fixed = matches!(&*lower, "connection" | "keep-alive" | "te" | "trailer" | "upgrade");
        if fixed || is_framing(lower.as_bytes()) || lower.starts_with("proxy-") {
            fault(2219, "belongs to the connection and cannot be changed.".to_owned());
            return None;
        }
        Some(lower)
    }

    fn compile_text(&self, text: &str, path: &[PathSegment]) -> Option<InterpolatedText> {
        if self.record.is_full() {
            return None;
        }
        match InterpolatedText::compile(text, self.phase) {
            Ok(text) => {
                text.expressions().for_each(|e| self.record.add_expression(e, path));
                Some(text)
            }
            Err(reason) => {
                self.record.faults.add(2224, path, EntryPart::Value, reason);
                None
            }
        }
    }

    fn compile_value(
        &self,
        value: &Value,
        path: Vec<PathSegment>,
        depth: usize,
    ) -> Option<InterpolatedValue> {
        if depth > MAX_NESTING {
            let reason = format!("is nested deeper than {MAX_NESTING} levels.");
            self.record.faults.add(2250, &path, EntryPart::Value, reason);
            return None;
        }
        let child = |value: &Value, step| self.compile_value(value, below(&path, step), depth + 1);
        Some(match value {
            Value::String(text) => InterpolatedValue::Text(self.compile_text(text, &path)?),
            Value::Sequence(items) => {
                let item = |(n, value)| child(value, PathSegment::Index(n));
                InterpolatedValue::List(items.iter().enumerate().filter_map(item).collect())
            }
            Value::Mapping(map) => {
                let entry = |(key, value): (&Value, &Value)| {
                    let key = key_text(key).unwrap_or_default();
                    child(value, PathSegment::Key(key.clone())).map(|value| (key, value))
                };
                InterpolatedValue::Map(map.iter().filter_map(entry).collect())
            }
            other => match serde_json::to_value(other) {
                Ok(value) => InterpolatedValue::Fixed(value),
                Err(_) => {
                    self.record.faults.add(2204, &path, EntryPart::Value, "is not a plain value.");
                    return None;
                }
            },
        })
    }

    fn at(&self, key: &str) -> Vec<PathSegment> {
        below(&self.path, PathSegment::Key(key.to_owned()))
    }
}

fn below(path: &[PathSegment], step: PathSegment) -> Vec<PathSegment> {
    let mut path = path.to_vec();
    path.push(step);
    path
}
