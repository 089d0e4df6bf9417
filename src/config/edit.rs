//! Changes a configuration file in place: one value changes, and all comments, blanks and the
//! order stay.
//!
//! The text is edited at the position from the parser. Then the new text is parsed. The file is
//! replaced only if the result is the old one with the one value changed. An unsupported
//! notation is refused without a change.

use std::path::Path;

use serde_yaml::{Mapping, Value};

use super::authtoken;
use super::document::{Document, EntryPart, PathSegment, Position};
use super::fault::Fault;
use super::file;
use super::loaded::Loaded;
use super::read::SchemaVersion;
use super::read::merge::{self, parse_all};
use super::read::options::old_name;
use super::store::StoredFile;
use crate::proto::secret::Secret;
use crate::sys::argv;

/// Maximum length of a value, in bytes.
const MAX_VALUE: usize = 4096;

/// An option that a command sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `authtoken`
    Authtoken,
    /// `api_key`
    ApiKey,
    /// `connect_url`, in version 2 `server_addr`
    ConnectUrl,
}

impl Setting {
    /// Returns its name in version 3.
    pub fn key(self) -> &'static str {
        match self {
            Setting::Authtoken => "authtoken",
            Setting::ApiKey => "api_key",
            Setting::ConnectUrl => "connect_url",
        }
    }

    /// Checks that `value` can be saved. The error never contains a secret.
    pub fn check(self, value: &Secret) -> Result<(), String> {
        let name = match self {
            Setting::Authtoken => "the authtoken",
            Setting::ApiKey => "the API key",
            Setting::ConnectUrl => return address(value).map(|_| ()),
        };
        let value = value.expose();
        if value.is_empty() {
            return Err(format!("{name} is empty"));
        }
        if value.len() > MAX_VALUE {
            return Err(format!("{name} is too long: copy it again"));
        }
        // Quotation marks and invisible characters are copied with a token from pages and
        // letters.
        authtoken::fault(value).map_or(Ok(()), |why| Err(format!("{name} {why}")))
    }
}

/// Checks the address of an edge.
fn address(value: &Secret) -> Result<(), String> {
    super::address::parse_edge(value.expose()).map(|_| ())
}

/// Sets an option in the file at `path`, and creates the file if necessary. A file that gets a
/// credential and that every user may read gets mode 0600: then the old mode is returned. The
/// error is the reason why nothing was changed.
pub fn set(path: &Path, setting: Setting, value: &Secret) -> Result<Option<u32>, String> {
    setting.check(value)?;
    let mut stored =
        StoredFile::open(path).map_err(|error| failed(path, "cannot be read", &error))?;
    let text = match &stored.text {
        Some(text) => edited(text, setting, value).map_err(|why| refused(path, &why))?,
        None => format!(
            "version: \"3\"\nagent:\n    {}: {}\n",
            setting.key(),
            scalar(value.expose(), QuoteStyle::None)
        ),
    };
    let is_credential = setting != Setting::ConnectUrl;
    let public = if is_credential { stored.tighten() } else { None };
    stored.replace(&text).map_err(|error| failed(path, "cannot be written", &error))?;
    Ok(public)
}

/// Creates the file at `path` for the user to edit. Returns its text; `None` if the file
/// existed.
pub fn make(path: &Path) -> Result<Option<String>, String> {
    const TEXT: &str = "version: 3\nagent:\n    authtoken:\nendpoints:\n";
    match StoredFile::open(path) {
        Ok(stored) if stored.text.is_none() => {
            stored.replace(TEXT).map_err(|error| failed(path, "cannot be created", &error))?;
            Ok(Some(TEXT.to_owned()))
        }
        // The editor reports its errors.
        Ok(_) => Ok(None),
        Err(_) if path.is_file() => Ok(None),
        Err(error) => Err(failed(path, "cannot be opened", &error)),
    }
}

pub(super) fn failed(path: &Path, message: &str, error: &std::io::Error) -> String {
    // Users of small machines often have no home, or a missing one.
    let hint = match path == file::default_path() {
        true => " Set HOME or XDG_CONFIG_HOME, or give --config FILE.",
        false => "",
    };
    format!("{} {message}: {error}. Nothing was changed.{hint}", path.display())
}

pub(super) fn refused(path: &Path, why: &str) -> String {
    format!("{}: {why}. Nothing was changed.", path.display())
}

/// Notation of a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QuoteStyle {
    None,
    Single,
    Double,
}

