//! Upgrades a file to a newer version: the options of the agent move below `agent`, old names
//! become new ones, comments and everything else stay.
//!
//! As in [`super::edit`], the text is changed line by line. Then the result must have the
//! expected meaning: the same values at their new places, and the same endpoints.

use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};

use super::diff;
use super::document::{Document, EntryPart, PathSegment};
use super::edit::{Editor, failed, parse, refused, without_mark};
use super::loaded::Loaded;
use super::read::OLD_NAMES;
use super::read::merge::parse_all;
use super::read::tunnels::schemes_of;
use super::store::StoredFile;

/// Newest version, and the default.
const NEWEST: u32 = 3;

/// Options of agent 2 with another name.
const OF_AGENT_2: &[(&str, &str)] = &[("http_proxy", "proxy_url"), ("socks5_proxy", "proxy_url")];

/// Keys at the top level that newer versions do not have. They become comments.
const GONE: &[&str] = &[
    "region",
    "update",
    "compress_conn",
    "crash_report_url",
    "ip_policy",
    "pprof_addr",
    "server_sni",
    "trust_host_root_certs",
];

/// The same for tunnels.
const GONE_OF_TUNNELS: &[&str] = &["compress_conn", "ip_policy", "server_sni"];

/// Added to the note about a restriction that became a comment.
const OPEN: &str = ", and restricts nothing: see ip_restriction";

/// Result of [`upgrade`].
#[derive(Debug)]
pub struct Upgraded {
    /// Version before.
    pub from: u32,
    /// Version after.
    pub to: u32,
    /// The changes in the form of `diff -u`, without secrets.
    pub diff: String,
    /// Parts that could not be kept, a sentence each.
    pub remarks: Vec<String>,
    /// Path of the file after the upgrade.
    pub path: PathBuf,
    /// Path of the old file; `None` if nothing was written.
    pub backup: Option<PathBuf>,
}

/// Upgrades the file at `path` to version `to`, or to the newest one if that is empty. `None`:
/// it has this version and place already. `relocate`: moves it to this path. `dry`: writes
/// nothing. The error is the reason why nothing was changed.
pub fn upgrade(
    path: &Path,
    to: &str,
    relocate: Option<&Path>,
    dry: bool,
) -> Result<Option<Upgraded>, String> {
    let stored = StoredFile::open(path).map_err(|error| failed(path, "cannot be read", &error))?;
    let old = stored.text.as_deref().ok_or_else(|| format!("{} does not exist", path.display()))?;
    let (from, to, new, remarks) = upgraded(old, to).map_err(|why| refused(path, &why))?;
    let moves = relocate.filter(|target| {
        let same = |path: &Path| path.canonicalize().ok();
        *target != path && (same(target).is_none() || same(target) != same(path))
    });
    let same = new.is_none();
    let new = new.unwrap_or_else(|| old.to_owned());
    if same && moves.is_none() {
        return Ok(None);
    }
    let mut done = Upgraded {
        from,
        to,
        diff: diff::unified(old, &new),
        remarks,
        path: moves.unwrap_or(path).to_owned(),
        backup: None,
    };
    let target = moves.map(|target| vacant(&stored, target)).transpose()?;
    if dry {
        return Ok(Some(done));
    }
    let cannot = |error| failed(path, "cannot be written", &error);
    if !same {
        done.backup = Some(stored.back_up().map_err(cannot)?);
    }
    let place = target.as_ref().unwrap_or(&stored);
    if let Err(error) = place.replace(&new) {
        if let Some(backup) = &done.backup {
            stored.remove_backup(backup);
        }
        return Err(failed(&done.path, "cannot be written", &error));
    }
    if target.is_some() {
        stored.remove().map_err(|error| {
            format!(
                "{} is written, and {} cannot be removed: {error}",
                done.path.display(),
                path.display()
            )
        })?;
    }
    Ok(Some(done))
}

