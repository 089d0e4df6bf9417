//! Reads typed values from a parsed document. A missing value is `None`. A wrong one is a fault
//! with its position and what to write instead. The meaning of keys is in `options`,
//! `endpoints` and `tunnels`.
//!
//! Every fault is collected, so that one run of `config check` shows them all. Values that
//! could be secrets are never shown.

pub(in crate::config) mod endpoints;
pub(in crate::config) mod merge;
pub(in crate::config) mod options;
pub(in crate::config) mod tunnels;

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use serde_yaml::{Mapping, Value};

use super::document::{Document, EntryPart, PathSegment, Position, digits, show};
use super::fault::{Fault, MAX_FAULTS, UnusedKey};
use super::{duration, nearest};
use crate::proto::codes::Refusal;
use crate::proto::secret::Secret;

/// Maximum size of a file that a key names (a policy, certificates), in bytes.
const MAX_NAMED: u64 = 1 << 20;

/// Maximum length of a secret in a file of its own, in bytes.
const MAX_SECRET: u64 = 4096;

/// Version whose keys are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SchemaVersion {
    /// Options of the agent at the top level, `tunnels`.
    Two,
    /// Options below `agent`, `endpoints`, and still `tunnels`.
    Three,
    /// Not a file: one object of the local API. Older names are accepted too.
    Api,
}

/// Options of the agent with another name in version 2: that name, and the current one.
pub(super) const OLD_NAMES: &[(&str, &str)] =
    &[("server_addr", "connect_url"), ("root_cas", "connect_cas")];

/// Wrong keys with the right ones, `written>meant`. The nearest known key is found without this
/// list.
const RENAMED: &str = "\
    server_addr>connect_url;root_cas>connect_cas;http_proxy>proxy_url;\
    socks5_proxy>proxy_url;update>update_check;auth>basic_auth;bind_tls>schemes;\
    cidr_allow>ip_restriction;cidr_deny>ip_restriction;allow_cidrs>ip_restriction;\
    oauth_provider>oauth;port>addr;addr>upstream.url;proto>url, as in tcp:// or tls://;\
    domain>url;hostname>url;subdomain>url;remote_addr>url;\
    proxy_proto>upstream.proxy_protocol;app_protocol>upstream.protocol;\
    upstream_protocol>upstream.protocol;policy>traffic_policy;crt>agent_tls_termination;\
    upstream>addr;connect_url>server_addr;connect_cas>root_cas;protocol>proto";

/// A mapping of the document and its path.
pub(super) struct Section<'a> {
    pub(super) mapping: &'a Mapping,
    pub(super) path: Vec<PathSegment>,
    /// Whether it uses the names of [`OLD_NAMES`].
    pub(super) old: bool,
}

impl<'a> Section<'a> {
    /// Returns the name of a key in this section.
    fn written<'k>(&self, key: &'k str) -> &'k str {
        let renamed = OLD_NAMES.iter().find(|(_, new)| self.old && *new == key);
        renamed.map_or(key, |(old, _)| old)
    }

    pub(super) fn at(&self, key: &str) -> Vec<PathSegment> {
        self.at_written(self.written(key))
    }

    /// Returns the path of a key by the name in the document.
    pub(super) fn at_written(&self, key: &str) -> Vec<PathSegment> {
        let mut path = self.path.clone();
        path.push(PathSegment::Key(key.to_owned()));
        path
    }

    /// Returns the value of `key`. Null counts as missing.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.mapping.get(self.written(key)).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }
}

/// Reads a document and collects its faults.
pub(super) struct DocumentReader<'a> {
    document: &'a Document,
    pub(super) version: SchemaVersion,
    pub(super) faults: Vec<Fault>,
    pub(super) notes: Vec<UnusedKey>,
    pub(super) warnings: Vec<String>,
}

impl<'a> DocumentReader<'a> {
    pub(super) fn new(document: &'a Document, version: SchemaVersion) -> Self {
        let (faults, notes, warnings) = (Vec::new(), Vec::new(), Vec::new());
        DocumentReader { document, version, faults, notes, warnings }
    }

