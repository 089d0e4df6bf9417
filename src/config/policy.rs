//! The text of a traffic policy: whether it can be one. What it says is for the edge.

use serde_yaml::Value;

use super::document;

/// Longest policy text, in bytes: what a message may hold, with room for the rest.
pub const MAX_POLICY: usize = 512 * 1024;

/// Judges a policy, YAML or JSON: a mapping, or nothing at all. The error continues the
/// name of where it came from.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > MAX_POLICY {
        return Err(format!("is longer than {} KiB", MAX_POLICY / 1024));
    }
    match serde_yaml::from_str(text) {
        Ok(Value::Mapping(_)) => Ok(()),
        Ok(_) => Err("is not a traffic policy: it must be a mapping of phases, \
                      as in on_http_request:"
            .to_owned()),
        Err(error) => Err(match document::tab(text, &error) {
            Some(what) => what,
            None => format!("is neither YAML nor JSON: {error}"),
        }),
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
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in ["", "deny", "- 1", "{", "a: [", "\u{0}", "<html>", "a:\n\tb: 1\n"] {
            assert!(check(text).is_err(), "{text}");
        }
        assert!(check(&"a".repeat(MAX_POLICY + 1)).is_err());
    }
}