/// Opens and locks the destination of a move, where no file may exist.
fn vacant(stored: &StoredFile, target: &Path) -> Result<StoredFile, String> {
    let found = stored.open_another(target).map_err(|e| failed(target, "cannot be read", &e))?;
    match found.text {
        Some(_) => Err(refused(target, "it exists already; remove it, or merge the two")),
        None => Ok(found),
    }
}

/// Versions before and after, the new text unless it is unchanged, and the parts that could not
/// be kept.
type UpgradedText = (u32, u32, Option<String>, Vec<String>);

/// Returns `text` at version `to`, or at the newest one if that is empty. The error is the
/// reason why that is not possible.
pub fn upgraded(text: &str, to: &str) -> Result<UpgradedText, String> {
    let (mark, body) = without_mark(text);
    let document = parse(body)?;
    let Value::Mapping(root) = &document.root else {
        return Err("the file is not a mapping".to_owned());
    };
    let from = match root.get("version") {
        None | Some(Value::Null) => 1,
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(value) => value.as_u64().and_then(|n| n.try_into().ok()).unwrap_or(0),
    };
    let to = match to {
        "" => NEWEST,
        "2" => 2,
        "3" => 3,
        _ => return Err("the version to upgrade to must be 2 or 3".to_owned()),
    };
    if !(1..=NEWEST).contains(&from) {
        return Err("the file has a version that is not known".to_owned());
    }
    if from > to {
        return Err(format!("the file has version {from}, it cannot go back to {to}"));
    }
    if from == to {
        return Ok((from, to, None, Vec::new()));
    }
    let wanted = wanted(root, from, to)?;
    let mut remarks = Vec::new();
    let first = root.keys().next().and_then(Value::as_str).unwrap_or_default();
    let editor = Editor::new(body);
    let candidates = if !first.is_empty() && editor.in_flow(&document, root) {
        // In braces everything moves: the text is written again as JSON, which is YAML.
        if body.contains('#') {
            remarks.push("the file was written in braces: its comments are lost".to_owned());
        }
        vec![in_braces(&wanted)?]
    } else {
        let renamed = tunnels_of_agent_2(body, from)?;
        [false, true].iter().filter_map(|late| lines(&renamed, from, to, *late).ok()).collect()
    };
    let is_wanted =
        |new: &String| parse(new).is_ok_and(|document| document.root.as_mapping() == Some(&wanted));
    let new = candidates.into_iter().find(is_wanted).ok_or(
        "it has a form that cannot be upgraded without loss, such as an anchor that is used \
         above; upgrade it by hand",
    )?;
    let mut gone: Vec<_> = GONE.iter().map(|key| (*key, key.to_string())).collect();
    gone.retain(|(key, _)| root.contains_key(*key) && !wanted.contains_key(*key));
    for (name, tunnel) in tunnels(root) {
        for key in tunnel.keys().filter_map(Value::as_str) {
            match KeyChange::of(tunnel, key) {
                KeyChange::Comment => gone.push((key, format!("tunnels.{name}.{key}"))),
                KeyChange::Rename("mutual_tls_cas") => {
                    remarks.push(format!("tunnels.{name}.{key} has a new name: mutual_tls_cas"))
                }
                _ => {}
            }
        }
        if from < 2 && ends_tls(tunnel) {
            remarks.push(format!(
                "tunnels.{name} ends TLS at the agent, as agent 2 did: it has terminate_at: agent now"
            ));
        }
    }
    for (key, path) in gone {
        let open = if key == "ip_policy" { OPEN } else { "" };
        remarks.push(format!("{path} has no place in version {to}: it is a comment now{open}"));
    }
    same_meaning(body, &new, from)?;
    Ok((from, to, Some(mark.to_owned() + &new), remarks))
}

