//! Changing a configuration file in place: one value changes, and every comment,
//! blank and order stays as the user wrote it.
//!
//! The text is edited at the place that the parser names. Then the new text is
//! parsed, and only if that gives what the old one gave with the one value changed
//! is the file replaced, by renaming a complete new one over it. A way of writing
//! that the editor does not know is refused with nothing changed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::document::{Document, Part, Place, Step};
use super::file;
use crate::proto::secret::Secret;

/// Sets `agent.authtoken` in the file at `path`, which is made if it is not there.
/// The error says why nothing was changed.
pub fn set_authtoken(path: &Path, token: &Secret) -> Result<(), String> {
    check_token(token)?;
    let target = target_of(path).map_err(|error| failed(path, "cannot be read", &error))?;
    let (text, old) = match file::read(&target) {
        Ok(text) => (with_authtoken(&text, token).map_err(|why| refused(path, &why))?, true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (new_text(token), false),
        Err(error) => return Err(failed(path, "cannot be read", &error)),
    };
    replace(&target, &text, old).map_err(|error| failed(path, "cannot be written", &error))
}

fn failed(path: &Path, what: &str, error: &io::Error) -> String {
    format!("{} {what}: {error}. Nothing was changed.", path.display())
}

fn refused(path: &Path, why: &str) -> String {
    format!("{}: {why}. Nothing was changed.", path.display())
}

/// Whether the token is one that can be saved; the error never shows it.
pub fn check_token(token: &Secret) -> Result<(), String> {
    let token = token.expose();
    if token.is_empty() {
        return Err("the authtoken is empty".to_owned());
    }
    if token.chars().any(|c| c.is_whitespace() || c.is_control()) || token.len() > 4096 {
        return Err("the authtoken has blanks or control characters in it or is too long: \
                    copy it again"
            .to_owned());
    }
    Ok(())
}

/// The file itself, behind symbolic links.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            Ok(path.to_owned())
        }
        other => other,
    }
}

fn new_text(token: &Secret) -> String {
    format!("version: \"3\"\nagent:\n    authtoken: {}\n", scalar(token))
}

/// The token as YAML: plain if that reads as the same text, else quoted.
fn scalar(token: &Secret) -> String {
    let token = token.expose();
    let plain = token.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let same =
        |text: &str| matches!(serde_yaml::from_str(text), Ok(Value::String(t)) if t == token);
    if plain && same(token) {
        return token.to_owned();
    }
    // A JSON string is a YAML one.
    serde_json::Value::from(token).to_string()
}

/// `text` with the token set.
pub(super) fn with_authtoken(text: &str, token: &Secret) -> Result<String, String> {
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    };
    let document = parse(body)?;
    let mut wanted = match &document.root {
        Value::Null => Mapping::new(),
        Value::Mapping(mapping) => mapping.clone(),
        _ => return Err("the file is no mapping of keys".to_owned()),
    };
    if !wanted.contains_key("version") && wanted.keys().any(|k| k != "agent" && k != "endpoints") {
        return Err("the file has no version and keys of before version 3: \
                    bring it to version 3 first"
            .to_owned());
    }
    let mut editor = Editor { text: body.to_owned(), eol: line_end(body) };
    if !wanted.contains_key("version") {
        editor.add_version(&document)?;
        wanted.insert("version".into(), 3.into());
    }
    let document = parse(&editor.text)?;
    file::version(&document).map_err(|fault| format!("{} {}", fault.path, fault.what))?;
    editor.set_token(&document, &scalar(token))?;
    let agent = wanted.entry("agent".into()).or_insert(Value::Null);
    if agent.is_null() {
        *agent = Value::Mapping(Mapping::new());
    }
    let agent = agent.as_mapping_mut().ok_or("agent is no mapping of keys")?;
    agent.insert("authtoken".into(), token.expose().into());
    match parse(&editor.text) {
        Ok(document) if document.root == Value::Mapping(wanted) => {
            Ok(mark.to_owned() + &editor.text)
        }
        _ => Err("the authtoken is written in a way that cannot be edited: \
                  set agent.authtoken by hand"
            .to_owned()),
    }
}

fn parse(text: &str) -> Result<Document, String> {
    Document::parse(text.to_owned()).map_err(|(what, place)| match place {
        Some(place) => format!("line {} column {}: {what}", place.line, place.column),
        None => what,
    })
}