/// Returns a text as YAML: in these quotes, or plain if that reads as the same text.
fn scalar(text: &str, quotes: QuoteStyle) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
    let same = || Document::parse(text.to_owned()).is_ok_and(|document| document.root == *text);
    match quotes {
        QuoteStyle::None if plain && !text.ends_with(':') && same() => text.to_owned(),
        QuoteStyle::Single
            if !text.contains('\'') && text.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            format!("'{text}'")
        }
        // A JSON string is a YAML string.
        _ => serde_json::to_string(text).unwrap_or_default(),
    }
}

/// Returns `text` with an option set. The error is the reason why that is not possible.
pub fn edited(text: &str, setting: Setting, value: &Secret) -> Result<String, String> {
    let (mark, body) = without_mark(text);
    let document = parse(body)?;
    let mut wanted = match &document.root {
        Value::Null => Mapping::new(),
        Value::Mapping(mapping) => mapping.clone(),
        _ => return Err("the file is not a mapping".to_owned()),
    };
    let mut editor = Editor::new(body);
    let guessed = !wanted.contains_key("version");
    if guessed {
        // A file with only the token, as in tutorials, is a file of version 2.
        let three = wanted.keys().all(|key| key == "agent" || key == "endpoints");
        let version = if three { Value::from(3) } else { Value::from("2") };
        editor.add_version(&document, if three { "3" } else { "\"2\"" })?;
        wanted.insert("version".into(), version);
    }
    let document = parse(&editor.text)?;
    let version = merge::version(&document)
        .map_err(|fault| format!("{} {}", fault.path, fault.message).trim().to_owned())?;
    let key = setting.key();
    let value = value.expose();
    if version == SchemaVersion::Two {
        let key = old_name(key);
        editor.set(&document, &[key], value)?;
        wanted.insert(key.into(), value.into());
    } else {
        editor.set(&document, &["agent", key], value)?;
        let mut agent = match wanted.get("agent") {
            None | Some(Value::Null) => Mapping::new(),
            Some(Value::Mapping(agent)) => agent.clone(),
            Some(_) => return Err("agent is not a mapping".to_owned()),
        };
        agent.insert(key.into(), value.into());
        wanted.insert("agent".into(), Value::Mapping(agent));
    }
    match parse(&editor.text) {
        Ok(document) if document.root == Value::Mapping(wanted) => {}
        _ => {
            return Err(format!("{key} has a form that cannot be edited; set it by hand"));
        }
    }
    // Faults that existed before are ignored here.
    let before = if guessed { Vec::new() } else { faults(body) };
    let new = |fault: &Fault| {
        !before.iter().any(|b| (&b.path, &b.message) == (&fault.path, &fault.message))
    };
    match faults(&editor.text).into_iter().find(new) {
        None => Ok(mark.to_owned() + &editor.text),
        Some(_) if guessed => Err(format!(
            "the file has no version, and its keys do not show it; \"{} config upgrade\" \
             upgrades it",
            argv::program()
        )),
        Some(fault) => Err(format!("{} {}", fault.path, fault.message)),
    }
}

/// Returns the faults of a file with this text.
fn faults(text: &str) -> Vec<Fault> {
    parse_all(vec![text.to_owned()], &mut Loaded::default()).concat()
}

/// Returns a byte order mark, and the rest.
pub(super) fn without_mark(text: &str) -> (&'static str, &str) {
    match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    }
}

pub(super) fn parse(text: &str) -> Result<Document, String> {
    Document::parse(text.to_owned()).map_err(|(message, position)| match position {
        Some(position) => format!("line {} column {}: {message}", position.line, position.column),
        None => message,
    })
}