/// Returns the expected content of the new file.
fn wanted(root: &Mapping, from: u32, to: u32) -> Result<Mapping, String> {
    let mut root = root.clone();
    if let Some(Value::Mapping(tunnels)) = root.get_mut("tunnels") {
        for (name, tunnel) in tunnels.iter_mut() {
            let Value::Mapping(tunnel) = tunnel else { continue };
            *tunnel = converted(tunnel, from);
            if to >= 3 && tunnel.contains_key("labels") {
                return Err(format!(
                    "the tunnel {:?} has labels, which version 3 does not support; remove it, or \
                     stay with version 2",
                    name.as_str().unwrap_or_default()
                ));
            }
        }
    }
    let mut new = Mapping::new();
    new.insert("version".into(), if to == 2 { "2".into() } else { 3.into() });
    let mut agent = Mapping::new();
    for (key, value) in root {
        let name = key.as_str().unwrap_or_default();
        match name {
            "version" => continue,
            "tunnels" => {
                new.insert(key, value);
                continue;
            }
            _ => {}
        }
        if name == "agent" || name == "endpoints" {
            return Err(format!("{name} is a key of version 3, and the file has another version"));
        }
        if GONE.contains(&name) && (to >= 3 || name != "region") {
            continue;
        }
        let name = renamed(name, from, to);
        let place = if to >= 3 { &mut agent } else { &mut new };
        if place.insert(name.into(), value).is_some() {
            return Err(format!("the file has {name} twice; remove one"));
        }
    }
    if to == 2 && from < 2 && !new.contains_key("region") {
        // The default region of agent 2.
        new.insert("region".into(), "us".into());
    }
    if to >= 3 {
        new.insert("agent".into(), Value::Mapping(agent));
    }
    Ok(new)
}