/// As the file's first line ends.
fn line_end(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

struct Editor {
    text: String,
    eol: &'static str,
}

impl Editor {
    /// Puts the version in front of the first key, or into an empty file.
    fn add_version(&mut self, document: &Document) -> Result<(), String> {
        match &document.root {
            Value::Mapping(mapping) if !mapping.is_empty() => {
                let first = self.first_key(document, &[], mapping)?;
                self.insert_before(first, "version: 3");
            }
            // `{}` and the like: the end is no place for another key.
            Value::Mapping(_) => return Err("the file holds an empty mapping".to_owned()),
            _ => self.append(&["version: 3"]),
        }
        Ok(())
    }

    fn set_token(&mut self, document: &Document, token: &str) -> Result<(), String> {
        let agent = [Step::Key("agent".to_owned())];
        let authtoken = [agent[0].clone(), Step::Key("authtoken".to_owned())];
        if let Some(key) = document.locate(&authtoken, Part::Key) {
            let at = self.after_colon(key)?;
            self.replace_value(at, token);
            return Ok(());
        }
        match document.root.get("agent") {
            Some(Value::Mapping(mapping)) if !mapping.is_empty() => {
                let first = self.first_key(document, &agent, mapping)?;
                self.insert_before(first, &format!("authtoken: {token}"));
            }
            Some(value) => {
                let key = document.locate(&agent, Part::Key).ok_or("agent has no place")?;
                let at = self.after_colon(key)?;
                if self.is_blank(at) && value.is_null() {
                    let indent = " ".repeat(key.column - 1 + 4);
                    self.insert_line_after(key, &format!("{indent}authtoken: {token}"));
                } else {
                    self.replace_value(at, &format!("{{authtoken: {token}}}"));
                }
            }
            None => match &document.root {
                Value::Mapping(mapping) if self.in_flow(document, mapping) => {
                    let first = self.first_key(document, &[], mapping)?;
                    self.insert_before(first, &format!("agent: {{authtoken: {token}}}"));
                }
                _ => self.append(&["agent:", &format!("    authtoken: {token}")]),
            },
        }
        Ok(())
    }

    fn first_key(
        &self,
        document: &Document,
        path: &[Step],
        mapping: &Mapping,
    ) -> Result<Place, String> {
        let first = mapping.keys().next().and_then(Value::as_str);
        let mut path = path.to_vec();
        path.push(Step::Key(first.unwrap_or_default().to_owned()));
        document.locate(&path, Part::Key).ok_or_else(|| "a key has no place".to_owned())
    }

    /// Whether the mapping is in braces: its first key does not begin its line.
    fn in_flow(&self, document: &Document, mapping: &Mapping) -> bool {
        self.first_key(document, &[], mapping).is_ok_and(|first| {
            let at = self.offset(first);
            self.text[..at].trim_end().ends_with('{')
        })
    }

    /// Puts an entry before another: on a line of its own, or in the same braces.
    fn insert_before(&mut self, place: Place, entry: &str) {
        let at = self.offset(place);
        let line = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        let before = &self.text[line..at];
        let text = if before.trim().is_empty() && !self.text[..at].trim_end().ends_with('{') {
            format!("{entry}{}{before}", self.eol)
        } else {
            format!("{entry}, ")
        };
        self.text.insert_str(at, &text);
    }

    fn insert_line_after(&mut self, place: Place, line: &str) {
        let at = self.offset(place);
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

    /// Where the text after a key's colon begins.
    fn after_colon(&self, key: Place) -> Result<usize, String> {
        let at = self.offset(key);
        let key_end = at + self.scalar_end(at);
        let rest = &self.text[key_end..];
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if !rest[blanks..].starts_with(':') {
            return Err("a key is written in a way that cannot be edited".to_owned());
        }
        Ok(key_end + blanks + 1)
    }

    /// Whether nothing but a comment stands between `at` and the end of the line.
    fn is_blank(&self, at: usize) -> bool {
        let rest = self.text[at..].lines().next().unwrap_or_default().trim();
        rest.is_empty() || rest.starts_with('#')
    }

    /// Puts `value` in place of the scalar or empty mapping after a colon.
    fn replace_value(&mut self, colon: usize, value: &str) {
        if self.is_blank(colon) {
            self.text.insert_str(colon, &format!(" {value}"));
            return;
        }
        let rest = &self.text[colon..];
        let start = colon + rest.len() - rest.trim_start_matches([' ', '\t']).len();
        if self.text[start..].starts_with([',', '}']) {
            self.text.insert_str(colon, &format!(" {value}"));
            return;
        }
        let end = start + self.scalar_end(start);
        self.text.replace_range(start..end, value);
    }

    /// The length of the scalar that begins at `at`. What it does not know gives a
    /// text that is no longer the same document, which is found afterwards.
    fn scalar_end(&self, at: usize) -> usize {
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
            _ => {
                let end = rest.find(['\r', '\n', ',', '}', ']', ':']).unwrap_or(rest.len());
                let end = rest[..end].find(" #").unwrap_or(end);
                rest[..end].trim_end().len()
            }
        }
    }

    /// The byte of a place, which counts characters, and lines as YAML does.
    fn offset(&self, place: Place) -> usize {
        let mut line = 1;
        let mut column = 1;
        let mut chars = self.text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if (line, column) == (place.line, place.column) {
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

/// Puts a complete file in the place of `path`, with the mode and owner of the
/// old one, else 0600.
fn replace(path: &Path, text: &str, old: bool) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !old {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let name = path.file_name().ok_or_else(|| io::Error::other("it is no file"))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = dir.join(temporary);
    let written =
        write_like(&temporary, path, text, old).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The old file is untouched; a leftover would hold the token.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The name is on disk too. Not every file system can, and the file is good.
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
    Ok(())
}

fn write_like(temporary: &Path, path: &Path, text: &str, old: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    if old {
        let metadata = fs::metadata(path)?;
        // Only root may give files away; with another's it stays ours, readable by
        // its mode as before.
        let _ = fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
        file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str) -> String {
        with_authtoken(text, &Secret::new("tok_1")).expect(text)
    }

    #[test]
    fn one_value_changes_and_nothing_else() {
        for (text, expected) in [
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
                "version: 3\nagent: {log: x, authtoken: tok_1, metadata: y}\n",
            ),
            ("{version: 3}", "{agent: {authtoken: tok_1}, version: 3}"),
            (
                "{\"version\": 3, \"agent\": {\"authtoken\": \"old\"}}\n",
                "{\"version\": 3, \"agent\": {\"authtoken\": tok_1}}\n",
            ),
            (
                "{\n  \"version\": 3,\n  \"agent\": {\n    \"log\": false\n  }\n}\n",
                "{\n  \"version\": 3,\n  \"agent\": {\n    authtoken: tok_1, \"log\": false\n  }\n}\n",
            ),
            ("agent:\n  authtoken: 'o''ld'\n", "version: 3\nagent:\n  authtoken: tok_1\n"),
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
        ] {
            assert_eq!(edited(text), expected, "of {text:?}");
            assert_eq!(edited(expected), expected, "twice, of {text:?}");
        }
    }

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
            let error = with_authtoken(text, &Secret::new("tok_1")).expect_err(text);
            assert!(!error.contains('\n') && !error.contains("tok_1"), "{error}");
        }
    }

    #[test]
    fn tokens_that_yaml_would_misread_are_quoted() {
        for token in
            ["12345", "1e5", "true", "null", "0x10", "a:b", "#x", "\"", "é", "-", "2024-01-01"]
        {
            let text = with_authtoken("version: 3\n", &Secret::new(token)).expect(token);
            let root: Value = serde_yaml::from_str(&text).expect("YAML");
            assert_eq!(root["agent"]["authtoken"], Value::from(token), "{text}");
        }
        for token in ["", "a b", "a\n", "\u{1b}"] {
            assert!(check_token(&Secret::new(token)).is_err());
        }
    }

    /// A directory of the test's own.
    fn directory(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("culvert-edit-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        dir
    }

    #[test]
    fn files_keep_mode_and_links() {
        let dir = directory("mode");
        let new = dir.join("sub/ngrok.yml");
        set_authtoken(&new, &Secret::new("one")).expect("a new file");
        assert_eq!(fs::metadata(&new).expect("it").mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_to_string(&new).expect("text"),
            "version: \"3\"\nagent:\n    authtoken: one\n"
        );

        fs::set_permissions(&new, Permissions::from_mode(0o640)).expect("a mode");
        let link = dir.join("link.yml");
        std::os::unix::fs::symlink("sub/ngrok.yml", &link).expect("a link");
        set_authtoken(&link, &Secret::new("two")).expect("an edit");
        assert!(link.is_symlink());
        assert!(fs::read_to_string(&new).expect("text").contains("two"));
        assert_eq!(fs::metadata(&new).expect("it").mode() & 0o777, 0o640);

        let names: Vec<_> = fs::read_dir(dir.join("sub")).expect("a list").collect();
        assert_eq!(names.len(), 1, "no temporary file is left");
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn what_was_there_is_not_lost() {
        let dir = directory("lost");
        let path = dir.join("ngrok.yml");
        fs::write(&path, "version: 3\nagent:\n\tlog: x\n").expect("a file");
        let error = set_authtoken(&path, &Secret::new("hush")).expect_err("a tab");
        assert!(error.contains("line 3 is indented with a tab: use spaces"), "{error}");
        fs::write(&path, "version: 3\nagent: [").expect("a file");
        let error = set_authtoken(&path, &Secret::new("hush")).expect_err("no YAML");
        assert!(error.contains("ngrok.yml") && error.contains("Nothing was changed"), "{error}");
        assert!(!error.contains("hush"));
        assert_eq!(fs::read_to_string(&path).expect("text"), "version: 3\nagent: [");

        let dangling = dir.join("dangling.yml");
        std::os::unix::fs::symlink("nowhere/x.yml", &dangling).expect("a link");
        assert!(set_authtoken(&dangling, &Secret::new("hush")).is_err());
        assert!(set_authtoken(&dir, &Secret::new("hush")).is_err());
        fs::remove_dir_all(dir).expect("removed");
    }
}
