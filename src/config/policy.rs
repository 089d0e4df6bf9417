//! Traffic policies of a configuration and of flags. What a policy means is decided by the
//! edge.

use serde_yaml::Value;

use super::document::{Document, EntryPart, Position, show};
use super::policy_structure::{self, StructureFault};
use super::read::{DocumentReader, Section};
use crate::features;

/// Maximum length of a policy in bytes: the maximum of a message, less a reserve for its other
/// fields.
pub const MAX_POLICY: usize = 512 * 1024;

/// Checks the form of a policy, YAML or JSON: a mapping of phases. The error continues the name
/// of its source, and has one line.
pub fn check(text: &str) -> Result<(), String> {
    parse(text).map(drop)
}

/// Checks the structure of a policy in a file. The error has a line for each fault.
pub fn check_file(path: &str, text: &str) -> Result<(), String> {
    let document = parse(text).map_err(|why| format!("the traffic policy {path} {why}"))?;
    let faults = fault_lines(path, &document);
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

fn parse(text: &str) -> Result<Document, String> {
    if text.len() > MAX_POLICY {
        return Err(format!("is longer than {} KiB", MAX_POLICY / 1024));
    }
    let document =
        Document::parse(text.to_owned()).map_err(|(message, position)| match position {
            Some(position) => {
                format!("{message} (line {}, column {})", position.line, position.column)
            }
            None => message,
        })?;
    match &document.root {
        Value::Mapping(mapping) if mapping.keys().all(Value::is_string) => Ok(document),
        Value::Null => {
            Err("is empty; write a mapping of phases, as in on_http_request:".to_owned())
        }
        _ => Err("is not a traffic policy; it must be a mapping of phases, \
                  as in on_http_request:"
            .to_owned()),
    }
}

fn structure_faults(root: &Value) -> Vec<StructureFault> {
    if features::POLICY_CHECK { policy_structure::faults(root) } else { Vec::new() }
}

/// Returns a line for each fault of the structure, with its position in the policy.
fn fault_lines(name: &str, document: &Document) -> Vec<String> {
    let line = |StructureFault { path, part, message }| {
        let (place, path) = (document.locate(&path, part), show(&path));
        match place {
            Some(Position { line, column }) => format!("{name}:{line}:{column}: {path} {message}"),
            None => format!("{name}: {path} {message}"),
        }
    };
    structure_faults(&document.root).into_iter().map(line).collect()
}

impl<'a> DocumentReader<'a> {
    /// Reads the policy of an endpoint, as text, and the URL to fetch one from.
    pub(super) fn policies(&mut self, section: &Section<'a>) -> (String, String) {
        const KEYS: [&str; 4] =
            ["traffic_policy", "policy", "traffic_policy_file", "traffic_policy_url"];
        let mut given = KEYS.into_iter().filter(|key| section.has(key));
        let Some(key) = given.next() else { return Default::default() };
        if let Some(second) = given.next() {
            let message = format!("conflicts with {key}; give one policy (ERR_NGROK_9025)");
            self.fault(section.at(second), EntryPart::Key, message);
        }
        let text = match (key, section.value(key)) {
            ("traffic_policy_url", _) => {
                let url = self.needed(section, key).unwrap_or_default();
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    self.say(section, key, "must be a URL that begins with http:// or https://");
                }
                return (String::new(), url);
            }
            ("traffic_policy_file", _) => self.file(section, key),
            (_, Some(Value::String(text))) => Some(text.clone()),
            (_, Some(value @ Value::Mapping(_))) => {
                serde_json::to_string(value).ok().or_else(|| {
                    self.say(section, key, "has a key that is not text");
                    None
                })
            }
            _ => self.wrong(section, key, "a mapping"),
        };
        // An empty file is a mistake: its endpoint would be open to all.
        let is_file = key == "traffic_policy_file";
        if let Some(text) = text.as_deref().filter(|text| is_file || !text.is_empty()) {
            self.check_policy(section, key, text);
        }
        (text.unwrap_or_default(), String::new())
    }

    /// Adds the faults of the policy of `key`, which is `text`.
    fn check_policy(&mut self, section: &Section<'a>, key: &str, text: &str) {
        let lines = match (parse(text), section.value(key)) {
            (Err(message), _) => vec![message],
            (Ok(_), Some(value @ Value::Mapping(_))) => {
                for StructureFault { path, part, message } in structure_faults(value) {
                    self.fault([section.at(key), path].concat(), part, message);
                }
                return;
            }
            (Ok(document), value) => {
                let file = value.filter(|_| key == "traffic_policy_file").and_then(Value::as_str);
                let lines = fault_lines(file.unwrap_or("policy"), &document).into_iter();
                lines.map(|line| format!("is not valid: {line}")).collect()
            }
        };
        for line in lines {
            self.fault(section.at(key), EntryPart::Value, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_in_yaml_or_json() {
        for text in [
            "on_http_request:\n  - actions: [{type: deny}]\n",
            "{\"on_tcp_connect\": []}",
            "inbound: []",
            "{}",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        let bad = ["", "deny", "- 1", "{", "a: [", "\u{0}", "<html>", "a:\n\tb: 1\n", "1: 2"];
        for text in bad {
            let message = check(text).expect_err(text);
            assert!(!message.contains('\n'), "{message}");
        }
        for empty in ["", "# later\n", "null"] {
            assert!(check(empty).expect_err(empty).starts_with("is empty; write "));
        }
        assert!(check(&"a".repeat(MAX_POLICY + 1)).is_err());
    }
}