/// Returns the name of an option of the agent at version `to`.
fn renamed(name: &str, from: u32, to: u32) -> &str {
    let tables: [&[(&str, &str)]; 2] =
        [if from < 2 { OF_AGENT_2 } else { &[] }, if to >= 3 { OLD_NAMES } else { &[] }];
    let mut pairs = tables.into_iter().flatten();
    pairs.find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

/// Writes everything in braces, in the order of version 3.
fn in_braces(wanted: &Mapping) -> Result<String, String> {
    let mut ordered = Mapping::new();
    for key in ["version", "agent"] {
        if let Some(value) = wanted.get(key) {
            ordered.insert(key.into(), value.clone());
        }
    }
    for (key, value) in wanted {
        ordered.insert(key.clone(), value.clone());
    }
    let text = serde_json::to_string(&Value::Mapping(ordered));
    text.map(|text| spread(&text)).map_err(|_| "it has a key that is not text".to_owned())
}

/// Splits JSON into several indented lines.
fn spread(json: &str) -> String {
    let (mut text, mut depth, mut quoted, mut escaped) = (String::new(), 0, false, false);
    let mut signs = json.chars().peekable();
    while let Some(sign) = signs.next() {
        let inside = quoted;
        if inside {
            quoted = sign != '"' || escaped;
            escaped = sign == '\\' && !escaped;
        } else {
            quoted = sign == '"';
        }
        if !inside && matches!(sign, '}' | ']') && !text.ends_with(['{', '[']) {
            text.push('\n');
            text.push_str(&"  ".repeat(depth - 1));
        }
        text.push(sign);
        if inside {
            continue;
        }
        match sign {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ':' => text.push(' '),
            _ => {}
        }
        let empty = matches!(signs.peek(), Some('}' | ']'));
        if sign == ',' || (matches!(sign, '{' | '[') && !empty) {
            text.push('\n');
            text.push_str(&"  ".repeat(depth));
        }
    }
    text.push('\n');
    text
}

/// Change of a key of a tunnel.
enum KeyChange<'a> {
    Keep,
    Rename(&'a str),
    Comment,
}

impl<'a> KeyChange<'a> {
    fn of(tunnel: &Mapping, key: &'a str) -> Self {
        let new = match key {
            "bind_tls" | "bind-tls" => "schemes",
            "auth" => "basic_auth",
            "client_cas" => "mutual_tls_cas",
            key if GONE_OF_TUNNELS.contains(&key) => return KeyChange::Comment,
            _ => return KeyChange::Keep,
        };
        // The new name has priority if both exist.
        match tunnel.contains_key(new) || tunnel.get(key).is_none_or(Value::is_null) {
            true => KeyChange::Comment,
            false => KeyChange::Rename(new),
        }
    }
}

/// Returns the tunnels of a file, by name.
fn tunnels(root: &Mapping) -> impl Iterator<Item = (&str, &Mapping)> {
    let tunnels = root.get("tunnels").and_then(Value::as_mapping);
    let named = |(name, tunnel)| Some((Value::as_str(name)?, Value::as_mapping(tunnel)?));
    tunnels.into_iter().flatten().filter_map(named)
}

/// Returns whether agent 2 terminates TLS of this tunnel itself.
fn ends_tls(tunnel: &Mapping) -> bool {
    let has = |key: &str| tunnel.contains_key(key);
    let tls = tunnel.get("proto").is_some_and(|proto| proto == "tls");
    tls && has("crt") && has("key") && !has("terminate_at")
}

/// Returns the value of a key of agent 2 under its new name.
fn converted_value(new: &str, value: &Value) -> Option<Value> {
    Some(match new {
        "schemes" => schemes_of(value)?.iter().map(|scheme| Value::from(*scheme)).collect(),
        "basic_auth" => Value::Sequence(vec![value.clone()]),
        _ => value.clone(),
    })
}

/// Returns a tunnel with the current keys.
fn converted(tunnel: &Mapping, from: u32) -> Mapping {
    let mut new = Mapping::new();
    if from < 2 && ends_tls(tunnel) {
        // The key never left the machine.
        new.insert("terminate_at".into(), "agent".into());
    }
    for (key, value) in tunnel {
        match KeyChange::of(tunnel, key.as_str().unwrap_or_default()) {
            KeyChange::Keep => drop(new.insert(key.clone(), value.clone())),
            KeyChange::Rename(name) => {
                new.insert(name.into(), converted_value(name, value).unwrap_or_default());
            }
            KeyChange::Comment => {}
        }
    }
    new
}

/// Replaces the older keys of tunnels at their places in the text.
fn tunnels_of_agent_2(text: &str, from: u32) -> Result<String, String> {
    let document = parse(text)?;
    let mut editor = Editor::new(text);
    let Value::Mapping(root) = &document.root else { return Ok(editor.text) };
    for (name, tunnel) in tunnels(root) {
        for (key, value) in tunnel {
            let Some(key) = key.as_str() else { continue };
            let change = KeyChange::of(tunnel, key);
            if matches!(change, KeyChange::Keep) {
                continue;
            }
            let document = parse(&editor.text)?;
            let path = ["tunnels", name, key].map(|key| PathSegment::Key(key.to_owned()));
            let position = document.locate(&path, EntryPart::Key);
            let position =
                position.ok_or_else(|| format!("{key} of {name} comes from elsewhere"))?;
            let KeyChange::Rename(new) = change else {
                editor.comment_out(position)?;
                continue;
            };
            let converted = converted_value(new, value)
                .ok_or_else(|| format!("{key} of {name} must be true, false or both"))?;
            if converted != *value {
                let colon = editor.after_colon(position)?;
                let texts = converted.as_sequence().into_iter().flatten();
                let texts = texts.map(|text| text.as_str().unwrap_or_default());
                let texts: Vec<String> = match new {
                    "schemes" => texts.map(str::to_owned).collect(),
                    _ => texts.map(|text| serde_json::Value::from(text).to_string()).collect(),
                };
                editor.put(colon, &format!("[{}]", texts.join(", ")));
            }
            let at = editor.offset(position);
            let start = at + editor.text[at..].find(key).unwrap_or(0);
            editor.text.replace_range(start..start + key.len(), new);
        }
        if from < 2 && ends_tls(tunnel) {
            let document = parse(&editor.text)?;
            let path = ["tunnels", name, "crt"].map(|key| PathSegment::Key(key.to_owned()));
            let position = document.locate(&path, EntryPart::Key);
            let position = position.ok_or_else(|| format!("crt of {name} comes from elsewhere"))?;
            editor.insert_before(position, "terminate_at: agent");
        }
    }
    Ok(editor.text)
}

/// A key at the top level with its lines, and the comments and blank lines above it.
struct KeyBlock<'a> {
    key: &'a str,
    above: &'a [&'a str],
    lines: &'a [&'a str],
}