/// Returns the line end of the file's first line.
fn line_end(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// Text that is being edited.
pub(super) struct Editor {
    pub(super) text: String,
    pub(super) eol: &'static str,
    /// Whether the text is JSON, which it must stay.
    json: bool,
}

impl Editor {
    pub(super) fn new(text: &str) -> Self {
        let json = serde_json::from_slice::<serde_json::Value>(text.as_bytes()).is_ok();
        Editor { text: text.to_owned(), eol: line_end(text), json }
    }

    fn key(&self, key: &str) -> String {
        if self.json { format!("\"{key}\"") } else { key.to_owned() }
    }

    fn value(&self, value: &str) -> String {
        scalar(value, if self.json { QuoteStyle::Double } else { QuoteStyle::None })
    }

    /// Inserts the version before the first key, or into an empty file.
    pub(super) fn add_version(&mut self, document: &Document, version: &str) -> Result<(), String> {
        let entry = format!("{}: {version}", self.key("version"));
        match &document.root {
            Value::Mapping(mapping) if !mapping.is_empty() => {
                let first = self.first_key(document, &[], mapping)?;
                self.insert_before(first, &entry);
            }
            // An empty mapping such as `{}` ends there: a key cannot be appended.
            Value::Mapping(_) => return Err("the file holds an empty mapping".to_owned()),
            _ => self.append(&[&entry]),
        }
        Ok(())
    }

    /// Sets a key at the top level, or one below a key at the top level.
    fn set(&mut self, document: &Document, path: &[&str], value: &str) -> Result<(), String> {
        let steps: Vec<PathSegment> =
            path.iter().map(|key| PathSegment::Key((*key).to_owned())).collect();
        if let Some(key) = document.locate(&steps, EntryPart::Key) {
            let at = self.after_colon(key)?;
            self.replace_value(at, value);
            return Ok(());
        }
        let [above, key] = path else {
            let entry = format!("{}: {}", self.key(path[0]), self.value(value));
            return self.insert_at_top(document, &entry, &[&entry]);
        };
        let entry = format!("{}: {}", self.key(key), self.value(value));
        match document.root.get(above) {
            Some(Value::Mapping(mapping)) if !mapping.is_empty() => {
                let first = self.first_key(document, &steps[..1], mapping)?;
                self.insert_before(first, &entry);
            }
            Some(found) => {
                let position =
                    document.locate(&steps[..1], EntryPart::Key).ok_or("a key has no place")?;
                let at = self.after_colon(position)?;
                if self.is_blank(at) && found.is_null() {
                    let indent = " ".repeat(position.column - 1 + 4);
                    self.insert_line_after(position, &format!("{indent}{entry}"));
                } else {
                    self.put(at, &format!("{{{entry}}}"));
                }
            }
            None => {
                let flow = format!("{}: {{{entry}}}", self.key(above));
                let lines = [&format!("{above}:"), &*format!("    {entry}")];
                self.insert_at_top(document, &flow, &lines)?;
            }
        }
        Ok(())
    }

    /// Inserts an entry at the top level: within braces with `flow`, else as lines at the end.
    /// A single line is inserted before the first key that is not the version.
    fn insert_at_top(
        &mut self,
        document: &Document,
        flow: &str,
        lines: &[&str],
    ) -> Result<(), String> {
        if let Value::Mapping(mapping) = &document.root {
            if self.in_flow(document, mapping) {
                let first = self.first_key(document, &[], mapping)?;
                self.insert_before(first, flow);
                return Ok(());
            }
            let next = mapping.keys().filter_map(Value::as_str).find(|key| *key != "version");
            if let (Some(next), [line]) = (next, lines) {
                let path = [PathSegment::Key(next.to_owned())];
                let position =
                    document.locate(&path, EntryPart::Key).ok_or("a key has no place")?;
                self.insert_before(position, line);
                return Ok(());
            }
        }
        self.append(lines);
        Ok(())
    }

    pub(super) fn first_key(
        &self,
        document: &Document,
        path: &[PathSegment],
        mapping: &Mapping,
    ) -> Result<Position, String> {
        let first = mapping.keys().next().and_then(Value::as_str);
        let mut path = path.to_vec();
        path.push(PathSegment::Key(first.unwrap_or_default().to_owned()));
        document.locate(&path, EntryPart::Key).ok_or_else(|| "a key has no place".to_owned())
    }

    /// Returns whether the mapping is in braces: its first key does not begin its line.
    pub(super) fn in_flow(&self, document: &Document, mapping: &Mapping) -> bool {
        self.first_key(document, &[], mapping).is_ok_and(|first| {
            let at = self.offset(first);
            self.text[..at].trim_end().ends_with('{')
        })
    }

    /// Turns the entry whose key is at `position` into a comment.
    pub(super) fn comment_out(&mut self, position: Position) -> Result<(), String> {
        let at = self.offset(position);
        let line = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let before = &self.text[line..at];
        let indent = before.len() - before.trim_start().len();
        if before.trim().is_empty() && !self.text[..at].trim_end().ends_with(['{', ',']) {
            let mut end = at;
            for (n, row) in self.text[line..].split_inclusive('\n').enumerate() {
                let inner = row.trim_start();
                let deep = row.len() - inner.len();
                let own = deep > indent || deep == indent && inner.starts_with("- ");
                if n > 0 && !own && !inner.is_empty() {
                    break;
                }
                end += if n == 0 { row.len() - indent } else { row.len() };
            }
            let rows = self.text[line..end].split_inclusive('\n');
            let comment = rows.map(|row| match row.split_at_checked(indent) {
                Some((blank, rest)) if !rest.trim().is_empty() => format!("{blank}# {rest}"),
                _ => row.to_owned(),
            });
            let comment: String = comment.collect();
            self.text.replace_range(line..end, &comment);
            return Ok(());
        }
        // An entry in braces is moved to a line above.
        let colon = self.after_colon(position)?;
        let (_, end) = self.value_span(colon);
        let entry = self.text[at..end].trim_end().to_owned();
        let rest = &self.text[end..];
        let blanks = |text: &str| text.len() - text.trim_start().len();
        let (start, end) = match rest.trim_start().strip_prefix(',') {
            Some(after) => (at, end + blanks(rest) + 1 + blanks(after)),
            None => (self.text[..at].trim_end().trim_end_matches(',').len(), end),
        };
        if entry.contains('\n') {
            return Err("an entry that must become a comment has several lines".to_owned());
        }
        let comment = format!("{}# {entry}{}", " ".repeat(indent), self.eol);
        self.text.replace_range(start..end, "");
        self.text.insert_str(line, &comment);
        Ok(())
    }

    /// Inserts an entry before another: on a line of its own, or in the same braces.
    pub(super) fn insert_before(&mut self, position: Position, entry: &str) {
        let at = self.offset(position);
        let line = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let before = &self.text[line..at];
        let text = if before.trim().is_empty() && !self.text[..at].trim_end().ends_with('{') {
            format!("{entry}{}{before}", self.eol)
        } else {
            format!("{entry}, ")
        };
        self.text.insert_str(at, &text);
    }

    fn insert_line_after(&mut self, position: Position, line: &str) {
        let at = self.offset(position);
        match self.text[at..].find('\n') {
            Some(end) => self.text.insert_str(at + end + 1, &format!("{line}{}", self.eol)),
            None => self.append(&[line]),
        }
    }

    fn append(&mut self, lines: &[&str]) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push_str(self.eol);
        }
        for line in lines {
            self.text.push_str(line);
            self.text.push_str(self.eol);
        }
    }

    /// Returns the position of the text after a key's colon.
    pub(super) fn after_colon(&self, key: Position) -> Result<usize, String> {
        let at = self.offset(key);
        let key_end = at + self.scalar_end(at, false);
        let rest = &self.text[key_end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if !rest[blanks..].starts_with(':') {
            return Err("a key has a form that cannot be edited".to_owned());
        }
        Ok(key_end + blanks + 1)
    }

    /// Returns whether only a comment follows between `at` and the end of the line.
    fn is_blank(&self, at: usize) -> bool {
        let rest = self.text[at..].lines().next().unwrap_or_default().trim();
        rest.is_empty() || rest.starts_with('#')
    }

    /// Replaces the value after a colon, with the same quotes.
    fn replace_value(&mut self, colon: usize, value: &str) {
        let quotes = match self.text[colon..].trim_start_matches([' ', '\t']).chars().next() {
            Some('"') => QuoteStyle::Double,
            Some('\'') => QuoteStyle::Single,
            _ if self.json => QuoteStyle::Double,
            _ => QuoteStyle::None,
        };
        self.put(colon, &scalar(value, quotes));
    }

    /// Replaces the value after a colon by `yaml`.
    pub(super) fn put(&mut self, colon: usize, yaml: &str) {
        let (start, end) = self.value_span(colon);
        let blank = if start == colon { " " } else { "" };
        self.text.replace_range(start..end, &format!("{blank}{yaml}"));
    }

    /// Returns the position of the value after a colon. Without a value it is directly after
    /// the colon.
    pub(super) fn value_span(&self, colon: usize) -> (usize, usize) {
        let rest = &self.text[colon..];
        let start = colon + rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if self.is_blank(colon) || self.text[start..].starts_with([',', '}']) {
            return (colon, colon);
        }
        (start, start + self.scalar_end(start, true))
    }

    /// Returns the length of the key or value that begins at `at`. A wrong result for an
    /// unknown notation gives a different document, which is detected afterwards.
    fn scalar_end(&self, at: usize, is_value: bool) -> usize {
        let rest = &self.text[at..];
        let mut chars = rest.char_indices().peekable();
        match chars.next() {
            Some((_, '"')) => {
                while let Some((n, c)) = chars.next() {
                    match c {
                        '\\' => _ = chars.next(),
                        '"' => return n + 1,
                        _ => {}
                    }
                }
                rest.len()
            }
            Some((_, '\'')) => {
                while let Some((n, c)) = chars.next() {
                    let doubled = chars.peek().is_some_and(|(_, next)| *next == '\'');
                    match c {
                        '\'' if doubled => _ = chars.next(),
                        '\'' => return n + 1,
                        _ => {}
                    }
                }
                rest.len()
            }
            Some((_, '{')) => rest.find('}').map_or(rest.len(), |n| n + 1),
            Some((_, '[')) => rest.find(']').map_or(rest.len(), |n| n + 1),
            _ => {
                let line = rest.find(['\r', '\n']).unwrap_or(rest.len());
                let end = match is_value {
                    false => rest[..line].find([',', '}', ']', ':']).unwrap_or(line),
                    true if self.is_in_braces(at) => {
                        rest[..line].find([',', '}', ']']).unwrap_or(line)
                    }
                    true => line,
                };
                let end = rest[..end].find(" #").unwrap_or(end);
                rest[..end].trim_end().len()
            }
        }
    }

    /// Returns whether the line up to `at` opens more braces than it closes, or whether the
    /// whole text is in braces.
    fn is_in_braces(&self, at: usize) -> bool {
        let line = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let count = |signs: [char; 2]| self.text[line..at].matches(signs).count();
        count(['{', '[']) > count(['}', ']']) || self.text.trim_start().starts_with('{')
    }

    /// Returns the byte offset of a position, which counts characters, and lines as in YAML.
    pub(super) fn offset(&self, position: Position) -> usize {
        let mut line = 1;
        let mut column = 1;
        let mut chars = self.text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if (line, column) == (position.line, position.column) {
                return at;
            }
            let half = c == '\r' && chars.peek().is_some_and(|(_, next)| *next == '\n');
            match c {
                '\r' if half => {}
                '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}' => (line, column) = (line + 1, 1),
                _ => column += 1,
            }
        }
        self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn with_token(text: &str) -> Result<String, String> {
        edited(text, Setting::Authtoken, &Secret::new("tok_1"))
    }

    #[test]
    fn one_value_changes_and_nothing_else() {
        for &(text, expected) in EDITS {
            assert_eq!(with_token(text).expect(text), expected, "of {text:?}");
            assert_eq!(with_token(expected).expect(text), expected, "twice, of {text:?}");
        }
    }

    /// A file before and after its token is set.
    const EDITS: &[(&str, &str)] = &[
        (
            "# top\nversion: 3 # v\n\nagent:\n  # the token\n  authtoken: old # mine\n  log: stdout\n",
            "# top\nversion: 3 # v\n\nagent:\n  # the token\n  authtoken: tok_1 # mine\n  log: stdout\n",
        ),
        (
            "version: \"3\"\nagent:\n    log: stdout\nendpoints: []\n",
            "version: \"3\"\nagent:\n    authtoken: tok_1\n    log: stdout\nendpoints: []\n",
        ),
        ("version: 3\n", "version: 3\nagent:\n    authtoken: tok_1\n"),
        ("version: 3", "version: 3\nagent:\n    authtoken: tok_1\n"),
        ("version: 3\nagent:\n", "version: 3\nagent:\n    authtoken: tok_1\n"),
        ("version: 3\nagent:", "version: 3\nagent:\n    authtoken: tok_1\n"),
        (
            "version: 3\nagent: # here\nendpoints: []\n",
            "version: 3\nagent: # here\n    authtoken: tok_1\nendpoints: []\n",
        ),
        ("version: 3\nagent: ~\n", "version: 3\nagent: {authtoken: tok_1}\n"),
        ("version: 3\nagent: {}\n", "version: 3\nagent: {authtoken: tok_1}\n"),
        (
            "version: 3\nagent: {log: stdout}\n",
            "version: 3\nagent: {authtoken: tok_1, log: stdout}\n",
        ),
        (
            "version: 3\nagent: {log: x, authtoken: \"o\\\"ld\", metadata: y}\n",
            "version: 3\nagent: {log: x, authtoken: \"tok_1\", metadata: y}\n",
        ),
        ("{version: 3}", "{agent: {authtoken: tok_1}, version: 3}"),
        (
            "{\"version\": 3, \"agent\": {\"authtoken\": \"old\"}}\n",
            "{\"version\": 3, \"agent\": {\"authtoken\": \"tok_1\"}}\n",
        ),
        (
            "{\n  \"version\": 3,\n  \"agent\": {\n    \"log\": false\n  }\n}\n",
            "{\n  \"version\": 3,\n  \"agent\": {\n    \"authtoken\": \"tok_1\", \"log\": false\n  }\n}\n",
        ),
        ("agent:\n  authtoken: 'o''ld'\n", "version: 3\nagent:\n  authtoken: 'tok_1'\n"),
        ("", "version: 3\nagent:\n    authtoken: tok_1\n"),
        ("# mine", "# mine\nversion: 3\nagent:\n    authtoken: tok_1\n"),
        (
            "version: 3\r\nagent:\r\n  authtoken: old\r\n",
            "version: 3\r\nagent:\r\n  authtoken: tok_1\r\n",
        ),
        (
            "version: 3\r\nagent:\r\n  log: x\r\n",
            "version: 3\r\nagent:\r\n  authtoken: tok_1\r\n  log: x\r\n",
        ),
        (
            "version: 3\nagent:\n  authtoken:\n  log: x\n",
            "version: 3\nagent:\n  authtoken: tok_1\n  log: x\n",
        ),
        (
            "version: 3\nagent:\n  authtoken:   # none yet\n",
            "version: 3\nagent:\n  authtoken: tok_1   # none yet\n",
        ),
        (
            "version: 3\nagent: {authtoken: , log: x}\n",
            "version: 3\nagent: {authtoken: tok_1 , log: x}\n",
        ),
        (
            "\u{feff}version: 3\nagent:\n  metadata: \"é\"\n  authtoken: old",
            "\u{feff}version: 3\nagent:\n  metadata: \"é\"\n  authtoken: tok_1",
        ),
        (
            "version: 3\nagent: {metadata: é, authtoken: 1}\n",
            "version: 3\nagent: {metadata: é, authtoken: tok_1}\n",
        ),
    ];

    #[test]
    fn what_cannot_be_edited_is_refused() {
        for text in [
            "version: 3\nagent: [\n",
            "version: 3\nagent: 7\n",
            "version: 3\nagent:\n  authtoken: &a old\n  metadata: *a\n",
            "version: 3\nagent:\n  authtoken: |\n    old\n    more\n  log: x\n",
            "version: 3\nagent:\n  authtoken: two\n    lines\n",
            "- 1\n",
            "{}",
            "version: 3\n...\n",
        ] {
            let error = with_token(text).expect_err(text);
            assert!(!error.contains('\n') && !error.contains("tok_1"), "{error}");
        }
    }

    #[test]
    fn tokens_that_yaml_would_misread_are_quoted() {
        for token in
            ["12345", "1e5", "true", "null", "0x10", "a:b", "#x", "\"", "é", "-", "2024-01-01"]
        {
            let text = edited("version: 3\n", Setting::Authtoken, &Secret::new(token));
            let text = text.expect(token);
            let root: Value = serde_yaml::from_str(&text).expect("YAML");
            assert_eq!(root["agent"]["authtoken"], Value::from(token), "{text}");
        }
        for token in ["", "a b", "a\n", "\u{1b}"] {
            assert!(Setting::Authtoken.check(&Secret::new(token)).is_err());
        }
    }

    #[test]
    fn what_was_there_is_not_lost() {
        let dir = std::env::temp_dir().join(format!("culvert-edit-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("ngrok.yml");
        let token = |path: &Path| set(path, Setting::Authtoken, &Secret::new("hush"));
        fs::write(&path, "version: 3\nagent:\n\tlog: x\n").expect("a file");
        let error = token(&path).expect_err("a tab");
        assert!(error.contains("line 3 is indented with a tab; use spaces"), "{error}");
        fs::write(&path, "version: 3\nagent: [").expect("a file");
        let error = token(&path).expect_err("no YAML");
        assert!(error.contains("ngrok.yml") && error.contains("Nothing was changed"), "{error}");
        assert!(!error.contains("hush"));
        assert_eq!(fs::read_to_string(&path).expect("text"), "version: 3\nagent: [");
        assert!(token(&dir).is_err());
        fs::remove_dir_all(dir).expect("removed");
    }
}