    /// Returns the document itself, if it is a mapping.
    pub(super) fn top(&self) -> Option<Section<'a>> {
        let mapping = self.document.root.as_mapping()?;
        Some(Section { mapping, path: Vec::new(), old: self.version == SchemaVersion::Two })
    }

    /// Reads a text. In a file it may be a number, as for the vendor's agent: YAML does not
    /// need quotes. JSON does.
    pub(super) fn text(&mut self, section: &Section<'a>, key: &str) -> Option<String> {
        let numbers = self.version != SchemaVersion::Api;
        self.scalar(section, key, numbers)
    }

    /// Reads a text. With `numbers` it may also be a whole number.
    fn scalar(&mut self, section: &Section<'a>, key: &str, numbers: bool) -> Option<String> {
        match section.value(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if numbers => match digits(number) {
                None => self.wrong(section, key, "text; put the number in quotes"),
                digits => digits,
            },
            other => self.wrong(section, key, &format!("text, found {}", name_of(other))),
        }
    }

    pub(super) fn secret(&mut self, section: &Section<'a>, key: &str) -> Option<Secret> {
        self.text(section, key).map(Secret::new)
    }

    pub(super) fn needed(&mut self, section: &Section<'a>, key: &str) -> Option<String> {
        self.require(section, key);
        self.given(section, key)
    }

    /// Adds a fault if the key is missing.
    pub(super) fn require(&mut self, section: &Section<'a>, key: &str) {
        if !section.has(key) {
            let message = format!("needs the key {key}");
            self.fault(section.path.clone(), EntryPart::Value, message);
        }
    }

    /// Reads a text that is not empty, if the key exists.
    pub(super) fn given(&mut self, section: &Section<'a>, key: &str) -> Option<String> {
        let text = self.text(section, key)?;
        if text.is_empty() {
            return self.wrong(section, key, "a text that is not empty");
        }
        Some(text)
    }

    /// Reads a text or number and parses it: a port, a size.
    pub(super) fn parsed<T>(
        &mut self,
        section: &Section<'a>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.scalar(section, key, true)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(section.at(key), EntryPart::Value, message);
                None
            }
        }
    }

    pub(super) fn time(&mut self, section: &Section<'a>, key: &str) -> Option<Duration> {
        let time = self.parsed(section, key, duration::parse)?;
        if time.is_zero() {
            return self.wrong(section, key, "longer than zero");
        }
        Some(time)
    }

    pub(super) fn flag(&mut self, section: &Section<'a>, key: &str) -> Option<bool> {
        match section.value(key)? {
            Value::Bool(flag) => Some(*flag),
            // Values of older YAML. The vendor's agent accepts them where their meaning is
            // clear.
            Value::String(text) if ["true", "yes", "on", "y", "Y"].contains(&&**text) => Some(true),
            Value::String(text) if ["false", "no", "off", "n", "N"].contains(&&**text) => {
                Some(false)
            }
            other => self.wrong(section, key, &format!("true or false, found {}", name_of(other))),
        }
    }

    pub(super) fn count(&mut self, section: &Section<'a>, key: &str) -> Option<usize> {
        let text = self.scalar(section, key, true)?;
        match text.parse::<u16>() {
            Ok(n) if n > 0 => Some(usize::from(n)),
            _ => self.wrong(section, key, "a number from 1 to 65535"),
        }
    }

    pub(super) fn list(&mut self, section: &Section<'a>, key: &str) -> Option<&'a [Value]> {
        match section.value(key)? {
            Value::Sequence(list) => Some(list),
            other => self.wrong(section, key, &format!("a list, found {}", name_of(other))),
        }
    }

    pub(super) fn texts(&mut self, section: &Section<'a>, key: &str) -> Option<Vec<String>> {
        let list = match section.value(key)? {
            Value::Sequence(list) => list,
            other => {
                let found = name_of(other);
                let wanted = format!("a list of texts, as in [a, b], found {found}");
                return self.wrong(section, key, &wanted);
            }
        };
        let texts = list.iter().map(|item| match item {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => digits(number),
            _ => None,
        });
        match texts.collect() {
            Some(texts) => Some(texts),
            None => self.wrong(section, key, "a list of texts; put each in quotes"),
        }
    }

    /// Reads a list of texts, or a single text as a list of one.
    pub(super) fn one_or_more(&mut self, section: &Section<'a>, key: &str) -> Option<Vec<String>> {
        match section.value(key)? {
            Value::Sequence(_) => self.texts(section, key),
            _ => self.text(section, key).map(|text| vec![text]),
        }
    }

    pub(super) fn section(&mut self, section: &Section<'a>, key: &str) -> Option<Section<'a>> {
        match section.value(key)? {
            Value::Mapping(mapping) => {
                Some(Section { mapping, path: section.at(key), old: section.old })
            }
            other => self.wrong(section, key, &format!("a mapping, found {}", name_of(other))),
        }
    }

    /// Reads one of a few words.
    pub(super) fn word(
        &mut self,
        section: &Section<'a>,
        key: &str,
        words: &[&str],
    ) -> Option<usize> {
        let text = match section.value(key)? {
            Value::Bool(true) => "true".to_owned(),
            Value::Bool(false) => "false".to_owned(),
            _ => self.text(section, key)?,
        };
        let found = words.iter().position(|word| *word == text);
        if found.is_none() {
            self.say(section, key, &format!("must be {}", either(words)));
        }
        found
    }

    /// Reads the file that a key names.
    pub(super) fn file(&mut self, section: &Section<'a>, key: &str) -> Option<String> {
        let path = self.given(section, key)?;
        match read_named(&path, MAX_NAMED) {
            Ok(text) => Some(text),
            Err(why) => {
                self.fault(section.at(key), EntryPart::Value, why);
                None
            }
        }
    }

    /// Reads the secret in a file that a key names, without surrounding blanks.
    pub(super) fn secret_file(&mut self, section: &Section<'a>, key: &str) -> Option<Secret> {
        let path = self.given(section, key)?;
        let text = read_named(&path, MAX_SECRET).and_then(|text| match text.trim() {
            "" => Err(format!("names {path}, which is empty")),
            text if text.contains(char::is_whitespace) => {
                Err(format!("names {path}, which holds more than one word"))
            }
            text => Ok(Secret::new(text)),
        });
        text.map_err(|why| self.fault(section.at(key), EntryPart::Value, why)).ok()
    }

    /// Reads PEM text, or the path of a PEM file. `kind` is the required content.
    pub(super) fn pem(&mut self, section: &Section<'a>, key: &str, kind: &str) -> Option<Secret> {
        let text = self.given(section, key)?;
        self.pem_of(section.at(key), &text, kind)
    }

    pub(super) fn pem_of(
        &mut self,
        path: Vec<PathSegment>,
        text: &str,
        kind: &str,
    ) -> Option<Secret> {
        let read = if text.contains("-----BEGIN") {
            Ok(text.to_owned())
        } else {
            read_named(text, MAX_NAMED)
        };
        let read = read.and_then(|pem| {
            let begins = pem.split("-----BEGIN ").skip(1);
            let ends = |block: &str| block.contains("-----END ");
            match begins.clone().any(|block| {
                let label = block.split("-----").next().unwrap_or_default();
                label.ends_with(kind) && ends(block)
            }) {
                true => Ok(Secret::new(pem)),
                false => Err(format!("has no {kind} in PEM form")),
            }
        });
        read.map_err(|why| self.fault(path, EntryPart::Value, why)).ok()
    }

    /// Adds faults for keys that are not in `known`.
    pub(super) fn keys(&mut self, section: &Section<'a>, known: &str) {
        for key in self.unknown_keys(section, known) {
            self.fault(section.at_written(key), EntryPart::Key, unknown(key, known));
        }
    }

    /// Returns the keys of `section` that are not in `known`. A key that is not a string is a
    /// fault.
    pub(super) fn unknown_keys(&mut self, section: &Section<'a>, known: &str) -> Vec<&'a str> {
        let mut unknown = Vec::new();
        for key in section.mapping.keys() {
            match key.as_str() {
                Some(key) if has_word(known, key) => {}
                Some(key) => unknown.push(key),
                None => {
                    let message = "has a key that is not text".to_owned();
                    self.fault(section.path.clone(), EntryPart::Value, message);
                }
            }
        }
        unknown
    }

    /// Records a key without effect. `off`: its value disables something that does not exist
    /// here.
    pub(super) fn note(&mut self, section: &Section<'a>, key: &str) {
        let off = section.value(key).is_none_or(|value| *value == Value::Bool(false));
        self.notes.push(UnusedKey { path: show(&section.at(key)), off });
    }

    pub(super) fn wrong<T>(&mut self, section: &Section<'a>, key: &str, wanted: &str) -> Option<T> {
        self.fault(section.at(key), EntryPart::Value, format!("must be {wanted}"));
        None
    }

    pub(super) fn refuse(&mut self, path: Vec<PathSegment>, refusal: &Refusal) {
        self.fault(path, EntryPart::Value, refusal.to_string());
    }

    /// Adds a fault at `path`, or at the nearest parent with a position. Merged keys have none.
    pub(super) fn fault(&mut self, path: Vec<PathSegment>, part: EntryPart, message: String) {
        let mut position = None;
        // Finding a position means reading the document again.
        if self.version != SchemaVersion::Api && self.faults.len() <= MAX_FAULTS {
            let around = (1..path.len()).rev().map(|n| (&path[..n], EntryPart::Key));
            let mut ways = [(&path[..], part)].into_iter().chain(around);
            position = ways.find_map(|(path, part)| self.document.locate(path, part));
        }
        let path = match (self.version, &path[..]) {
            (SchemaVersion::Api, []) => "the body".to_owned(),
            _ => show(&path),
        };
        // In the order of the file.
        let line =
            |position: Option<Position>| position.map(|position| (position.line, position.column));
        let later = |fault: &Fault| line(fault.position) > line(position);
        let at = self.faults.iter().position(later).unwrap_or(self.faults.len());
        self.faults.insert(at, Fault { position, path, message });
    }

    /// Adds a fault of a key, with a fixed text.
    pub(super) fn say_key(&mut self, section: &Section<'a>, key: &str, message: &str) {
        self.fault(section.at(key), EntryPart::Key, message.to_owned());
    }

    /// Adds a fault of a key's value, with a fixed text.
    pub(super) fn say(&mut self, section: &Section<'a>, key: &str, message: &str) {
        self.fault(section.at(key), EntryPart::Value, message.to_owned());
    }
}

/// Reads a file that the user named. The error continues the name of the key.
fn read_named(path: &str, most: u64) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_string(&mut text));
    match read {
        Ok(n) if n as u64 > most => Err(format!("names {path}, which is too long")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot be read from {path}: {error}")),
    }
}

/// Returns whether `key` is one of `words`, which are separated by blanks.
pub(super) fn has_word(words: &str, key: &str) -> bool {
    words.split(' ').any(|word| word == key) && !key.is_empty()
}

pub(super) fn unknown(key: &str, known: &str) -> String {
    let short: String = key.chars().take(64).collect();
    let mut pairs = RENAMED.split(';').filter_map(|pair| pair.split_once('>'));
    let renamed = pairs.find(|(old, new)| {
        *old == key && has_word(known, new.split([',', '.']).next().unwrap_or_default())
    });
    match renamed.map(|(_, new)| new).or_else(|| nearest(&short, known.trim().split(' '))) {
        Some(other) => format!("is not a known key; did you mean {other}?"),
        None => format!("is not a known key; known are {}", known.trim()),
    }
}

/// Joins words: `a, b or c`.
fn either(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [start @ .., last] => format!("{} or {last}", start.join(", ")),
    }
}

/// Returns the type of a value, for messages that must not contain it.
pub(super) fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a value with a tag",
    }
}