/// Returns the keys at the top level with their lines, and the lines after the last one.
fn key_blocks<'a>(
    root: &'a Mapping,
    document: &Document,
    rows: &'a [&'a str],
) -> Result<(Vec<KeyBlock<'a>>, &'a [&'a str]), String> {
    let mut starts = Vec::new();
    for key in root.keys().filter_map(Value::as_str) {
        let path = [PathSegment::Key(key.to_owned())];
        let position = document.locate(&path, EntryPart::Key).ok_or("a key has no place")?;
        if position.column != 1 || starts.last().is_some_and(|(_, row)| *row >= position.line) {
            return Err("keys that do not begin their lines".to_owned());
        }
        starts.push((key, position.line - 1));
    }
    // Unindented comments and blank lines belong to the key below them.
    let loose = |row: &str| row.starts_with('#') || row.trim().is_empty();
    let top = |from: usize, to: usize| {
        let rows = rows.get(from..to).unwrap_or_default();
        to - rows.iter().rev().take_while(|row| loose(row)).count()
    };
    let mut blocks = Vec::new();
    let mut end = 0;
    for (n, (key, start)) in starts.iter().enumerate() {
        let next = starts.get(n + 1).map_or(rows.len(), |(_, row)| *row);
        let last = top(start + 1, next).max(start + 1);
        let above = rows.get(end..*start).unwrap_or_default();
        let lines = rows.get(*start..last).unwrap_or_default();
        blocks.push(KeyBlock { key, above, lines });
        end = last;
    }
    Ok((blocks, rows.get(end..).unwrap_or_default()))
}

/// Returns the text with its lines in the new order. `late`: the options are collected at the
/// last of them, else at the first.
fn lines(text: &str, from: u32, to: u32, late: bool) -> Result<String, String> {
    let document = parse(text)?;
    let rows: Vec<&str> = text.split_inclusive('\n').collect();
    let root = document.root.as_mapping().ok_or("no mapping")?;
    let (mut blocks, rest) = key_blocks(root, &document, &rows)?;
    let is_option = |block: &KeyBlock| !["version", "tunnels"].contains(&block.key);
    let moves = |block: &KeyBlock| to >= 3 && is_option(block);
    let of_agent = blocks.iter().filter(|block| moves(block) && !GONE.contains(&block.key));
    let anchor = if late { of_agent.clone().next_back() } else { of_agent.clone().next() };
    let anchor = anchor.map(|block| block.key);
    let mut out = TextBuilder { text: String::new(), eol: Editor::new(text).eol };
    // Lines above the first key belong to the file, up to the last blank line.
    let mut head = blocks.first().map_or(&[][..], |block| block.above);
    let own = head.iter().rposition(|row| !row.starts_with('#')).map_or(0, |n| n + 1);
    if let Some(first) = blocks.first_mut() {
        (head, first.above) = first.above.split_at(own);
    }
    out.rows("", head);
    // The default region of agent 2.
    let home = to == 2 && from < 2 && !root.contains_key("region");
    if !root.contains_key("version") {
        out.new_row(if to == 2 { "version: \"2\"" } else { "version: 3" });
        if home {
            out.new_row("region: us");
        }
    }
    for block in &blocks {
        if anchor == Some(block.key) {
            out.new_row("agent:");
            for block in blocks.iter().filter(|c| moves(c) && !GONE.contains(&c.key)) {
                out.rows("    ", block.above);
                out.lines("    ", block, renamed(block.key, from, to));
            }
        }
        let is_gone = GONE.contains(&block.key) && (to >= 3 || block.key != "region");
        if moves(block) && !is_gone {
            continue;
        }
        out.rows("", block.above);
        match block.key {
            _ if is_gone => out.rows("# ", block.lines),
            "version" => {
                out.version(block, to)?;
                if to >= 3 && anchor.is_none() {
                    out.new_row("agent: {}");
                }
                if home {
                    out.new_row("region: us");
                }
            }
            key => out.lines("", block, renamed(key, from, to)),
        }
    }
    if to >= 3 && anchor.is_none() && !root.contains_key("version") {
        out.new_row("agent: {}");
    }
    out.rows("", rest);
    Ok(out.text)
}

struct TextBuilder {
    text: String,
    eol: &'static str,
}

impl TextBuilder {
    /// Writes a row with a prefix, unless it is blank. The last row may lack its line end:
    /// adding one can change a text.
    fn row(&mut self, before: &str, row: &str) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push_str(self.eol);
        }
        if !row.trim().is_empty() {
            self.text.push_str(before);
        }
        self.text.push_str(row);
    }

    fn rows(&mut self, before: &str, rows: &[&str]) {
        rows.iter().for_each(|row| self.row(before, row));
    }

    /// Writes the row of the version with the new one.
    fn version(&mut self, block: &KeyBlock, to: u32) -> Result<(), String> {
        let mut editor = Editor::new(&block.lines.concat());
        let colon = editor.text.find(':').ok_or("no colon")? + 1;
        editor.put(colon, if to == 2 { "\"2\"" } else { "3" });
        self.row("", &editor.text);
        Ok(())
    }

    /// Writes a row that the file did not have.
    fn new_row(&mut self, row: &str) {
        self.row("", row);
        self.text.push_str(self.eol);
    }

    /// Writes the lines of a key under its new name.
    fn lines(&mut self, before: &str, block: &KeyBlock, name: &str) {
        for (n, row) in block.lines.iter().enumerate() {
            match n {
                0 => self.row(before, &row.replacen(block.key, name, 1)),
                _ => self.row(before, row),
            }
        }
    }
}

/// Checks that the new text passes `config check`, and starts the same endpoints as the old
/// one.
fn same_meaning(old: &str, new: &str, from: u32) -> Result<(), String> {
    let load = |text: &str| {
        let mut loaded = Loaded::default();
        let faults = parse_all(vec![text.to_owned()], &mut loaded).concat();
        (loaded, faults)
    };
    let ((before, old_faults), (after, new_faults)) = (load(old), load(new));
    if let Some(fault) = new_faults.first() {
        return Err(format!(
            "the upgraded file would be invalid: {} {}",
            fault.path, fault.message
        ));
    }
    let comparable = from >= 2 && old_faults.is_empty();
    if comparable && before.agent.endpoints != after.agent.endpoints {
        return Err("the upgraded file would start other endpoints; upgrade it by hand".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(text: &str, to: &str) -> String {
        let (_, _, new, _) = upgraded(text, to).unwrap_or_else(|why| panic!("{text}: {why}"));
        let new = new.expect("a new text");
        let (_, _, again, _) = upgraded(&new, to).expect("a good file");
        assert_eq!(again, None, "{new}");
        new
    }

    #[test]
    fn options_move_and_comments_stay() {
        for (old, new) in [
            (
                "version: \"2\"\nauthtoken: t # mine\ntunnels:\n  # web\n  a: {proto: http, addr: 80}\n",
                "version: 3\nagent:\n    authtoken: t # mine\ntunnels:\n  # web\n  a: {proto: http, addr: 80}\n",
            ),
            (
                "# my file\n\n# version\nversion: 2 # old\n# log\nlog_level: debug\n\ntunnels: {}\n\n# edge\nserver_addr: a.example:1\nregion: eu # near\nroot_cas: host\n# end\n",
                "# my file\n\n# version\nversion: 3 # old\nagent:\n    # log\n    log_level: debug\n\n    # edge\n    connect_url: a.example:1\n    connect_cas: host\n\ntunnels: {}\n# region: eu # near\n# end\n",
            ),
            (
                "version: '2'\r\nweb_allow_hosts:\r\n- a\r\n- b\r\nmetadata: |\r\n  x\r\n  # y\r\n\r\n  z",
                "version: 3\r\nagent:\r\n    web_allow_hosts:\r\n    - a\r\n    - b\r\n    metadata: |\r\n      x\r\n      # y\r\n\r\n      z",
            ),
            ("version: 2\n", "version: 3\nagent: {}\n"),
            ("\u{feff}version: 2\nlog: false\n", "\u{feff}version: 3\nagent:\n    log: false\n"),
            (
                "version: 2\ntunnels:\n  a: {proto: http, addr: &p 80}\nmax_connections: *p\n",
                "version: 3\ntunnels:\n  a: {proto: http, addr: &p 80}\nagent:\n    max_connections: *p\n",
            ),
            (
                "{\"version\": \"2\", \"authtoken\": \"t\", \"tunnels\": {}}",
                "{\n  \"version\": 3,\n  \"agent\": {\n    \"authtoken\": \"t\"\n  },\n  \"tunnels\": {}\n}\n",
            ),
        ] {
            let got = up(old, "");
            // Blank lines belong to the line below them.
            let squeeze = |text: &str| text.replace("\n\n", "\n");
            assert_eq!(squeeze(&got), squeeze(new), "{old}");
        }
    }

    #[test]
    fn files_of_agent_2() {
        if !crate::features::PROXIES {
            // `http_proxy` is refused there, and `config upgrade` is not part of such a build.
            return;
        }
        let old = "authtoken: t\nhttp_proxy: \"http://p:1\"\ntunnels:\n  a:\n    proto: http\n    addr: 80\n    auth: u:password # who\n    bind_tls: both\n  b: {proto: http, addr: 81, bind_tls: false, auth: \"u:password\"}\n";
        assert_eq!(
            up(old, ""),
            "version: 3\nagent:\n    authtoken: t\n    proxy_url: \"http://p:1\"\ntunnels:\n  a:\n    proto: http\n    addr: 80\n    basic_auth: [\"u:password\"] # who\n    schemes: [http, https]\n  b: {proto: http, addr: 81, schemes: [http], basic_auth: [\"u:password\"]}\n"
        );
        assert_eq!(up("authtoken: t\n", "2"), "version: \"2\"\nregion: us\nauthtoken: t\n");
        assert_eq!(up("version: 1\nregion: eu\n", "2"), "version: \"2\"\nregion: eu\n");
        let (from, to, _, remarks) = upgraded("region: eu\nupdate: true\n", "").expect("a file");
        assert_eq!((from, to, remarks.len()), (1, 3, 2));
    }

    #[test]
    fn what_is_not_done() {
        for (text, to, expected) in [
            ("version: 3\n", "2", "cannot go back"),
            ("version: 4\n", "", "not known"),
            ("version: x\n", "", "not known"),
            ("version: 2\n", "4", "must be 2 or 3"),
            ("- 1\n", "", "not a mapping"),
            ("version: 2\na: [\n", "", "not valid YAML"),
            ("version: 2\nagent: {}\n", "", "is a key of version 3"),
            ("version: 2\ntunnels: {a: {labels: [a=b], addr: 80}}\n", "", "\"a\" has labels"),
            ("http_proxy: a\nsocks5_proxy: b\n", "", "has proxy_url twice"),
            ("version: 2\nlog_levl: info\n", "", "log_levl is not a known key"),
            (
                "tunnels: {a: {proto: http, addr: 80, bind_tls: x}}\n",
                "",
                "must be true, false or both",
            ),
            (
                "tunnels: {a: {proto: http, addr: 80, unknown: x}}\n",
                "",
                "would be invalid: tunnels.a.unknown",
            ),
            (
                "version: 2\nmetadata: &m x\ntunnels: {a: {proto: tcp, addr: 1, metadata: &n y}}\nclient_version: *n\ncrl_url: &c z\napi_key: k\n",
                "",
                "",
            ),
        ] {
            match upgraded(text, to) {
                Err(why) => assert!(why.contains(expected) && !why.contains('\n'), "{why}"),
                Ok((_, _, new, _)) => assert!(expected.is_empty() && new.is_some(), "{text}"),
            }
        }
        assert!(upgraded("version: \"3\"\n", "").is_ok_and(|(_, _, new, _)| new.is_none()));
    }
}
